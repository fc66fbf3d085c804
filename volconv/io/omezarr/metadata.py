"""What NGFF's metadata say of an image, and what they say of a new one."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError, ReadError
from volconv.geometry import MILLIMETRES, Geometry
from volconv.io.axes import LETTERS, parse_axes
from volconv.io.units import normal_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds, by NGFF's names of units of time.
_SECONDS = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}

#: NGFF's names of volconv's units.
_LENGTHS = {"m": "meter", "mm": "millimeter", "um": "micrometer", "nm": "nanometer"}

_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

_COLOUR = re.compile(r"[0-9a-fA-F]{6}")

#: What is carried on of a channel, and the types that it must have.
_OF_CHANNEL = {"label": str, "active": bool, "inverted": bool, "coefficient": (int, float), "family": str}


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution: where its array lies, and from indices to lengths, axis by axis."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A multiscale image by its metadata.

    Parameters
    ----------
    version : {"0.4", "0.5"}
    names, types, units : tuples
        Of the axes, in the arrays' own order; None where they are not stated.
    levels : tuple of Level
        The finest first.
    channels : tuple of dict
        NGFF's ``omero`` channels, as far as they are well formed; empty where there are none.
    note : str or None
        What volconv noted when it made the image.
    remarks : tuple of str
        What was assumed.
    """

    version: str
    names: tuple[str, ...]
    types: tuple[str | None, ...]
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    channels: tuple[dict[str, Any], ...]
    note: str | None
    remarks: tuple[str, ...]


def parse_image(attributes: Mapping[str, Any], zarr_format: int, name: str) -> Image:
    """What the attributes of a group say.

    Raises
    ------
    ReadError
        It is no image, of another version, or its metadata break the specification.
    """
    version = "0.4" if zarr_format == 2 else "0.5"
    facts = attributes.get("ome", attributes if zarr_format == 2 else None)
    if not isinstance(facts, dict) or "multiscales" not in facts:
        hint = f"name one of the images in it, as in {name}/0" if _holds_images(attributes) else None
        raise ReadError(f"{name}: is no OME-Zarr image (it has no multiscales metadata)", hint=hint)
    found = facts["multiscales"]
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise ReadError(f"{name}: multiscales must be a list of objects (got {_short(found)})")
    stated = facts.get("version", found[0].get("version", version))
    if str(stated).partition("-")[0] not in ("0.4", "0.5"):
        raise ReadError(f"{name}: NGFF version must be 0.4 or 0.5 (got {_short(stated)})")
    model, remarks = _validated(found[0], version, name)
    if len(found) > 1:
        remarks.append(f"{name}: the first of {len(found)} multiscales is taken")
    above = _transform(model.coordinateTransformations, len(model.axes), name)
    levels = []
    for dataset in model.datasets:
        scale, translation = _transform(dataset.coordinateTransformations, len(model.axes), name)
        total = tuple(a * b for a, b in zip(scale, above[0], strict=True))
        moved = tuple(t * b + u for t, b, u in zip(translation, *above, strict=True))
        levels.append(Level(dataset.path, total, moved))
    note = attributes.get("volconv")
    return Image(
        version=version,
        names=tuple(str(axis.name) for axis in model.axes),
        types=tuple(axis.type for axis in model.axes),
        units=tuple(axis.unit if isinstance(axis.unit, str) else None for axis in model.axes),
        levels=tuple(levels),
        channels=_channels(facts.get("omero")),
        note=note if isinstance(note, str) else None,
        remarks=tuple(remarks),
    )


