"""Programs for the register tile: which tap is added to which row of sums, when, in which order.

The rows of a tile are one of two things, and either way share what they load:

- *channels*: neighbouring output channels of one plane. Each step is a tap, with a weight for every row.
- *neighbours*: neighbouring outputs of one channel along D or H. A step is a place along that axis that serves those
  rows whose kernels reach it: row ``r`` sees place ``i`` with layer ``i - r`` of the kernel.

An output's taps come in one order, and its sums are parted at the same taps, whatever its row or tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines.cpu.tile import TileShape, compiled_correlate, patterns, tile_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.engines.cpu.flat import Flat, TapPlaces

#: How often a term of a direct sum may be rounded, each time by half an epsilon: with the bias that stays under the
#: bound of 16 epsilon.
ROUNDINGS = 31


class Sums(NamedTuple):
    """How sums are formed: in chains of so many taps, whose results are added up.

    ``kind`` is 0 where one chain is all; 1 where chains are added as they are; 2 with compensation.
    """

    chain: int
    kind: int

    @classmethod
    def of(cls, taps: int, roundings: int) -> Sums:
        """The fewest chains such that no term is rounded more often than that.

        A term is rounded once for each tap of its chain, and once for each chain that is added; with compensation that
        is twice in all, and once for the total (see ``_Tile._added`` in :mod:`volconv.engines.cpu.tile_kernels`).

        >>> Sums.of(27, 31), Sums.of(125, 31), Sums.of(343, 31)
        (Sums(chain=27, kind=0), Sums(chain=25, kind=1), Sums(chain=28, kind=2))
        """
        if taps <= roundings:
            return cls(taps, 0)
        for chains in range(2, roundings):
            chain = -(-taps // chains)
            if chain + chains - 1 <= roundings:
                return cls(chain, 1)
        return cls(roundings - 3, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Steps of a tile, whatever the weights.

    Parameters
    ----------
    places : (steps, 4) array
        Where each step's data lie: volume (of channel and phase), then D, H, W.
    taps : (steps, rows) array
        Which tap of its kernel each row takes its weight from; -1 for none.
    segments : (segments, 4) array
        Pattern of rows, first and last step, and rows to flush before it (bits).
    chained : int
        How the parts of a sum are added up: the kind of :class:`Sums`.
    """

    places: NDArray[np.int64]
    taps: NDArray[np.int64]
    segments: NDArray[np.int64]
    chained: int

    def weights(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Weights (blocks, steps, rows) of (blocks, rows or 1, taps) kernels."""
        if rows.shape[1] > 1:  # channels: each row has a kernel of its own, and all taps in order
            return np.ascontiguousarray(rows.swapaxes(1, 2))
        padded = np.concatenate([rows[:, 0], np.zeros((len(rows), 1), rows.dtype)], axis=1)
        return padded[:, self.taps]

    def only(self, kept: NDArray[np.bool_]) -> Program:
        """Some of the steps; sums are parted where they were."""
        before = np.concatenate([[0], np.cumsum(kept)])
        segments = self.segments.copy()
        segments[:, 1:3] = before[segments[:, 1:3]]
        return Program(self.places[kept], self.taps[kept], segments, self.chained)


class _Segments:
    """Collects steps into segments, and sees to it that no sum grows longer than a chain."""

    def __init__(self, shape: TileShape, sums: Sums) -> None:
        self._chain, self._rows = sums.chain, range(shape.rows)
        self._numbers = {pattern: i for i, pattern in enumerate(patterns(shape))}
        self._found: list[list[int]] = []
        self._length = [0] * shape.rows

    def add(self, low: int, high: int, steps: int) -> None:
        """Add so many steps for rows ``low`` to ``high``."""
        pattern, end = self._numbers[low, high], self._found[-1][2] if self._found else 0
        while steps:
            part, flushed = min(steps, self._chain), 0
            for r in self._rows[low:high]:
                if self._length[r] + part > self._chain:
                    flushed |= 1 << r
                    self._length[r] = 0
                self._length[r] += part
            if not flushed and self._found and self._found[-1][0] == pattern:
                self._found[-1][2] += part
            else:
                self._found.append([pattern, end, end + part, flushed])
            end, steps = end + part, steps - part

    def array(self) -> NDArray[np.int64]:
        """All, as a :class:`Program` has them."""
        return np.array(self._found, dtype=np.int64)


def channel_program(places: TapPlaces, shape: TileShape, sums: Sums) -> Program:
    """Rows are output channels."""
    where = places.taps.reshape(-1, 4)
    segments = _Segments(shape, sums)
    segments.add(0, shape.rows, len(where))
    taps = np.broadcast_to(np.arange(len(where))[:, None], (len(where), shape.rows))
    return Program(where, taps, segments.array(), sums.kind)


def neighbour_program(places: TapPlaces, shape: TileShape, axis: int, rows: int, sums: Sums) -> Program:
    """Rows, so many of a tile's, are neighbours along an axis (0 is D, 1 is H)."""
    channels, *kernel = places.taps.shape[:4]
    number = np.moveaxis(np.arange(math.prod(kernel)).reshape(kernel), axis, 0)
    number = number.reshape(len(number), -1)
    # Those of the first channel; the others' are the same, in later volumes and with later taps.
    where = np.moveaxis(places.taps[0], axis, 0).reshape(*number.shape, 4)
    step = np.zeros(4, np.int64)
    step[1 + axis] = places.neighbour[axis] * places.stride[axis]
    ranges, seen, taken = [], [], []
    for layers in places.layers[axis]:  # those of one phase, each one ``step`` after the other
        for i in range(len(layers) + rows - 1):
            low, high = max(0, i - len(layers) + 1), min(rows, i + 1)
            taps = np.full((number.shape[1], shape.rows), -1)
            for r in range(low, high):
                taps[:, r] = number[layers[i - r]]
            ranges.append((low, high))
            seen.append(where[layers[0]] + i * step)
            taken.append(taps)
    volumes, steps = np.zeros((channels, 1, 4), np.int64), np.concatenate(taken)
    volumes[:, 0, 0] = np.arange(channels) * len(places.phases)
    later = np.arange(channels)[:, None, None] * number.size
    segments = _Segments(shape, sums)
    for _ in range(channels):
        for low, high in ranges:
            segments.add(low, high, number.shape[1])
    return Program(
        (np.concatenate(seen) + volumes).reshape(-1, 4),
        np.where(steps >= 0, steps + later, -1).reshape(-1, shape.rows),
        segments.array(),
        sums.kind,
    )


class _Ready(NamedTuple):
    """A program with the weights of each group."""

    program: Program
    weights: NDArray[Any]


class _Unit:
    """Output channels of a group that are computed together: their programs, by rows of a tile, and weights."""

    def __init__(self, first: int, count: int, shape: TileShape, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        self.first, self.count, self.shape = first, count, shape
        self.loop = compiled_correlate(weight.dtype, shape)
        groups, taps = len(weight), math.prod(weight.shape[2:])
        rows = shape.rows if count > 1 else 1
        blocks = -(-count // rows)
        kernels, biases = (
            np.zeros((groups, blocks * rows, taps), weight.dtype),
            np.zeros((groups, blocks * rows), bias.dtype),
        )
        kernels[:, :count] = weight[:, first : first + count].reshape(groups, count, taps)
        biases[:, :count] = bias[:, first : first + count]
        self._kernels = kernels.reshape(groups, blocks, rows, taps)
        self.bias = np.array(np.broadcast_to(biases.reshape(groups, blocks, rows), (groups, blocks, shape.rows)))
        self._ready: dict[tuple[int, int | None], _Ready] = {}

    def ready(self, rows: int, group: int | None, make: Callable[[int], Program]) -> _Ready:
        """The program for so many rows: all groups', or one group's own without its zeros."""
        found = self._ready.get((rows, group))
        if found is None:
            if group is None:
                program = make(rows)
                weights = np.stack([program.weights(kernels) for kernels in self._kernels])
                found = _Ready(program, weights)
            else:
                dense = self.ready(rows, None, make)
                kept = dense.weights[group].any(axis=(0, 2))
                found = _Ready(dense.program.only(kept), np.ascontiguousarray(dense.weights[group][:, kept])[None])
            self._ready[rows, group] = found
        return found


class Correlation:
    """Valid correlation of data in memory with the weights of several groups.

    Parameters
    ----------
    places : TapPlaces
    weight : (groups, C_out, C_in, kD, kH, kW) array
        C_out and C_in of one group; in the dtype of the data, which is real.
    bias : (groups, C_out) array
    axis : int
        Along which outputs of one channel share a tile: 0 is D, 1 is H.
    roundings : int
        How often a term may be rounded.
    stretch : int
        So many tiles of neighbours' lines are computed at a time, where the output stays in cache; 0: one after the
        other, as the output lies.
    """

    def __init__(
        self,
        places: TapPlaces,
        weight: NDArray[Any],
        bias: NDArray[Any],
        axis: int = 0,
        roundings: int = ROUNDINGS,
        stretch: int = 0,
    ) -> None:
        taps = math.prod(weight.shape[2:])
        self._sums = Sums.of(taps, taps if weight.dtype.kind == "i" else roundings)  # integers are exact
        self._places, self._axis, self._stretch = places, axis, stretch
        self._step = places.neighbour[axis]
        self._channels = weight.shape[1]
        low, high = (tile_shape(weight.dtype, tall) for tall in (False, True))
        self._units: list[_Unit] = []
        first, count = 0, weight.shape[1]
        for shape in (high, low):
            # A tile of which a quarter is nobody's costs less than its channels one by one.
            whole = (count - first + shape.rows // 4) // shape.rows * shape.rows
            if together := min(whole, count - first):
                self._units.append(_Unit(first, together, shape, weight, bias))
                first += together
        self._units += [_Unit(c, 1, low, weight, bias) for c in range(first, count)]
        #: Whether it pays to leave out zero weights.
        self.sparse = bool(2 * np.count_nonzero(weight) < weight.size)
        self._offsets: dict[Any, NDArray[np.int64]] = {}
        self._neighbours: dict[int, Program] = {}

    def __call__(
        self, first_group: int, many: int, data: Flat, out: Flat, shape: tuple[int, ...], finite: bool
    ) -> None:
        """Correlate blocks of neighbouring groups.

        Parameters
        ----------
        first_group, many : int
            Which groups.
        data, out : Flat
            Their blocks, readable for a tile's width beyond them, and where their outputs go.
        shape : tuple of 3 ints
            Outputs (D, H, W).
        finite : bool
            Whether the data are all finite, so that zero weights may be left out.
        """
        volumes = self._places.taps.shape[0] * len(self._places.phases)
        apart = volumes * data.strides[0], self._channels * out.strides[0]
        if not (finite and self.sparse):
            groups = _Tiles(many, *apart)
            self._correlate(first_group, groups, data, out, shape, None)
            return
        for i in range(many):  # each has zeros of its own
            group = first_group + i
            own, target = data.volume(i * volumes), out.volume(i * self._channels)
            self._correlate(group, _Tiles(1, *apart), own, target, shape, group)

    def _correlate(
        self, first_group: int, groups: _Tiles, data: Flat, out: Flat, shape: tuple[int, ...], own: int | None
    ) -> None:
        depth, height, width = shape
        _, plane, pitch, _ = data.strides
        out_volume, out_plane, out_pitch, _ = out.strides
        sd, sh, _ = self._places.stride
        planes = _Tiles(depth, sd * plane, out_plane)
        for unit in self._units:
            target = out.volume(unit.first).address
            lines = _Lines(height, width, sh * pitch, out_pitch)
            if unit.count > 1:
                channels = _Tiles(unit.count, 0, out_volume)
                for i in range(groups.many):
                    begin, end = (
                        address + i * apart * data.itemsize
                        for address, apart in ((data.address, groups.stride), (target, groups.out_stride))
                    )
                    self._run(unit, first_group + i, 1, own, data, begin, end, planes, channels, lines)
                continue
            along, rows = planes, unit.shape.rows
            if self._axis == 1:
                along, lines = _Tiles(height, sh * pitch, out_pitch), _Lines(depth, width, sd * plane, out_plane)
            for start in range(min(self._step, along.many)):  # outputs a step apart see the same places
                many = -(-(along.many - start) // self._step)
                whole = many // rows * rows
                for first, count in ((0, whole), (whole, many - whole)):
                    if count:
                        place = (start + first * self._step) * data.itemsize
                        tiles = _Tiles(count, self._step * along.stride, self._step * along.out_stride)
                        begin, end = data.address + place * along.stride, target + place * along.out_stride
                        self._run(unit, first_group, groups.many, own, data, begin, end, groups, tiles, lines)

    def _run(
        self,
        unit: _Unit,
        group: int,
        sets: int,
        own: int | None,
        data: Flat,
        begin: int,
        target: int,
        slices: _Tiles,
        tiles: _Tiles,
        lines: _Lines,
    ) -> None:
        """All tiles of one unit from one address to another, ``slices`` one after the other.

        ``sets`` of weights, one for all slices or one for each, begin with those of a group; or they are that group's
        ``own``, without its zeros.
        """
        rows = min(unit.shape.rows, tiles.many)
        program, weights = unit.ready(rows, own, lambda rows: self._program(unit, rows))
        key = unit.count > 1, rows, own, own is not None and unit.first, data.strides
        offsets = self._offsets.get(key)
        if offsets is None:
            offsets = self._offsets[key] = program.places @ np.array(data.strides)
        unit.loop(
            begin,
            offsets,
            weights if own is not None else weights[group : group + sets],
            unit.bias[group : group + sets],
            program.segments,
            program.chained,
            target,
            (slices.many, tiles.many, lines.many, lines.width),
            (slices.stride, tiles.stride, lines.stride),
            (slices.out_stride, tiles.out_stride, lines.out_stride),
            lines.joined(unit.shape.lanes),
            1 if unit.count > 1 else self._stretch,
        )

    def _program(self, unit: _Unit, rows: int) -> Program:
        if unit.count > 1:
            return channel_program(self._places, unit.shape, self._sums)
        if rows not in self._neighbours:  # shared by all channels
            self._neighbours[rows] = neighbour_program(self._places, unit.shape, self._axis, rows, self._sums)
        return self._neighbours[rows]


class _Tiles(NamedTuple):
    """So many outputs along one axis, and how far apart they lie in the data and in the output."""

    many: int
    stride: int
    out_stride: int


class _Lines(NamedTuple):
    """The same for lines of outputs along W."""

    many: int
    width: int
    stride: int
    out_stride: int

    def joined(self, lanes: int) -> bool:
        """Whether to compute what lies between two lines, too, as that costs less than vectors that are not full."""
        run = (self.many - 1) * self.stride + self.width
        return -(-run // lanes) < self.many * -(-self.width // lanes)
