"""Which axes of a volume are those of a TIFF series, and which of them lie in a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import tifffile

from volconv.errors import ReadError
from volconv.io.axes import arrange, parse_axes

if TYPE_CHECKING:
    from volconv.region import Index5

#: Of tifffile's letters those that volumes have. Its H is a lifetime, not a height.
_KNOWN = "TCZYXS"

#: Letters by which tifffile says that it does not know.
_UNSAID = "QI"


@dataclass(frozen=True, slots=True)
class SeriesLayout:
    """How a series is a volume.

    Parameters
    ----------
    letters : str
        Of its axes, slowest first; those of size 1 that say nothing are left out.
    shape : tuple of 5 ints
        (N, C, D, H, W).
    order : tuple of 5 ints
        Axes of (N, C, D, H, W), slowest first.
    paged : int
        How many of these, from the end, a page covers.
    notes : tuple of str
        What was assumed.
    """

    letters: str
    shape: Index5
    order: Index5
    paged: int
    notes: tuple[str, ...] = ()


#: Red, green, blue and what lies behind.
_COLOURS = 4


def layout_of(series: Any, name: str, *, axes: str | None, rgb: bool) -> SeriesLayout:
    """Arrange a series.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
    name : str
        For messages.
    axes : str, optional
        What its axes are, in the order in which tifffile shows them.
    rgb : bool
        Samples of colours are channels.

    Raises
    ------
    ReadError
        Its axes are not those of a volume, or samples are colours and ``rgb`` is false.
    ParameterError
        ``axes`` does not fit it.
    """
    own, sizes = str(series.axes), tuple(int(size) for size in series.shape)
    if 0 in sizes or not sizes:
        raise ReadError(f"{name}: holds no voxels (got axes {own}, shape {sizes})")
    notes: tuple[str, ...] = ()
    if axes is not None:
        letters, kept = parse_axes(axes, sizes, name), sizes
    else:
        letters, kept, notes = _taken(own, sizes, name)
    if "S" in letters and not rgb:
        known = {code.value: code.name for code in tifffile.PHOTOMETRIC}
        kind = known.get(series.keyframe.photometric, series.keyframe.photometric)
        raise ReadError(
            f"{name}: its pages hold {kept[letters.index('S')]} colour samples a pixel ({kind})",
            hint="pass --rgb (rgb=True) to take them as channels"
            if kept[letters.index("S")] <= _COLOURS
            else f"state what they are, as in --axes {letters.replace('S', 'Z')}",
        )
    shape, order = arrange(letters, kept)
    return SeriesLayout(letters, shape, order, _axes_in_page(series, shape, order, name), notes)


def _taken(own: str, sizes: tuple[int, ...], name: str) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """Letters and sizes of the axes that count, and notes on what was assumed."""
    kept = [
        (letter, size)
        for letter, size in zip(own, sizes, strict=True)
        if size > 1 or (letter in _KNOWN and letter != "S" and own.count(letter) == 1)
    ]
    if "S" in (letter for letter, _ in kept):
        kept = [(letter, size) for letter, size in kept if letter != "C" or size > 1]
    letters, used = "".join(letter for letter, _ in kept), tuple(size for _, size in kept)
    if "C" in letters and "S" in letters:
        raise ReadError(
            f"{name}: holds both channels and colour samples (axes {own}, shape {sizes}), and a volume has one axis "
            "for both",
            hint="state other axes with --axes (axes=), or keep each channel in a file of its own",
        )
    unknown = [letter for letter in letters if letter not in _KNOWN]
    notes: tuple[str, ...] = ()
    if len(unknown) == 1 and "Z" not in letters:
        letters = letters.replace(unknown[0], "Z")
        said = "does not say what its pages are" if unknown[0] in _UNSAID else f"has an axis {unknown[0]}"
        notes = (f"{PurePath(name).name} {said}, taken as slices along Z",)
        unknown = []
    if unknown or len(set(letters)) < len(letters):
        most = "TCZYX"
        raise ReadError(
            f"{name}: its axes {own} {sizes} are not those of a volume (known: {', '.join(most)} in any order)",
            hint=f"state them, as in --axes {most[-len(sizes) :]} (axes=)" if len(sizes) <= len(most) else None,
        )
    return letters, used, notes


def _axes_in_page(series: Any, shape: Index5, order: Index5, name: str) -> int:
    """How many axes, from the end, make up a page."""
    page = math.prod(int(size) for size in series.keyframe.shape)
    for count in range(6):
        if math.prod(shape[axis] for axis in order[5 - count :]) == page:
            return count
    raise ReadError(
        f"{name}: its pages of shape {tuple(series.keyframe.shape)} do not make up its axes {series.axes} "
        f"{tuple(series.shape)}"
    )
