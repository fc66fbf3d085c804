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
import numpy as np

from volconv.engines.cpu.jit import compiled_kernel, jit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.params import Triple

#: Outputs in one row of sums at most, and at most where it spans several rows of the block: four rows of sums and the
#: planes that they read share L1 (set by tests/benchmarks/algorithms.py).
RUN = 1024
ROWS = 1000
#: Planes of one channel that are summed at a time.
DEPTH = 8

#: Taps summed in plain order before the sum is added, with compensation, to the total. Each may err by half an epsilon
#: of the sum of magnitudes, as do the total and the bias: 27 (nine a pass) stay under the bound of 16 epsilon.
CHAIN = 27


@jit
def _add_one(
    data: Any, start: int, offsets: Any, first: int, last: int, weights: Any, t0: int, n: int, a0: Any
) -> None:
    """Add taps ``first`` to ``last`` to one row of sums, nine or three taps a pass."""
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
        w00, w01, w02, w03, w04, w05, w06, w07, w08 = (
            weights[t0 + t],
            weights[t0 + t + 1],
            weights[t0 + t + 2],
            weights[t0 + t + 3],
            weights[t0 + t + 4],
            weights[t0 + t + 5],
            weights[t0 + t + 6],
            weights[t0 + t + 7],
            weights[t0 + t + 8],
        )
        for i in range(n):
            v0, v1, v2, v3, v4, v5, v6, v7, v8 = b0[i], b1[i], b2[i], b3[i], b4[i], b5[i], b6[i], b7[i], b8[i]
            s0 = a0[i]
            s0 += w00 * v0
            s0 += w01 * v1
            s0 += w02 * v2
            s0 += w03 * v3
            s0 += w04 * v4
            s0 += w05 * v5
            s0 += w06 * v6
            s0 += w07 * v7
            s0 += w08 * v8
            a0[i] = s0
        t += 9
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w00, w01, w02 = weights[t0 + t], weights[t0 + t + 1], weights[t0 + t + 2]
        for i in range(n):
            v0, v1, v2 = b0[i], b1[i], b2[i]
            s0 = a0[i]
            s0 += w00 * v0
            s0 += w01 * v1
            s0 += w02 * v2
            a0[i] = s0
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w00 = weights[t0 + t]
        for i in range(n):
            a0[i] += w00 * b0[i]
        t += 1


