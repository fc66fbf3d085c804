"""HDF5: one dataset of a file, in the conventions of ilastik, PlantSeg, BigDataViewer and HDF5 itself."""

from __future__ import annotations

from volconv.io.hdf5.sink import create_file, describe_new
from volconv.io.hdf5.source import list_contents, open_file

__all__ = ["create_file", "describe_new", "list_contents", "open_file"]
