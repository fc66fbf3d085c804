"""The compiled loops that carry rows of voxels into Winograd's domain and back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Argument, Array, native

if TYPE_CHECKING:
    from collections.abc import Callable

_INDEX = np.dtype(np.int64)


@cache
def compiled_forward(dtype: np.dtype[Any], axes: int) -> Callable[..., None]:
    """Forward transform of tiles, compiled for one dtype and one axis or two.

    It takes

    like : array of the dtype
    tiles : (K, axes, 4) array
        For each tile where its rows lie along each axis, in elements.
    data : address
    between : int
        Distance in the data between channels, of which there are ``channels``.
    out, pitch, plane : address and ints
        Tile k of channel c goes to ``out + (c*K + k)*pitch`` of each plane; planes lie ``plane`` apart.
    width : int
    """
    arguments = (Array(dtype, 1), Array(_INDEX, 3), 1, 1, 1, 1, 1, 1, 1)

    def function() -> Callable[..., None]:
        from volconv.engines.cpu.winograd_kernels import forward_function

        return forward_function(dtype, axes)

    return _with_addresses(f"forward-{dtype.name}-{axes}", arguments, function, 4**axes, 4**axes)


@cache
def compiled_inverse(dtype: np.dtype[Any], axes: int) -> Callable[..., None]:
    """Inverse transform of tiles, compiled for one dtype and one axis or two.

    It takes

    products, plane, channel, pitch : address and ints
        Tile k of channel c lies at ``products + c*channel + k*pitch`` of each plane; planes lie ``plane`` apart.
    tiles : (K, axes, 2) array
        For each tile where its rows go along each axis; -1 for a row that is no output.
    out, between : address and int
        Where they go, and how far apart channels lie.
    bias : (C_out,) array
    width : int
    """
    arguments = (1, 1, 1, 1, Array(_INDEX, 3), 1, 1, Array(dtype, 1), 1)

    def function() -> Callable[..., None]:
        from volconv.engines.cpu.winograd_kernels import inverse_function

        return inverse_function(dtype, axes)

    return _with_addresses(f"inverse-{dtype.name}-{axes}", arguments, function, 4**axes, 2**axes)


def _with_addresses(
    name: str, arguments: tuple[Argument, ...], function: Callable[[], Callable[..., None]], sources: int, targets: int
) -> Callable[..., None]:
    """A loop that is also given room for so many addresses of sources and targets."""
    room = Array(_INDEX, 1)
    loop = native(f"winograd-{name}", (*arguments, room, room), function, "winograd_kernels", "emitter", "simd")

    def run(*values: Any) -> None:
        loop(*values, np.empty(sources, np.int64), np.empty(targets, np.int64))

    return run
