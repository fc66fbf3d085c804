"""Datasets of HDF5 files, and among them what Keras calls its layers' weights.

Keras 3 (``.weights.h5``, and within ``.keras``) has ``layers/conv3d/vars/0`` and ``1``, in groups that it names after
the layers' classes: a layer's own name is an attribute of ``vars``. Keras 2 and ``model.h5`` have
``model_weights/conv3d/conv3d/kernel:0`` and ``bias:0``. All keep kernels as (kD, kH, kW, C_in, C_out).
"""

from __future__ import annotations

import json
import re
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError, ShapeError
from volconv.kernels.weights.entries import WeightFile, Weights, check_count, check_size, layers_of, role_of
from volconv.kernels.weights.kinds import KERAS_MEMBER

if TYPE_CHECKING:
    from zipfile import ZipFile

    from numpy.typing import NDArray

_VARIABLE = re.compile(r"(.+/)vars/([01])")
_NAMED = re.compile(r"(?:model_weights/)?(.+)/(kernel|bias)(?::0)?")

#: Groups that hold layers, and are none.
_HOLDERS = {"layers", "_layer_checkpoint_dependencies"}

#: Bytes of a model's description.
_LONGEST_CONFIG = 16 << 20

#: A member of a ``.keras`` archive is unpacked in memory.
_MOST_UNPACKED = 512 << 20


def open_hdf5(file: IO[bytes], path: str, config: Any = None) -> WeightFile:
    """The datasets of a file, whose keys are paths.

    Raises
    ------
    OSError, RuntimeError
        It is damaged.
    """
    import h5py

    h5 = h5py.File(file, "r")
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item
            check_count(len(found), path)

    h5.visititems(note)
    keras = config is not None or "keras_version" in h5.attrs or any(_VARIABLE.fullmatch(name) for name in found)
    transposed = _transposed(config if config is not None else _config(h5)) if keras else set()
    names = _own_names(h5) if keras else {}
    entries = [_entry(name, item, keras, names, transposed) for name, item in found.items()]

    def find(key: str) -> Weights | None:  # paths over soft links are not listed
        from volconv.io.hdf5.find import followed

        try:
            item = followed(h5, key, f"{path}:{key}") if key.strip("/") else None
        except KeyError:
            return None
        return _entry(key.lstrip("/"), item, keras, names, transposed) if isinstance(item, h5py.Dataset) else None

    return WeightFile(entries, lambda entry: _read(h5, entry, path), layers_of(entries), keras, find, h5.close)


def open_keras(archive: ZipFile, path: str) -> WeightFile:
    """The weights within a ``.keras`` archive.

    Raises
    ------
    ReadError
        They are too many.
    """
    import io

    weights = archive.getinfo(KERAS_MEMBER)
    if weights.file_size > _MOST_UNPACKED:
        raise ReadError(
            f"{path} must hold at most {_MOST_UNPACKED >> 20} MB of weights (got {weights.file_size} bytes)",
            hint="save them as a .weights.h5 file",
        )
    with archive.open(weights) as member:
        content = io.BytesIO(member.read(_MOST_UNPACKED))
    config: Any = {}
    if "config.json" in archive.namelist():
        with archive.open("config.json") as member:
            config = _parsed(member.read(_LONGEST_CONFIG))
    return open_hdf5(content, path, config)


def _own_names(h5: Any) -> dict[str, str]:
    """Names of Keras 3's layers by their groups."""
    import h5py

    names: dict[str, str] = {}

    def note(path: str, item: Any) -> None:
        group, _, last = path.rpartition("/")
        if last == "vars" and isinstance(item, h5py.Group) and isinstance(item.attrs.get("name"), str):
            names[group] = item.attrs["name"]

    h5.visititems(note)
    return names


def _entry(name: str, item: Any, keras: bool, names: dict[str, str], transposed: set[str]) -> Weights:
    try:
        shape = None if item.shape is None else tuple(item.shape)
        dtype = "text" if item.dtype.hasobject else item.dtype.name
    except (TypeError, ValueError):  # of a type that h5py does not know
        shape, dtype = None, "unknown"
    layer, role = _keras_role(name, names) if keras else role_of(f"/{name}")
    layout = refusal = None
    if keras and role == "weight":
        layout = "dhwio"
        if layer is not None and layer.rpartition("/")[2] in transposed:
            refusal = "is the weight of a transposed convolution"
    return Weights(f"/{name}", shape, dtype, layer and layer.lstrip("/"), role, layout, refusal, place=item)


def _keras_role(name: str, names: dict[str, str]) -> tuple[str | None, str | None]:
    """Layer and role of a path in Keras's layouts; what optimisers keep is of no layer."""
    if name.startswith(("optimizer", "_optimizer")):
        return None, None
    if match := _VARIABLE.fullmatch(name):
        parts = match[1].strip("/").split("/")
        groups = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        told = [names.get(group, part) for group, part in zip(groups, parts, strict=True) if part not in _HOLDERS]
        return "/".join(told), ("weight", "bias")[int(match[2])]
    if match := _NAMED.fullmatch(name):
        parts = match[1].split("/")
        told = [part for n, part in enumerate(parts) if n == 0 or part != parts[n - 1]]
        return told[0] if told[0] == told[-1] else "/".join(told), "bias" if match[2] == "bias" else "weight"
    return None, None


def _config(h5: Any) -> Any:
    """A model's description, as Keras 2 keeps it; None where there is none."""
    try:
        text = h5.attrs.get("model_config")
    except (OSError, RuntimeError, ValueError, TypeError):
        return None
    text = text.encode() if isinstance(text, str) else text
    return _parsed(text) if isinstance(text, bytes) else None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text) if len(text) < _LONGEST_CONFIG else None
    except (ValueError, RecursionError):
        return None


def _transposed(config: Any) -> set[str]:
    """Names of transposed layers, from a description; layers may be within layers."""
    found, pending = set(), [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            inner = item.get("config")
            if "Transpose" in str(item.get("class_name")) and isinstance(inner, dict):
                found.add(str(inner.get("name")))
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return found


def _read(h5: Any, entry: Weights, path: str) -> NDArray[Any]:
    from volconv.io.hdf5.find import parts_inside

    what = f"{path}:{entry.key}"
    item = entry.place
    if item.dtype.hasobject or item.shape is None:
        raise ShapeError(f"weights must be a numeric array (got {item.dtype} with shape {item.shape} in {what})")
    check_size(item.shape, item.dtype, what)
    parts_inside(h5, item, what)
    return np.asarray(item[()])
