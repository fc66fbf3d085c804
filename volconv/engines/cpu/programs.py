"""Programs for the register tile: which tap is added to which row of sums, when, in which order.

The rows of a tile are one of two things, and either way share what they load:

- *channels*: neighbouring output channels of one plane. Each step is a tap, with a weight for every row.
- *neighbours*: neighbouring outputs of one channel along D or H. A step is a place along that axis that serves those
  rows whose kernels reach it: row ``r`` sees place ``i`` with layer ``i - r`` of the kernel.

An output's taps come in one order, and its sums are parted at the same taps, whatever its row or tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines.cpu.tile import TileShape, compiled_correlate, patterns, tile_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines.cpu.flat import TapPlaces

#: Widths of kernels whose taps along W are a run, loaded once; and the size of kernels whose steps are code, not data.
RUNS, CYCLE = (3, 5, 7), 3

#: How often a term of a direct sum may be rounded, each time by half an epsilon: with the bias that stays under the
#: bound of 16 epsilon.
ROUNDINGS = 31


class Sums(NamedTuple):
    """How sums are formed: in chains of so many taps, whose results are added up.

    ``kind`` is 0 where one chain is all; 1 where chains are added as they are; 2 with compensation. ``part`` taps are
    never split between two chains.
    """

    chain: int
    kind: int
    part: int = 1

    @classmethod
    def of(cls, taps: int, roundings: int) -> Sums:
        """The fewest chains such that no term is rounded more often than that.

        A term is rounded once for each tap of its chain, and once for each chain that is added; with compensation that
        is twice in all, and once for the total (see ``_Tile._added`` in :mod:`volconv.engines.cpu.tile_kernels`).

        >>> Sums.of(27, 31), Sums.of(125, 31), Sums.of(343, 31)
        (Sums(chain=27, kind=0, part=1), Sums(chain=25, kind=1, part=1), Sums(chain=28, kind=2, part=1))
        """
        return cls.of_parts(taps, 1, roundings)

    @classmethod
    def of_parts(cls, parts: int, taps: int, roundings: int) -> Sums:
        """The same for parts of so many taps, which are not split.

        >>> Sums.of_parts(14, 9, 31), Sums.of_parts(96, 9, 31)
        (Sums(chain=27, kind=1, part=9), Sums(chain=27, kind=2, part=9))
        """
        if parts * taps <= roundings:
            return cls(parts * taps, 0, taps)
        for chains in range(2, roundings):
            chain = -(-parts // chains) * taps
            if chain + chains - 1 <= roundings:
                return cls(chain, 1, taps)
        return cls((roundings - 3) // taps * taps, 2, taps)


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
        Pattern of rows, first and last step (run of steps), and rows to flush before it (bits).
    chained : int
        How the parts of a sum are added up: the kind of :class:`Sums`.
    shape : TileShape
        Of the tile that carries it out.
    """

    places: NDArray[np.int64]
    taps: NDArray[np.int64]
    segments: NDArray[np.int64]
    chained: int
    shape: TileShape

    def offsets(self, strides: tuple[int, ...]) -> NDArray[np.int64]:
        """Where the data of each run of steps lie."""
        return np.ascontiguousarray((self.places @ np.array(strides))[:: self.shape.run])

    def weights(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Weights (blocks, steps, rows) of (blocks, rows or 1, taps) kernels."""
        if rows.shape[1] > 1:  # channels: each row has a kernel of its own, and all taps in order
            return np.ascontiguousarray(rows.swapaxes(1, 2))
        padded = np.concatenate([rows[:, 0], np.zeros((len(rows), 1), rows.dtype)], axis=1)
        return padded[:, self.taps]

    def only(self, kept: NDArray[np.bool_]) -> Program:
        """Some of the steps, where each is a run of its own; sums are parted where they were."""
        before = np.concatenate([[0], np.cumsum(kept)])
        segments = self.segments.copy()
        segments[:, 1:3] = before[segments[:, 1:3]]
        return replace(self, places=self.places[kept], taps=self.taps[kept], segments=segments)


class _Segments:
    """Collects steps into segments, and sees to it that no sum grows longer than a chain."""

    def __init__(self, shape: TileShape, sums: Sums) -> None:
        self._sums, self._rows = sums, range(shape.rows)
        self._numbers = {pattern: i for i, pattern in enumerate(patterns(shape))}
        self._found: list[list[int]] = []
        self._length = [0] * shape.rows

    def add(self, low: int, high: int, steps: int) -> None:
        """Add so many steps for rows ``low`` to ``high``."""
        pattern = self._numbers[low, high]
        while steps:
            part = min(steps, self._sums.part if self._sums.part > 1 else self._sums.chain)
            flushed = self._flushed(low, high, part)
            if not flushed and self._found and self._found[-1][0] == pattern:
                self._found[-1][2] += part
            else:
                self._append(pattern, part, flushed)
            steps -= part

    def add_cycle(self, steps: int, taps: int) -> None:
        """Add the steps of a tile's cycle, in which each row has so many taps."""
        self._append(0, steps, self._flushed(0, len(self._rows), taps))

    def _append(self, pattern: int, steps: int, flushed: int) -> None:
        end = self._found[-1][2] if self._found else 0
        self._found.append([pattern, end, end + steps, flushed])

    def _flushed(self, low: int, high: int, taps: int) -> int:
        """Count taps of some rows; which of those (bits) must begin another chain."""
        flushed = 0
        for r in self._rows[low:high]:
            if self._length[r] + taps > self._sums.chain:
                flushed |= 1 << r
                self._length[r] = 0
            self._length[r] += taps
        return flushed

    def array(self, run: int = 1) -> NDArray[np.int64]:
        """All, as a :class:`Program` has them."""
        found = np.array(self._found, dtype=np.int64)
        found[:, 1:3] //= run
        return found


def channel_program(places: TapPlaces, shape: TileShape, sums: Sums) -> Program:
    """Rows are output channels."""
    where = places.taps.reshape(-1, 4)
    segments = _Segments(shape, sums)
    segments.add(0, shape.rows, len(where))
    taps = np.broadcast_to(np.arange(len(where))[:, None], (len(where), shape.rows))
    return Program(where, taps, segments.array(), sums.kind, shape)


def neighbour_program(places: TapPlaces, shape: TileShape, axis: int, rows: int, sums: Sums) -> Program:
    """Rows, so many of a tile's, are neighbours along an axis (0 is D, 1 is H); a tile with a cycle has no others."""
    channels, *kernel = places.taps.shape[:4]
    number = np.moveaxis(np.arange(math.prod(kernel)).reshape(kernel), axis, 0).reshape(kernel[axis], -1)
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
        if shape.cycle:
            segments.add_cycle(len(steps), number.size)
            continue
        for low, high in ranges:
            segments.add(low, high, number.shape[1])
    return Program(
        (np.concatenate(seen) + volumes).reshape(-1, 4),
        np.where(steps >= 0, steps + later, -1).reshape(-1, shape.rows),
        segments.array(shape.run),
        sums.kind,
        shape,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """How neighbouring outputs of one channel share a tile along an axis (0 is D, 1 is H)."""

    places: TapPlaces
    axis: int
    sums: Sums
    shape: TileShape
    whole: TileShape
    known: dict[int, Program]

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, places: TapPlaces, axis: int, dtype: np.dtype[Any], roundings: int, sparse: bool) -> Neighbours:
        """What to add in parts, runs and cycles, for kernels with these places; loops are compiled.

        Parts are layers across the axis, or as few equal ones of each as chains allow. Where single taps are left out,
        they have steps of their own.
        """
        channels, *kernel = places.taps.shape[:4]
        layer, most = math.prod(kernel) // kernel[axis], max(1, roundings - 3)
        width = kernel[2]
        side_by_side = width == 1 or (places.stride[2] == 1 and int(places.taps[0, 0, 0, 1, 3]) == 1)
        run = width if side_by_side and width in RUNS and width <= most and not sparse else 1
        parts = -(-layer // most)
        part = -(-layer // parts // run) * run
        sums = Sums.of_parts(channels * kernel[axis] * -(-layer // part), part, roundings)
        shape = tile_shape(dtype, False, run)
        cycle = run == CYCLE and kernel == [CYCLE] * 3 and len(places.layers[axis]) == 1 and sums.chain >= CYCLE**3
        whole = tile_shape(dtype, False, run, CYCLE) if cycle else shape
        for each in {shape, whole}:
            compiled_correlate(dtype, each)
        return cls(places, axis, sums, shape, whole, {})

    def program(self, rows: int) -> Program:
        """That of so many rows of a tile."""
        if rows not in self.known:
            shape = self.whole if rows == self.shape.rows else self.shape
            self.known[rows] = neighbour_program(self.places, shape, self.axis, rows, self.sums)
        return self.known[rows]
