"""What this machine's vector registers hold."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@cache
def _has(feature: str) -> bool:
    from llvmlite.binding import get_host_cpu_features

    return bool(get_host_cpu_features().get(feature, False))


def register_bytes() -> int:
    """Bytes of one vector register."""
    return 64 if _has("avx512f") else 32 if _has("avx") else 16


def lanes(dtype: np.dtype[Any]) -> int:
    """Elements of one vector register."""
    return register_bytes() // dtype.itemsize


def registers() -> int:
    """How many vector registers there are."""
    return 32 if _has("avx512vl") or _has("neon") else 16
