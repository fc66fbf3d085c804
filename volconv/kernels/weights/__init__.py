"""Files of weights: what one holds, and the numbers of an entry. Nothing in them is executed.

Each kind is one module with a function that opens it, loaded when it is needed; :mod:`volconv.kernels.weights.kinds`
tells kinds apart.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, TypeVar, cast

from volconv.errors import ReadError, VolconvError
from volconv.io.trial import try_out
from volconv.kernels.weights.entries import Layer, WeightFile, Weights
from volconv.kernels.weights.kinds import KINDS, SUFFIXES, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "SUFFIXES", "Layer", "WeightFile", "Weights", "with_weights"]

T = TypeVar("T")

#: Kind -> the module that reads it, its function, and what that is given before the path.
_READERS = {
    "npy": ("numpy_file", "open_npy", "file"),
    "npz": ("numpy_file", "open_npz", "archive"),
    "torch": ("pytorch_file", "open_archive", "archive"),
    "legacy": ("pytorch_file", "open_legacy", "file"),
    "safetensors": ("safetensors_file", "open_safetensors", "file"),
    "hdf5": ("hdf5_file", "open_hdf5", "file"),
    "keras": ("hdf5_file", "open_keras", "archive"),
    "onnx": ("onnx_file", "open_onnx", "file"),
    "volume": ("volume_file", "open_volume_file", "nothing"),
}

#: Characters of a message: names that files give, and what libraries tell of damage, may be of any length.
_LONGEST = 900

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
            return use(_opened(stack.enter_context(Path(path).open("rb")), path, stack))

    try:
        with Path(path).open("rb") as file:
            kind = kind_of(file, path)
        if kind in ("hdf5", "keras"):
            import h5py  # noqa: F401  # here, or the child would load it as well

            try_out(attempt, path, "HDF5")
        return attempt()
    except VolconvError as error:
        if len(error.message) <= _LONGEST:
            raise
        raise type(error)(_cut(error.message), hint=error.hint and _cut(error.hint)) from error
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReadError(f"cannot read {name} from {path}: {_cut(' '.join(reason.split()))}") from error


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _opened(file: IO[bytes], path: str, stack: ExitStack) -> WeightFile:
    import zipfile

    module, function, takes = _READERS[kind_of(file, path)]
    file.seek(0)
    opener = getattr(import_module(f"{__name__}.{module}"), function)
    given = [] if takes == "nothing" else [stack.enter_context(zipfile.ZipFile(file)) if takes == "archive" else file]
    opened = cast("WeightFile", opener(*given, path))
    if opened.close is not None:
        stack.callback(opened.close)
    return opened
