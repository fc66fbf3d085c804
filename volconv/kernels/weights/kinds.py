"""Which kind of file of weights is it? Its content decides, and its suffix where that does not tell."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO

from volconv.errors import ReadError
from volconv.io.formats import FORMATS
from volconv.kernels.weights.entries import holds_objects

#: Kinds of file, as messages name them.
KINDS = ".npy, .npz, .h5, .keras, .safetensors, .pt, .pth, .onnx, or a volume such as .nii.gz or .tif"

#: Suffixes of volumes that are read as kernels; HDF5 files hold arrays.
VOLUMES = tuple(suffix for form in FORMATS if form.name != "hdf5" for suffix in form.suffixes)

#: Suffixes that make a file of a spec.
SUFFIXES = (
    *(".npy", ".npz", ".h5", ".hdf5", ".keras", ".safetensors", ".pt", ".pth", ".ckpt", ".onnx"),
    *VOLUMES,
)

NPY_MAGIC = b"\x93NUMPY"
PICKLE_MAGIC = b"\x80"

#: How a file from before PyTorch 1.6 begins: a pickle of one number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

#: What a ``.keras`` archive keeps its weights in.
KERAS_MEMBER = "model.weights.h5"

_MAGIC = {
    NPY_MAGIC: "npy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    LEGACY_MAGIC: "legacy",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}

#: Of files whose content tells nothing: what is said of them is what this kind's reader says.
_BY_SUFFIX = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".safetensors": "safetensors"}


def kind_of(file: IO[bytes], path: str) -> str:
    """One of "npy", "npz", "torch", "legacy", "safetensors", "hdf5", "keras", "onnx" and "volume".

    Raises
    ------
    ReadError
        It is of none, or would have to be executed.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(64)
    file.seek(0)
    lower = path.lower()
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return _kind_of_archive(file, path) if kind == "zip" else kind
    if lower.endswith(VOLUMES):
        return "volume"
    if lower.endswith(".onnx"):
        return "onnx"
    if is_safetensors(head, size):
        return "safetensors"
    if head.startswith(PICKLE_MAGIC):
        raise holds_objects(path)
    if Path(lower).suffix not in _BY_SUFFIX:
        raise ReadError(f"{path} is of no kind that weights are read from ({KINDS})")
    return _BY_SUFFIX[Path(lower).suffix]


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of this size that begins so is one: the header's length, and a JSON object."""
    return len(head) >= 9 and 2 <= struct.unpack_from("<Q", head)[0] <= size - 8 and head[8:9] == b"{"


def _kind_of_archive(file: IO[bytes], path: str) -> str:
    import zipfile

    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "torch"
    if KERAS_MEMBER in names:
        return "keras"
    if any(name.endswith(".npy") for name in names) or path.lower().endswith(".npz"):
        return "npz"
    raise ReadError(f"{path} is a zip archive of no known kind: neither NumPy's, PyTorch's nor Keras's")
