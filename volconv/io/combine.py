"""A part of a volume, and several volumes as one: sources made of other sources."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import volume_compute_dtype
from volconv.errors import ShapeError
from volconv.geometry import grids_agree
from volconv.io.checks import check_within
from volconv.io.volume import Access, OpenVolume, real_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import Reading, VolumeInfo
    from volconv.region import Region


class Selected(OpenVolume):
    """Some volumes in time, and some channels, of a source; the rest is never read.

    Parameters
    ----------
    source : OpenVolume
        Closed with this one.
    time, channel : int or slice, optional
        An index from 0, or a slice of step 1; None takes all.
    name : str
        Of the file, for errors.

    Raises
    ------
    ShapeError
        The source does not have them.
    """

    def __init__(self, source: OpenVolume, time: int | slice | None, channel: int | slice | None, name: str) -> None:
        self._source = source
        n, c, *space = source.info.shape
        self._volume, volumes = _range("time", time, n, name)
        self._channel, channels = _range("channel", channel, c, name)
        d, h, w = space
        skipped = source.info.skipped_time + self._volume * (source.info.time_step or 0.0)
        self.info = replace(source.info, shape=(volumes, channels, d, h, w), skipped_time=skipped)

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region."""
        return self._source.read(self._moved(region))

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        self._source.read_into(self._moved(region), out)

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        self._source.expect(reading)

    def finish(self) -> None:
        """See :meth:`OpenVolume.finish`."""
        self._source.finish()

    def prefetch(self) -> None:
        """See :meth:`OpenVolume.prefetch`."""
        self._source.prefetch()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _moved(self, region: Region) -> Region:
        """The region as the source counts."""
        check_within(region, self.info.shape)
        n, c = self._volume, self._channel
        moved = region.along(0, region.start[0] + n, region.stop[0] + n)
        return moved.along(1, region.start[1] + c, region.stop[1] + c)


class Stacked(OpenVolume):
    """Volumes on one grid as the channels of one.

    Where dtypes or slopes differ, :meth:`read` gives real values, float32 or float64 as the widest of them asks.

    Parameters
    ----------
    sources : sequence of OpenVolume
        Closed with this one. The first one's header is carried on.
    names : sequence of str
        Of the files, for errors.

    Raises
    ------
    ShapeError
        Sizes or geometries differ.
    """

    def __init__(self, sources: Sequence[OpenVolume], names: Sequence[str]) -> None:
        first, infos = sources[0].info, [source.info for source in sources]
        for info, name in zip(infos, names, strict=True):
            _check_alike(first, names[0], info, name)
        self._sources = sources
        self._first = [0, *np.cumsum([info.shape[1] for info in infos]).tolist()]
        n, _, d, h, w = first.shape
        self._alike = all((info.dtype, info.scaling) == (first.dtype, first.scaling) for info in infos)
        dtype, scaling = first.dtype, first.scaling
        notes = dict.fromkeys(note for info in infos for note in info.notes)
        if not self._alike:
            # A slope has more digits than an integer of 16 bits: real values are floats whatever is stored.
            dtype = np.result_type(*(volume_compute_dtype(info.dtype, np.dtype(np.float32)) for info in infos))
            scaling = None
            kinds = ", ".join(dict.fromkeys(f"{i.dtype}{' with a slope' if i.scaling else ''}" for i in infos))
            notes[f"stacked files are stored in different ways ({kinds}), taken as {dtype}"] = None
        self.info = replace(
            first,
            shape=(n, self._first[-1], d, h, w),
            dtype=dtype,
            scaling=scaling,
            access=_access(infos),
            notes=tuple(notes),
        )

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Values of a region, put into an array: stored ones where all files store alike."""
        check_within(region, self.info.shape)
        for source, first in zip(self._sources, self._first, strict=False):
            low, high = max(region.start[1], first), min(region.stop[1], first + source.info.shape[1])
            if low >= high:
                continue
            part = region.along(1, low - first, high - first)
            place = out[:, low - region.start[1] : high - region.start[1]]
            if self._alike:
                source.read_into(part, place)
            else:
                place[...] = real_values(source.read(part), source.info.scaling, self.info.dtype)

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        for source in self._sources:
            source.expect(replace(reading, cache_bytes=reading.cache_bytes // len(self._sources)))

    def finish(self) -> None:
        """See :meth:`OpenVolume.finish`."""
        for source in self._sources:
            source.finish()

    def prefetch(self) -> None:
        """See :meth:`OpenVolume.prefetch`."""
        for source in self._sources:
            source.prefetch()

    def close(self) -> None:
        """Close all of them."""
        for source in self._sources:
            source.close()


def _access(infos: Sequence[VolumeInfo]) -> Access:
    """What touching a region of channels from several files costs: in each of them its own part of it."""
    every = [info.access for info in infos]
    order = every[0].order
    if all(info.shape[1] == 1 for info in infos):  # a slab of all channels is a slab of each file
        axes = [axis for axis in order if axis != 1]
        axes.insert(axes.index(2) + 1, 1)
        n, c, d, h, w = axes
        order = n, c, d, h, w
    return Access(
        every[0].chunk,
        packed=any(access.packed for access in every),
        order=order,
        in_turn=any(access.in_turn for access in every),
        spool_bytes=sum(access.spool_bytes for access in every),
        held_bytes=sum(access.held_bytes for access in every),
    )


def _range(axis: str, wanted: int | slice | None, size: int, name: str) -> tuple[int, int]:
    """First index and how many."""
    if wanted is None:
        return 0, size
    if isinstance(wanted, slice):
        start = 0 if wanted.start is None else wanted.start
        stop = size if wanted.stop is None else wanted.stop
        fits, asked = wanted.step in (None, 1), f"{start}:{stop}"
    else:
        start, stop, fits, asked = wanted, wanted + 1, True, str(wanted)
    if not (fits and 0 <= start < stop <= size):
        raise ShapeError(
            f"{axis} must be an index below {size} or a range within 0:{size} (got {asked}, {name} has {size})"
        )
    return start, stop - start


def _check_alike(first: Any, first_name: str, other: Any, name: str) -> None:
    """Channels must lie on one grid."""
    sizes = [(info.shape[0], *info.shape[2:]) for info in (first, other)]
    if sizes[0] != sizes[1]:
        raise ShapeError(
            f"stacked volumes must have one size (N, D, H, W) (got {first_name} {sizes[0]}, {name} {sizes[1]})"
        )
    if not grids_agree(first.geometry, other.geometry, first.shape[2:]):
        raise ShapeError(
            "stacked volumes must have one geometry "
            f"(got {first_name} {first.geometry.in_words()}, {name} {other.geometry.in_words()})",
            hint="resample one of them onto the other's grid",
        )
