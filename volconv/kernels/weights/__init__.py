"""Files of weights: which kind is it, what does it hold, and the numbers of one entry. Nothing in them is executed.

Each kind is one module with an ``open_...`` that gives a :class:`WeightFile`; content decides, and suffixes where
content does not tell.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, TypeVar

from volconv.errors import ReadError, VolconvError
from volconv.io.trial import try_out
from volconv.kernels.weights import hdf5_file, numpy_file, onnx_file, pytorch_file, safetensors_file
from volconv.kernels.weights.entries import Layer, WeightFile, Weights, holds_objects
from volconv.kernels.weights.volume_file import SUFFIXES, open_volume_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "SUFFIXES", "Layer", "WeightFile", "Weights", "with_weights"]

T = TypeVar("T")

#: Kinds of file, as messages name them.
KINDS = ".npy, .npz, .h5, .keras, .safetensors, .pt, .pth, .onnx, or a volume such as .nii.gz or .tif"

_MAGIC = {
    numpy_file.MAGIC: "npy",
    hdf5_file.MAGIC: "hdf5",
    pytorch_file.LEGACY_MAGIC: "legacy",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}

#: Of files whose content tells nothing: what is said of them is what this kind's reader says.
_BY_SUFFIX = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".safetensors": "safetensors"}

_DAMAGE = (SyntaxError, TokenError, ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, TypeError)


def with_weights(path: str, name: str, use: Callable[[WeightFile], T]) -> T:
    """Open a file of weights, and do something with it.

    Parameters
    ----------
    path : str
    name : str
        What is looked for, for messages: "kernel" or "bias".
    use : callable
        From the open file to the result. Where a library might not survive the file, a child process does it first.

    Raises
    ------
    ReadError
        The file is missing, damaged, of no known kind, or holds what would have to be executed.
    """
    import zipfile
    import zlib

    def attempt() -> T:
        with ExitStack() as stack:
            file = stack.enter_context(Path(path).open("rb"))
            return use(_opened(_kind(file, path), file, path, stack))

    try:
        with Path(path).open("rb") as file:
            kind = _kind(file, path)
        if kind in ("hdf5", "keras"):
            try_out(attempt, path, "HDF5")
        return attempt()
    except VolconvError:
        raise
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReadError(f"cannot read {name} from {path}: {' '.join(reason.split())}") from error


def _kind(file: IO[bytes], path: str) -> str:
    """What a file is, by its content, and by its suffix where that does not tell."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(64)
    file.seek(0)
    lower = path.lower()
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return _kind_of_archive(file, path) if kind == "zip" else kind
    if lower.endswith(SUFFIXES):
        return "volume"
    if lower.endswith(".onnx"):
        return "onnx"
    if safetensors_file.is_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"\x80"):
        raise holds_objects(path)
    if Path(lower).suffix not in _BY_SUFFIX:
        raise ReadError(f"{path} is of no kind that weights are read from ({KINDS})")
    return _BY_SUFFIX[Path(lower).suffix]


def _kind_of_archive(file: IO[bytes], path: str) -> str:
    import zipfile

    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if pytorch_file.is_archive(names):
        return "torch"
    if hdf5_file.KERAS_MEMBER in names:
        return "keras"
    if any(name.endswith(".npy") for name in names) or path.lower().endswith(".npz"):
        return "npz"
    raise ReadError(f"{path} is a zip archive of no known kind: neither NumPy's, PyTorch's nor Keras's")


def _opened(kind: str, file: IO[bytes], path: str, stack: ExitStack) -> WeightFile:
    file.seek(0)
    if kind in ("npz", "torch", "keras"):
        import zipfile

        archive = stack.enter_context(zipfile.ZipFile(file))
        if kind == "keras":
            return hdf5_file.open_keras(archive, path, stack)
        return (numpy_file.open_npz if kind == "npz" else pytorch_file.open_archive)(archive, path)
    if kind == "hdf5":
        return hdf5_file.open_hdf5(file, path, stack)
    if kind == "volume":
        return open_volume_file(path, stack)
    openers = {
        "npy": numpy_file.open_npy,
        "legacy": pytorch_file.open_legacy,
        "safetensors": safetensors_file.open_safetensors,
        "onnx": onnx_file.open_onnx,
    }
    return openers[kind](file, path)