def letters_of(image: Image, shape: Sequence[int], name: str, option: str | None) -> str:
    """Letters of the axes, in the arrays' order; what ``--axes`` says counts more.

    Raises
    ------
    ReadError
        An axis is none of time, channel and space.
    ParameterError
        ``option`` does not fit.
    """
    if option is not None:
        return parse_axes(option, shape, name)
    space = [axis for axis, kind in enumerate(image.types) if kind == "space"]
    known = [image.names[axis].upper() for axis in space]
    if len(set(known)) < len(known) or not set(known) <= set("ZYX"):
        known = list("ZYX"[-len(space) :])
    letters = {"time": "T", "channel": "C"}
    found = ""
    for axis, kind in enumerate(image.types):
        letter = known[space.index(axis)] if axis in space else letters.get(str(kind))
        if letter is None:
            raise ReadError(
                f"{name}: its axis {image.names[axis]!r} is of type {kind!r}, and none of {LETTERS}",
                hint="say what it is with --axes (axes=)",
            )
        found += letter
    return found


def geometry_of(image: Image, level: Level, letters: str, name: str) -> tuple[Geometry, float | None, tuple[str, ...]]:
    """Geometry and time step of a level; and what was assumed of them.

    Raises
    ------
    ReadError
        A number is none.
    """
    if not all(map(math.isfinite, (*level.scale, *level.translation))):
        raise ReadError(f"{name}: scale and translation must be finite (got {level.scale}, {level.translation})")
    at = {letter: axis for axis, letter in enumerate(letters.translate(str.maketrans("DHWN", "ZYXT")))}
    units = {letter: image.units[at[letter]] for letter in "ZYX" if letter in at}
    known = {letter: normal_unit(text) if text else None for letter, text in units.items()}
    notes: tuple[str, ...] = ()
    unit = None
    if known and all(known.values()):
        unit = (known.get("X") or next(iter(known.values())) or ("",))[0]
    elif any(units.values()):
        told = ", ".join(str(text) for text in units.values())
        notes = (f"{name}: its units of length are not all known ({told}), so its spacing is taken to have none",)
    scale, origin = [1.0] * 3, [0.0] * 3
    for number, letter in enumerate("ZYX"):
        if letter in at:
            found = known[letter]
            factor = found[1] * MILLIMETRES[found[0]] / MILLIMETRES[unit] if unit and found else 1.0
            scale[number] = level.scale[at[letter]] * factor
            origin[number] = level.translation[at[letter]] * factor
    step = None
    if "T" in at and (second := _SECONDS.get(image.units[at["T"]] or "")) is not None:
        step = level.scale[at["T"]] * second or None
    return Geometry.from_spacing((scale[0], scale[1], scale[2]), unit, (origin[0], origin[1], origin[2])), step, notes


def new_attributes(
    version: str,
    letters: str,
    levels: Sequence[tuple[str, Geometry]],
    step: float | None,
    channels: Sequence[Mapping[str, Any]],
    name: str,
    note: str,
) -> dict[str, Any]:
    """Attributes of a new image's group.

    Parameters
    ----------
    version : {"0.4", "0.5"}
    letters : str
        Of the axes, slowest first.
    levels : sequence of (str, Geometry)
        Path of each array and where its voxels lie: orientations are left out, and origins of what is oblique.
    step : float or None
        Seconds.
    channels : sequence of dict
        Empty where nothing is known of them.
    name : str
        Of the image.
    note : str
    """
    unit = levels[0][1].unit
    axes = []
    for letter in letters.lower():
        axis = {"name": letter, "type": _TYPES[letter]}
        if letter == "t" and step is not None:
            axis["unit"] = "second"
        if letter in "zyx" and unit is not None:
            axis["unit"] = _LENGTHS[unit]
        axes.append(axis)
    datasets = []
    for path, geometry in levels:
        origin = geometry.origin if geometry.is_axis_aligned else (0.0, 0.0, 0.0)
        scale = {"t": step or 1.0, **dict(zip("zyx", geometry.spacing, strict=True))}
        place = dict(zip("zyx", origin, strict=True))
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [scale.get(letter, 1.0) for letter in letters.lower()]}
        ]
        if any(origin):
            translation = [place.get(letter, 0.0) for letter in letters.lower()]
            transforms.append({"type": "translation", "translation": translation})
        datasets.append({"path": path, "coordinateTransformations": transforms})
    image: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets}
    if version == "0.4":
        image = {"version": version, **image}
    facts: dict[str, Any] = {"multiscales": [image]}
    _validated(image, version, name)
    if channels:
        facts["omero"] = {"channels": [dict(channel) for channel in channels]}
    own = {"volconv": note} if note else {}
    return {**facts, **own} if version == "0.4" else {"ome": {"version": version, **facts}, **own}


