"""The compiled inner loops of the direct algorithm.

Everything is a *flat* correlation: the block is one long row of memory in which each tap of the kernel is an offset,
so that ``acc[i] += w*data[i + offset]`` runs over many rows of outputs at once. Where a row of the block ends, a few
sums are formed that belong to no output; they are not stored.

Strides, dilation, channels and kernel sizes all are offsets, hence one compilation for each dtype serves them all.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numba
from numba.types import UniTuple

from volconv.engines.cpu.jit import jit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from volconv.params import Triple

#: Outputs in one pass: the accumulators and three rows of the block stay in L1 (set by tests/benchmarks/direct.py).
RUN = 1024

#: Taps summed in plain order before the sum is added, with compensation, to the total. Equal products in sequence
#: drift by up to a quarter of an epsilon each, so 63 keep the error under the bound of 16 epsilon.
CHAIN = 63


def split_phases(block: NDArray[Any], stride: Triple, phases: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Deinterleave a strided block: ``out[c, p, z, y, x] = block[c, z*sd + pd, y*sh + ph, x*sw + pw]``.

    Within one phase ``p`` a strided convolution has stride 1. Voxels past the block's end are left as they are.
    """
    sd, sh, sw = stride
    channels, depth, height, width = block.shape
    for c in range(channels):
        for p in range(phases.shape[0]):
            pd, ph, pw = phases[p]
            for z in range((depth - pd + sd - 1) // sd):
                for y in range((height - ph + sh - 1) // sh):
                    for x in range((width - pw + sw - 1) // sw):
                        out[c, p, z, y, x] = block[c, z * sd + pd, y * sh + ph, x * sw + pw]


@jit
def _add_one(data: Any, start: int, offsets: Any, weights: Any, first: int, last: int, n: int, acc: Any) -> None:
    """Add taps ``first`` to ``last`` of one output channel to ``acc[:n]``."""
    a = acc[0]
    t = first
    while last - t >= 9:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        b3 = data[start + offsets[t + 3] :]
        b4 = data[start + offsets[t + 4] :]
        b5 = data[start + offsets[t + 5] :]
        b6 = data[start + offsets[t + 6] :]
        b7 = data[start + offsets[t + 7] :]
        b8 = data[start + offsets[t + 8] :]
        w0, w1, w2 = weights[t], weights[t + 1], weights[t + 2]
        w3, w4, w5 = weights[t + 3], weights[t + 4], weights[t + 5]
        w6, w7, w8 = weights[t + 6], weights[t + 7], weights[t + 8]
        for i in range(n):
            s = a[i]
            s += w0 * b0[i]
            s += w1 * b1[i]
            s += w2 * b2[i]
            s += w3 * b3[i]
            s += w4 * b4[i]
            s += w5 * b5[i]
            s += w6 * b6[i]
            s += w7 * b7[i]
            s += w8 * b8[i]
            a[i] = s
        t += 9
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w0, w1, w2 = weights[t], weights[t + 1], weights[t + 2]
        for i in range(n):
            s = a[i]
            s += w0 * b0[i]
            s += w1 * b1[i]
            s += w2 * b2[i]
            a[i] = s
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w0 = weights[t]
        for i in range(n):
            a[i] += w0 * b0[i]
        t += 1


@jit
def _add_four(data: Any, start: int, offsets: Any, weights: Any, first: int, last: int, n: int, acc: Any) -> None:
    """Add taps ``first`` to ``last`` of four output channels to ``acc[:, :n]``: each voxel is loaded once for four."""
    a0, a1, a2, a3 = acc[0], acc[1], acc[2], acc[3]
    t = first
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w00, w01, w02 = weights[0, t], weights[0, t + 1], weights[0, t + 2]
        w10, w11, w12 = weights[1, t], weights[1, t + 1], weights[1, t + 2]
        w20, w21, w22 = weights[2, t], weights[2, t + 1], weights[2, t + 2]
        w30, w31, w32 = weights[3, t], weights[3, t + 1], weights[3, t + 2]
        for i in range(n):
            v0, v1, v2 = b0[i], b1[i], b2[i]
            s0, s1, s2, s3 = a0[i], a1[i], a2[i], a3[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s2 += w20 * v0
            s3 += w30 * v0
            s0 += w01 * v1
            s1 += w11 * v1
            s2 += w21 * v1
            s3 += w31 * v1
            s0 += w02 * v2
            s1 += w12 * v2
            s2 += w22 * v2
            s3 += w32 * v2
            a0[i] = s0
            a1[i] = s1
            a2[i] = s2
            a3[i] = s3
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w00, w10, w20, w30 = weights[0, t], weights[1, t], weights[2, t], weights[3, t]
        for i in range(n):
            v0 = b0[i]
            a0[i] += w00 * v0
            a1[i] += w10 * v0
            a2[i] += w20 * v0
            a3[i] += w30 * v0
        t += 1


@jit
def _flush(acc: Any, total: Any, lost: Any, n: int) -> None:
    """Move a partial sum into the total, keeping in ``lost`` what the addition rounds away (Knuth's TwoSum)."""
    for i in range(n):
        s, y = total[i], acc[i]
        t = s + y
        part = t - s
        lost[i] += (s - (t - part)) + (y - part)
        total[i] = t
        acc[i] = 0


def correlate(
    data: NDArray[Any],
    pitch: int,
    plane: int,
    offsets: NDArray[np.int64],
    weights: NDArray[Any],
    bias: NDArray[Any],
    out: NDArray[Any],
    work: NDArray[Any],
) -> None:
    """Correlate one block with the weights of one group.

    Parameters
    ----------
    data : (size,) array
        The block (or its phases), flat.
    pitch, plane : int
        Distance in ``data`` between neighbouring outputs along H and along D.
    offsets : (T,) array
        Where each tap lies in ``data`` for output 0.
    weights : (C_out, T) array
    bias : (C_out,) array
    out : (C_out, d, h, w) array
        Receives the result; any strides.
    work : (3, 4, RUN) array
        Accumulators, totals and their lost parts.
    """
    channels, depth, height, width = out.shape
    count = offsets.size
    acc, total, lost = work[0], work[1], work[2]
    if pitch <= RUN:
        rows, columns = min(height, RUN // pitch), width
    else:
        rows, columns = 1, min(width, RUN)
    for z in range(depth):
        for y in range(0, height, rows):
            h = min(rows, height - y)
            for x in range(0, width, columns):
                w = min(columns, width - x)
                n = (h - 1) * pitch + w
                start = z * plane + y * pitch + x
                o = 0
                while o < channels:
                    many = o + 4 <= channels
                    stored = 4 if many else 1
                    for r in range(stored):
                        acc[r, :n] = 0
                    if count > CHAIN:
                        for r in range(stored):
                            total[r, :n] = 0
                            lost[r, :n] = 0
                    first = 0
                    while first < count:
                        last = min(first + CHAIN, count)
                        if many:
                            _add_four(data, start, offsets, weights[o : o + 4], first, last, n, acc)
                        else:
                            _add_one(data, start, offsets, weights[o], first, last, n, acc)
                        if count > CHAIN:
                            for r in range(stored):
                                _flush(acc[r], total[r], lost[r], n)
                        first = last
                    for r in range(stored):
                        b = bias[o + r]
                        for row in range(h):
                            target = out[o + r, z, y + row]
                            if count > CHAIN:
                                sums = total[r, row * pitch :]
                                rest = lost[r, row * pitch :]
                                for i in range(w):
                                    s = sums[i]
                                    # Where the sum is not finite, neither is what was lost, and it must not count.
                                    target[x + i] = (s + rest[i] if s - s == 0 else s) + b
                            else:
                                sums = acc[r, row * pitch :]
                                for i in range(w):
                                    target[x + i] = sums[i] + b
                    o += stored


@cache
def compiled_split_phases(dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`split_phases` for blocks of this dtype."""
    real, index = numba.from_dtype(dtype), numba.int64
    return jit(split_phases, numba.void(real[:, :, :, ::1], UniTuple(index, 3), index[:, ::1], real[:, :, :, :, ::1]))


@cache
def compiled_correlate(dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`correlate` for blocks of this dtype."""
    real, index = numba.from_dtype(dtype), numba.int64
    row, out = real[::1], real[:, :, :, :]
    return jit(correlate, numba.void(row, index, index, index[::1], real[:, ::1], row, out, real[:, :, ::1]))
