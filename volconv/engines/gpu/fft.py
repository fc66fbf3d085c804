"""Large kernels through FFTs: overlapping tiles of the padded block, multiplied by the kernel's spectrum."""

from __future__ import annotations

import itertools
import math
from operator import gt
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.engines import Needs
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import gather, products
from volconv.engines.gpu.nonfinite import Guarded
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
    from volconv.engines.gpu.source import Source
    from volconv.params import Triple

#: Edges that transforms are fast of.
EDGES = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)

#: Voxels of the largest tile, and bytes of the weights' spectra.
MOST_VOXELS = 1 << 24
MOST_SPECTRA = 1 << 30

#: How often a tile goes through memory: gathered, transformed axis by axis there and back, multiplied, cut out.
PASSES = 14


class Tiling(NamedTuple):
    """Tiles (D, H, W) of the padded block, and the outputs that each gives."""

    tile: Triple
    outputs: Triple


class Fft:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "fft"

    def supports(self, problem: Problem) -> str | None:
        """Floating point, and spectra that fit."""
        params = problem.params
        if tiling_of(problem) is None:
            return f"fft needs kernels of less than {EDGES[-1]} voxels an axis, and of fewer channels or taps"
        if max(params.effective_kernel) == 1:
            return "fft needs kernels of more than one voxel"
        # Voxels that no output sees would be rounded into those that some do.
        if params.effective_kernel != params.kernel_size or any(map(gt, params.stride, params.kernel_size)):
            return "fft needs kernels without dilation, and strides that leave no voxel out"
        return rates.floating(self.name, problem)

    def cost(self, problem: Problem) -> float:
        """Tiles' ways through memory."""
        found = tiling_of(problem)
        assert found is not None  # noqa: S101  # as supports() says
        params, (volumes, _, *size) = problem.params, problem.output_shape
        tiles = volumes * math.prod(-(-n // o) for n, o in zip(size, found.outputs, strict=True))
        pairs = params.out_channels * (params.in_channels // params.groups)
        voxels = math.prod(found.tile) * ((params.in_channels + params.out_channels) * PASSES / 2 + 3 * pairs)
        return tiles * (12 * rates.LAUNCH + voxels * problem.dtype.itemsize / rates.MEMORY)

    def needs(self, problem: Problem) -> Needs:
        """The grid of tiles: what rounds an output is what lies in its tile."""
        found = tiling_of(problem)
        assert found is not None  # noqa: S101  # as supports() says
        return Needs(found.outputs, 0, _spectra(problem, found.tile))

    def workspace(self, problem: Problem, box: Triple) -> int:  # noqa: ARG002  # a tile at a time
        """A tile of all channels, its spectrum, products, and what transforms hold."""
        found, params = tiling_of(problem), problem.params
        assert found is not None  # noqa: S101  # as supports() says
        return 4 * (params.in_channels + params.out_channels) * math.prod(found.tile) * problem.dtype.itemsize

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        xp, params, found = device.xp, problem.params, tiling_of(problem)
        assert found is not None  # noqa: S101  # as supports() says
        tile, stride, dilation, axes = found.tile, params.stride, params.dilation, (-3, -2, -1)
        spread = xp.zeros((*weight.shape[:2], *tile), weight.dtype)
        spread[:, :, : dilation[0] * weight.shape[2] : dilation[0], : dilation[1] * weight.shape[3] : dilation[1],
               : dilation[2] * weight.shape[4] : dilation[2]] = xp.asarray(weight)  # fmt: skip
        # A correlation: the conjugate of the spectrum.
        spectra = xp.conj(xp.fft.rfftn(spread, axes=axes)).reshape(*weight.shape[:2], -1)
        del spread
        biases = xp.asarray(bias).reshape(-1, 1, 1, 1)
        # No more than outputs see: what else lies there depends on the block.
        seen_by = block_shape(found.outputs, params)
        steps = tuple(o * s for o, s in zip(found.outputs, stride, strict=True))

        def compute(source: Source, out: Array) -> None:
            voxels = device.empty((params.in_channels, *tile), problem.dtype)
            numbers = [range(-(-n // o)) for n, o in zip(out.shape[1:], found.outputs, strict=True)]
            for number in itertools.product(*numbers):
                first = tuple(i * step for i, step in zip(number, steps, strict=True))
                gather(device, stream, source.part((first[0], first[1], first[2]), seen_by), voxels)
                seen = xp.fft.rfftn(voxels, axes=axes).reshape(1, params.in_channels, -1)
                total = device.empty((1, params.out_channels, spectra.shape[-1]), spectra.dtype)
                products(device, stream, seen, spectra, total, groups=params.groups)
                values = xp.fft.irfftn(total.reshape(-1, *_half(tile)), s=tile, axes=axes)
                begin = [i * o for i, o in zip(number, found.outputs, strict=True)]
                size = [min(o, n - b) for o, n, b in zip(found.outputs, out.shape[1:], begin, strict=True)]
                z, y, x = (slice(b, b + n) for b, n in zip(begin, size, strict=True))
                valid = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(size, stride, strict=True))
                out[:, z, y, x] = values[:, *valid] + biases

        return Guarded(device, stream, problem, compute, weight, bias)


def tiling_of(problem: Problem) -> Tiling | None:
    """The tiles that cost least for each output; None where there are none."""
    params, size = problem.params, problem.output_shape[2:]
    choices = []
    for n, kernel, stride in zip(size, params.effective_kernel, params.stride, strict=True):
        most = max(1, n - 1) * stride + kernel
        edges = [edge for edge in EDGES if edge >= kernel]
        fitting = [edge for edge in edges if edge < most] + [edge for edge in edges if edge >= most][:1]
        if not fitting:
            return None
        choices.append([(edge, (edge - kernel) // stride + 1) for edge in fitting])
    best, price = None, math.inf
    for axes in itertools.product(*choices):
        d, h, w = (edge for edge, _ in axes)
        od, oh, ow = (outputs for _, outputs in axes)
        voxels = d * h * w
        if voxels > MOST_VOXELS or _spectra(problem, (d, h, w)) > MOST_SPECTRA:
            continue
        tiles = math.prod(-(-n // o) for n, o in zip(size, (od, oh, ow), strict=True))
        cost = tiles * (voxels * PASSES * problem.dtype.itemsize / rates.MEMORY + 15 * rates.LAUNCH)
        if cost < price:
            best, price = Tiling((d, h, w), (od, oh, ow)), cost
    return best


def _half(tile: Triple) -> Triple:
    """Size of the spectrum of real values."""
    return tile[0], tile[1], tile[2] // 2 + 1


def _spectra(problem: Problem, tile: Triple) -> int:
    params = problem.params
    pairs = params.out_channels * (params.in_channels // params.groups)
    return 3 * pairs * math.prod(_half(tile)) * 2 * problem.dtype.itemsize
