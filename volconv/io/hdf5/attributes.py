"""Which attributes a dataset has, and which an output's has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from volconv.errors import ReadError
from volconv.geometry import MILLIMETRES, Geometry
from volconv.io.hdf5.find import H5_ERRORS, one_line

if TYPE_CHECKING:
    from volconv.io.hdf5.filters import Packing
    from volconv.io.volume import Request
    from volconv.region import Index5

#: Letters of an output of 3, 4 or 5 axes, and as others call them.
LETTERS = {3: "DHW", 4: "CDHW", 5: "NCDHW"}
LABELS = {3: "zyx", 4: "czyx", 5: "tczyx"}

#: Written anew, so that they are true of the output.
_OWN = {"affine", "unit", "element_size_um", "axes", "axistags", "axis_units", "time_step", "volconv"}

#: Of dimension scales, which are not copied, and of the range of the input's values.
_LEFT = {"DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS", "CLASS", "NAME", "drange", "IMAGE_MINMAXRANGE"}

#: Untrue once the grid is another one, and of too many meanings to be written anew.
_PLACES = ("offset", "resolution", "spacing", "voxel_size")

#: HDF5 keeps an attribute in a message of 64 kB at most.
_ATTRIBUTE_BYTES = 64000

#: vigra's flags of the kinds of axes.
_TYPE_FLAGS = {"c": 1, "t": 8}
_SPACE = 2


@dataclass(frozen=True, slots=True)
class Hdf5Header:
    """What of an input dataset a sink of HDF5 carries on.

    Parameters
    ----------
    letters : str
        Of its axes.
    chunk : tuple of 5 ints or None
        (N, C, D, H, W).
    packing : Packing or None
    attributes : tuple of (str, value, numpy.dtype)
        Those that stay true.
    left_out : tuple of str
        Names of attributes that cannot be carried.
    tags : tuple of (str, str) or None
        Keys and descriptions of ilastik's ``axistags``; None where it has none.
    provenance : str
        Earlier notes of volconv.
    """

    letters: str
    chunk: Index5 | None
    packing: Packing | None
    attributes: tuple[tuple[str, Any, np.dtype[Any]], ...]
    left_out: tuple[str, ...]
    tags: tuple[tuple[str, str], ...] | None
    provenance: str


def attribute(data: Any, key: str, name: str) -> Any:
    """Value of an attribute; None where there is none.

    Raises
    ------
    ReadError
        It is damaged, or of a type that h5py does not know.
    """
    try:
        if key not in data.attrs:
            return None
        return data.attrs[key]
    except H5_ERRORS as error:
        raise ReadError(f"{name}: its attribute {key} cannot be read: {one_line(error)}") from error


def as_text(value: Any) -> str | None:
    """Text of an attribute, in whatever way it was written; None where it is no single text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, str) else None


def kept_attributes(data: Any, name: str) -> tuple[tuple[tuple[str, Any, np.dtype[Any]], ...], tuple[str, ...]]:
    """Attributes that are not about axes, places or the file itself; and the names of those that cannot be copied."""
    try:
        keys = sorted(data.attrs)
    except H5_ERRORS as error:
        raise ReadError(f"{name}: its attributes cannot be read: {one_line(error)}") from error
    kept, left = [], []
    for key in keys:
        if key in _OWN or key in _LEFT or key.startswith("_Netcdf4"):
            continue
        try:
            dtype, value = data.attrs.get_id(key).dtype, data.attrs[key]
        except H5_ERRORS:
            left.append(key)
            continue
        if isinstance(value, h5py.Empty) or not _can_be_copied(dtype, value):
            left.append(key)
        else:
            kept.append((key, value, dtype))
    return tuple(kept), tuple(left)


def output_attributes(request: Request, rank: int) -> tuple[list[tuple[str, Any, Any]], tuple[str, ...]]:
    """Attributes of an output as (name, value, dtype or None), and notes on those of the input that it lacks."""
    geometry, header = request.geometry, request.carried("hdf5")
    written: list[tuple[str, Any, Any]] = [("axes", LETTERS[rank], None)]
    if geometry.unit is not None:
        size = np.array(geometry.spacing) * (MILLIMETRES[geometry.unit] * 1e3)
        written += [("affine", geometry.matrix, None), ("unit", geometry.unit, None), ("element_size_um", size, None)]
    elif geometry != Geometry():
        written.append(("affine", geometry.matrix, None))
    if request.time_step is not None:
        written.append(("time_step", request.time_step, None))
    # Always: without it ilastik takes "axes" in reverse.
    written += _axistags(request, rank, dict(header.tags or ()) if header is not None else {})
    if header is None:
        return written + _provenance("", request.note), ()
    moved = request.like is not None and request.like.geometry != geometry
    left = [*header.left_out, *(key for key, _, _ in header.attributes if moved and key in _PLACES)]
    written += [entry for entry in header.attributes if entry[0] not in left]
    notes = (f"{request.path.name}: attributes left out: {', '.join(sorted(left))}",) if left else ()
    return written + _provenance(header.provenance, request.note), notes


def _can_be_copied(dtype: np.dtype[Any], value: Any) -> bool:
    string = h5py.check_string_dtype(dtype)
    if dtype.hasobject and string is None:
        return False  # references, and sequences of any length
    size = np.size(value) * (16 if string is not None and string.length is None else dtype.itemsize)
    return size <= _ATTRIBUTE_BYTES


def _axistags(request: Request, rank: int, descriptions: dict[str, str]) -> list[tuple[str, Any, Any]]:
    """Ilastik's axistags, and the units of their resolutions."""
    geometry = request.geometry
    steps = dict(zip("zyx", geometry.spacing, strict=True)) if geometry.unit is not None else {}
    units = {key: str(geometry.unit) for key in steps}
    if request.time_step is not None:
        steps["t"], units["t"] = request.time_step, "s"
    axes = [
        {
            "key": key,
            "typeFlags": _TYPE_FLAGS.get(key, _SPACE),
            "resolution": steps.get(key, 0),
            "description": descriptions.get(key, ""),
        }
        for key in LABELS[rank]
    ]
    written: list[tuple[str, Any, Any]] = [("axistags", json.dumps({"axes": axes}, indent=2), None)]
    if units:
        present = {key: unit for key, unit in units.items() if key in LABELS[rank]}
        written.append(("axis_units", json.dumps(present), None))
    return written


def _provenance(earlier: str, note: str) -> list[tuple[str, Any, Any]]:
    text = "\n".join(part for part in (earlier, note) if part)
    return [("volconv", text, None)] if text else []
