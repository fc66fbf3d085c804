"""Programs for the register tile: which tap is added to which row of sums, when, in which order.

The rows of a tile are one of two things, and either way share what they load:

- *channels*: neighbouring output channels of one plane. Each step is a tap, with a weight for every row.
- *neighbours*: neighbouring outputs of one channel along D or H. A step is a place along that axis that serves those
  rows whose kernels reach it: row ``r`` sees place ``i`` with layer ``i - r`` of the kernel.

An output's taps come in one order, and its sums are parted at the same taps, whatever its row or tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines.cpu.simd import compiled_correlate, patterns, tile_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.engines.cpu.flat import Flat, FlatOutput, TapPlaces

#: Taps summed in plain order before the sum is added, with compensation, to a total. Each may err by half an epsilon of
#: the sum of magnitudes; with one for the parts' additions, one for the total and one for the bias, 27 stay under the
#: bound of 16 epsilon.
CHAIN = 27


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Steps of a tile.

    Parameters
    ----------
    places : (steps, 4) array
        Where each step's data lie: plane (of channel and phase), then D, H, W.
    weights : (blocks, steps, rows) array
    segments : (segments, 4) array
        Pattern of rows, first and last step, and rows to flush before it (bits).
    chained : bool
        Whether anything is flushed at all.
    """

    places: NDArray[np.int64]
    weights: NDArray[Any]
    segments: NDArray[np.int64]
    chained: bool

    def without_zeros(self) -> Program:
        """The same sums without steps of zero weights alone: equal where the data are finite."""
        kept = self.weights.any(axis=(0, 2))
        before = np.concatenate([[0], np.cumsum(kept)])
        segments = self.segments.copy()
        segments[:, 1:3] = before[segments[:, 1:3]]
        return Program(
            self.places[kept], np.ascontiguousarray(self.weights[:, kept]), segments, self.chained
        )


class _Builder:
    """Collects steps into segments, and sees to it that no sum grows longer than a chain."""

    def __init__(self, numbers: dict[tuple[int, int], int], chain: int) -> None:
        self.numbers, self.chain = numbers, chain
        self.places: list[Any] = []
        self.weights: list[Any] = []
        self.segments: list[list[int]] = []
        self.length: dict[int, int] = {}

    def add(self, low: int, high: int, places: NDArray[np.int64], weights: NDArray[Any]) -> None:
        """Add steps for rows ``low`` to ``high``; (..., steps, rows) weights are zero elsewhere."""
        for first in range(0, len(places), self.chain):
            part = slice(first, first + self.chain)
            steps = len(places[part])
            flushed = sum(1 << r for r in range(low, high) if self.length.get(r, 0) + steps > self.chain)
            for r in range(low, high):
                self.length[r] = steps + (0 if flushed >> r & 1 else self.length.get(r, 0))
            begin = sum(map(len, self.places))
            pattern = self.numbers[low, high]
            if not flushed and self.segments and self.segments[-1][0] == pattern:
                self.segments[-1][2] += steps
            else:
                self.segments.append([pattern, begin, begin + steps, flushed])
            self.places.append(places[part])
            self.weights.append(weights[..., part, :])

    def program(self) -> Program:
        return Program(
            np.concatenate(self.places),
            np.ascontiguousarray(np.concatenate(self.weights, axis=-2)),
            np.array(self.segments, dtype=np.int64),
            any(segment[3] for segment in self.segments),
        )


def channel_program(places: TapPlaces, weight: NDArray[Any], tall: bool, chain: int) -> Program:
    """Rows are output channels, as many as the (C_out, C_in, kD, kH, kW) weights have: whole tiles of them."""
    shape = tile_shape(weight.dtype, tall)
    builder = _Builder({p: i for i, p in enumerate(patterns(shape))}, chain)
    weights = weight.reshape(-1, shape.rows, places.taps.reshape(-1, 4).shape[0]).swapaxes(1, 2)
    builder.add(0, shape.rows, places.taps.reshape(-1, 4), weights)
    return builder.program()


def neighbour_program(places: TapPlaces, weight: NDArray[Any], axis: int, rows: int, chain: int) -> Program:
    """Rows are neighbours along an axis (0 is D, 1 is H); (C_in, kD, kH, kW) weights of one output channel."""
    shape = tile_shape(weight.dtype, tall=False)
    builder = _Builder({p: i for i, p in enumerate(patterns(shape))}, chain)
    taps = np.moveaxis(places.taps, 1 + axis, 1)  # (C_in, layers, ..., 4)
    weight = np.moveaxis(weight, 1 + axis, 1)
    step = np.zeros(4, np.int64)
    step[1 + axis] = places.neighbour[axis]
    for c in range(len(taps)):
        for layers in places.layers[axis]:  # those of one phase, each one ``step`` after the other
            for i in range(len(layers) + rows - 1):
                low, high = max(0, i - len(layers) + 1), min(rows, i + 1)
                where = taps[c, layers[0]].reshape(-1, 4) + i * step
                weights = np.zeros((len(where), shape.rows), weight.dtype)
                for r in range(low, high):
                    weights[:, r] = weight[c, layers[i - r]].reshape(-1)
                builder.add(low, high, where, weights[None])
    return builder.program()


