"""How the fft algorithm cuts an output into tiles, and what that costs. Only integers and a cost model: no data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds that float32 takes for one complex element and one axis of a transform, for one product in the frequency
#: domain, for each transform of a tile, and for each call (set by tests/benchmarks/algorithms.py).
SECONDS_PER_ELEMENT = 1.9e-9
SECONDS_PER_PRODUCT = 0.7e-9
SECONDS_PER_TRANSFORM = 40e-6
SECONDS_PER_TILE = 40e-6

#: Spectra of kernels that are kept; beyond that each tile makes them anew.
SPECTRA_BYTES = 256 << 20
#: Memory of one thread: spectra of a tile's channels and what transforms need.
WORKSPACE_BYTES = 96 << 20
#: Voxels of input that a row of tiles across the whole volume may need: I/O blocks are no thinner than a tile.
SLAB_VOXELS = 64 << 20


@dataclass(frozen=True, slots=True)
class Tiles:
    """How an output is cut up.

    Parameters
    ----------
    box : tuple of 3 ints
        Outputs (D, H, W) of a tile.
    size : tuple of 3 ints
        Of the transform.
    keep : bool
        Whether the kernels' spectra are kept, or made anew for each tile.
    seconds : float
        Predicted for all on one thread.
    """

    box: Triple
    size: Triple
    keep: bool
    seconds: float


def choose_tiles(problem: Problem) -> Tiles:
    """The tiles that cost least; they depend on parameters, output shape and dtype alone."""
    return _choose(problem.params, problem.output_shape, problem.dtype.itemsize)


def good_size(least: int) -> int:
    """The smallest even number of factors 2, 3, 5, 7 that is not below ``least``.

    >>> [good_size(n) for n in (1, 2, 11, 143, 158, 199)]
    [2, 2, 12, 144, 160, 200]
    """
    size = least + least % 2
    while _rest(size) > 1:
        size += 2
    return max(2, size)


def _rest(size: int) -> int:
    for factor in (2, 3, 5, 7):
        while size and size % factor == 0:
            size //= factor
    return size


@lru_cache(maxsize=256)
def _choose(params: Conv3dParams, output_shape: Index5, itemsize: int) -> Tiles:
    axes = [_candidates(output_shape[2 + i], params, i) for i in range(3)]
    # Each quantity of an axis varies along its own axis of the table of all combinations.
    box, size, seen = (
        [axis[k].reshape([-1 if i == j else 1 for j in range(3)]) for i, axis in enumerate(axes)] for k in range(3)
    )
    counts = [-(-n // b) for n, b in zip(output_shape[2:], box, strict=True)]
    half = size[2] // 2 + 1
    spectrum = size[0] * size[1] * half

    def transform(depth: Any, height: Any) -> Any:
        """Elements that pass through the three transforms of one channel, given the rows that hold something."""
        return depth * height * size[2] + depth * size[1] * half + spectrum

    per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
    kernels = params.out_channels * per_in
    volumes = output_shape[0] * params.groups
    tiles = volumes * counts[0] * counts[1] * counts[2]
    forward = transform(seen[0], seen[1])
    inverse = transform(box[0], box[1])
    prepare = transform(params.kernel_size[0], params.kernel_size[1])

    scale = itemsize / 4
    element, product = SECONDS_PER_ELEMENT * scale, SECONDS_PER_PRODUCT * scale
    each = per_in * forward + per_out * inverse
    seconds = tiles * (each * element + per_in * per_out * spectrum * product)
    seconds = seconds + tiles * (SECONDS_PER_TILE + (per_in + per_out) * SECONDS_PER_TRANSFORM)
    keep = kernels * spectrum * 2 * itemsize <= SPECTRA_BYTES
    made = np.where(keep, kernels, tiles * per_in * per_out)
    seconds = seconds + made * (prepare * element + SECONDS_PER_TRANSFORM)

    # Too few tiles leave threads idle; too large ones take memory. Some tile is taken all the same.
    idle = np.where(tiles >= 4, 1.0, np.where(tiles == 3, 1.15, np.where(tiles == 2, 1.05, 1.5)))
    workspace = (per_in + 4) * spectrum * 2 * itemsize
    slab = seen[0] * (output_shape[3] * params.stride[1]) * (output_shape[4] * params.stride[2]) * params.in_channels
    price = seconds * idle * np.maximum(1, workspace / WORKSPACE_BYTES) ** 2
    price = price * np.where(counts[0] > 1, np.maximum(1, slab / SLAB_VOXELS), 1)
    best = np.unravel_index(int(np.argmin(price)), price.shape)
    (d, h, w), (nd, nh, nw) = ([int(values[k].reshape(-1)[best[k]]) for k in range(3)] for values in (box, size))
    return Tiles((d, h, w), (nd, nh, nw), bool(keep[best]), float(seconds[best]))


def _candidates(outputs: int, params: Conv3dParams, axis: int) -> NDArray[np.int64]:
    """Sizes worth trying along one axis, as three rows: outputs of a tile, size of the transform, input that it holds.

    A tile of the whole axis sees the padding on both its sides. Where that is zeros, what wraps around may fall on it,
    and the transform need not hold it twice.
    """
    kernel, stride = params.effective_kernel[axis], params.stride[axis]
    found: dict[int, tuple[int, int, int]] = {}
    box = 0
    for count in range(1, outputs + 1):
        if box == -(-outputs // count):
            continue
        box = -(-outputs // count)
        seen = (box - 1) * stride + kernel
        if count == 1 and params.padding_mode == "zeros" and params.padding_value == 0:
            high = max(0, params.padding_high[axis] - (stride - 1))
            seen = max(kernel, (box - 1) * stride + 1, seen - min(params.padding_low[axis], high))
        size = good_size(seen)
        if count > 4 and size < 1.25 * kernel:
            break
        found.setdefault(size, (box, size, min(seen, size)))
    return np.array(list(found.values()) or [(1, good_size(kernel), kernel)], np.int64).T


def bytes_of(tiles: Tiles, params: Conv3dParams, itemsize: int) -> int:
    """Memory of all the kernels' spectra."""
    nd, nh, nw = tiles.size
    return params.out_channels * (params.in_channels // params.groups) * nd * nh * (nw // 2 + 1) * 2 * itemsize


def input_bytes(tiles: Tiles, params: Conv3dParams, itemsize: int) -> int:
    """Size of the padded block of one tile."""
    per_in = params.in_channels // params.groups
    return (
        itemsize
        * per_in
        * math.prod((b - 1) * s + e for b, s, e in zip(tiles.box, params.stride, params.effective_kernel, strict=True))
    )
