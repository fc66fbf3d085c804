"""Does OME's XML announce more planes than its file can hold? tifffile makes lists of them before it looks."""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from volconv.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A page takes at least these bytes for its tags alone.
_PAGE_BYTES = 64


def check_announced(tiff: Any, name: str) -> None:
    """Refuse numbers of planes that cannot be.

    Raises
    ------
    ReadError
    """
    if not tiff.is_ome or not tiff.ome_metadata:
        return
    most = tiff.filehandle.size // _PAGE_BYTES
    with contextlib.suppress(ElementTree.ParseError):  # of which tifffile makes nothing either
        for planes in _announced(ElementTree.fromstring(tiff.ome_metadata)):  # noqa: S314  # expat bounds what entities unfold to
            if planes > most:
                raise ReadError(
                    f"{name}: is damaged: its OME metadata announce {planes:.0f} planes, and it holds fewer"
                )


def _announced(root: ElementTree.Element) -> Iterator[float]:
    for element in root.iter():
        kind = str(element.tag).rpartition("}")[2]
        numbers = {key: _number(value) for key, value in element.items()}
        if kind == "Pixels":
            yield math.prod(numbers[key] for key in numbers if re.fullmatch("Size[^XY]", key))
        elif kind == "TiffData":
            yield max((numbers[key] for key in numbers if re.fullmatch("PlaneCount|NumPlanes|First.", key)), default=0)
        elif kind.startswith("ModuloAlong"):
            step = numbers.get("Step") or 1
            yield abs((numbers.get("End", 0) - numbers.get("Start", 0)) / step)


def _number(text: str) -> float:
    """A number, or 0 where it is none."""
    try:
        value = float(text)
    except ValueError:
        return 0
    return value if math.isfinite(value) else math.inf
