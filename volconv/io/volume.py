"""What a volume is to the rest of volconv: a source of regions, or a sink for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from volconv.geometry import Geometry
from volconv.region import Region

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

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
    in_memory : bool
        Whether reading (or writing) a region costs no copy: then the whole volume is one I/O block.
    format : str
        "array", "nifti", "hdf5" or "tiff".
    header : object, optional
        The format's own header, for a sink of the same format to carry on.
    notes : tuple of str
        One line each on what was assumed or left out, for the person who runs the tool.
    """

    shape: Index5
    dtype: np.dtype[Any]
    geometry: Geometry = field(default_factory=Geometry)
    scaling: Scaling | None = None
    in_memory: bool = False
    format: str = "array"
    header: Any = field(default=None, compare=False)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Source(Protocol):
    """A volume that can be read by region, in any order, from any one thread at a time."""

    info: VolumeInfo

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region, no scaling applied, axes (N, C, D, H, W); it may be a view: never write to it."""
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

    Examples
    --------
    >>> import volconv
    >>> with volconv.open_volume("sample_data/mni152_t1.nii.gz") as brain:  # doctest: +SKIP
    ...     brain.info.shape, brain.info.geometry.spacing
    """

    info: VolumeInfo

    def read(self, region: Region) -> NDArray[Any]:
        """See :meth:`Source.read`."""
        raise NotImplementedError

    def close(self) -> None:
        """See :meth:`Source.close`."""

    def numpy(self) -> NDArray[Any]:
        """The whole volume's real values (scaling applied, then float64), as an (N, C, D, H, W) array of its own."""
        stored = self.read(Region.whole(self.info.shape))
        if self.info.scaling is None:
            return np.array(stored)
        return stored * np.float64(self.info.scaling.slope) + np.float64(self.info.scaling.intercept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
