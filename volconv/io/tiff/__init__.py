"""TIFF stacks of every dialect: plain, ImageJ, OME; and, in ``slices``, folders of one file a slice."""

from __future__ import annotations

from volconv.io.tiff.sink import create_file, describe_new
from volconv.io.tiff.source import list_contents, open_file

__all__ = ["create_file", "describe_new", "list_contents", "open_file"]
