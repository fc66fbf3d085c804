"""HDF5 datasets as volumes, through h5py."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from volconv.errors import ReadError, WriteError
from volconv.geometry import MILLIMETRES, Geometry
from volconv.io.checks import check_block, check_within
from volconv.io.target import Target, check_target, translated
from volconv.io.units import normal_unit
from volconv.io.volume import Entry, NewVolume, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Request
    from volconv.region import Region

DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)

_RANKS = "3 axes (D, H, W), 4 (C, D, H, W) or 5 (N, C, D, H, W)"

#: How many datasets a message lists.
_LISTED = 8

#: Chunks kept unpacked: several blocks share the chunks at their seams.
_CACHE_BYTES = 16 << 20


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> Hdf5Source:  # noqa: ARG001  # the signature of every format
    """Open a dataset of an HDF5 file: the one at ``key``, or the only one that can be a volume."""
    return Hdf5Source(path, key)


class Hdf5Source(OpenVolume):
    """A dataset of 3 to 5 axes.

    Parameters
    ----------
    path : Path
    key : str or None
        Path inside the file; None takes the only dataset of three axes or more.

    Raises
    ------
    ReadError
        The file is damaged, or the dataset is missing, ambiguous, or no volume.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        self._file = _opened(path)
        try:
            self._data = _dataset(self._file, path, key)
            self._name = f"{path}:{self._data.name}"
            self.info = _describe(self._data, self._name)
        except BaseException:
            self._file.close()
            raise

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region."""
        check_within(region, self.info.shape)
        try:
            values = np.asarray(self._data[region.slices[5 - self._data.ndim :]])
        except (OSError, RuntimeError) as error:
            raise ReadError(f"{self._name}: cannot be read: {_one_line(error)}") from error
        return values.astype(self.info.dtype, copy=False).reshape(region.shape)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def list_contents(path: Path) -> list[Entry]:
    """Every dataset of one axis or more."""
    with _opened(path) as file:
        return [Entry(f"{path}:{item.name}", item.shape, str(item.dtype), "") for item in _datasets(file) if item.ndim]


def describe_new(request: Request) -> VolumeInfo:
    """Check a new file, and tell what it will be."""
    check_target(request.path, overwrite=request.overwrite)
    if request.path.exists():
        _keep_others(request.path, request.key or "/data")
    return VolumeInfo(request.shape, request.dtype, request.geometry, format="hdf5")


def create_file(request: Request) -> Hdf5Sink:
    """Create an HDF5 file of one dataset, at ``key`` or ``/data``."""
    info = describe_new(request)
    return Hdf5Sink(request.path, request.key or "/data", info, overwrite=request.overwrite, note=request.note)


class Hdf5Sink(NewVolume):
    """An HDF5 file being written."""

    def __init__(self, path: Path, key: str, info: VolumeInfo, *, overwrite: bool, note: str) -> None:
        self.info = info
        self._path = path
        self._rank = 3 if info.shape[:2] == (1, 1) else 5
        self._target = Target(path, overwrite=overwrite)
        try:
            with translated(path):
                self._file = h5py.File(self._target.temporary, "w")
                self._data = self._file.create_dataset(key, info.shape[5 - self._rank :], info.dtype)
                self._data.attrs.update(_attributes(info, self._rank, note))
        except ValueError as error:
            self.abort()
            raise WriteError(f"{path}: no dataset can be made at {key}: {_one_line(error)}") from error
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        first = 5 - self._rank
        with translated(self._path):
            self._data[region.slices[first:]] = values.reshape(values.shape[first:])

    def commit(self) -> None:
        """Close the file and put it in place."""
        try:
            with translated(self._path):
                self._file.close()
            self._target.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        if hasattr(self, "_file"):
            with contextlib.suppress(OSError, RuntimeError):  # a full disk is no reason to stay
                self._file.close()
        self._target.abort()


def _opened(path: Path) -> Any:
    try:
        return h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
    except PermissionError as error:
        raise ReadError(f"{path}: cannot be read: Permission denied") from error
    except OSError as error:
        if not h5py.is_hdf5(path):
            raise ReadError(f"{path}: is no HDF5 file") from error
        raise ReadError(f"{path}: cannot be read: {_one_line(error)}") from error


def _dataset(file: Any, path: Path, key: str | None) -> Any:
    """Find the dataset to read; the search follows neither soft nor external links."""
    if key is None:
        found = [item for item in _datasets(file) if item.ndim >= 3]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ReadError(f"{path}: holds no dataset of {_RANKS}")
        names = [f"{item.name} {item.shape}" for item in found[:_LISTED]]
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise ReadError(
            f"{path}: holds {len(found)} datasets that could be the volume: {', '.join(names)}{more}",
            hint=f"name one, as in {path.name}:{found[0].name}",
        )
    try:
        item = file[key]
    except (KeyError, OSError) as error:
        names = [other.name for other in _datasets(file)[:_LISTED]]
        raise ReadError(f"{path}: holds no dataset {key} (it holds {', '.join(names) or 'none'})") from error
    if not isinstance(item, h5py.Dataset):
        raise ReadError(f"{path}: {key} is a group, not a dataset")
    return item


def _datasets(file: Any) -> list[Any]:
    found: list[Any] = []

    def visit(name: str, item: Any) -> None:  # noqa: ARG001  # h5py's callback
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append(item)

    try:
        file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise ReadError(f"{file.filename}: cannot be read: {_one_line(error)}") from error
    return sorted(found, key=lambda item: str(item.name))


def _describe(data: Any, name: str) -> VolumeInfo:
    if data.shape is None or not 3 <= data.ndim <= 5:
        raise ReadError(f"{name}: a volume has {_RANKS} (got shape {data.shape})")
    if 0 in data.shape:
        raise ReadError(f"{name}: every axis must hold a voxel (got shape {data.shape})")
    try:
        dtype = data.dtype.newbyteorder("=")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ReadError(f"{name}: its datatype cannot be read: {_one_line(error)}") from error
    if dtype == np.bool_:
        dtype = np.dtype(np.uint8)
    if dtype.name not in DTYPES:
        raise ReadError(f"{name}: voxels of dtype {data.dtype} are not supported (known: {', '.join(DTYPES)})")
    _check_filters(data, name)
    geometry, notes = _geometry(data, name)
    n, c, d, h, w = (1, 1, 1, 1, 1)[data.ndim :] + data.shape
    # A plain dtype: h5py's own carries metadata of enumerations.
    return VolumeInfo((n, c, d, h, w), np.dtype(dtype.str), geometry, format="hdf5", notes=notes)


def _check_filters(data: Any, name: str) -> None:
    creation = data.id.get_create_plist()
    for index in range(creation.get_nfilters()):
        code, _, _, label = creation.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            text = label.decode(errors="replace").split("\0")[0].strip() or "unnamed"
            raise ReadError(
                f"{name}: is packed by a filter that is not installed ({text}, number {code})",
                hint="install the HDF5 plugin, as by pip install hdf5plugin and HDF5_PLUGIN_PATH, or repack the file",
            )


def _geometry(data: Any, name: str) -> tuple[Geometry, tuple[str, ...]]:
    """From ``affine`` and ``unit``, else from PlantSeg's ``element_size_um`` (D, H, W), else none."""
    try:
        if "affine" in data.attrs:
            matrix = np.asarray(data.attrs["affine"], dtype=np.float64)
            if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
                raise ReadError(f"{name}: its attribute affine must be a finite 4x4 matrix (got shape {matrix.shape})")
            stated = data.attrs.get("unit", "")
            text = stated.decode(errors="replace") if isinstance(stated, bytes) else str(stated)
            unit = normal_unit(text)
            if unit is None:
                return Geometry.from_matrix(matrix, None), (f"{name} has an affine without a known unit",)
            matrix[:3] *= unit[1]
            return Geometry.from_matrix(matrix, unit[0]), ()
        if "element_size_um" in data.attrs:
            size = np.asarray(data.attrs["element_size_um"], dtype=np.float64)
            if size.shape == (3,) and np.isfinite(size).all() and (size > 0).all():
                return Geometry.from_spacing((float(size[0]), float(size[1]), float(size[2])), "um"), ()
            return Geometry(), (f"{name}: its element_size_um is not three positive numbers, and is left aside",)
    except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
        raise ReadError(f"{name}: its attributes cannot be read: {_one_line(error)}") from error
    return Geometry(), ()


def _attributes(info: VolumeInfo, rank: int, note: str) -> dict[str, Any]:
    known: dict[str, Any] = {"axes": "NCDHW"[5 - rank :]}
    if info.geometry.unit is not None:
        known["affine"] = info.geometry.matrix
        known["unit"] = info.geometry.unit
        known["element_size_um"] = np.array(info.geometry.spacing) * (MILLIMETRES[info.geometry.unit] * 1e3)
    elif info.geometry != Geometry():
        known["affine"] = info.geometry.matrix
    if note:
        known["volconv"] = note
    return known


def _keep_others(path: Path, key: str) -> None:
    """Refuse to replace a file that holds more than the dataset to be replaced."""
    if not h5py.is_hdf5(path):
        return
    with _opened(path) as file:
        others = [item.name for item in _datasets(file) if item.name != key]
    if others:
        more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
        raise WriteError(
            f"{path}: is not replaced, as it holds other datasets ({', '.join(others[:_LISTED])}{more})",
            hint="write to a new file",
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).strip("'\"").split())
