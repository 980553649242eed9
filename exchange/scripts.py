"""The console scripts: each of them runs a tool of ``util/``.

A wheel holds the tools as ``exchange.util``, a checkout as ``util``. A script
finds either.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec


def _script(tool: str) -> Callable[[], int]:
    def run() -> int:
        package = "exchange.util" if find_spec("exchange.util") else "util"
        main: Callable[[], int] = import_module(f"{package}.{tool}").main
        return main()

    return run


accounts = _script("accounts")
admin = _script("admin")
backup = _script("backup")
bots = _script("bots.__main__")
replay = _script("replay")
send_order = _script("send_order")
watch = _script("watch")
