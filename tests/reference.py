"""Conv3d as naive loops in higher precision: slow, obvious, and sharing no code with volconv."""

from __future__ import annotations

import itertools

import numpy as np


def correlate(volume, weights):
    """Valid cross-correlation of a (D, H, W) array, from the definition."""
    windows = np.lib.stride_tricks.sliding_window_view(volume, weights.shape)
    return np.einsum("dhwijk,ijk->dhw", windows, weights)


def source_index(index, size, mode):
    """Index into an axis of ``size`` for a padded position that may lie outside; None where nothing is there."""
    if 0 <= index < size:
        return index
    if mode == "zeros":
        return None
    if mode == "circular":
        return index % size
    if mode == "replicate":
        return 0 if index < 0 else size - 1
    if mode == "reflect":
        return -index if index < 0 else 2 * (size - 1) - index
    if mode == "symmetric":
        return -index - 1 if index < 0 else 2 * size - index - 1
    raise AssertionError(mode)


def pads(padding, kernel, dilation):
    """Voxels (low, high) on each axis."""
    result = []
    for axis in range(3):
        total = dilation[axis] * (kernel[axis] - 1)
        if padding == "same":
            result.append((total // 2, total - total // 2))
        elif padding == "valid":
            result.append((0, 0))
        else:
            result.append((padding[axis], padding[axis]))
    return result


def conv3d(x, w, bias=None, stride=(1, 1, 1), padding=(0, 0, 0), dilation=(1, 1, 1), groups=1, mode="zeros", value=0):
    """Sum over taps, one output voxel after the other along each axis; 5-D arrays.

    Accumulates in float64 (complex128), or in longdouble for inputs that are float64 already; integers in objects.
    """
    kinds = {x.dtype.kind, w.dtype.kind}
    if kinds <= set("biu"):
        accumulate = np.dtype(object)
    elif "c" in kinds:
        accumulate = np.dtype(np.clongdouble)
    else:
        accumulate = np.dtype(np.longdouble)
    x, w = x.astype(accumulate), w.astype(accumulate)
    kernel = w.shape[2:]
    sides = pads(padding, kernel, dilation)
    sizes = [(x.shape[2 + a] + sum(sides[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(3)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes), accumulate)
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for tap in itertools.product(*(range(k) for k in kernel)):
        # For each axis: which outputs see something at this tap, and where in the input.
        where = [
            [
                source_index(o * stride[a] - sides[a][0] + tap[a] * dilation[a], x.shape[2 + a], mode)
                for o in range(sizes[a])
            ]
            for a in range(3)
        ]
        seen = np.full(
            (x.shape[0], x.shape[1], *sizes), value if accumulate.kind == "O" else accumulate.type(value), accumulate
        )
        inside = [[o for o, i in enumerate(axis) if i is not None] for axis in where]
        source = [[i for i in axis if i is not None] for axis in where]
        seen[(slice(None), slice(None), *np.ix_(*inside))] = x[(slice(None), slice(None), *np.ix_(*source))]
        for o in range(w.shape[0]):
            group = o // per_out
            for c in range(per_in):
                out[:, o] += w[(o, c, *tap)] * seen[:, group * per_in + c]
    if bias is not None:
        out += np.asarray(bias).astype(accumulate).reshape(1, -1, 1, 1, 1)
    return out
