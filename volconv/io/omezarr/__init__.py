"""OME-Zarr: one level of an NGFF image, versions 0.4 and 0.5, in a folder or at a URL."""

from __future__ import annotations

from volconv.io.omezarr.sink import create_file, describe_new
from volconv.io.omezarr.source import list_contents, open_file

__all__ = ["create_file", "describe_new", "list_contents", "open_file"]
