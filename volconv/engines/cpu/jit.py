"""Helpers that compiled loops of the same module call."""

from __future__ import annotations

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
