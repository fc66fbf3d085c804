"""What a volume is to the rest of volconv: a source of regions, or a sink for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from volconv.geometry import Geometry
from volconv.region import NCDHW, Region

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray

    from volconv.region import Index5


@dataclass(frozen=True, slots=True)
class Scaling:
    """Stored values to real ones: ``value = stored*slope + intercept``."""

    slope: float
    intercept: float

    def without_intercept(self) -> Scaling:
        """What applies to the imaginary part of complex values."""
        return Scaling(self.slope, 0.0)


@dataclass(frozen=True, slots=True)
class Access:
    """What touching a region costs; every source and sink takes regions in any order.

    Parameters
    ----------
    chunk : tuple of 5 ints, optional
        Box (N, C, D, H, W) that the file keeps as one piece: to touch one voxel of it is to read, or write, all of
        it. None where voxels can be reached one by one.
    packed : bool
        These pieces are compressed: they are unpacked as a whole.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) as the file holds them, slowest first: memory in this order takes no copy.
    in_turn : bool
        The format goes only from start to end. Regions that come in that order are read, or written, at once; from the
        first other one on the volume goes, uncompressed, through a temporary file.
    spool_bytes : int
        Size of that file; where regions may come in any order, of one that there is in any case.
    held_bytes : int
        Memory that is held whatever the regions are: by threads that pack or unpack, for a piece that is unpacked.
    in_memory : bool
        A region costs no copy: the whole volume is one I/O block.
    """

    chunk: Index5 | None = None
    packed: bool = False
    order: Index5 = NCDHW
    in_turn: bool = False
    spool_bytes: int = 0
    held_bytes: int = 0
    in_memory: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is going to be read, for it to prepare for: see :meth:`OpenVolume.expect`.

    Parameters
    ----------
    in_turn : bool
        In the order of its file; nothing is read twice, unless a run begins anew.
    cache_bytes : int
        Memory for unpacked pieces of the file, so that what the next region shares with the last is unpacked once.
    folder : Path, optional
        Where a temporary file may lie; the system's folder for them where it is None.
    """

    in_turn: bool = False
    cache_bytes: int = 0
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """All that is known of a volume before a voxel is read.

    Parameters
    ----------
    shape : tuple of 5 ints
        (N, C, D, H, W): N is time or volume, C is channel, D, H, W are Z, Y, X.
    dtype : numpy.dtype
        Of the stored values, in native byte order.
    geometry : Geometry
    scaling : Scaling, optional
        Present where stored values are not the real ones.
    time_step : float, optional
        Seconds from one volume to the next; None where the file does not say.
    format : str
        Name of a :class:`volconv.io.formats.Format`, or "array".
    axes : str
        The file's own axes, of the letters N or T, C, Z, Y, X, in the order in which its library shows them:
        "XYZT" for NIfTI, "CZYX" for most others.
    compression : str, optional
        How the voxels are packed, as the format calls it.
    access : Access
    header : object, optional
        The format's own header, for a sink of the same format to carry on.
    notes : tuple of str
        One line each on what was assumed or left out, for the person who runs the tool.
    spacing_notes : tuple of str
        Those of them that mean nothing any more once somebody states the spacing.
    skipped_time : float
        Seconds from the first volume that the header describes to the first of these, where the others are left out.
    provenance : str, optional
        What volconv noted in the file when it made it; the last note, where one output was made of another.
    """

    shape: Index5
    dtype: np.dtype[Any]
    geometry: Geometry = field(default_factory=Geometry)
    scaling: Scaling | None = None
    time_step: float | None = None
    format: str = "array"
    axes: str = "NCDHW"
    compression: str | None = None
    access: Access = Access()
    header: Any = field(default=None, compare=False)
    notes: tuple[str, ...] = ()
    spacing_notes: tuple[str, ...] = ()
    skipped_time: float = 0.0
    provenance: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all stored values, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Request:
    """What a new file is to be: all that :func:`volconv.io.create_volume` was told, checked as far as any format can.

    Parameters
    ----------
    path : Path
    key : str or None
        What follows the colon in ``file.h5:/path``.
    shape : tuple of 5 ints
    dtype : numpy.dtype
    geometry : Geometry
    scaling : Scaling or None
    time_step : float or None
    like : VolumeInfo or None
        The input's: a file of the same format carries on its header.
    options : dict
        Creation options by name, as text; only names that the format has.
    copied : bool
        Voxels will be those of ``like``, so that what its header says of them stays true.
    overwrite : bool
    shared : bool
        Several processes will write it, and what they wrote stays where they fail: OME-Zarr alone.
    mkdir : bool
        Missing folders will be made, so that they may be missing.
    cache_bytes : int or None
        Memory for pieces of the file that are kept unpacked until they are complete; the format's own choice if None.
    note : str
        Where the volume comes from, and what of it the format cannot hold; one line.
    """

    path: Path
    key: str | None
    shape: Index5
    dtype: np.dtype[Any]
    geometry: Geometry
    scaling: Scaling | None
    time_step: float | None
    like: VolumeInfo | None
    options: Mapping[str, str]
    copied: bool
    overwrite: bool
    shared: bool
    mkdir: bool
    cache_bytes: int | None
    note: str

    def carried(self, name: str) -> Any:
        """Header of the input where it is of the format ``name``, otherwise None."""
        return self.like.header if self.like is not None and self.like.format == name else None


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a file that can be opened by itself: a dataset, a series, or all of it.

    ``name`` is what to open it by, as in ``file.h5:/raw``; ``axes`` and ``shape`` are the file's own, ``axes`` empty
    where the file does not name them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: str


