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
    block: NDArray[Any],
    kernel: Triple,
    stride: Triple,
    dilation: Triple,
    first: int,
    origin: Triple,
    size: Triple,
    panel: NDArray[Any],
) -> None:
    """Unfold a box of outputs (im2col): one row of ``panel`` for each tap from ``first`` on, one column an output."""
    kd, kh, kw = kernel
    sd, sh, sw = stride
    dd, dh, dw = dilation
    z0, y0, x0 = origin
    depth, height, width = size
    for row in range(panel.shape[0]):
        tap = first + row
        k = tap % kw
        tap //= kw
        j = tap % kh
        tap //= kh
        i = tap % kd
        c = tap // kd
        for z in range(depth):
            for y in range(height):
                source = block[c, (z0 + z) * sd + i * dd, (y0 + y) * sh + j * dh]
                target = panel[row, z, y]
                start = x0 * sw + k * dw
                if sw == 1:
                    for x in range(width):
                        target[x] = source[start + x]
                else:
                    for x in range(width):
                        target[x] = source[start + x * sw]


def add(total: NDArray[Any], part: NDArray[Any], lost: NDArray[Any]) -> None:
    """Add a partial product, keeping in ``lost`` what the addition rounds away (Knuth's TwoSum)."""
    for r in range(total.shape[0]):
        for i in range(total.shape[1]):
            s, y = total[r, i], part[r, i]
            t = s + y
            kept = t - s
            lost[r, i] += (s - (t - kept)) + (y - kept)
            total[r, i] = t


def store(
    total: NDArray[Any], lost: NDArray[Any], bias: NDArray[Any], origin: Triple, size: Triple, out: NDArray[Any]
) -> None:
    """Write a finished panel, (C_out, d, h, w), into its place in ``out``."""
    z0, y0, x0 = origin
    depth, height, width = size
    for o in range(total.shape[0]):
        b = bias[o]
        for z in range(depth):
            for y in range(height):
                sums = total[o, z, y]
                rest = lost[o, z, y]
                target = out[o, z0 + z, y0 + y]
                for x in range(width):
                    s = sums[x]
                    # Where the sum is not finite, neither is what was lost, and it must not count.
                    target[x0 + x] = (s + rest[x] if s - s == 0 else s) + b


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
        jit(gather, numba.void(four, triple, triple, triple, index, triple, triple, four)),
        jit(add, numba.void(two, two, two)),
        jit(store, numba.void(four, four, real[::1], triple, triple, real[:, :, :, :])),
    )
