"""How volconv compiles: helpers, and kernels that are kept on disk."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

#: Only fused multiply-add is allowed beyond strict IEEE arithmetic: sums keep their order, so the bits of a result do
#: not depend on how a loop was vectorised.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}


def jit(function: F) -> F:
    """Mark what kernels of the same module call; it is compiled into them."""
    return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def compiled_kernel(function: F, signature: Any) -> F:
    """Compile a kernel now, without the GIL, or load it from numba's cache.

    A cache that cannot be written or read (no folder, a full disk, a damaged file) costs time and nothing else.
    """
    try:
        return numba.njit(signature, cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return numba.njit(signature, **_OPTIONS)(function)  # type: ignore[no-any-return]
