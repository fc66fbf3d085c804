"""How volconv compiles: one decorator for every numba kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def jit(function: F, signature: Any = None) -> F:
    """Compile for the CPU, without the GIL, cached on disk where a cache can be kept.

    With a signature, at once and for it alone; without one, when a compiled function first calls it.

    Only fused multiply-add is allowed beyond strict IEEE arithmetic: sums keep their order, so the bits of a result
    do not depend on how a loop was vectorised.
    """
    options = {"signature_or_function": signature, "nogil": True, "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # numba found no folder that it may write its cache to
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
