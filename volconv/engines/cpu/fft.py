"""The fft algorithm: products of spectra, tile by tile (overlap-save). For large kernels.

Along D a tile of ``n`` reals is transformed as ``n/2`` complex numbers whose frequencies lie between those of the usual
transform: what wraps around changes its sign, which no output sees, and no frequency is one of half a number.
"""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.fft_loops import kernels_together, work_elements
from volconv.engines.cpu.fft_tiles import ELEMENT, RADICES, choose_tiles
from volconv.engines.cpu.memory import LINE, Buffers, with_slack
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.cpu.fft_tiles import Tiles
    from volconv.params import Conv3dParams, Triple


class Fft:
    """See :class:`volconv.engines.Engine`."""

    name = "fft"
    exact_spread = False
    compiled = True

    def supports(self, problem: Problem) -> str | None:
        """Floating point only."""
        return None if problem.dtype.kind == "f" else f"fft needs a floating-point dtype (got {problem.dtype})"

    def cost(self, problem: Problem) -> float:
        """Transforms and products at measured rates."""
        return choose_tiles(problem).seconds

    def needs(self, problem: Problem) -> Needs:
        """Blocks of whole tiles."""
        params, box = problem.params, choose_tiles(problem).box
        voxels = params.in_channels // params.groups * math.prod(block_shape(box, params))
        return Needs(box, voxels * problem.dtype.itemsize, 2 * weight_bytes(problem) + spectra_bytes(problem))

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:  # noqa: ARG002  # a group at a time
        """A tile between its transforms and what those across it take; a strided tile also as it is not."""
        params, tiles, item = problem.params, choose_tiles(problem), problem.dtype.itemsize
        channels, rows = params.in_channels // params.groups, params.out_channels // params.groups
        half, plane = tiles.size[0] // 2, tiles.size[1:]
        seen = [min(n, size) for n, size in zip(block_shape(tiles.box, params), tiles.size, strict=True)]
        values = half * (seen[1] * -(-seen[2] * item // LINE) + 1) * max(channels, rows)
        work = work_elements(channels, kernels_together(channels, plane, item), plane, item)
        dense = tiles.box[0] * tiles.box[1] * ((tiles.box[2] - 1) * params.stride[2] + 1)
        unseen = 0 if params.stride == params.dilation == (1, 1, 1) else channels * math.prod(seen)
        return (values + work + half) * ELEMENT + (dense + unseen) * item

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedFft:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedFft(problem.params, choose_tiles(problem), weight, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


def spectra_bytes(problem: Problem) -> int:
    """Bytes of the kernels' spectra, which are known along D only: about twice what their weights take."""
    params, (depth, *plane) = problem.params, choose_tiles(problem).size
    height, width = (
        n if k == 1 else e for n, k, e in zip(plane, params.kernel_size[1:], params.effective_kernel[1:], strict=True)
    )
    elements = depth // 2 * height * -(-width * problem.dtype.itemsize // LINE)
    return math.prod(params.weight_shape[:2]) * elements * ELEMENT


class Axis:
    """The transform along one axis, as the compiled loops read it.

    ``passes`` has a row for each pass: kind of butterfly, radix, bytes between a butterfly's elements, address of the
    twiddle factors, and how many butterflies have the same ones.
    """

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        rows, factors, left = [], [np.ones(0, np.complex128)], size
        for radix in radices(size):
            gap = left // radix
            at = 2 * dtype.itemsize * sum(map(len, factors))
            rows.append((RADICES.index(radix), radix, gap * ELEMENT, at, size // left))
            turns = np.outer(np.arange(1, gap), np.arange(1, radix)) / left
            factors.append(np.exp(-2j * np.pi * turns).reshape(-1))
            left = gap
        self._factors = pairs(np.concatenate(factors), dtype)
        self.passes = np.array(rows, np.int64).reshape(-1, 5)
        self.passes[:, 3] += self._factors.ctypes.data


def radices(size: int) -> list[int]:
    """Butterflies that a transform is made of.

    >>> radices(144), radices(96), radices(1)
    ([4, 4, 3, 3], [8, 4, 3], [])
    """
    twos = (size & -size).bit_length() - 1
    found = [8] * (twos // 3 - (twos > 3 and twos % 3 == 1)) + {0: [], 1: [4, 4] if twos > 3 else [2], 2: [4]}[twos % 3]
    size >>= twos
    for factor in (7, 5, 3):
        while size % factor == 0:
            found.append(factor)
            size //= factor
    return found


def pairs(numbers: NDArray[np.complex128], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Complex numbers as pairs of reals."""
    return numbers.astype(np.result_type(dtype, np.complex64)).view(dtype).reshape(-1, 2)


class PreparedFft:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, tiles: Tiles, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        from volconv.engines.cpu import fft_loops as kernels

        self._params, self._tiles, self._dtype, self._bias = params, tiles, weight.dtype, bias
        self._rows, self._channels = params.out_channels // params.groups, params.in_channels // params.groups
        self._enter, self._middle, self._leave = (
            compiled(weight.dtype)
            for compiled in (kernels.compiled_enter, kernels.compiled_middle, kernels.compiled_leave)
        )
        depth, height, width = tiles.size
        self._half, self._lanes = depth // 2, LINE // weight.itemsize
        plane = height, width
        self._together = kernels.kernels_together(self._channels, plane, weight.itemsize)
        self._work_elements = kernels.work_elements(self._channels, self._together, plane, weight.itemsize)
        # An axis along which kernels have one tap is not transformed.
        sizes = [1 if k == 1 else n for k, n in zip(params.kernel_size, (self._half, height, width), strict=True)]
        self._axes = [Axis(n, weight.dtype) for n in sizes]
        turns = np.exp(1j * np.pi * np.arange(self._half) / depth * (sizes[0] > 1))
        self._twists = pairs(turns.conj(), weight.dtype)
        self._untwists = pairs(turns / math.prod(sizes), weight.dtype)
        self._zeros = with_slack(self._elements(1), weight.dtype)
        self._zeros[:] = 0
        self._buffers = Buffers()

        self._kernels, self._kernel_shape = self._enter_kernels(weight)

    def _whole(self, width: int) -> int:
        return -(-width // self._lanes) * self._lanes

    def _enter_kernels(self, weight: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int]]:
        """Kernels transformed along D, and their size (H, W)."""
        params = self._params
        dilation = params.dilation
        size = (self._half, *self._tiles.size[1:])
        depth, height, width = (
            n if k == 1 else e for n, k, e in zip(size, params.kernel_size, params.effective_kernel, strict=True)
        )
        taps = np.zeros((depth, height, self._whole(width)), weight.dtype)
        # The spectrum of a single tap is the same everywhere, and so are its copies that nothing transforms.
        apart = tuple(
            slice(None) if k == 1 else slice(0, e, d)
            for k, e, d in zip(params.kernel_size, params.effective_kernel, dilation, strict=True)
        )
        elements = self._half * height * self._whole(width) // self._lanes
        spectra = with_slack(self._elements(len(weight) * self._channels * elements), weight.dtype)
        to = spectra.ctypes.data
        buffer = self._buffer("line", self._half)
        for kernel in weight.reshape(-1, *weight.shape[2:]):
            taps[..., :width][apart] = kernel
            self._enter_one(taps, (depth, height, width), buffer, to, elements // self._half * ELEMENT)
            to += elements * ELEMENT
        return spectra, (height, width)

    def _enter_one(self, values: NDArray[Any], shape: tuple[int, ...], buffer: NDArray[Any], to: int, gap: int) -> None:
        self._enter(
            self._zeros,
            values.ctypes.data,
            *values.strides[:2],
            shape,
            self._axes[0].passes,
            self._twists,
            buffer.ctypes.data,
            self._zeros.ctypes.data,
            to,
            gap,
        )

    def _multiply(self, group: int, seen: tuple[int, int], wanted: tuple[int, int]) -> None:
        """All that lies between the transforms along D."""
        kernel_gap = self._kernel_shape[0] * self._whole(self._kernel_shape[1]) // self._lanes * ELEMENT
        kernel_bytes = self._half * kernel_gap
        values, gaps = self._values(seen)
        at = values.ctypes.data
        self._middle(
            self._zeros,
            self._half,
            self._tiles.size[1:],
            at,
            (self._channels, *seen),
            gaps,
            self._kernels.ctypes.data + group * self._rows * self._channels * kernel_bytes,
            self._kernel_shape,
            (kernel_bytes, kernel_gap),
            at,
            (self._rows, *wanted),
            self._params.stride[1],
            self._axes[1].passes,
            self._axes[2].passes,
            self._buffer("work", self._work_elements).ctypes.data,
            self._together,
        )

    def _values(self, seen: tuple[int, int]) -> tuple[NDArray[Any], tuple[int, int]]:
        """Where a tile's channels are between transforms, and bytes between channels and between frequencies along D.

        The latter is an odd number of elements: a power of two would send all to a few lines of the caches.
        """
        gap = seen[0] * self._whole(seen[1]) // self._lanes | 1
        elements = self._half * gap
        values = self._buffer("values", elements * max(self._channels, self._rows))
        return values, (elements * ELEMENT, gap * ELEMENT)

    def _elements(self, count: int) -> tuple[int]:
        """Shape of an array of numbers that holds so many elements."""
        return (count * 2 * self._lanes,)

    def _buffer(self, name: str, elements: int) -> NDArray[Any]:
        """Memory of this thread."""
        return self._buffers.get(name, self._elements(elements), self._dtype)

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        box, stride, kernel = self._tiles.box, self._params.stride, self._params.effective_kernel
        for corner in itertools.product(*(range(0, n, b) for n, b in zip(out.shape[1:], box, strict=True))):
            shape = [min(b, n - c) for c, b, n in zip(corner, box, out.shape[1:], strict=True)]
            here = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
            # What lies beyond the size of the transform is zeros: see ``fft_tiles._candidates``.
            seen = tuple(
                slice(c * s, c * s + min((n - 1) * s + k, size))
                for c, n, s, k, size in zip(corner, shape, stride, kernel, self._tiles.size, strict=True)
            )
            for group in range(len(out) // self._rows):
                values = block[(slice(group * self._channels, (group + 1) * self._channels), *seen)]
                target = out[(slice(group * self._rows, (group + 1) * self._rows), *here)]
                self._tile(self._without_unseen(values, shape), target, first_group + group)

    def _tile(self, values: NDArray[Any], target: NDArray[Any], group: int) -> None:
        """One tile of one group."""
        depth, height, width = target.shape[1:]
        step = self._params.stride
        across = (width - 1) * step[2] + 1
        seen = values.shape[2], values.shape[3]
        memory, gaps = self._values(seen)
        at = memory.ctypes.data
        buffer = self._buffer("line", self._half)
        for channel, volume in enumerate(values):
            self._enter_one(volume, volume.shape, buffer, at + channel * gaps[0], gaps[1])
        self._multiply(group, seen, (height, across))
        direct = step[2] == 1 and target.strides[3] == target.itemsize
        for row, result in enumerate(target):
            dense = result if direct else np.empty((depth, height, across), self._dtype)
            self._leave(
                self._bias[group * self._rows + row :],
                at + row * gaps[0],
                gaps[1],
                (depth, height, across),
                step[0],
                self._axes[0].passes,
                self._untwists,
                buffer.ctypes.data,
                dense.ctypes.data,
                *dense.strides[:2],
            )
            if not direct:
                result[...] = dense[..., :: step[2]]

    def _without_unseen(self, values: NDArray[Any], outputs: list[int]) -> NDArray[Any]:
        """Zeros for voxels between taps that no output sees: a large one would leave its rounding errors everywhere."""
        params, kept = self._params, values
        for axis, (k, d, s, n) in enumerate(
            zip(params.kernel_size, params.dilation, params.stride, outputs, strict=True), 1
        ):
            if s == 1 and (d == 1 or n >= d):
                continue
            seen = (np.arange(n)[:, None] * s + np.arange(k) * d).reshape(-1)
            unseen = np.setdiff1d(np.arange(values.shape[axis]), seen)
            if unseen.size:
                if kept is values:
                    kept = with_slack(values.shape, self._dtype)
                    kept[...] = values
                kept[(slice(None),) * axis + (unseen,)] = 0
        return kept
