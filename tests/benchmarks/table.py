"""Numbers and tables as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s"


def times(ratio: float) -> str:
    """A ratio, as in 12x."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 1.995 else f"{ratio:.2f}x"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def off(part: float) -> str:
    """How far an approximation is off, given as a part of the largest value."""
    return f"off by {100 * part:.2g}%"


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def line(cells: list[str], widths: list[int]) -> str:
    """Cells side by side for a terminal, without markdown's marks."""
    return "  ".join(f"{cell.replace('*', ''):{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