class _Unit(NamedTuple):
    """Output channels of one group that are computed together."""

    first: int
    count: int  # 1: tiles are of neighbours
    loop: Callable[..., None]
    bias: NDArray[Any]
    program: Callable[[int, bool], Program]  # for so many rows; with or without zeros


class Correlation:
    """Valid correlation of flat data with the weights of one group.

    Parameters
    ----------
    places : TapPlaces
    weight : (C_out, C_in, kD, kH, kW) array
        In the dtype of the data, which is real.
    bias : (C_out,) array
    axis : int
        Along which outputs of one channel share a tile: 0 is D, 1 is H.
    chain : int
        Most taps that are summed in plain order.
    """

    def __init__(
        self, places: TapPlaces, weight: NDArray[Any], bias: NDArray[Any], axis: int = 0, chain: int = CHAIN
    ) -> None:
        if weight.dtype.kind == "i":
            chain = weight.size  # integers are exact
        self._axis, self._step = axis, places.neighbour[axis]
        low, high = (tile_shape(weight.dtype, tall) for tall in (False, True))
        self._rows, self._width = low.rows, low.width
        tall = high != low and len(weight) >= high.rows
        rows = high.rows if tall else low.rows
        together = len(weight) // rows * rows
        self._units = []
        if together:

            @cache
            def channels(_rows: int, sparse: bool) -> Program:
                return channels(0, False).without_zeros() if sparse else channel_program(
                    places, weight[:together], tall, chain
                )  # fmt: skip

            blocks = np.ascontiguousarray(bias[:together].reshape(-1, rows))
            self._units.append(_Unit(0, together, compiled_correlate(weight.dtype, tall), blocks, channels))
        for c in range(together, len(weight)):

            @cache
            def neighbours(rows: int, sparse: bool, c: int = c) -> Program:
                dense = neighbour_program(places, weight[c], axis, rows, chain)
                return dense.without_zeros() if sparse else dense

            loop = compiled_correlate(weight.dtype, False)
            self._units.append(_Unit(c, 1, loop, np.full((1, low.rows), bias[c], weight.dtype), neighbours))
        #: Whether it pays to leave out zero weights.
        self.sparse = any(
            4 * len(u.program(self._rows, True).places) <= 3 * len(u.program(self._rows, False).places)
            for u in self._units
        )
        self._offsets: dict[Any, NDArray[np.int64]] = {}

    def __call__(self, flat: Flat, out: FlatOutput, finite: bool) -> None:
        """Correlate one block.

        Parameters
        ----------
        flat : Flat
            The block of one group.
        out : FlatOutput
        finite : bool
            Whether the data are all finite, so that zero weights may be left out.
        """
        (_, plane, pitch, _), (_, depth, height, width) = flat.strides, out.shape
        for unit in self._units:
            target = out.data[unit.first * out.strides[0] :]
            if unit.count > 1:
                lines = _Lines(height, width, pitch, out.strides[2])
                tiles = _Tiles(unit.count, 0, out.strides[0])
                self._run(unit, finite, flat, target, _Tiles(depth, plane, out.strides[1]), tiles, lines)
                continue
            along, across = _Tiles(depth, plane, out.strides[1]), _Lines(height, width, pitch, out.strides[2])
            if self._axis == 1:
                along, across = (
                    _Tiles(height, pitch, out.strides[2]),
                    _Lines(depth, width, plane, out.strides[1]),
                )
            for start in range(min(self._step, along.count)):  # outputs a step apart see the same places
                many = -(-(along.count - start) // self._step)
                whole = many // self._rows * self._rows
                for first, count in ((0, whole), (whole, many - whole)):
                    if count:
                        place = start + first * self._step
                        tiles = _Tiles(count, self._step * along.stride, self._step * along.out_stride)
                        begin, rest = flat.data[place * along.stride :], target[place * along.out_stride :]
                        self._run(unit, finite, flat._replace(data=begin), rest, _Tiles(1, 0, 0), tiles, across)

    def _run(
        self, unit: _Unit, finite: bool, flat: Flat, target: NDArray[Any], slices: _Tiles, tiles: _Tiles, lines: _Lines
    ) -> None:
        """All tiles of one unit, ``slices`` one after the other."""
        rows = min(self._rows, tiles.count)
        sparse = finite and self.sparse
        program = unit.program(rows, sparse)
        key = unit.first, rows, sparse, flat.strides
        offsets = self._offsets.get(key)
        if offsets is None:
            offsets = self._offsets[key] = program.places @ np.array(flat.strides)
        unit.loop(
            flat.data,
            offsets,
            program.weights,
            unit.bias,
            program.segments,
            program.chained,
            target,
            (slices.count, tiles.count, lines.count, lines.width),
            (slices.stride, tiles.stride, lines.stride),
            (slices.out_stride, tiles.out_stride, lines.out_stride),
            lines.joined(self._width),
        )


class _Tiles(NamedTuple):
    """So many outputs along one axis, and how far apart they lie in the data and in the output."""

    count: int
    stride: int
    out_stride: int


class _Lines(NamedTuple):
    """The same for lines of outputs along W."""

    count: int
    width: int
    stride: int
    out_stride: int

    def joined(self, tile: int) -> bool:
        """Whether to compute what lies between two lines, too, as that costs less than tiles that are not full."""
        return -(-((self.count - 1) * self.stride + self.width) // tile) < self.count * -(-self.width // tile)
