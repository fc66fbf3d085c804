"""The compiled inner loops around the matrix products of the gemm algorithm."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numba

from volconv.engines.cpu.jit import jit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from volconv.params import Triple


def gather(
    data: NDArray[Any],
    start: int,
    pitch: int,
    plane: int,
    offsets: NDArray[np.int64],
    size: Triple,
    panel: NDArray[Any],
) -> None:
    """Unfold a box of outputs (im2col): one row of ``panel`` for each tap, one column for each output.

    Parameters
    ----------
    data : (size,) array
        The block (or its phases), flat.
    start : int
        Where in ``data`` the first output of the box lies.
    pitch, plane : int
        Distance in ``data`` between neighbouring outputs along H and along D.
    offsets : (T,) array
        Where each tap lies, from there.
    size : tuple of 3 ints
        Outputs (d, h, w) of the box that are there.
    panel : (T, D, H, P) array
        Receives them, and zeros where it has more rows than there are taps. Where ``P == pitch`` several rows are
        copied in one run, with what lies between them.
    """
    depth, height, width = size
    if panel.shape[3] == pitch:
        height, width = 1, (height - 1) * pitch + width
    for t in range(offsets.size):
        for z in range(depth):
            target = panel[t, z].reshape(-1)
            for y in range(height):
                source = data[start + offsets[t] + z * plane + y * pitch :]
                row = target[y * panel.shape[3] :]
                for x in range(width):
                    row[x] = source[x]
    for t in range(offsets.size, panel.shape[0]):
        panel[t] = 0


def add(products: NDArray[Any], total: NDArray[Any], lost: NDArray[Any]) -> None:
    """Add (P, C_out, columns) products, keeping in ``lost`` what the additions round away (Knuth's TwoSum)."""
    for p in range(products.shape[0]):
        for r in range(total.shape[0]):
            part, sums, rest = products[p, r], total[r], lost[r]
            for i in range(sums.size):
                s, y = sums[i], part[i]
                t = s + y
                kept = t - s
                rest[i] += (s - (t - kept)) + (y - kept)
                sums[i] = t


def store(
    total: NDArray[Any],
    lost: NDArray[Any],
    bias: NDArray[Any],
    origin: Triple,
    size: Triple,
    out: NDArray[Any],
    strides: Triple,
) -> None:
    """Write a finished panel, (C_out, D, H, P), into its place in ``out``: flat, strides along C_out, D, H."""
    z0, y0, x0 = origin
    depth, height, width = size
    for o in range(total.shape[0]):
        b = bias[o]
        for z in range(depth):
            for y in range(height):
                sums = total[o, z, y]
                rest = lost[o, z, y]
                target = out[o * strides[0] + (z0 + z) * strides[1] + (y0 + y) * strides[2] + x0 :]
                for x in range(width):
                    s = sums[x]
                    # Where the sum is not finite, neither is what was lost, and it must not count.
                    target[x] = (s + rest[x] if s - s == 0 else s) + b


class Compiled(NamedTuple):
    """The three kernels for one dtype."""

    gather: Callable[..., None]
    add: Callable[..., None]
    store: Callable[..., None]


@cache
def compiled(dtype: np.dtype[Any]) -> Compiled:
    """Compile for blocks of this dtype."""
    real, index = numba.from_dtype(dtype), numba.int64
    triple, four, two = numba.types.UniTuple(index, 3), real[:, :, :, ::1], real[:, ::1]
    return Compiled(
        jit(gather, numba.void(real[::1], index, index, index, index[::1], triple, four)),
        jit(add, numba.void(real[:, :, ::1], two, two)),
        jit(store, numba.void(four, four, real[::1], triple, triple, real[::1], triple)),
    )
