"""Would a library survive this file? Some bring their process down over damage: a child tries it out first."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import warnings
from typing import TYPE_CHECKING, NoReturn

from volconv.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Of processor time and memory, what a trial may take: headers take next to nothing.
_SECONDS, _BYTES = 5, 1 << 30

#: After so many seconds by the clock a trial ends without a result.
_PATIENCE = 120

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}

#: What ends the command: see :mod:`volconv_cli.signals`.
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def try_out(attempt: Callable[[], object], name: str, library: str) -> None:
    """Have a copy of this process do something that may bring it down; it takes some milliseconds.

    Parameters
    ----------
    attempt : callable
        What it raises is left to be raised when it is done in earnest.
    name : str
        The file's, for messages.
    library : str
        What may crash.

    Raises
    ------
    ReadError
        The copy crashed, found no end, or took more memory than there is need for.
    """
    status = _status(attempt)
    if status == -signal.SIGXCPU:
        raise ReadError(f"{name}: its structure is damaged: {library} finds no end in it")
    if status == os.EX_OSERR:
        raise ReadError(f"{name}: its structure is damaged: {library} would take more than {_BYTES >> 30} GB for it")
    if -status in _CRASHES:
        raise ReadError(f"{name}: its structure is damaged: {library} crashes over it")


def _status(attempt: Callable[[], object]) -> int:
    """Exit status of a child that did it, negative for a signal; 0 where there can be no child."""
    if not hasattr(os, "fork"):
        return 0
    # A signal between fork and what the child does about it would reach this process twice.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        with warnings.catch_warnings():
            # Of other threads, which the child lacks: it asks for nothing that one of them could hold. What h5py, the
            # allocator and Python itself hold, they let go of.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _attempt(attempt)
    except OSError:  # no room for a copy
        return 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _attempt(attempt: Callable[[], object]) -> NoReturn:
    status = os.EX_OSERR
    try:
        gc.disable()  # nothing of the parent's is to be ended here
        faulthandler.disable()
        signal.set_wakeup_fd(-1)
        for number in (*_ENDING, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        signal.alarm(_PATIENCE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the allocator's last words
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, _SECONDS)
        with open("/proc/self/statm") as file:  # noqa: PTH123  # not there on every system
            _limit(resource.RLIMIT_AS, int(file.read().split()[0]) * resource.getpagesize() + _BYTES)
    except (OSError, ValueError):
        pass
    try:
        attempt()
        status = os.EX_OK
    except MemoryError:
        pass
    except BaseException:  # noqa: BLE001  # it will be raised again where it is heard
        status = os.EX_OK
    finally:
        os._exit(status)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
