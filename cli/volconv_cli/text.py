"""How numbers are worded, the same in every command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def numbers(values: Sequence[int]) -> str:
    """Integers as an option takes them: ``1,1,189,233,197``."""
    return ",".join(str(v) for v in values)


def spacing(values: Sequence[float] | None, unit: str | None) -> str:
    """Distances along D, H, W: ``2x1x1 mm``."""
    if values is None:
        return "no spacing"
    return "x".join(f"{v:.4g}" for v in values) + (f" {unit}" if unit else "")


def size(count: int) -> str:
    """Bytes for people: ``34.7 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
