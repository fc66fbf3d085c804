"""Values of a report as elements of a page: what a person reads, and beside it the key and the exact value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from volconv_cli.page.html import Html, joined, tag
from volconv_cli.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Facts:
    """Values of one run, as elements that tell their key and their exact value beside what a person reads."""

    def __init__(self, run: dict[str, Any]) -> None:
        self._run = run

    def __getitem__(self, key: str) -> Any:
        """The value under a key such as ``plan.memory.peak`` or ``source.shape.2``."""
        value: Any = self._run
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list | tuple) else value[part]
        return value

    def __call__(self, key: str, shown: Callable[[Any], str] | None = None) -> Html:
        """The value under a key as ``shown`` words it."""
        value = self[key]
        text = "none" if value is None else plain(value) if shown is None else shown(value)
        if isinstance(value, list | tuple) and not isinstance(
            text, Html
        ):  # a line may end behind a comma, and not within a number
            first, *others = text.split(",")
            text = joined(first, *(joined(",", Html("<wbr>"), part) for part in others))
        return tag("data", text, value=json.dumps(value), data_key=key)

    def row(self, key: str, shown: Callable[[Any], str] | None = None) -> list[Html]:
        """The three values of a triple, each by itself."""
        return [self(f"{key}.{i}", shown) for i in range(3)]


def plain(value: Any) -> str:
    """A value as options take it, to six digits where it is a float."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def matrix(rows: Sequence[Sequence[float]]) -> Html:
    """An affine's rows on lines of their own, but for the last, which says nothing."""
    lines = [" ".join(f"{number:.6g}" for number in row) for row in rows[:3]]
    return joined(lines[0], *(joined(";", Html("<br>"), line) for line in lines[1:]))


def short(seconds: float) -> str:
    """A prediction to three digits."""
    return f"{seconds:.3g}"


def spent(seconds: float) -> str:
    """A time to three digits, as runs of a small volume take less than a tenth of a second."""
    if seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 10 else duration(seconds)


def grouped(count: int) -> str:
    """A count with commas between thousands."""
    return f"{count:,}"


def percent(share: float) -> str:
    """A share of 1."""
    return f"{share:.1%}"
