"""How the command ends when it is told to: by Ctrl-C, a scheduler's SIGTERM, a terminal that closes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

#: What a command has to add when it ends so.
remark = ""

#: Lines that stand at the foot of the terminal, and go when a command ends so; the cursor is in the last. Who draws
#: them holds the lock until their number is right.
lines = 0
drawing = threading.RLock()

#: Seconds that an end waits for who draws: a terminal may have been stopped.
_PATIENCE = 0.5

SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

#: Whether a signal is ending the process: errors that come of that are told no more.
ending = False


def end_at_signals() -> None:
    """From here on, a signal ends the process at once with the exit code 128 + its number; temporary files are removed.

    That is the work of a thread of its own. Python's handlers would wait until the main thread comes back from compiled
    loops, and an exception raised by one until all threads have; one raised inside HDF5 would bring it down. There is
    nothing to unwind but temporary files: whatever else is open, the system closes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SAID:
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup, or a shell for what runs in the background
            signal.signal(number, _do_nothing)
    threading.Thread(target=_wait, args=(reader,), name="volconv-signals", daemon=True).start()


def hush_children() -> None:
    """Keep what Python starts beside worker processes from complaining of what they leave, which it removes."""
    ours = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), ours)))


def _do_nothing(*_: object) -> None:
    """Python asks for a handler; the thread reads the number of the signal from the pipe."""


def _wait(reader: int) -> NoReturn:
    first = os.read(reader, 1)[0]
    threading.Thread(target=_end, args=(first,), daemon=True).start()
    os._exit(128 + os.read(reader, 1)[0])  # a second signal does not wait for files to be removed


def _end(number: int) -> NoReturn:
    global ending  # what fails from here on does so since its files are removed
    ending = True
    try:
        if (target := sys.modules.get("volconv.io.target")) is not None:  # otherwise there are no temporary files
            target.discard_unfinished()
        drawing.acquire(timeout=_PATIENCE)  # nobody draws from here on
        # Not by sys.stderr, which another thread may hold; on a terminal, bars go and the cursor comes back.
        bars = "\x1b[2K\x1b[1A" * (lines - 1)
        clear = f"\r{bars}\x1b[2K\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{clear}volconv: {SAID[signal.Signals(number)]}{remark}\n".encode())
    finally:
        os._exit(128 + number)