def new_channels(
    channels: Sequence[Mapping[str, Any]], ranges: Sequence[tuple[float, float]], *, copied: bool
) -> list[dict[str, Any]]:
    """Metadata of an output's channels: their input's, with the range of the values that they have now.

    Parameters
    ----------
    channels : sequence of dict
        The input's.
    ranges : sequence of (float, float)
        Least and largest finite value of each channel of the output.
    copied : bool
        The values are the input's, so that the window that it is shown in may stay.
    """
    made = []
    for channel, (low, high) in zip(channels, ranges, strict=True):
        window = channel.get("window") if copied else None
        made.append(
            {
                **channel,
                "color": channel.get("color", "FFFFFF"),
                "window": window or {"min": low, "max": high, "start": low, "end": high},
            }
        )
    return made


def parse_version(options: Mapping[str, str]) -> str:
    """Version of NGFF by the creation option.

    Raises
    ------
    ParameterError
    """
    version = options.get("version", "0.5").strip()
    if version not in ("0.4", "0.5"):
        raise ParameterError(f"version must be 0.5 or 0.4 (got {options['version']!r})")
    return version


def _validated(facts: dict[str, Any], version: str, name: str) -> tuple[Any, list[str]]:
    """The model of a multiscale, and what was put right in it."""
    from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
    from ome_zarr_models.v05.multiscales import Multiscale as Multiscale05
    from pydantic import ValidationError

    model = Multiscale04 if version == "0.4" else Multiscale05
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = model.model_validate(facts)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, ("multiscales", *first["loc"])))
            why = " ".join(str(first["msg"]).removeprefix("Value error, ").split())[:200]
            raise ReadError(f"{name}: its NGFF metadata are malformed: {place}: {why}") from error
        except (TypeError, AttributeError, RecursionError) as error:
            raise ReadError(f"{name}: its NGFF metadata are malformed: {_short(error)}") from error
    return found, [f"{name}: {' '.join(str(warning.message).split())}" for warning in said]


def _transform(transforms: Any, count: int, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and translation, axis by axis."""
    scale, translation = (1.0,) * count, (0.0,) * count
    for one in transforms or ():
        numbers = getattr(one, one.type, None)
        if not isinstance(numbers, (list, tuple)):
            raise ReadError(f"{name}: a {one.type} that lies in an array of its own is not read")
        if len(numbers) != count:
            raise ReadError(f"{name}: a {one.type} must have a number for each of {count} axes (got {len(numbers)})")
        if one.type == "scale":
            scale = tuple(numbers)
        else:
            translation = tuple(numbers)
    return scale, translation


def _channels(omero: Any) -> tuple[dict[str, Any], ...]:
    """Channels of ``omero``, of which every reader has its own idea: all that is well formed, or none."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not all(isinstance(channel, dict) for channel in channels):
        return ()
    kept = []
    for channel in channels:
        one = {key: channel[key] for key, kind in _OF_CHANNEL.items() if isinstance(channel.get(key), kind)}  # type: ignore[arg-type]
        if isinstance(channel.get("color"), str) and _COLOUR.fullmatch(channel["color"]):
            one["color"] = channel["color"]
        window = channel.get("window")
        keys = ("min", "max", "start", "end")
        if isinstance(window, dict) and all(_is_number(window.get(key)) for key in keys):
            one["window"] = {key: window[key] for key in keys}
        kept.append(one)
    return tuple(kept)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(float(value)))


def _holds_images(attributes: Mapping[str, Any]) -> bool:
    ome = attributes.get("ome")
    return "bioformats2raw.layout" in attributes or (isinstance(ome, dict) and "bioformats2raw.layout" in ome)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
