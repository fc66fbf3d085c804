"""Valid correlation of a block with the weights of some groups, by programs for the register tile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines.cpu.programs import ROUNDINGS, Neighbours, Program, Sums, channel_program
from volconv.engines.cpu.tile import compiled_correlate, tile_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.engines.cpu.flat import Flat, TapPlaces


def constant(program: Program) -> Callable[[int], Program]:
    """The same program for any number of rows: channels of no output have weights of zero."""
    return lambda _: program


class _Ready(NamedTuple):
    """A program with the weights of each group."""

    program: Program
    weights: NDArray[Any]


class _Unit:
    """Output channels of a group that are computed together: their programs, by rows of a tile, and weights."""

    def __init__(
        self,
        first: int,
        count: int,
        rows: int,
        make: Callable[[int], Program],
        weight: NDArray[Any],
        bias: NDArray[Any],
    ) -> None:
        self.first, self.count, self.rows = first, count, rows
        self._make = make
        groups, taps = len(weight), math.prod(weight.shape[2:])
        together = rows if count > 1 else 1
        blocks = -(-count // together)
        kernels, biases = (
            np.zeros((groups, blocks * together, taps), weight.dtype),
            np.zeros((groups, blocks * together), bias.dtype),
        )
        kernels[:, :count] = weight[:, first : first + count].reshape(groups, count, taps)
        biases[:, :count] = bias[:, first : first + count]
        self._kernels = kernels.reshape(groups, blocks, together, taps)
        self.bias = np.array(np.broadcast_to(biases.reshape(groups, blocks, together), (groups, blocks, rows)))
        self._ready: dict[tuple[int, int | None], _Ready] = {}
        self.ready(rows, None)  # before there are threads that would all make it

    def ready(self, rows: int, group: int | None) -> _Ready:
        """The program for so many rows: all groups', or one group's own without its zeros."""
        found = self._ready.get((rows, group))
        if found is None:
            if group is None:
                program = self._make(rows)
                weights = np.stack([program.weights(kernels) for kernels in self._kernels])
                found = _Ready(program, weights)
            else:
                dense = self.ready(rows, None)
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
        dtype, taps = weight.dtype, math.prod(weight.shape[2:])
        if dtype.kind == "i":
            roundings = taps  # integers are exact
        #: Whether it pays to leave out zero weights.
        self.sparse = bool(2 * np.count_nonzero(weight) < weight.size)
        self._places, self._stretch = places, stretch
        self._axis, self._step = axis, places.neighbour[axis]
        self._channels = weight.shape[1]
        self._units: list[_Unit] = []
        first, count = 0, weight.shape[1]
        for shape in (tile_shape(dtype, tall) for tall in (True, False)):
            # A tile of which a quarter is nobody's costs less than its channels one by one.
            whole = (count - first + shape.rows // 4) // shape.rows * shape.rows
            if together := min(whole, count - first):
                program = channel_program(places, shape, Sums.of(taps, roundings))
                compiled_correlate(dtype, shape)
                self._units.append(_Unit(first, together, shape.rows, constant(program), weight, bias))
                first += together
        if first < count:
            neighbours = Neighbours.of(places, axis, dtype, roundings, self.sparse)
            for c in range(first, count):
                self._units.append(_Unit(c, 1, neighbours.shape.rows, neighbours.program, weight, bias))
        self._offsets: dict[Any, NDArray[np.int64]] = {}

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
                    self._tiles(unit, first_group + i, 1, own, data, begin, end, planes, channels, lines)
                continue
            along, rows = planes, unit.rows
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
                        self._tiles(unit, first_group, groups.many, own, data, begin, end, groups, tiles, lines)

    def _tiles(
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
        rows = min(unit.rows, tiles.many)
        program, weights = unit.ready(rows, own)
        key = unit.count > 1, rows, own, own is not None and unit.first, data.strides
        offsets = self._offsets.get(key)
        if offsets is None:
            offsets = self._offsets[key] = program.offsets(data.strides)
        compiled_correlate(weights.dtype, program.shape)(
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
            lines.joined(program.shape.lanes),
            1 if unit.count > 1 else self._stretch,
        )


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
