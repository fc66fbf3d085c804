"""What a new TIFF says of its volume: axes, spacing, time step and note, in words of ImageJ, OME or tifffile."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from volconv.geometry import MILLIMETRES
from volconv.io.formats import format_of
from volconv.region import NCDHW

if TYPE_CHECKING:
    from volconv.geometry import Geometry
    from volconv.io.tiff.packing import Packing
    from volconv.io.volume import Request
    from volconv.region import Index5

#: What ImageJ opens as a hyperstack (its 16-bit signed and half precision readings differ between versions).
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")

#: What ImageJ's own reader unpacks; it knows no tiles.
_IMAGEJ_COMPRESSIONS = (None, "zlib", "lzw", "packbits")

#: ImageJ's order of axes is T, Z, C, Y, X.
_IMAGEJ_ORDER = (0, 2, 1, 3, 4)

#: Classic TIFF counts bytes in 32 bits; some are left for what is said of the volume.
_CLASSIC_BYTES = 2**32 - 2**25

#: Each part of a rational in TIFF has 32 bits.
_RATIONAL_PART = 2**32 - 1

#: Share of a spacing by which a rational may miss it.
_RATIONAL_LOSS = 1e-9


@dataclass(frozen=True, slots=True)
class Layout:
    """How a volume lies in a TIFF.

    Parameters
    ----------
    words : {"imagej", "ome", "plain"}
        In whose words axes, spacing and the rest are stated; "plain" is the JSON of tifffile.
    large : bool
        BigTIFF.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W), slowest first.
    """

    words: Literal["imagej", "ome", "plain"]
    large: bool
    order: Index5

    def axes(self, shape: Index5) -> str:
        """Letters of the axes, slowest first; of those that hold one page only Y and X."""
        return "".join("TCZYX"[axis] for axis in self.order if shape[axis] > 1 or axis >= 3)

    def writer_arguments(self) -> dict[str, Any]:
        """Arguments of tifffile's ``TiffWriter``."""
        return {"bigtiff": self.large, "byteorder": "<", "imagej": self.words == "imagej", "ome": self.words == "ome"}


def layout_of(request: Request, packing: Packing) -> Layout:
    """The layout that most programs read: OME where the name asks for it, else ImageJ's where ImageJ can hold it."""
    large = packing.most_bytes(request.shape, request.dtype) > _CLASSIC_BYTES
    form = format_of(request.path)
    if form is not None and form.name == "ome":
        return Layout("ome", large, NCDHW)
    # Resolution tags are the only place where ImageJ looks for the spacing of X and Y.
    fits = _known(request.geometry) is None or _resolution(request.geometry) is not None
    fits = fits and packing.tile is None and packing.compression in _IMAGEJ_COMPRESSIONS
    if request.dtype.name in _IMAGEJ_DTYPES and not large and fits:
        return Layout("imagej", large, _IMAGEJ_ORDER)
    return Layout("plain", large, NCDHW)


def words_of(request: Request, layout: Layout) -> dict[str, Any]:
    """Arguments of tifffile's ``TiffWriter.write`` that state what the volume is."""
    shape = tuple(request.shape[axis] for axis in layout.order)
    arguments: dict[str, Any] = {"dtype": request.dtype, "photometric": "minisblack", "software": "volconv"}
    if layout.words == "imagej":
        # With samples stated, a width of 1 is not taken for them.
        arguments.update(shape=(*shape, 1), metadata={"axes": "TZCYXS", **_imagej_words(request)})
        arguments.update(resolution=_resolution(request.geometry), resolutionunit="NONE")
        return arguments
    # Centimetres, for programs that know no more of TIFF than its tags.
    unit = MILLIMETRES.get(request.geometry.unit or "", 1.0)
    resolution = _resolution(request.geometry, 10 / Fraction(repr(unit)))
    arguments.update(resolution=resolution, resolutionunit="CENTIMETER" if resolution else "NONE")
    if layout.words == "ome":
        arguments.update(shape=shape, metadata={"axes": "TCZYX", **_ome_words(request)})
    else:
        axes = layout.axes(request.shape)
        kept = [int(request.shape["TCZYX".index(letter)]) for letter in axes]
        # Given metadata, tifffile would write this description alike, and merge slices of a width of 1 into one page.
        text = json.dumps({"shape": kept, "axes": axes, **_plain_words(request)})
        arguments.update(shape=kept, metadata=None, description=text)
    return arguments


def _imagej_words(request: Request) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if (spacing := _known(request.geometry)) is not None:
        # A micrometre is spelt with an escape, as ImageJ does it.
        words.update(unit={"um": "\\u00B5m"}.get(str(request.geometry.unit), request.geometry.unit), spacing=spacing[0])
    if request.time_step is not None:
        words["finterval"] = float(request.time_step)
    if request.note:
        words["Info"] = request.note
    return words


def _ome_words(request: Request) -> dict[str, Any]:
    # tifffile's identifier is random; this one is the same for the same file made again.
    name = f"volconv:{request.path.name!a}:{request.shape}:{request.dtype}:{request.note}"
    words: dict[str, Any] = {"UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "Creator": "volconv"}
    if (spacing := _known(request.geometry)) is not None:
        unit = {"um": "\u00b5m"}.get(str(request.geometry.unit), request.geometry.unit)
        for axis, size in zip("ZYX", spacing, strict=True):
            words.update({f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit})
    if request.time_step is not None:
        words.update(TimeIncrement=float(request.time_step), TimeIncrementUnit="s")
    if request.note:
        words["Description"] = request.note
    return words


def _plain_words(request: Request) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if (spacing := _known(request.geometry)) is not None:
        # All three: the resolution tags beside it are in centimetres.
        words.update(spacing=list(spacing), unit=request.geometry.unit)
    if request.time_step is not None:
        words["finterval"] = float(request.time_step)
    if request.note:
        words["note"] = request.note
    return words


def _resolution(geometry: Geometry, length: Fraction = Fraction(1)) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Pixels along X and Y in a length of so many units; None where the spacing is unknown or does not fit."""
    spacing = _known(geometry)
    if spacing is None:
        return None
    y, x = (_pixels_a_unit(Fraction(repr(size)) / length) for size in spacing[1:])
    return None if x is None or y is None else (x, y)


def _pixels_a_unit(size: Fraction) -> tuple[int, int] | None:
    """Numerator and denominator, of 32 bits, of a pixel's inverse size; None where they would miss it.

    Divided the other way they give sizes of up to nine digits exactly, and any other to nine digits at least.
    """
    near = size
    if max(near.numerator, near.denominator) > _RATIONAL_PART:
        near = size.limit_denominator(max(1, min(_RATIONAL_PART, int(_RATIONAL_PART / size))))
    if near.numerator > _RATIONAL_PART or abs(near - size) > size * Fraction(_RATIONAL_LOSS):
        return None
    return near.denominator, near.numerator


def _known(geometry: Geometry) -> tuple[float, float, float] | None:
    """Spacing along D, H, W where the file can state one."""
    if geometry.unit is None or not all(math.isfinite(size) and size > 0 for size in geometry.spacing):
        return None
    return geometry.spacing
