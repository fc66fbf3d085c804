"""The direct sum with output channels side by side in vectors: many channels, on lines of any length or stride."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.flat import groups_of
from volconv.engines.cpu.memory import Buffers
from volconv.engines.cpu.programs import ROUNDINGS, Sums
from volconv.shapes import taps, voxels_read

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple

#: Seconds in float32 (set by tests/benchmarks/algorithms.py): for one vector of multiply-adds; for beginning and ending
#: a tile; to read one voxel, to store one, and to put one weight in its place.
SECONDS_PER_VECTOR = 1 / 7.2e9
SECONDS_PER_TILE = 25e-9
SECONDS_PER_VOXEL = 0.2e-9
SECONDS_PER_OUTPUT = 0.5e-9
SECONDS_PER_WEIGHT = 2e-9
OUTPUTS = 8
#: A step of one vector takes as long as one of so many: its voxels must be loaded all the same.
LEAST_VECTORS = 1.8
#: Elements of the vectors that these were measured with.
LANES = 16

#: Bytes of weights that stay in L2 while tiles are computed.
WEIGHT_BYTES = 1 << 16
BLOCK_BYTES = 1 << 22
#: More than a thread's sums take, with what they lost.
SCRATCH_BYTES = 1 << 17


class Channels:
    """See :class:`volconv.engines.Engine`."""

    name = "channels"
    exact_spread = True
    compiled = True

    def supports(self, problem: Problem) -> str | None:
        """More than one channel to put side by side."""
        if problem.params.out_channels == problem.params.groups:
            return "it needs more than one output channel a group"
        return None

    def cost(self, problem: Problem) -> float:
        """Tiles, whose vectors may not be full, and what is read, stored and put in its place."""
        params, shape = problem.params, problem.output_shape
        vectors = _vectors(params.out_channels // params.groups, LANES)
        step = OUTPUTS * sum(max(v, LEAST_VECTORS) for v in vectors) * SECONDS_PER_VECTOR
        tiles = shape[0] * params.groups * -(-math.prod(shape[2:]) // OUTPUTS)
        computed = tiles * (taps(params) * step + len(vectors) * SECONDS_PER_TILE)
        read = voxels_read(shape, params, BLOCK_BYTES // (4 * params.in_channels // params.groups))
        voxels = read * SECONDS_PER_VOXEL + math.prod(shape) * SECONDS_PER_OUTPUT
        weights = math.prod(params.weight_shape) * SECONDS_PER_WEIGHT
        return (computed + voxels + weights) * problem.dtype.itemsize / 4

    def needs(self, problem: Problem) -> Needs:
        """No grid: a sum's order is that of its taps, wherever the block lies."""
        params = problem.params
        channels = params.out_channels // params.groups
        # Weights as they came, and in the order of tiles that may not be full.
        padded = sum(_vectors(channels, LANES)) * LANES / channels
        return Needs((1, 1, 1), BLOCK_BYTES, int((1 + padded) * weight_bytes(problem)) + 8 * taps(params))

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:  # noqa: ARG002  # the protocol's signature
        """Sums of some tiles, and where outputs lie and what they see."""
        return 2 * 8 * math.prod(box) + SCRATCH_BYTES

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedChannels:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedChannels(problem.params, weight, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


def _vectors(channels: int, lanes: int) -> list[int]:
    """Vectors of each tile's channels: as even as can be.

    >>> _vectors(99, 16), _vectors(64, 16), _vectors(5, 16)
    ([3, 2, 2], [2, 2], [1])
    """
    from volconv.engines.cpu.channel_loops import MOST_VECTORS

    vectors = -(-channels // lanes)
    tiles = -(-vectors // MOST_VECTORS)
    return [vectors // tiles + (i < vectors % tiles) for i in range(tiles)]


class _Tiles:
    """Neighbouring channels whose tiles have so many vectors: their loop and weights."""

    def __init__(self, first: int, vectors: int, blocks: int, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        from volconv.engines.cpu.channel_loops import compiled_channels
        from volconv.engines.cpu.simd import lanes

        self.first, self.width = first, vectors * lanes(weight.dtype)
        self.loop = compiled_channels(weight.dtype, vectors)
        groups, channels, steps = weight.shape
        self.count = min(blocks * self.width, channels - first)
        self.weights = np.zeros((groups, blocks, steps, self.width), weight.dtype)
        self.bias = np.zeros((groups, blocks, self.width), bias.dtype)
        for i in range(blocks):
            part = slice(first + i * self.width, min(first + (i + 1) * self.width, channels))
            many = part.stop - part.start
            self.weights[:, i, :, :many] = weight[:, part].swapaxes(1, 2)
            self.bias[:, i, :many] = bias[:, part]


class PreparedChannels:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        from volconv.engines.cpu.simd import lanes

        self._params, self._rows = params, params.out_channels // params.groups
        steps = taps(params)
        exact = weight.dtype.kind == "i"
        self._sums = Sums.of(steps, steps if exact else ROUNDINGS)
        grouped = weight.reshape(params.groups, self._rows, steps), bias.reshape(params.groups, self._rows)
        vectors = _vectors(self._rows, lanes(weight.dtype))
        self._tiles, first = [], 0
        for each in sorted(set(vectors), reverse=True):
            self._tiles.append(_Tiles(first, each, vectors.count(each), *grouped))
            first += self._tiles[-1].count
        self._buffers = Buffers()

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        from volconv.engines.cpu.channel_loops import outputs_of_a_tile, scratch_size

        params, chain = self._params, self._sums.chain
        with groups_of(block, out, self._rows) as groups:
            (data, target), count = groups[0], len(groups)
            together = outputs_of_a_tile()
            seen = _places(out.shape[1:], data.strides[1:], params.stride, together)
            places = _places(out.shape[1:], target.strides[1:], (1, 1, 1), together)
            offsets = _offsets(params, data.strides)
            group = first_group, first_group + count, len(block) // count * data.strides[0]
            for tiles in self._tiles:
                tiles.loop(
                    data.address,
                    target.volume(tiles.first).address,
                    seen,
                    places,
                    offsets,
                    tiles.weights,
                    tiles.bias,
                    (*group, self._rows * target.strides[0]),
                    (tiles.count, target.strides[0]),
                    math.prod(out.shape[1:]),
                    (chain, max(1, WEIGHT_BYTES // (chain * tiles.width * data.itemsize)), self._sums.kind == 2),
                    self._buffers.get("sums", (scratch_size(tiles.width),), block.dtype),
                )


@lru_cache(maxsize=64)
def _places(
    shape: tuple[int, ...], apart: tuple[int, ...], stride: tuple[int, ...], together: int
) -> NDArray[np.int64]:
    """Where each output of a box lies, or what it first sees; the last one's is repeated to fill a tile."""
    d, h, w = (np.arange(n) * a * s for n, a, s in zip(shape, apart, stride, strict=True))
    places = (d[:, None, None] + h[:, None] + w).reshape(-1)
    return np.pad(places, (0, -len(places) % together), mode="edge")


@lru_cache(maxsize=64)
def _offsets(params: Conv3dParams, apart: tuple[int, ...]) -> NDArray[np.int64]:
    """Where each tap lies from the first voxel that an output sees."""
    channels = np.arange(params.in_channels // params.groups) * apart[0]
    d, h, w = (np.arange(n) * dil * a for n, dil, a in zip(params.kernel_size, params.dilation, apart[1:], strict=True))
    return (channels[:, None, None, None] + d[:, None, None] + h[:, None] + w).reshape(-1)
