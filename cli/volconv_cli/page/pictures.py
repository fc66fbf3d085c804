"""What a page shows of a volume: three slices as grey pictures, and a histogram of their voxels."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import VolconvError
from volconv.io import OpenVolume, Region
from volconv.io.volume import Reading
from volconv.view.slices import first_of, slices_of, window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.view.slices import Plane

#: Voxels along an axis: of a longer one every second, third, ... is taken.
MOST = 256

#: Bars of a histogram.
BINS = 64

#: A stream that is larger, unpacked, is not read a second time for its pictures.
LARGEST_STREAM = 2 << 30

#: Bytes read at a time of a volume that is thinned out, and kept of a packed one: both are little beside any bound.
_STRIP, _CACHE = 4 << 20, 16 << 20


@dataclass(frozen=True, slots=True)
class Picture:
    """One slice.

    Parameters
    ----------
    title : str
        "axial", ..., or "XY", ...
    axis : str
        Which axis it cuts, D, H or W; ``index`` says where, in voxels of the volume.
    index : int
    letters : tuple of 4 str
        What lies to the left, right, top and bottom.
    extent : pair of floats
        Height and width, in one unit.
    png : bytes
    """

    title: str
    axis: str
    index: int
    letters: tuple[str, str, str, str]
    extent: tuple[float, float]
    png: bytes

    @property
    def address(self) -> str:
        """The picture itself as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of one volume; ``note`` alone where nothing is.

    Parameters
    ----------
    planes : tuple of Picture
    window : pair of floats
        What is black, and what is white.
    counts : tuple of int
        Voxels of the slices, in bins of one width between ``ends``.
    ends : pair of floats
    note : str
        What was left out, and why.
    """

    planes: tuple[Picture, ...] = ()
    window: tuple[float, float] = (0.0, 1.0)
    counts: tuple[int, ...] = ()
    ends: tuple[float, float] = (0.0, 1.0)
    note: str = ""


def shown_of(opening: Callable[[], OpenVolume]) -> Shown:
    """Three slices through the middle of a volume, of its first channel at its first time.

    Some planes, rows and columns are read and no more than some megabytes held, whatever the volume's size; of a packed
    stream all is read, once, unless it is large. What cannot be read is told, and is no error: the run is over.

    Parameters
    ----------
    opening : callable
        Opens it.
    """
    try:
        with opening() as volume:
            info = volume.info
            if info.access.in_turn and info.nbytes > LARGEST_STREAM:
                return Shown(note="It is packed as one stream, too long to be read again for pictures.")
            if not info.access.in_turn:
                volume.expect(Reading(cache_bytes=_CACHE))
            thin = Thinned(first_of(volume, ""), MOST)
            slices = slices_of(thin)
    except (VolconvError, MemoryError) as error:
        return Shown(note=f"It could not be read again for pictures: {error}")
    window = window_of([slices])
    notes = []
    n, c = info.shape[:2]
    if (n, c) != (1, 1):
        notes.append(f"The first of {' and '.join(_many(n, c))}.")
    if max(thin.step) > 1:
        notes.append(f"Of its voxels every {_ordinals(thin.step)} along D,H,W is shown.")
    if info.dtype.kind == "c":
        notes.append("The modulus of complex values.")
    values = np.concatenate([plane.values.ravel() for plane in slices.planes])
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size < values.size:
        notes.append(f"{values.size - finite.size} of {values.size} voxels shown are not finite (black).")
    counts, ends = _histogram(finite)
    return Shown(
        tuple(_picture(plane, window, thin.step) for plane in slices.planes), window, counts, ends, " ".join(notes)
    )


class Thinned(OpenVolume):
    """Every second, third, ... voxel of a volume along D, H, W, so that at most so many are left on each axis.

    Attributes
    ----------
    step : 3 ints
        Distance in voxels of those that are taken, from voxel 0 on, along D, H, W.
    """

    def __init__(self, source: OpenVolume, most: int) -> None:
        self._source, info = source, source.info
        n, c, *space = info.shape
        d, h, w = (max(1, -(-size // most)) for size in space)
        self.step = d, h, w
        sizes = [-(-size // step) for size, step in zip(space, self.step, strict=True)]
        self.info = replace(
            info,
            shape=(n, c, sizes[0], sizes[1], sizes[2]),
            geometry=info.geometry.resampled(self.step, (0.0, 0.0, 0.0)),
            access=replace(info.access, chunk=None),
        )

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`: plane by plane, some rows at a time."""
        if self.step == (1, 1, 1):
            self._source.read_into(region, out)
            return
        d, h, w = self.step
        whole = region
        for axis, step in ((2, d), (3, h), (4, w)):
            start, stop = region.start[axis], region.stop[axis]
            whole = whole.along(axis, start * step, (stop - 1) * step + 1)
        n, c, _, _, columns = whole.shape
        rows = max(1, _STRIP // (n * c * columns * self.info.dtype.itemsize * h))
        for plane in range(region.shape[2]):
            here = whole.along(2, whole.start[2] + plane * d, whole.start[2] + plane * d + 1)
            for row in range(0, region.shape[3], rows):
                last = min(row + rows, region.shape[3])
                part = here.along(3, here.start[3] + row * h, here.start[3] + (last - 1) * h + 1)
                out[:, :, plane : plane + 1, row:last] = self._source.read(part)[..., ::h, ::w]

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        self._source.expect(reading)


def png(grey: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit grey from an array of rows and columns (ISO/IEC 15948).

    Examples
    --------
    >>> png(np.zeros((2, 3), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows, columns = grey.shape
    lines = np.zeros((rows, columns + 1), np.uint8)  # each line begins with its filter: 0 is none
    lines[:, 1:] = grey
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _picture(plane: Plane, window: tuple[float, float], step: tuple[int, int, int]) -> Picture:
    low, high = window
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (plane.values.astype(np.float64) - low) / (high - low) * 255
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    grey = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return Picture(
        plane.title, "DHW"[plane.axis], plane.index * step[plane.axis], plane.letters, plane.extent, png(grey)
    )


def _histogram(finite: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[float, float]]:
    if not finite.size:
        return (), (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if not (high - low) / BINS > abs(low) * 1e-15 or not np.isfinite(high - low):
        return (int(finite.size),), (low, high)
    counts = np.histogram(finite, BINS, (low, high))[0]
    return tuple(int(count) for count in counts), (low, high)


def _many(n: int, c: int) -> list[str]:
    return [f"{count} {what}" for count, what in ((n, "volumes in time"), (c, "channels")) if count > 1]


def _ordinals(step: tuple[int, int, int]) -> str:
    return ",".join(f"{count}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(count, 'th') }" for count in step)
