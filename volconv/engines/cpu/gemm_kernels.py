"""The compiled inner loops around the matrix products of the gemm algorithm."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numba

from volconv.engines.cpu.jit import compiled_kernel, jit

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


@jit
def _add_row(total: Any, lost: Any, part: Any, width: int) -> None:
    """Add a row of products, keeping in ``lost`` what the additions round away (Knuth's TwoSum)."""
    for x in range(width):
        s, y = total[x], part[x]
        t = s + y
        kept = t - s
        lost[x] += (s - (t - kept)) + (y - kept)
        total[x] = t


def add(products: NDArray[Any], total: NDArray[Any], lost: NDArray[Any], first: bool) -> None:
    """Add (P, C_out, columns) products to (C_out, columns) totals, or begin those with them."""
    for r in range(total.shape[0]):
        if first:
            total[r] = lost[r] = 0
        for p in range(products.shape[0]):
            _add_row(total[r], lost[r], products[p, r], total.shape[1])


def store(
    products: NDArray[Any],
    total: NDArray[Any],
    lost: NDArray[Any],
    only: bool,
    bias: NDArray[Any],
    origin: Triple,
    size: Triple,
    out: NDArray[Any],
    strides: Triple,
) -> None:
    """Add the last products of a panel, and write it into its place.

    Parameters
    ----------
    products : (P, C_out, D, H, columns) array
    total, lost : (C_out, D, H, columns) arrays
        Sums so far. Where these products are the ``only`` ones, one row of each is used, which stays in L1.
    bias : (C_out,) array
    origin, size : tuples of 3 ints
        Of the panel's outputs, (D, H, W).
    out : (size,) array
    strides : tuple of 3 ints
        Distance in ``out`` between neighbours along C_out, D and H; along W they lie side by side.
    """
    z0, y0, x0 = origin
    depth, height, width = size
    for o in range(bias.size):
        b = bias[o]
        for z in range(depth):
            for y in range(height):
                begin = 0
                sums, rest = total[o, z, y], lost[o, z, y]
                if only:
                    begin = 1
                    sums, rest, part = total[0, 0, 0], lost[0, 0, 0], products[0, o, z, y]
                    for x in range(width):
                        sums[x] = part[x]
                        rest[x] = 0
                for p in range(begin, products.shape[0]):
                    _add_row(sums, rest, products[p, o, z, y], width)
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
    triple, five, four, two = numba.types.UniTuple(index, 3), real[:, :, :, :, ::1], real[:, :, :, ::1], real[:, ::1]
    return Compiled(
        compiled_kernel(gather, numba.void(real[::1], index, index, index, index[::1], triple, four)),
        compiled_kernel(add, numba.void(real[:, :, ::1], two, two, numba.boolean)),
        compiled_kernel(
            store, numba.void(five, four, four, numba.boolean, real[::1], triple, triple, real[::1], triple)
        ),
    )
