"""The winograd algorithm: fewer multiplications for kernels of 3 along D and H, at stride 1. For many channels.

F(2, 3) along an axis makes of two outputs that see four inputs, by six products, four sums of inputs and four products
(S. Winograd; A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). Along D and H that is 16
products in place of 36; along W the kernel is applied as it is, so that everything is done on whole rows of voxels.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import SLACK_BYTES, Needs, weight_bytes
from volconv.engines.cpu.flat import TapPlaces, groups_of
from volconv.engines.cpu.memory import Buffers
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.cpu.flat import Flat
    from volconv.params import Conv3dParams, Triple

#: Seconds for one multiply-add in float32; the steps that beginning and ending a tile takes the time of; seconds to
#: carry one voxel of input or output from or to one plane of Winograd's domain, to read or store one, and before all
#: (all set by tests/benchmarks/algorithms.py).
SECONDS_PER_MAC = 1 / 95e9
STEPS_OF_A_TILE = 12
SECONDS_PER_ELEMENT = 0.14e-9
SECONDS_PER_VOXEL = 0.45e-9
SECONDS_AT_FIRST = 0.6e-3

BLOCK_BYTES = 6 << 20
#: Inputs and products in Winograd's domain that are held at a time: one of their planes at a time is in L2 (set by
#: tests/benchmarks/algorithms.py).
DOMAIN_BYTES = 6 << 20


def winograd_axes(params: Conv3dParams) -> tuple[int, ...]:
    """Along which of D and H (0 and 1) it applies."""
    return tuple(axis for axis in (0, 1) if params.kernel_size[axis] == 3)


class Winograd:
    """See :class:`volconv.engines.Engine`."""

    name = "winograd"
    exact_spread = False
    compiled = True

    def supports(self, problem: Problem) -> str | None:
        """Floating point, stride 1, and a kernel of 3, or 3 and 1, along D and H."""
        params = problem.params
        if problem.dtype.kind != "f":
            return f"winograd needs a floating-point dtype (got {problem.dtype})"
        if params.stride != (1, 1, 1):
            return f"winograd needs stride 1 (got {params.stride})"
        if not winograd_axes(params) or set(params.kernel_size[:2]) - {1, 3}:
            return f"winograd needs a kernel of 3 along D and H, or of 3 and 1 (got {params.kernel_size})"
        return None

    def cost(self, problem: Problem) -> float:
        """Products at the measured rate, and the transforms."""
        params, shape = problem.params, problem.output_shape
        axes = winograd_axes(params)
        saved = (4 / 6) ** len(axes)
        # Tiles at the end of an axis are computed whole.
        for axis in axes:
            n = shape[2 + axis]
            saved *= 2 * _tile_count(n, params.dilation[axis]) / n
        per_group, depth = params.out_channels // params.groups, params.in_channels // params.groups
        steps = depth * params.kernel_size[2] + STEPS_OF_A_TILE
        macs = math.prod(shape) * steps * math.prod(params.kernel_size[:2]) * saved
        voxels = math.prod(shape) * (1 + params.in_channels / params.out_channels)
        seconds = macs * SECONDS_PER_MAC * (-(-per_group // 4) * 4 / per_group)
        seconds += voxels * (2 ** len(axes) * SECONDS_PER_ELEMENT + SECONDS_PER_VOXEL)
        return float(SECONDS_AT_FIRST + seconds * problem.dtype.itemsize / 4)

    def needs(self, problem: Problem) -> Needs:
        """Blocks of whole tiles, two outputs along each axis; with dilation, pairs of outputs so far apart."""
        params = problem.params
        d, h = (2 * params.dilation[a] if a in winograd_axes(params) else 1 for a in (0, 1))
        # Weights in Winograd's domain, formed in float64.
        return Needs((d, h, 1), BLOCK_BYTES, 10 * weight_bytes(problem))

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:  # noqa: ARG002  # a group at a time
        """A block and its products in Winograd's domain, so many tiles at a time; where tiles lie."""
        params, axes = problem.params, winograd_axes(problem.params)
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        channels = per_in + -(-per_out // 4) * 4  # filled up to the rows of a register tile
        planes, row = 1 << 2 * len(axes), channels * block_shape(box, params)[2] * problem.dtype.itemsize
        tiles = math.prod(_tile_count(box[a], params.dilation[a]) if a in axes else box[a] for a in (0, 1))
        held = min(max(DOMAIN_BYTES, planes * row), tiles * planes * row)
        return held + 2 * planes * SLACK_BYTES + 192 * tiles

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedWinograd:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedWinograd(problem.params, weight, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


class PreparedWinograd:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        from volconv.engines.cpu.programs import ROUNDINGS, Sums, channel_program
        from volconv.engines.cpu.tile import compiled_correlate, tile_shape
        from volconv.engines.cpu.winograd_loops import compiled_forward, compiled_inverse

        self._params, self._axes, self._dtype = params, winograd_axes(params), weight.dtype
        self._rows = params.out_channels // params.groups
        self._bias = np.ascontiguousarray(bias).reshape(params.groups, self._rows)
        shapes = [tile_shape(weight.dtype, tall) for tall in (True, False)]
        shape = min(shapes, key=lambda s: -(-self._rows // s.rows) * s.rows)
        self._lanes = shape.lanes
        self._padded_rows = -(-self._rows // shape.rows) * shape.rows
        # What remains of the kernel in Winograd's domain: its taps along W.
        kernel = _in_domain(weight, self._axes)
        rest = replace(params, kernel_size=(1, 1, params.kernel_size[2]))
        self._program = channel_program(
            TapPlaces.of(rest), shape, Sums.of(weight.shape[1] * params.kernel_size[2], ROUNDINGS)
        )
        self._planes, self._channels, taps = len(kernel), weight.shape[1], math.prod(kernel.shape[2:])
        padded = np.zeros((self._planes, params.groups, self._padded_rows, taps), weight.dtype)
        padded[:, :, : self._rows] = kernel.reshape(self._planes, params.groups, self._rows, taps)
        blocks = padded.reshape(self._planes, params.groups, -1, shape.rows, taps)
        self._weights = np.ascontiguousarray(blocks.transpose(1, 0, 2, 4, 3))  # (groups, planes, blocks, taps, rows)
        self._no_bias = np.zeros((self._planes, blocks.shape[2], shape.rows), weight.dtype)
        self._forward = compiled_forward(weight.dtype, len(self._axes))
        self._inverse = compiled_inverse(weight.dtype, len(self._axes))
        self._correlate = compiled_correlate(weight.dtype, shape)
        self._buffers = Buffers()

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        with groups_of(block, out, self._rows) as groups:
            for group, (data, target) in enumerate(groups, first_group):
                self._group(group, data, target, block.shape[1:], out.shape[1:])

    def _group(
        self, group: int, data: Flat, out: Flat, block_shape: tuple[int, ...], out_shape: tuple[int, ...]
    ) -> None:
        """One group, so many tiles at a time that their planes stay in cache."""
        inputs, outputs = self._tiles(data.strides, out.strides, block_shape, out_shape)
        channels, width, size = self._channels, block_shape[2], self._dtype.itemsize
        row_bytes = self._planes * (channels + self._padded_rows) * width * size
        together = self._together(len(inputs), width, max(1, DOMAIN_BYTES // row_bytes))
        slack = SLACK_BYTES // size
        plane, product_plane = (n * together * width + slack for n in (channels, self._padded_rows))
        domain = self._buffers.get("domain", (self._planes * plane,), self._dtype)
        products = self._buffers.get("products", (self._planes * product_plane,), self._dtype)
        offsets = self._program.places @ np.array([together * width, 0, 0, 1])
        for first in range(0, len(inputs), together):
            tiles = inputs[first : first + together]
            count = len(tiles)
            if count < together:
                offsets = self._program.places @ np.array([count * width, 0, 0, 1])
            self._forward(
                domain, tiles, data.address, data.strides[0], channels, domain.ctypes.data, width, plane, width
            )
            self._correlate(
                domain.ctypes.data,
                offsets,
                self._weights[group],
                self._no_bias,
                self._program.segments,
                self._program.chained,
                products.ctypes.data,
                # All tiles are one line, with what lies between their rows.
                (self._planes, self._padded_rows, 1, (count - 1) * width + out_shape[2]),
                (plane, 0, count * width),
                (product_plane, count * width, 0),
                False,
                1,
            )
            self._inverse(
                products.ctypes.data,
                product_plane,
                count * width,
                width,
                outputs[first : first + together],
                out.address,
                out.strides[0],
                self._bias[group],
                out_shape[2],
            )

    def _together(self, tiles: int, width: int, most: int) -> int:
        """How many tiles to carry over at a time: all in few parts, with few vectors of sums that are not full."""

        def vectors(together: int) -> int:
            whole, rest = divmod(tiles, together)
            return whole * (2 + together * width // self._lanes) + (2 + rest * width // self._lanes)

        return min(range(1, min(most, tiles) + 1), key=vectors)

    def _tiles(
        self,
        strides: tuple[int, ...],
        out_strides: tuple[int, ...],
        block_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the rows of each tile lie, and where its outputs go: (K, axes, 4 or 2) arrays; -1 is nowhere."""
        ranges = [
            _tile_rows(out_shape[axis], block_shape[axis], self._params.dilation[axis])
            if axis in self._axes
            else (np.arange(out_shape[axis])[:, None],) * 2
            for axis in (0, 1)
        ]
        found = []
        for i, apart in ((0, strides[1:3]), (1, out_strides[1:3])):
            d, h = (np.where(axis[i] < 0, -1, axis[i] * stride) for axis, stride in zip(ranges, apart, strict=True))
            if len(self._axes) == 2:
                n, m = len(d), len(h)
                tiles = np.stack([np.repeat(d, m, axis=0), np.tile(h, (n, 1))], axis=1)
            else:  # the other axis only shifts the rows of a tile
                both = d[:, None, :] + h[None, :, :]
                nowhere = np.broadcast_to((d[:, None, :] < 0) | (h[None, :, :] < 0), both.shape)
                tiles = np.where(nowhere, -1, both).reshape(-1, 1, both.shape[2])
            found.append(np.ascontiguousarray(tiles))
        return found[0], found[1]


def _in_domain(weight: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Weights in Winograd's domain, (planes, C_out, C_in, kW), formed in float64."""
    planes = weight.astype(np.promote_types(weight.dtype, np.float64))[None]
    for axis in axes:
        first, middle, last = np.moveaxis(planes, 3 + axis, 0)
        half, other = (first + last) / 2, middle / 2
        planes = np.stack([first, half + other, half - other, last], axis=1).reshape(-1, *half.shape[1:])
        planes = np.expand_dims(planes, 3 + axis)
    return planes.reshape(*planes.shape[:3], -1).astype(weight.dtype)


def _tile_count(size: int, dilation: int) -> int:
    """Pairs of outputs, ``dilation`` apart, that cover an axis."""
    return size // (2 * dilation) * dilation + min(size % (2 * dilation), dilation)


def _tile_rows(size: int, available: int, dilation: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs (n, 4) and outputs (n, 2) of the tiles along an axis, -1 where there is no such output.

    Where there is no second output, the fourth input may be missing, which that one alone sees: any stands for it.

    >>> [rows.tolist() for rows in _tile_rows(3, 5, 1)]
    [[[0, 1, 2, 3], [2, 3, 4, 4]], [[0, 1], [2, -1]]]
    """
    number = np.arange(_tile_count(size, dilation))
    first = number // dilation * 2 * dilation + number % dilation
    inputs = first[:, None] + dilation * np.arange(4)
    outputs = first[:, None] + dilation * np.arange(2)
    return np.minimum(inputs, available - 1), np.where(outputs < size, outputs, -1)
