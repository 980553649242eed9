"""What a simulated bot imports: its own clock, chance and modules.

A bot gets copies of ``time``, ``datetime``, ``random``, ``secrets``,
``uuid``, ``os``, ``sys`` and ``asyncio`` whose clock is virtual and whose
chance is seeded, and copies of the modules in its own folder, so that two
bots share no variable. ``client`` and ``orderbook`` are those of this
program. All other modules are shared, and real.
"""

from __future__ import annotations

import asyncio
import builtins
import datetime
import importlib
import importlib.util
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TextIO, TypeVar

from .loop import NS

T = TypeVar("T")
SHARED = ("client", "orderbook", "exchange", "server", "util")
REAL_CLOCKS = ("CLOCK_REALTIME", "CLOCK_TAI")


class Host(Protocol):
    """What the modules ask of the bot that imports them."""

    path: Path
    chance: random.Random
    environ: Mapping[str, str]
    out: TextIO

    def wall_ns(self) -> int:
        """Return nanoseconds since the epoch."""

    def elapsed_ns(self) -> int:
        """Return nanoseconds since the start."""

    def sleep(self, seconds: float) -> None:
        """Let the market go on for a while."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""


class Modules:
    """The modules of one bot; ``main`` is its own file."""

    def __init__(self, host: Host) -> None:
        self.main = ModuleType("__main__")
        self.files = {str(host.path)}  # of the bot's own code
        self._host = host
        self._folder = str(host.path.parent)
        self._own: dict[str, ModuleType] = {}  # copies, by full name
        self._virtual = {
            "time": _time(host),
            "datetime": _datetime(host),
            "random": _random(host.chance),
            "secrets": _secrets(host.chance),
            "uuid": _uuid(host),
            "os": _os(host),
            "sys": _copy(sys, argv=[str(host.path)], stdout=host.out),
            "asyncio": _asyncio(host),
        }
        self._builtins = {
            **vars(builtins),
            "__import__": self._import,
            "print": self._print,
        }

    def run_main(self) -> None:
        """Run the bot's file as a script; raises what it raises."""
        path = str(self._host.path)
        code = compile(self._host.path.read_bytes(), path, "exec")
        names = vars(self.main)
        names |= {"__file__": path, "__builtins__": self._builtins}
        exec(code, names)

    def _print(self, *values: object, **options: Any) -> None:
        if options.get("file") is None:
            options["file"] = self._host.out
        print(*values, **options)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        if level:
            package = (globals or {}).get("__package__") or ""
            name = importlib.util.resolve_name("." * level + name, package)
        top = name.partition(".")[0]
        if name in self._virtual:
            return self._virtual[name]
        if top in self._virtual:
            inner = importlib.import_module(name)
            return inner if fromlist else self._virtual[top]
        if top in self._own or self._is_ours(top):
            return self._import_own(name, fromlist)
        return builtins.__import__(name, globals, locals, fromlist)

    def _is_ours(self, top: str) -> bool:
        """Return whether a name is a module in the folder of the bot."""
        if top in SHARED or top in sys.builtin_module_names:
            return False
        spec = PathFinder.find_spec(top, [self._folder])
        return spec is not None and hasattr(spec.loader, "get_code")

    def _import_own(self, name: str, fromlist: Any) -> ModuleType:
        module, full = None, ""
        for part in name.split("."):
            parent, full = module, f"{full}.{part}".lstrip(".")
            module = self._own.get(full) or self._load(full, parent)
            if parent is not None:
                setattr(parent, part, module)
        assert module is not None
        for wanted in fromlist or ():
            if hasattr(module, "__path__") and not hasattr(module, wanted):
                try:
                    inner = self._load(f"{name}.{wanted}", module)
                except ModuleNotFoundError:
                    continue  # `from` says what is missing
                setattr(module, wanted, inner)
        return module if fromlist else self._own[name.partition(".")[0]]

    def _load(self, name: str, parent: ModuleType | None) -> ModuleType:
        folders = [self._folder] if parent is None else parent.__path__
        spec: ModuleSpec | None = PathFinder.find_spec(name, folders)
        loader: Any = spec.loader if spec else None
        if spec is None or loader is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = self._own[name] = importlib.util.module_from_spec(spec)
        vars(module)["__builtins__"] = self._builtins
        self.files.add(str(spec.origin))
        # Dataclasses look their module up while it is executed.
        before = sys.modules.get(name)
        sys.modules[name] = module
        try:
            exec(loader.get_code(name), vars(module))
        except BaseException:
            del self._own[name]
            raise
        finally:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
        return module


def _copy(module: ModuleType, **changes: Any) -> ModuleType:
    copy = ModuleType(module.__name__, module.__doc__)
    vars(copy).update(vars(module))
    vars(copy).update(changes)
    return copy


