"""Make this Python as poor as one on Windows; put it on PYTHONPATH.

POSIX modules and functions are gone, the loop takes no signal handler and no
reader, a folder cannot be opened. Instead there is the part of `msvcrt` that
we use, made from what was taken away.
"""

import asyncio
import errno
import fcntl
import os
import select
import sys
import termios
import time
import tty
import types

GONE = "fcntl grp pty pwd readline resource syslog termios tty".split()
GONE_OF_OS = (
    "chown fchmod fchown fork getegid geteuid getgid getuid statvfs".split()
)
LOCK_S = 0.1  # in which LK_LOCK gives up; 10 s on Windows

msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_UNLCK, msvcrt.LK_LOCK, msvcrt.LK_NBLCK = range(3)


def locking(file, mode, nbytes):
    end = time.monotonic() + LOCK_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if mode == msvcrt.LK_NBLCK:
                raise PermissionError(errno.EACCES, "denied") from None
            if time.monotonic() > end:
                print("the lock is taken", file=sys.stderr, flush=True)
                raise OSError(errno.EDEADLK, "deadlock avoided") from None
        time.sleep(0.01)


def kbhit():
    if termios.tcgetattr(0)[3] & termios.ICANON:  # no console has that
        tty.setcbreak(0, termios.TCSADRAIN)  # keep what was typed
    return bool(select.select([0], [], [], 0)[0])


def getwch():
    return os.read(0, 1).decode("latin-1")


def not_there(*_):
    raise NotImplementedError


os_open = os.open


def open_(path, *arguments, **more):
    # `shutil` gives dir_fd where it opens a folder to empty it.
    if "dir_fd" not in more and os.path.isdir(path):
        raise PermissionError(errno.EACCES, "denied", path)
    return os_open(path, *arguments, **more)


msvcrt.locking, msvcrt.kbhit, msvcrt.getwch = locking, kbhit, getwch
sys.modules["msvcrt"] = msvcrt
for name in GONE:
    sys.modules[name] = None
for name in GONE_OF_OS:
    delattr(os, name)
os.open = open_
for name in ("add_signal_handler", "add_reader", "remove_reader"):
    setattr(asyncio.SelectorEventLoop, name, not_there)
