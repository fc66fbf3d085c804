"""How the fft algorithm cuts an output into tiles, and what that costs: integers and a cost model, no data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes of the real, or imaginary, parts of one element (see :mod:`volconv.engines.cpu.fft_kernels`): a cache line.
LINE = 64
ELEMENT = 2 * LINE

#: Seconds for a float32 frequency: in a transform along one axis, in a product, and where it comes from memory; and for
#: a tile of one channel (set by tests/benchmarks/algorithms.py).
SECONDS_PER_PASS = 0.5e-9
SECONDS_PER_PRODUCT = 0.25e-9
SECONDS_PER_FETCH = 0.5e-9
SECONDS_PER_TILE = 20e-6

#: Spectra of kernels that are kept.
SPECTRA_BYTES = 256 << 20
#: Memory of one thread, if a tile can be so small.
WORKSPACE_BYTES = 64 << 20
#: Voxels of input that a slab of tiles may need: I/O blocks are no thinner than a tile.
SLAB_VOXELS = 32 << 20


@dataclass(frozen=True, slots=True)
class Tiles:
    """How an output is cut up.

    Parameters
    ----------
    box : tuple of 3 ints
        Outputs (D, H, W) of a tile.
    size : tuple of 3 ints
        Of the transform, which along D is one of so many real numbers.
    keep : bool
        Whether the kernels' spectra are kept. If not, they are known along D only, which takes far less memory, and
        made for each tile.
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


def good_size(least: int, multiple: int) -> int:
    """The smallest multiple with no prime factor above 5 in it that is not below ``least``.

    >>> [good_size(n, 2) for n in (1, 3, 11, 143, 158, 199)]
    [2, 4, 12, 144, 160, 200]
    """
    quotient = max(1, -(-least // multiple))
    while _rest(quotient):
        quotient += 1
    return quotient * multiple


def _rest(number: int) -> bool:
    for factor in (2, 3, 5):
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

    def transform(height: Any, width: Any) -> Any:
        """Frequencies that the transforms of one channel pass through, of planes that hold something in so many."""
        return half * (height * whole(width) + rows * whole(width) + rows * size[2])

    scale = itemsize / 4
    spectrum = half * rows * whole(size[2])
    kernels = params.out_channels * per_in
    spectra = kernels * spectrum * 2 * itemsize
    channels = per_in * transform(seen[1], seen[2]) + per_out * transform(box[1], (box[2] - 1) * params.stride[2] + 1)
    kernel = half * rows * (whole(params.effective_kernel[2]) + size[2]) * SECONDS_PER_PASS * scale
    product = per_in * per_out * spectrum * SECONDS_PER_PRODUCT * scale
    fetch = per_in * per_out * spectrum * SECONDS_PER_FETCH * scale
    each = channels * SECONDS_PER_PASS * scale + product + (per_in + per_out) * SECONDS_PER_TILE
    kept = kernels * kernel + tiles * fetch
    made = tiles * per_in * per_out * kernel
    keep = (spectra <= SPECTRA_BYTES) & (kept < made) & (tiles > 4 * volumes)
    seconds = tiles * each + np.where(keep, kept, made)

    # Too few tiles leave threads idle; too large ones take memory. Some tile is taken all the same.
    idle = np.where(tiles >= 4, 1.0, np.where(tiles == 3, 1.15, np.where(tiles == 2, 1.05, 1.5)))
    held = 2 * itemsize * half * seen[1] * whole(seen[2]) * max(per_in, per_out)
    price = seconds * idle * np.maximum(1, held / WORKSPACE_BYTES) ** 2
    slab = seen[0] * (output_shape[3] * params.stride[1]) * (output_shape[4] * params.stride[2]) * params.in_channels
    price = price * np.where(counts[0] > 1, np.maximum(1, slab / SLAB_VOXELS), 1)
    best = np.unravel_index(int(np.argmin(price)), price.shape)
    (d, h, w), (nd, nh, nw) = ([int(values[k].reshape(-1)[best[k]]) for k in range(3)] for values in (box, size))
    return Tiles((d, h, w), (nd, nh, nw), bool(keep[best]), float(seconds[best]))


def _candidates(outputs: int, params: Conv3dParams, axis: int, multiple: int) -> NDArray[np.int64]:
    """Sizes worth trying along one axis, as three rows: outputs of a tile, size of the transform, input that it holds.

    A tile of the whole axis sees the padding on both its sides. Where that is zeros, what wraps around may fall on it,
    and the transform need not hold it twice.
    """
    kernel, stride = params.effective_kernel[axis], params.stride[axis]
    found: dict[int, tuple[int, int, int]] = {}
    for box in sorted({-(-outputs // count) for count in range(1, outputs + 1)}, reverse=True):
        seen = (box - 1) * stride + kernel
        if box == outputs and params.padding_mode == "zeros" and params.padding_value == 0:
            high = max(0, params.padding_high[axis] - (stride - 1))
            seen = max(kernel, (box - 1) * stride + 1, seen - min(params.padding_low[axis], high))
        # Where a kernel has one tap there is nothing to transform, along D but two layers for one.
        size = good_size(seen, multiple) if kernel > 1 else -(-seen // multiple) * multiple
        if axis == 2:
            size = max(2, size)
        if kernel == 1 and axis == 0 and size > 2 and box > 1:
            continue
        if len(found) > 4 and size < 1.25 * kernel:
            break
        found.setdefault(size, (box, size, seen))
    return np.array(list(found.values()), np.int64).T
