"""How far a command is: bars at the foot of a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Self

import click

from volconv.errors import printable
from volconv_cli import signals
from volconv_cli.text import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.live import Live
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

#: Seconds between two drawings.
_PAUSE = 0.1

#: Columns of a bar.
_BAR = 16


class Progress:
    """A bar for each file under way, and one over all where there are several; use it in ``with``.

    Parameters
    ----------
    quiet : bool
        Show nothing at all.
    total : int
        How many files there are.

    Attributes
    ----------
    shown : bool
        Whether anything is shown.
    """

    def __init__(self, quiet: bool, total: int = 1) -> None:
        able = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")  # cannot move its cursor
        self.shown = not quiet and able and sys.stderr is not None and sys.stderr.isatty()
        self._total, self._ended, self._bytes = total, 0, 0
        self._bars: Bars | None = None
        self._live: Live | None = None
        self._files: dict[str, TaskID] = {}
        self._over_all: TaskID | None = None
        self._lock = threading.RLock()
        self._drawn = 0.0

    def update(self, name: str, done: int, total: int) -> None:
        """Tell of a file that so many of its bytes are done; from any thread."""
        with self._lock:
            if not self.shown:
                return
            if self._bars is None:
                self._bars = _bars()
                if self._total > 1:
                    self._over_all = self._bars.add_task("", total=self._total, amount="", rate="")
                self._start()
            if name not in self._files:
                short = name.rstrip("/").rpartition("/")[2] or name
                self._files[name] = self._bars.add_task(printable(short), total=None, amount="", rate="")
            of = self._files[name]
            seconds = self._bars.tasks[self._bars.task_ids.index(of)].elapsed or 0.0
            amount, rate = (f"{size(done)}/{size(total)}", _rate(done, seconds)) if total else ("", "")
            self._bars.update(of, completed=done, total=total or None, amount=amount, rate=rate)
            if monotonic() - self._drawn >= _PAUSE or (done == total and total):
                self._draw()

    def end(self, name: str) -> None:
        """Tell that a file is done with, whatever became of it."""
        with self._lock:
            self._ended += 1
            if self._bars is not None and name in self._files:
                of = self._files.pop(name)
                self._bytes += int(self._bars.tasks[self._bars.task_ids.index(of)].completed)
                self._bars.remove_task(of)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away while something is printed, and let no other thread draw them meanwhile."""
        with self._lock:
            self._stop()
            yield
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stop()
            self.shown = False  # threads that are ending draw no more

    def _start(self) -> None:
        if self._bars is not None and self.shown:
            from rich.live import Live

            # A new one each time: one that goes on would clear lines that were printed meanwhile. It has no thread of
            # its own: whoever has something to tell draws.
            self._live = Live(
                self._bars,
                console=self._bars.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._draw()

    def _stop(self) -> None:
        if self._live is not None:
            with signals.drawing:
                self._live.stop()
                self._live, signals.lines = None, 0

    def _draw(self) -> None:
        assert self._bars is not None  # noqa: S101
        assert self._live is not None  # noqa: S101
        if self._over_all is not None:
            tasks = [task for task in self._bars.tasks if task.id != self._over_all]
            shares = sum(task.completed / task.total for task in tasks if task.total)
            done = self._bytes + sum(task.completed for task in tasks)
            seconds = self._bars.tasks[0].elapsed or 0.0
            self._bars.update(
                self._over_all,
                completed=self._ended + shares,
                description=f"{self._ended} of {self._total} files",
                amount=size(int(done)),
                rate=_rate(done, seconds),
            )
        with signals.drawing:
            self._live.refresh()
            # An interruption takes them away without asking anyone.
            signals.lines = min(len(self._bars.tasks), self._bars.console.size.height)
        self._drawn = monotonic()


def _bars() -> Bars:
    """Lines of name, bar, share, bytes, rate and time left, which go when they stop."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    def text(words: str, **how: object) -> TextColumn:
        return TextColumn(words, markup=False, style="none", table_column=Column(no_wrap=True, **how))  # type: ignore[arg-type]

    return Bars(
        text("{task.description}", ratio=1, overflow="ellipsis"),
        BarColumn(_BAR),
        text("{task.percentage:3.0f}%"),
        text("{task.fields[amount]}", justify="right"),
        text("{task.fields[rate]}", justify="right"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, force_terminal=True, force_interactive=True),
        auto_refresh=False,
        expand=True,
    )


def _rate(done: float, seconds: float) -> str:
    return f"{size(int(done / seconds))}/s" if seconds >= _PAUSE else ""


@contextmanager
def progress_bar(quiet: bool, name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one file."""
    with Progress(quiet) as progress:
        yield partial(progress.update, name)


def announce_compilation(progress: Progress) -> None:
    """Have a line on a terminal say it, once, when loops are compiled: nothing else moves meanwhile."""
    from volconv import engines

    def announce() -> None:
        engines.on_compilation = None
        with progress.aside():
            click.echo("compiling loops for this processor; they are kept for later runs", err=True)

    if progress.shown:
        engines.on_compilation = announce
