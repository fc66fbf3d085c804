"""Arrays in memory as sources and sinks: the ends of the pipeline under ``volconv.conv3d``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.geometry import Geometry
from volconv.io.volume import Access, NewVolume, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.region import Region


class ArraySource(OpenVolume):
    """An (N, C, D, H, W) array; :meth:`read` returns views of it.

    Parameters
    ----------
    array : ndarray, shape (N, C, D, H, W)
    geometry : Geometry, optional
    """

    def __init__(self, array: NDArray[Any], geometry: Geometry | None = None) -> None:
        self._array, self.info = _described(array, geometry)

    def read(self, region: Region) -> NDArray[Any]:
        """View of a region, in the array's own byte order."""
        return self._array[region.slices]

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        out[...] = self._array[region.slices]


class ArraySink(NewVolume):
    """An (N, C, D, H, W) array that a result is written into.

    Parameters
    ----------
    array : ndarray, shape (N, C, D, H, W)
        Writable, in native byte order.
    geometry : Geometry, optional
    """

    def __init__(self, array: NDArray[Any], geometry: Geometry | None = None) -> None:
        if not (array.dtype.isnative and array.flags.writeable):
            raise ValueError("an array to write into must be writable and in native byte order")
        self._array, self.info = _described(array, geometry)

    def view(self, region: Region) -> NDArray[Any]:
        """Writable view of a region."""
        return self._array[region.slices]

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Assign the values of a region."""
        self._array[region.slices] = values

    def commit(self) -> None:
        """Do nothing: the values are where they belong."""

    def abort(self) -> None:
        """Do nothing: what was written stays."""


def _described(array: NDArray[Any], geometry: Geometry | None) -> tuple[NDArray[Any], VolumeInfo]:
    if array.ndim != 5:
        raise ValueError(f"an array must have axes (N, C, D, H, W) (got shape {array.shape})")
    n, c, d, h, w = array.shape
    native = array.dtype.newbyteorder("=")
    return array, VolumeInfo((n, c, d, h, w), native, geometry or Geometry(), access=Access(in_memory=True))
