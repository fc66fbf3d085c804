"""How facts are worded and shown, the same in every command."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from volconv.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Columns of a terminal.
WIDTH = 80


def numbers(values: Sequence[int]) -> str:
    """Integers as an option takes them: ``1,1,189,233,197``."""
    return ",".join(str(v) for v in values)


def counted(count: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def decimals(values: Iterable[float]) -> str:
    """Numbers for people: ``2,0.5,0.333333``."""
    return ",".join(f"{v:.6g}" for v in values)


def spacing(values: Sequence[float] | None, unit: str | None) -> str:
    """Distances along D, H, W: ``2x1x1 mm``."""
    if values is None:
        return "no spacing"
    return "x".join(f"{v:.4g}" for v in values) + (f" {unit}" if unit else "")


def size(count: int) -> str:
    """Bytes for people: ``34.7 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} PB"


def duration(seconds: float) -> str:
    """A time for people: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose cells stand below each other, two spaces apart."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with a rule below its heads, which may have several lines; all columns but the first are of numbers."""
    broken = [head.split("\n") for head in heads]
    tall = max(map(len, broken))
    above = zip(*([""] * (tall - len(lines)) + lines for lines in broken), strict=True)
    cells = [*above, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        lines.append(" ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip())
    lines.insert(tall, "─" * (sum(widths) + len(widths) - 1))
    return [f" {line}" for line in lines]


def facts(pairs: Sequence[tuple[str, str]], start: int | None = None) -> list[str]:
    """Names and values as lines, the values below each other and broken to the terminal's width.

    Lines of a value stay lines, and one without spaces, such as a path, is never broken; what a terminal would act on
    is spelt out. ``start`` is the column of the values, by default two behind the longest name.
    """
    start = start or max(len(name) for name, _ in pairs) + 2
    lines = []
    for name, value in pairs:
        for line in map(printable, value.splitlines()):
            kept = WIDTH - start
            # What is set in columns is not broken at their gaps.
            parts = (
                [line] if "  " in line else textwrap.wrap(line, kept, break_long_words=False, break_on_hyphens=False)
            )
            for part in parts:
                lines.append(f"{name:{start}}{part}")
                name = ""  # only the first line is named
    return lines


def for_scripts(known: dict[str, Any], field: str | None, *, as_json: bool) -> str:
    """All that is known as JSON, or one field of it, as JSON or bare."""
    value = known if field is None else known[field]
    return json.dumps(value) if as_json else bare(value)


def bare(value: Any) -> str:
    """A value as options and shells take it."""
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    if not isinstance(value, dict) and all(isinstance(item, int | float) for item in value):
        return ",".join(map(str, value))
    return json.dumps(value)
