"""How the fft algorithm cuts an output into tiles, and what that costs: integers and a cost model, no data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.memory import LINE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Butterflies there are.
RADICES = (8, 7, 5, 4, 3, 2)
#: Products summed in plain order: each may err by half an epsilon of the sum of magnitudes.
CHAIN = 16
#: Bytes of one element (see :mod:`volconv.engines.cpu.fft_kernels`): a cache line of real parts, one of imaginary ones.
ELEMENT = 2 * LINE

#: Seconds of float32, a frequency each (set by tests/benchmarks/algorithms.py): in a transform along D of a tile that
#: stays in the caches, and what is added where it does not; in one along H or W; for a kernel's spectrum and the
#: product with it. Those for one channel of a tile, and for one voxel that is read into a block or stored.
SECONDS_ALONG_D = 0.4e-9
SECONDS_FROM_MEMORY = 0.7e-9
SECONDS_PER_PASS = 0.35e-9
SECONDS_PER_PRODUCT = 0.42e-9
SECONDS_PER_TILE = 20e-6
SECONDS_PER_VOXEL = 0.4e-9
#: And for one kernel's taps along D, before any tile.
SECONDS_PER_KERNEL = 30e-6

#: Sizes of a tile between transforms, of all channels: up to the first it stays in the caches, from the second on not.
CACHED_BYTES = 4 << 20
UNCACHED_BYTES = 12 << 20
#: What a tile holds between transforms, the input of a slab of tiles (I/O blocks are no thinner than a tile), and what
#: kernels are kept as, may be so large, or else must be worth it.
HELD_BYTES = 64 << 20
SLAB_VOXELS = 32 << 20
KERNEL_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Tiles:
    """How an output is cut up.

    Parameters
    ----------
    box : tuple of 3 ints
        Outputs (D, H, W) of a tile.
    size : tuple of 3 ints
        Of the transform, which along D is one of so many real numbers.
    seconds : float
        Predicted for all on one thread.
    """

    box: Triple
    size: Triple
    seconds: float


def choose_tiles(problem: Problem) -> Tiles:
    """The tiles that cost least; they depend on parameters, output shape and dtype alone."""
    return _choose(problem.params, problem.output_shape, problem.dtype.itemsize)


def good_size(least: int, multiple: int) -> int:
    """The smallest multiple with no prime factor above 7 in it that is not below ``least``.

    >>> [good_size(n, 2) for n in (1, 3, 11, 143, 158, 199)]
    [2, 4, 12, 144, 160, 200]
    """
    quotient = max(1, -(-least // multiple))
    while _rest(quotient):
        quotient += 1
    return quotient * multiple


def _rest(number: int) -> bool:
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
    return number > 1


@lru_cache(maxsize=256)
def _choose(params: Conv3dParams, output_shape: Index5, itemsize: int) -> Tiles:
    lanes = LINE // itemsize
    axes = [_candidates(output_shape[2 + i], params, i, m) for i, m in enumerate((2, lanes, 1))]
    # Each quantity of an axis varies along its own axis of the table of all combinations.
    box, size, seen = (
        [axis[k].reshape([-1 if i == j else 1 for j in range(3)]) for i, axis in enumerate(axes)] for k in range(3)
    )
    volumes = output_shape[0] * params.groups
    counts = [-(-n // b) for n, b in zip(output_shape[2:], box, strict=True)]
    tiles = volumes * counts[0] * counts[1] * counts[2]
    per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
    half, rows = size[0] / 2, size[1]

    def whole(width: Any) -> Any:
        return -(-width // lanes) * lanes

    across = whole((box[2] - 1) * params.stride[2] + 1)
    held = 2 * itemsize * half * seen[1] * whole(seen[2]) * max(per_in, per_out)
    missed = np.clip((held - CACHED_BYTES) / (UNCACHED_BYTES - CACHED_BYTES), 0, 1)
    ends = half * (per_in * seen[1] * whole(seen[2]) + per_out * box[1] * across)
    passes = half * rows * (per_in * (whole(seen[2]) + size[2]) + per_out * (across + size[2]))
    passes = passes + half * rows * per_in * per_out * whole(params.effective_kernel[2])
    products = half * rows * size[2] * per_in * per_out
    voxels = per_in * seen[0] * seen[1] * seen[2] + per_out * box[0] * box[1] * box[2]
    each = ends * (SECONDS_ALONG_D + missed * SECONDS_FROM_MEMORY) + passes * SECONDS_PER_PASS
    each = each + products * SECONDS_PER_PRODUCT + voxels * SECONDS_PER_VOXEL
    seconds = tiles * (each * itemsize / 4 + (per_in + per_out) * SECONDS_PER_TILE)
    seconds = seconds + params.out_channels * per_in * SECONDS_PER_KERNEL

    # Too few tiles leave threads idle; too large ones take memory.
    idle = np.where(tiles >= 4, 1.0, np.where(tiles == 3, 1.15, np.where(tiles == 2, 1.05, 1.5)))
    slab = seen[0] * (output_shape[3] * params.stride[1]) * (output_shape[4] * params.stride[2]) * params.in_channels
    taps = math.prod(params.weight_shape) * itemsize
    kernels = 2 * taps * size[0] / params.kernel_size[0]
    price = seconds * idle
    for amount, most in ((held, HELD_BYTES), (slab, SLAB_VOXELS), (kernels, max(KERNEL_BYTES, 4 * taps))):
        price = price * np.maximum(1, amount / most)
    best = np.unravel_index(int(np.argmin(price)), price.shape)
    (d, h, w), (nd, nh, nw) = ([int(values[k].reshape(-1)[best[k]]) for k in range(3)] for values in (box, size))
    return Tiles((d, h, w), (nd, nh, nw), float(seconds[best]))


def _candidates(outputs: int, params: Conv3dParams, axis: int, multiple: int) -> NDArray[np.int64]:
    """Sizes worth trying along one axis, as three rows: outputs of a tile, size of the transform, input that it holds.

    A tile of the whole axis sees the padding on both its sides. Where that is zeros, what wraps around may fall on it,
    and the transform need not hold it twice.
    """
    kernel, stride = params.effective_kernel[axis], params.stride[axis]
    found: dict[int, tuple[int, int, int]] = {}
    boxes = {-(-outputs // count) for count in range(1, 65)}
    for box in sorted(boxes, reverse=True):
        seen = (box - 1) * stride + kernel
        if box == outputs and params.padding_mode == "zeros" and params.padding_value == 0:
            high = max(0, params.padding_high[axis] - (stride - 1))
            seen = max(kernel, (box - 1) * stride + 1, seen - min(params.padding_low[axis], high))
        # Where a kernel has one tap there is nothing to transform.
        size = good_size(seen, multiple) if kernel > 1 else -(-seen // multiple) * multiple
        if axis == 2:
            size = max(2, size)
        if len(found) > 4 and size < 1.25 * kernel:
            break
        found.setdefault(size, (box, size, seen))
    return np.array(list(found.values()), np.int64).T
