"""Which axis of an HDF5 dataset is which."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.errors import ParameterError, ReadError
from volconv.io.axes import AXIS, parse_axes
from volconv.io.hdf5.attributes import as_text, attribute
from volconv.io.hdf5.find import H5_ERRORS, RANKS

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a dataset without any information is taken for, by its number of axes.
_DEFAULT = {3: "ZYX", 4: "CZYX", 5: "NCZYX"}

#: Examples for hints, by the number of axes.
_EXAMPLE = {1: "X", 2: "YX", 3: "ZYX", 4: "CZYX", 5: "TCZYX"}

_SYNONYMS = str.maketrans("DHW", "ZYX")


class Tag(NamedTuple):
    """One axis of ilastik's ``axistags``: ``resolution`` 0 where unknown, ``unit`` empty where none is stated."""

    letter: str
    resolution: float
    unit: str
    description: str


class Axes(NamedTuple):
    """What is known of a dataset's axes.

    ``letters`` of T or N, C, Z, Y, X in its own order. ``tags`` of ilastik where they say the same; ``tagged`` tells
    whether it has any at all. ``stated``: the file names its axes.
    """

    letters: str
    tags: tuple[Tag, ...] = ()
    tagged: bool = False
    stated: bool = True
    notes: tuple[str, ...] = ()


def axes_of(data: Any, name: str, option: str | None = None) -> Axes:
    """Axes of a dataset by ``--axes``, volconv's own attribute, ilastik's axistags, labels, or their number.

    Raises
    ------
    ParameterError
        ``--axes`` does not fit.
    ReadError
        What the file says contradicts itself, or it says nothing of 1 or 2 axes.
    """
    tagged = _is_tagged(data)
    if option is not None:
        letters = parse_axes(option, data.shape, name).translate(_SYNONYMS)
        return Axes(letters, _agreeing(data, name, letters), tagged)
    own, notes = _own(data, name)
    if own is not None:
        return Axes(own, _agreeing(data, name, own), tagged)
    if tagged:
        tags = _axistags(data, name)
        return Axes("".join(tag.letter for tag in tags), tags, tagged, notes=notes)
    labels, more = _labels(data, name)
    if labels is not None:
        return Axes(labels, notes=notes)
    if data.ndim not in _DEFAULT:
        raise ReadError(f"{name}: a volume has {RANKS} (got shape {data.shape})", hint=_hint(data))
    return Axes(_DEFAULT[data.ndim], stated=False, notes=notes + more)


def _hint(data: Any) -> str:
    return f"say which axis is which, as in --axes {_EXAMPLE.get(data.ndim, 'ZYX')} (axes=...)"


def _is_tagged(data: Any) -> bool:
    try:
        return "axistags" in data.attrs
    except H5_ERRORS:
        return False


def _own(data: Any, name: str) -> tuple[str | None, tuple[str, ...]]:
    value = attribute(data, "axes", name)
    if value is None:
        return None, ()
    text = as_text(value)
    # Neuroglancer's and NeXus's attributes of this name mean other things; those of volconv are in capitals.
    if not text or not set(text) <= set("TNCDHWZYX"):
        return None, (f"{name}: its attribute axes is not one of volconv's, and is left aside",)
    return _checked(text, data, "axes", name), ()


def _axistags(data: Any, name: str) -> tuple[Tag, ...]:
    try:
        entries = json.loads(as_text(attribute(data, "axistags", name)) or "")["axes"]
        keys = [str(entry["key"]) for entry in entries]
        tags = [
            Tag(
                key.upper(),
                _number(entry.get("resolution")),
                str(entry.get("unit") or ""),
                str(entry.get("description", "")),
            )
            for key, entry in zip(keys, entries, strict=True)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ReadError(f"{name}: its attribute axistags cannot be understood", hint=_hint(data)) from error
    unknown = [key for key in keys if key.upper() not in {"T", "C", "Z", "Y", "X"}]
    if unknown:
        raise ReadError(
            f"{name}: its attribute axistags must name axes of t, c, z, y, x (got {unknown[0]!r})", hint=_hint(data)
        )
    _checked("".join(tag.letter for tag in tags), data, "axistags", name)
    units = _units(data)
    return tuple(tag._replace(unit=tag.unit or units.get(key, "")) for key, tag in zip(keys, tags, strict=True))


def _units(data: Any) -> dict[str, str]:
    """Units that ilastik keeps beside the axistags, by their keys."""
    try:
        known = json.loads(as_text(attribute(data, "axis_units", "")) or "{}")
        return {str(key): str(unit) for key, unit in known.items()}
    except (ReadError, ValueError, AttributeError, RecursionError):
        return {}


def _agreeing(data: Any, name: str, letters: str) -> tuple[Tag, ...]:
    """Axistags where they can be read and name the same axes as something that goes before them."""
    try:
        tags = _axistags(data, name) if _is_tagged(data) else ()
    except ReadError:
        return ()
    return tags if [AXIS[tag.letter] for tag in tags] == [AXIS[letter] for letter in letters] else ()


def _labels(data: Any, name: str) -> tuple[str | None, tuple[str, ...]]:
    try:
        labels = [str(dimension.label) for dimension in data.dims]
    except H5_ERRORS:
        return None, (f"{name}: its dimension labels cannot be read, and are left aside",)
    if not any(labels):
        return None, ()
    letters = "".join(labels).upper()
    known = all(len(label) == 1 and label.upper() in AXIS and label not in "sS" for label in labels)
    if not known or len({AXIS[letter] for letter in letters}) < len(labels):
        told = ", ".join(labels)
        return None, (f"{name}: its dimension labels ({told}) do not name each axis once, and are left aside",)
    return letters.translate(_SYNONYMS), ()


def _checked(letters: str, data: Any, key: str, name: str) -> str:
    """Letters of an attribute, each axis once and as many as there are."""
    sizes: Sequence[int] = data.shape
    try:
        return parse_axes(letters, sizes, name).translate(_SYNONYMS)
    except ParameterError as error:
        raise ReadError(
            f"{name}: its attribute {key} must name each of its {len(sizes)} axes once (got {letters!r}, shape "
            f"{tuple(sizes)})",
            hint=_hint(data),
        ) from error


def _number(value: Any) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if known else 0.0
