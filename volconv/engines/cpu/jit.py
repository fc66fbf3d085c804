"""Helpers that compiled loops of the same module call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba

from volconv.engines.cpu.native import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def jit(function: F) -> F:
    """Mark what kernels of the same module call; it is compiled into them."""
    return numba.njit(**OPTIONS)(function)  # type: ignore[no-any-return]