# Time -----------------------------------------------------------------------


def _time(host: Host) -> ModuleType:
    wall_ns, elapsed_ns = host.wall_ns, host.elapsed_ns

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        """Make the moment that a function takes by default virtual."""

        def at(seconds: float | None = None) -> Any:
            return function(wall_ns() / NS if seconds is None else seconds)

        return at

    def clock_ns(clock: int) -> int:
        real = [getattr(time, name, None) for name in REAL_CLOCKS]
        return wall_ns() if clock in real else elapsed_ns()

    def strftime(form: str, when: Any = None) -> str:
        return time.strftime(form, when or time.localtime(wall_ns() / NS))

    def asctime(when: Any = None) -> str:
        return time.asctime(when or time.localtime(wall_ns() / NS))

    changes: dict[str, Any] = {
        "time": lambda: wall_ns() / NS,
        "time_ns": wall_ns,
        "sleep": host.sleep,
        "clock_gettime": lambda clock: clock_ns(clock) / NS,
        "clock_gettime_ns": clock_ns,
        "strftime": strftime,
        "asctime": asctime,
    }
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        changes[name] = lambda: elapsed_ns() / NS
        changes[f"{name}_ns"] = elapsed_ns
    for function in (time.localtime, time.gmtime, time.ctime):
        changes[function.__name__] = of(function)
    return _copy(time, **changes)


def _datetime(host: Host) -> ModuleType:
    class OfDatetimes(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime.datetime)

    class OfDates(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime.date)

    class Datetime(datetime.datetime, metaclass=OfDatetimes):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Datetime:
            return cls.fromtimestamp(host.wall_ns() / NS, tz)

        @classmethod
        def utcnow(cls) -> Datetime:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Datetime:
            return cls.now()

    class Date(datetime.date, metaclass=OfDates):
        @classmethod
        def today(cls) -> Date:
            return cls.fromtimestamp(host.wall_ns() / NS)

    Datetime.__name__ = Datetime.__qualname__ = "datetime"
    Date.__name__ = Date.__qualname__ = "date"
    return _copy(datetime, datetime=Datetime, date=Date)


# Chance ---------------------------------------------------------------------


def _random(chance: random.Random) -> ModuleType:
    class Seeded(random.Random):
        """A generator that takes its seed, if none is given, from the bot."""

        def seed(self, a: Any = None, version: int = 2) -> None:
            super().seed(chance.getrandbits(128) if a is None else a, version)

    module_wide = Seeded()
    functions = {
        name: getattr(module_wide, name)
        for name in random.__all__
        if callable(getattr(random.Random, name, None))
    }
    return _copy(random, **functions, Random=Seeded, SystemRandom=Seeded)


def _secrets(chance: random.Random) -> ModuleType:
    def token_bytes(nbytes: int | None = None) -> bytes:
        size = secrets.DEFAULT_ENTROPY if nbytes is None else nbytes
        return chance.randbytes(size)

    def token_hex(nbytes: int | None = None) -> str:
        return token_bytes(nbytes).hex()

    def token_urlsafe(nbytes: int | None = None) -> str:
        import base64

        text = base64.urlsafe_b64encode(token_bytes(nbytes))
        return text.rstrip(b"=").decode()

    return _copy(
        secrets,
        token_bytes=token_bytes,
        token_hex=token_hex,
        token_urlsafe=token_urlsafe,
        randbits=chance.getrandbits,
        randbelow=chance.randrange,
        choice=chance.choice,
    )


def _uuid(host: Host) -> ModuleType:
    def random_uuid(*_: Any, **__: Any) -> uuid.UUID:
        return uuid.UUID(int=host.chance.getrandbits(128), version=4)

    return _copy(uuid, uuid1=random_uuid, uuid4=random_uuid)


# The process ----------------------------------------------------------------


def _os(host: Host) -> ModuleType:
    environ = {**os.environ, **host.environ}
    return _copy(
        os,
        environ=environ,
        getenv=environ.get,
        urandom=host.chance.randbytes,
    )


def _asyncio(host: Host) -> ModuleType:
    def run(main: Coroutine[Any, Any, T], **_: Any) -> T:
        return host.run(main)

    class Runner:
        """As asyncio.Runner, in the loop of the simulation."""

        def __init__(self, **_: Any) -> None:
            pass

        def __enter__(self) -> Runner:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

        def run(self, main: Coroutine[Any, Any, T], **_: Any) -> T:
            return host.run(main)

    def new_event_loop() -> asyncio.AbstractEventLoop:
        raise RuntimeError(
            "a simulation has one event loop: use asyncio.run(main())"
        )

    return _copy(
        asyncio, run=run, Runner=Runner, new_event_loop=new_event_loop
    )