@jit
def _add_two(
    data: Any, start: int, offsets: Any, first: int, last: int, weights: Any, t0: int, t1: int, n: int, a0: Any, a1: Any
) -> None:
    """Add taps to two rows of sums: each voxel is loaded once for two multiply-adds."""
    t = first
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w00, w01, w02 = weights[t0 + t], weights[t0 + t + 1], weights[t0 + t + 2]
        w10, w11, w12 = weights[t1 + t], weights[t1 + t + 1], weights[t1 + t + 2]
        for i in range(n):
            v0, v1, v2 = b0[i], b1[i], b2[i]
            s0, s1 = a0[i], a1[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s0 += w01 * v1
            s1 += w11 * v1
            s0 += w02 * v2
            s1 += w12 * v2
            a0[i], a1[i] = s0, s1
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w00 = weights[t0 + t]
        w10 = weights[t1 + t]
        for i in range(n):
            v0 = b0[i]
            s0, s1 = a0[i], a1[i]
            s0 += w00 * v0
            s1 += w10 * v0
            a0[i], a1[i] = s0, s1
        t += 1


@jit
def _add_three(
    data: Any,
    start: int,
    offsets: Any,
    first: int,
    last: int,
    weights: Any,
    t0: int,
    t1: int,
    t2: int,
    n: int,
    a0: Any,
    a1: Any,
    a2: Any,
) -> None:
    """Add taps to three rows of sums: each voxel is loaded once for three multiply-adds."""
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
        w00, w01, w02, w03, w04 = (
            weights[t0 + t],
            weights[t0 + t + 1],
            weights[t0 + t + 2],
            weights[t0 + t + 3],
            weights[t0 + t + 4],
        )
        w05, w06, w07, w08 = weights[t0 + t + 5], weights[t0 + t + 6], weights[t0 + t + 7], weights[t0 + t + 8]
        w10, w11, w12, w13, w14 = (
            weights[t1 + t],
            weights[t1 + t + 1],
            weights[t1 + t + 2],
            weights[t1 + t + 3],
            weights[t1 + t + 4],
        )
        w15, w16, w17, w18 = weights[t1 + t + 5], weights[t1 + t + 6], weights[t1 + t + 7], weights[t1 + t + 8]
        w20, w21, w22, w23, w24 = (
            weights[t2 + t],
            weights[t2 + t + 1],
            weights[t2 + t + 2],
            weights[t2 + t + 3],
            weights[t2 + t + 4],
        )
        w25, w26, w27, w28 = weights[t2 + t + 5], weights[t2 + t + 6], weights[t2 + t + 7], weights[t2 + t + 8]
        for i in range(n):
            v0, v1, v2, v3, v4 = b0[i], b1[i], b2[i], b3[i], b4[i]
            v5, v6, v7, v8 = b5[i], b6[i], b7[i], b8[i]
            s0, s1, s2 = a0[i], a1[i], a2[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s2 += w20 * v0
            s0 += w01 * v1
            s1 += w11 * v1
            s2 += w21 * v1
            s0 += w02 * v2
            s1 += w12 * v2
            s2 += w22 * v2
            s0 += w03 * v3
            s1 += w13 * v3
            s2 += w23 * v3
            s0 += w04 * v4
            s1 += w14 * v4
            s2 += w24 * v4
            s0 += w05 * v5
            s1 += w15 * v5
            s2 += w25 * v5
            s0 += w06 * v6
            s1 += w16 * v6
            s2 += w26 * v6
            s0 += w07 * v7
            s1 += w17 * v7
            s2 += w27 * v7
            s0 += w08 * v8
            s1 += w18 * v8
            s2 += w28 * v8
            a0[i], a1[i], a2[i] = s0, s1, s2
        t += 9
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w00, w01, w02 = weights[t0 + t], weights[t0 + t + 1], weights[t0 + t + 2]
        w10, w11, w12 = weights[t1 + t], weights[t1 + t + 1], weights[t1 + t + 2]
        w20, w21, w22 = weights[t2 + t], weights[t2 + t + 1], weights[t2 + t + 2]
        for i in range(n):
            v0, v1, v2 = b0[i], b1[i], b2[i]
            s0, s1, s2 = a0[i], a1[i], a2[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s2 += w20 * v0
            s0 += w01 * v1
            s1 += w11 * v1
            s2 += w21 * v1
            s0 += w02 * v2
            s1 += w12 * v2
            s2 += w22 * v2
            a0[i], a1[i], a2[i] = s0, s1, s2
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w00 = weights[t0 + t]
        w10 = weights[t1 + t]
        w20 = weights[t2 + t]
        for i in range(n):
            v0 = b0[i]
            s0, s1, s2 = a0[i], a1[i], a2[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s2 += w20 * v0
            a0[i], a1[i], a2[i] = s0, s1, s2
        t += 1


@jit
def _add_four(
    data: Any,
    start: int,
    offsets: Any,
    first: int,
    last: int,
    weights: Any,
    t0: int,
    t1: int,
    t2: int,
    t3: int,
    n: int,
    a0: Any,
    a1: Any,
    a2: Any,
    a3: Any,
) -> None:
    """Add taps to four rows of sums: each voxel is loaded once for four multiply-adds."""
    t = first
    while last - t >= 3:
        b0 = data[start + offsets[t] :]
        b1 = data[start + offsets[t + 1] :]
        b2 = data[start + offsets[t + 2] :]
        w00, w01, w02 = weights[t0 + t], weights[t0 + t + 1], weights[t0 + t + 2]
        w10, w11, w12 = weights[t1 + t], weights[t1 + t + 1], weights[t1 + t + 2]
        w20, w21, w22 = weights[t2 + t], weights[t2 + t + 1], weights[t2 + t + 2]
        w30, w31, w32 = weights[t3 + t], weights[t3 + t + 1], weights[t3 + t + 2]
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
            a0[i], a1[i], a2[i], a3[i] = s0, s1, s2, s3
        t += 3
    while t < last:
        b0 = data[start + offsets[t] :]
        w00 = weights[t0 + t]
        w10 = weights[t1 + t]
        w20 = weights[t2 + t]
        w30 = weights[t3 + t]
        for i in range(n):
            v0 = b0[i]
            s0, s1, s2, s3 = a0[i], a1[i], a2[i], a3[i]
            s0 += w00 * v0
            s1 += w10 * v0
            s2 += w20 * v0
            s3 += w30 * v0
            a0[i], a1[i], a2[i], a3[i] = s0, s1, s2, s3
        t += 1


@jit
def _add(data: Any, start: int, offsets: Any, first: int, last: int, weights: Any, t: Any, n: int, sums: Any) -> None:
    """Add taps ``first`` to ``last`` to several rows of sums; row ``r`` takes the weights from ``t[r]`` on."""
    r, rows = 0, sums.shape[0]
    while rows - r >= 4:
        t0, t1, t2, t3 = t[r], t[r + 1], t[r + 2], t[r + 3]
        a0, a1, a2, a3 = sums[r], sums[r + 1], sums[r + 2], sums[r + 3]
        _add_four(data, start, offsets, first, last, weights, t0, t1, t2, t3, n, a0, a1, a2, a3)
        r += 4
    if rows - r == 3:
        a0, a1, a2 = sums[r], sums[r + 1], sums[r + 2]
        _add_three(data, start, offsets, first, last, weights, t[r], t[r + 1], t[r + 2], n, a0, a1, a2)
    elif rows - r == 2:
        _add_two(data, start, offsets, first, last, weights, t[r], t[r + 1], n, sums[r], sums[r + 1])
    elif rows - r == 1:
        _add_one(data, start, offsets, first, last, weights, t[r], n, sums[r])


@jit
def _clear(work: Any, many: int, n: int, chained: bool) -> None:
    """Start new sums."""
    for k in range(3 if chained else 1):
        for r in range(many):
            for i in range(n):
                work[k, r, i] = 0


@jit
def _flush(work: Any, r: int, n: int) -> None:
    """Move a partial sum into its total, keeping in ``lost`` what the addition rounds away (Knuth's TwoSum)."""
    partial, total, lost = work[0, r], work[1, r], work[2, r]
    for i in range(n):
        s, y = total[i], partial[i]
        t = s + y
        kept = t - s
        lost[i] += (s - (t - kept)) + (y - kept)
        total[i] = t
        partial[i] = 0


@jit
def _form_sums(
    data: Any, start: int, plane: int, offsets: Any, layers: int, kd: int, weights: Any, many: int, n: int, work: Any
) -> None:
    """Form ``many`` rows of sums that share what they load.

    With ``kd`` > 0 those are neighbouring planes of one output channel: each input plane in turn serves the outputs
    whose kernels reach it, so that output r sees plane p with layer p - r. With ``kd`` = 0 they are neighbouring output
    channels of one plane, and all taps are one layer.
    """
    count = offsets.size
    size = count // layers
    part, chain, chained = min(size, CHAIN), max(1, CHAIN // size), count > CHAIN
    t = np.empty(many, np.int64)
    _clear(work, many, n, chained)
    for base in range(0, layers, max(1, kd)):
        layer = offsets[base * size : (base + 1) * size]
        for p in range(kd + many - 1 if kd else 1):
            low, high = (max(0, p - kd + 1), min(many, p + 1)) if kd else (0, many)
            for r in range(low, high):
                t[r] = (base + p - r) * size if kd else r * count
            for first in range(0, size, part):
                last = min(first + part, size)
                _add(data, start + p * plane, layer, first, last, weights, t[low:high], n, work[0, low:high])
                if chained:
                    for r in range(low, high):
                        done = base + p - r + 1 if kd else layers
                        if last < size or done % chain == 0 or done == layers:
                            _flush(work, r, n)


def correlate(
    data: NDArray[Any],
    pitch: int,
    plane: int,
    offsets: NDArray[np.int64],
    layers: int,
    adjacent: int,
    weights: NDArray[Any],
    bias: NDArray[Any],
    out: NDArray[Any],
    shape: tuple[int, int, int, int],
    strides: Triple,
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
    layers : int
        Taps come in this many layers, one for each input channel and place along D.
    adjacent : int
        So many layers in sequence lie one ``plane`` after the other, with equal offsets within it: kD, or 1.
    weights : (C_out*T,) array
    bias : (C_out,) array
    out : (size,) array
        Receives the result.
    shape : tuple of 4 ints
        (C_out, d, h, w) of the result.
    strides : tuple of 3 ints
        Distance in ``out`` between neighbours along C_out, D and H; along W they lie side by side.
    work : (3, DEPTH, RUN) array
        Partial sums, totals and what those lost.
    """
    channels, depth, height, width = shape
    count = offsets.size
    if pitch <= RUN:
        rows, columns = min(height, max(1, ROWS // pitch)), width
    else:
        rows, columns = 1, min(width, RUN)
    # Sums that are formed at a time share what they load: planes of one channel, or neighbouring channels.
    deep = channels == 1 and adjacent > 1
    planes, several = (min(DEPTH, depth), 1) if deep else (1, 4)
    shared, kd = (layers, adjacent) if deep else (1, 0)
    for z in range(0, depth, planes):
        together = min(planes, depth - z)
        for y in range(0, height, rows):
            h = min(rows, height - y)
            for x in range(0, width, columns):
                w = min(columns, width - x)
                start = z * plane + y * pitch + x
                n = (h - 1) * pitch + w
                for o in range(0, channels, several):
                    many = together if deep else min(several, channels - o)
                    own = weights[o * count :]
                    _form_sums(data, start, plane, offsets, shared, kd, own, many, n, work)
                    for r in range(many):
                        c, d = (o, z + r) if deep else (o + r, z)
                        total, lost, b = work[1, r], work[2, r], bias[c]
                        if count <= CHAIN:
                            total = work[0, r]
                        for row in range(h):
                            target = out[c * strides[0] + d * strides[1] + (y + row) * strides[2] + x :]
                            first = row * pitch
                            sums, rest = total[first : first + w], lost[first : first + w]
                            if count <= CHAIN:
                                for i in range(w):
                                    target[i] = sums[i] + b
                            else:
                                for i in range(w):
                                    s = sums[i]
                                    # Where the sum is not finite, neither is what was lost, and it must not count.
                                    target[i] = (s + rest[i] if s - s == 0 else s) + b


@cache
def compiled_correlate(dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`correlate` for blocks of this dtype."""
    real, index = numba.from_dtype(dtype), numba.int64
    row, shape, strides = real[::1], numba.types.UniTuple(index, 4), numba.types.UniTuple(index, 3)
    return compiled_kernel(
        correlate,
        numba.void(row, index, index, index[::1], index, index, row, row, row, shape, strides, real[:, :, ::1]),
    )
