"""Arrays from ``FILE[:KEY]``: one array of a ``.npy``, ``.npz`` or HDF5 file, and nothing that could run code."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError, ShapeError, VolconvError
from volconv.io.trial import try_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zipfile import ZipFile

    import h5py
    from numpy.typing import NDArray

#: Kinds of file, as messages name them.
KINDS = ".npy, .npz:KEY, .h5:/PATH or .hdf5:/PATH"

# The first suffix that ends the spec or is followed by a colon ends the path: keys may look like paths themselves.
_FILE = re.compile(r"(.+?\.(npy|npz|h5|hdf5))(?::(.*))?", re.IGNORECASE | re.DOTALL)
_NPY_MAGIC = b"\x93NUMPY"
_PICKLE_MAGIC = b"\x80"
_NUMERIC = "biufc"

#: A kernel takes no more; 2048 channels to as many, 3 taps a side in double precision, are 0.9 GB.
_MOST_BYTES = 1 << 30

_DAMAGE = (SyntaxError, TokenError, ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError)


def split_file_spec(spec: str) -> tuple[str, str | None] | None:
    """Path and key of ``FILE[:KEY]``; None where the spec names no file of a kind that is read.

    Examples
    --------
    >>> split_file_spec("weights.npz:conv1.weight")
    ('weights.npz', 'conv1.weight')
    >>> split_file_spec("psf.npy"), split_file_spec("gaussian:sigma=2")
    (('psf.npy', None), None)
    """
    match = _FILE.fullmatch(spec)
    return (match[1], match[3]) if match else None


def is_file_spec(spec: str) -> bool:
    """Whether a spec names a file (by its suffix, existing or not) and not a kernel or number."""
    return split_file_spec(spec) is not None


def other_file_hint(spec: str) -> str | None:
    """What to say where a spec names no file of a kind that is read, and yet a file."""
    try:
        found = any(Path(path).is_file() for path in (spec, spec.partition(":")[0]))
    except (OSError, ValueError):  # a name too long, or with a NUL
        return None
    return f"there is a file of this name, but weights are read from {KINDS} only" if found else None


def load_array(spec: str, name: str, axes: Sequence[int]) -> NDArray[Any]:
    """The array that ``FILE[:KEY]`` names.

    Parameters
    ----------
    spec : str
        A spec for which :func:`is_file_spec` holds.
    name : str
        What the array is for: "kernel" or "bias", for errors.
    axes : sequence of ints
        Numbers of axes that the array may have. An HDF5 file needs no path where only one of its datasets fits.

    Returns
    -------
    ndarray
        Bool, integer, floating or complex as stored, in native byte order and C order.

    Raises
    ------
    ReadError
        The file is missing, damaged, holds Python objects or has no such key.
    ShapeError
        The array is not numeric, or has another number of axes.
    """
    path_and_key = split_file_spec(spec)
    if path_and_key is None:
        raise ReadError(f"{name} must be in a file of kind {KINDS} (got {spec!r})")
    path, key = path_and_key
    try:
        with Path(path).open("rb") as file:
            suffix = Path(path).suffix.lower()
            if suffix == ".npy":
                array = _read_npy(file, path, key)
            elif suffix == ".npz":
                array = _read_npz(file, path, key, name)
            else:
                try_out(lambda: _read_hdf5(file, path, key, name, axes), path, "HDF5")
                array = _read_hdf5(file, path, key, name, axes)
    except VolconvError:
        raise
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReadError(f"cannot read {name} from {path}: {' '.join(reason.split())}") from error
    rule = f"{', '.join(map(str, axes[:-1]))} or {axes[-1]} axes" if len(axes) > 1 else f"{axes[0]} axis"
    if array.dtype.kind not in _NUMERIC or array.ndim not in axes:
        raise ShapeError(
            f"{name} must be a numeric array of {rule} (got shape {array.shape} of {array.dtype} in {spec})"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _read_npy(file: IO[bytes], path: str, key: str | None) -> NDArray[Any]:
    if key is not None:
        raise ReadError(f"{path} must be given without a key, a .npy file holds one array (got key {key!r})")
    return _npy_array(file, path)


def _npy_array(file: IO[bytes], what: str) -> NDArray[Any]:
    """One array in NumPy's format, from the file's start."""
    magic = file.read(len(_NPY_MAGIC))
    if magic.startswith(_PICKLE_MAGIC):
        raise _holds_objects(what)
    if magic != _NPY_MAGIC:
        raise ReadError(f"{what} is no NumPy array file, or a damaged one (it starts with {magic!r})")
    file.seek(0)
    shape, dtype = _npy_header(file)
    if dtype.hasobject:
        raise _holds_objects(what)
    _check_size(shape, dtype, what)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that Python 2 wrote
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in NumPy's format, which goes on where the file is."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shape, _, dtype = read_header(file)
    return shape, dtype


def _check_size(shape: Sequence[int], dtype: np.dtype[Any], what: str) -> None:
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= size <= _MOST_BYTES:
        raise ReadError(f"{what} must take at most {_MOST_BYTES >> 30} GB (got shape {tuple(shape)}, {size} bytes)")


def _holds_objects(what: str) -> ReadError:
    return ReadError(
        f"{what} holds Python objects, which volconv never loads", hint="save the numbers as a plain NumPy array"
    )


def _read_npz(file: IO[bytes], path: str, key: str | None, name: str) -> NDArray[Any]:
    import zipfile  # named kernels do without
    import zlib

    try:
        with zipfile.ZipFile(file) as archive:
            members = {m.removesuffix(".npy"): m for m in archive.namelist() if m.endswith(".npy")}
            if key is None and len(members) == 1:
                key = next(iter(members))
            if key is None or key not in members:
                listing = [f"{k} {_npy_shape(archive, m)}" for k, m in members.items()]
                raise _wrong_key(path, key, name, "array", listing, example=next(iter(members), "KEY"))
            with archive.open(members[key]) as member:
                return _npy_array(member, f"{path}:{key}")
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def _npy_shape(archive: ZipFile, member: str) -> str:
    """Shape of a member from its header alone."""
    with archive.open(member) as file:
        try:
            return str(_npy_header(file)[0])
        except (SyntaxError, TokenError, ValueError):
            return "(unreadable)"


def _read_hdf5(file: IO[bytes], path: str, key: str | None, name: str, axes: Sequence[int]) -> NDArray[Any]:
    import h5py

    from volconv.io.hdf5.find import parts_inside

    with h5py.File(file, "r") as h5:
        item = _only_dataset(h5, axes) if key is None else _followed(h5, key, path)
        if not isinstance(item, h5py.Dataset):
            found = _datasets(h5)
            listing = [f"/{k} {d.shape}" for k, d in found.items()]
            raise _wrong_key(path, key, name, "dataset", listing, example=f"/{next(iter(found), 'PATH')}")
        if item.dtype.hasobject or item.shape is None:
            raise ShapeError(
                f"{name} must be a numeric array (got {item.dtype} with shape {item.shape} in {path}:{key})"
            )
        _check_size(item.shape, item.dtype, f"{path}:{key or item.name}")
        parts_inside(h5, item, f"{path}:{key or item.name}")
        array: NDArray[Any] = item[()]
        return np.asarray(array)


def _followed(h5: h5py.File, key: str, path: str) -> Any:
    """What lies at a path inside the file; None where there is nothing."""
    from volconv.io.hdf5.find import followed

    try:
        return followed(h5, key, f"{path}:{key}") if key else None
    except KeyError:
        return None


def _datasets(h5: h5py.File) -> dict[str, h5py.Dataset]:
    import h5py

    found: dict[str, h5py.Dataset] = {}

    def note(path: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = item

    h5.visititems(note)
    return found


def _only_dataset(h5: h5py.File, axes: Sequence[int]) -> h5py.Dataset | None:
    """The one dataset that has a fitting number of axes; None where there is none, or a choice."""
    fitting = [d for d in _datasets(h5).values() if d.ndim in axes]
    return fitting[0] if len(fitting) == 1 else None


def _wrong_key(path: str, key: str | None, name: str, kind: str, listing: list[str], *, example: str) -> ReadError:
    holds = ", ".join(listing) or f"no {kind}s"
    if key is None:
        return ReadError(
            f"{name} must say which {kind} of {path} to read (it holds {holds})", hint=f"as in {path}:{example}"
        )
    return ReadError(f"{path} has no {kind} {key!r} (it holds {holds})")