@runtime_checkable
class Source(Protocol):
    """A volume that can be read by region, in any order, from any one thread at a time."""

    info: VolumeInfo

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region, no scaling applied, axes (N, C, D, H, W); it may be a view: never write to it."""
        ...

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Put the stored values of a region into an array of its shape and of the source's dtype, of any strides."""
        ...

    def finish(self) -> None:
        """See :meth:`OpenVolume.finish`."""
        ...

    def close(self) -> None:
        """Let go of files; reading afterwards is an error."""
        ...


@runtime_checkable
class Sink(Protocol):
    """A volume that can be written by region, in any order, each region once, from one thread at a time.

    Nothing is visible under the target's name until :meth:`commit`.
    """

    info: VolumeInfo

    def view(self, region: Region) -> NDArray[Any] | None:
        """Writable memory of a region where the sink is itself memory, otherwise None."""
        ...

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values (already in the sink's dtype) of a region."""
        ...

    def commit(self) -> None:
        """Flush, and put the complete volume in place under its name."""
        ...

    def abort(self) -> None:
        """Remove what was written; the target's name stays as it was. No effect after :meth:`commit`."""
        ...


class OpenVolume:
    """What every file source shares: use in ``with``, and :meth:`numpy` for small volumes.

    Attributes
    ----------
    info : VolumeInfo
    names : tuple of str
        Paths that it was opened by: several for channels from several files, none for an array.
    reading : dict
        What was asked for on opening, beside the name: axes, spacing, rgb, time and channel, where they were.

    Examples
    --------
    >>> import volconv
    >>> with volconv.open_volume("sample_data/mni152_t1.nii.gz") as brain:  # doctest: +SKIP
    ...     brain.info.shape, brain.info.geometry.spacing
    """

    info: VolumeInfo
    names: tuple[str, ...] = ()
    reading: Mapping[str, Any] = MappingProxyType({})

    def read(self, region: Region) -> NDArray[Any]:
        """See :meth:`Source.read`; in memory of its own, in the file's order."""
        order = self.info.access.order
        values: NDArray[Any] = np.empty([region.shape[axis] for axis in order], self.info.dtype)
        values = values.transpose(np.argsort(order))
        self.read_into(region, values)
        return values

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`Source.read_into`."""
        raise NotImplementedError

    def expect(self, reading: Reading) -> None:
        """Prepare to be read in this way; without it a source is ready for anything, and may take more memory."""

    def finish(self) -> None:
        """Read what is left of a stream that is read in turn, up to its checksum: damage anywhere is told.

        Raises
        ------
        ReadError
        """

    def prefetch(self) -> None:
        """Begin, in the background, what the first :meth:`read` would wait for: the unpacking of a gzipped file."""

    def close(self) -> None:
        """See :meth:`Source.close`."""

    def numpy(self) -> NDArray[Any]:
        """The whole volume's real values (scaling applied, then float64), as an (N, C, D, H, W) array of its own."""
        stored = self.read(Region.whole(self.info.shape))
        return np.array(stored) if self.info.scaling is None else real_values(stored, self.info.scaling)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def real_values(stored: NDArray[Any], scaling: Scaling | None, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Real values of stored ones, as floats; complex stays complex.

    Examples
    --------
    >>> real_values(np.array([0, 2], np.uint8), Scaling(0.5, 1.0))
    array([1., 2.])
    """
    values: NDArray[Any] = stored.astype(np.result_type(dtype, stored) if stored.dtype.kind == "c" else dtype)
    if scaling is not None:
        values *= values.dtype.type(scaling.slope)
        values += values.dtype.type(scaling.intercept)
    return values


class NewVolume:
    """What every file sink shares: leaving ``with`` commits, or aborts where an exception passes through."""

    info: VolumeInfo

    def view(self, region: Region) -> NDArray[Any] | None:  # noqa: ARG002  # the protocol's signature
        """Files are no memory: always None."""
        return None

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """See :meth:`Sink.write`."""
        raise NotImplementedError

    def commit(self) -> None:
        """See :meth:`Sink.commit`."""
        raise NotImplementedError

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()
