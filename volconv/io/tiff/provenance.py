"""What volconv noted in a TIFF when it made it; :mod:`volconv.io.tiff.words` is where it notes it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import ParseError

import tifffile


def noted(tiff: Any, number: int) -> str | None:
    """The note in a file's words for ImageJ, OME or tifffile, or None.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    number : int
        Of the series.
    """
    try:
        if tiff.is_ome and tiff.ome_metadata:
            found = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
            text = (found[number] if isinstance(found, list) else found)["Description"]
        elif tiff.is_imagej:
            text = tiff.imagej_metadata["Info"]
        elif tiff.is_shaped:
            text = tiff.shaped_metadata[number]["note"]
        else:
            return None
    except (LookupError, TypeError, ValueError, ParseError):
        return None
    return text if isinstance(text, str) and text.startswith("volconv ") else None
