"""How far a command is: a line at the foot of a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Self

import click

from volconv_cli.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

#: Seconds between two drawings.
_PAUSE = 0.1

#: Columns of the bar.
_BAR = 20

_CLEAR = "\r\x1b[2K"


class Progress:
    """A bar over all files, with those that are under way; use it in ``with``.

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
        self.shown = not quiet and sys.stderr.isatty()
        self._total = total
        self._ended = 0
        self._under_way: dict[str, float] = {}
        self._lock = threading.RLock()
        self._started = self._drawn = monotonic()

    def update(self, name: str, done: int, total: int) -> None:
        """Tell of a file that so much of it is done; from any thread."""
        if not self.shown:
            return
        with self._lock:
            self._under_way[name] = done / total if total else 0.0
            if done == total or monotonic() - self._drawn >= _PAUSE:
                self._draw()

    def end(self, name: str) -> None:
        """Tell that a file is done with, whatever became of it."""
        with self._lock:
            self._under_way.pop(name, None)
            self._ended += 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something is printed, and let no other thread draw it meanwhile."""
        with self._lock:
            self._clear()
            yield
            self._draw()

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._clear()
            self.shown = False  # threads that are ending draw no more

    def _clear(self) -> None:
        if self.shown:
            click.echo(_CLEAR, nl=False, err=True)

    def _draw(self) -> None:
        if not self.shown:
            return
        import shutil  # it loads every compression of Python's

        self._drawn = monotonic()
        columns = shutil.get_terminal_size().columns
        click.echo(f"{_CLEAR}{self._line()[: columns - 1]}", nl=False, err=True)

    def _line(self) -> str:
        share = min(1.0, (self._ended + sum(self._under_way.values())) / self._total)
        full = int(share * _BAR)
        parts = [f"[{'#' * full}{'-' * (_BAR - full)}]"]
        parts.append(f"{share:4.0%}" if self._total == 1 else f"{self._ended} of {self._total}")
        elapsed = self._drawn - self._started
        left = elapsed / share - elapsed if share else 0.0
        if elapsed >= 1 and left >= 1:
            parts.append(f"{duration(left)} left")
        names = [name.rstrip("/").rpartition("/")[2] or name for name in self._under_way]
        if self._total > 1:
            names = [f"{name} {done:.0%}" for name, done in zip(names, self._under_way.values(), strict=True)]
        return "  ".join([*parts, ", ".join(names)])


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
