"""NIfTI-1 and NIfTI-2: in one file or (only read) two, plain or gzipped."""

from __future__ import annotations

from volconv.io.nifti.voxels import create_file, describe_new, list_contents, open_file

__all__ = ["create_file", "describe_new", "list_contents", "open_file"]
