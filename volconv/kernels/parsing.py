"""What the parameters of a named kernel say: numbers, choices, and lengths in the units of a volume's grid."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.errors import ParameterError
from volconv.params import AXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from volconv.geometry import Geometry
    from volconv.params import Triple

    Floats = tuple[float, float, float]

#: Units of a length; "vox" is the default.
UNITS = ("mm", "um", "nm", "vox")

#: One GiB of float64: a typing error ("sigma=1000mm") should be told, not computed.
MAX_TAPS = 2**27

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LENGTH = re.compile(rf"({_NUMBER})\s*([^\W\d]*)")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a named kernel.

    Parameters
    ----------
    kernel : str
        Its name, for errors.
    values : dict
        Texts of its parameters.
    geometry : Geometry
        Of the volume that it is for.
    source_name : str
        What errors call that volume.
    """

    kernel: str
    values: Mapping[str, str]
    geometry: Geometry
    source_name: str

    def text(self, name: str, example: str) -> str:
        """A parameter that must be there."""
        if name not in self.values:
            raise ParameterError(f"{self.kernel} needs {name} (got none)", hint=f"for example {example}")
        return self.values[name]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Three lengths along D, H, W.

    Parameters
    ----------
    name, text : str
        The parameter and what it says, for errors.
    voxels : tuple of 3 floats
    units : tuple of 3 str
        Of :data:`UNITS`.
    """

    name: str
    text: str
    voxels: Floats
    units: tuple[str, str, str]


def parse_values(name: str, takes: Sequence[str], example: str, text: str) -> dict[str, str]:
    """``a=1,b=2`` as a dict, checked against what a kernel takes.

    Raises
    ------
    ParameterError
    """
    listed = " and ".join(filter(None, [", ".join(takes[:-1]), *takes[-1:]])) or "no parameters"
    values: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if takes and not (key and equals and value):
            raise ParameterError(
                f"{name} parameters must be param=value, separated by commas (got {text!r})",
                hint=f"for example {example}",
            )
        if key not in takes:
            raise ParameterError(f"{name} takes {listed} (got {item!r})", hint=did_you_mean(key, takes))
        if key in values:
            raise ParameterError(f"{name} {key} must be given once (got {values[key]!r} and {value!r})")
        values[key] = value
    return values


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint at the known word that is closest."""
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


def lengths(asked: Asked, name: str, example: str) -> Lengths:
    """``1.5mm``, ``1/2/2mm`` or ``1mm/2mm/2mm`` as lengths of at least 0 along D, H, W.

    Raises
    ------
    ParameterError
        No such lengths, or a physical one on a grid that states no spacing.
    """
    text = asked.text(name, example)
    matches = [_LENGTH.fullmatch(part.strip()) for part in text.split("/")]
    texts = [m[1] for m in matches if m]
    if len(texts) != len(matches) or len(texts) not in (1, 3) or not all(math.isfinite(float(t)) for t in texts):
        raise ParameterError(
            f"{asked.kernel} {name} must be one finite number or three (D/H/W), in {', '.join(UNITS)} (got {text!r})",
            hint=f"for example {name}=1.5mm, or {name}=1/2/2mm",
        )
    units = [m[2].replace("µ", "u").replace("μ", "u") for m in matches if m]
    if not any(units[:-1]):
        units = [units[-1] or "vox"] * len(units)
    if not set(units) <= set(UNITS):
        raise ParameterError(
            f"{asked.kernel} {name} must be in {', '.join(UNITS)} (got {text!r})",
            hint="give one unit at the end, or one after each number; no unit means vox",
        )
    if any(float(t) < 0 for t in texts):
        raise ParameterError(f"{asked.kernel} {name} must be at least 0 (got {text!r})")
    repeat = 3 // len(texts)
    in_voxels = f"state it (--spacing 1,0.5,0.5um), or give {name} in voxels, without a unit, as in {name}=2"
    d, h, w = (
        float(number) / _step(f"{name}={text}", unit, axis, asked, in_voxels)
        for axis, (number, unit) in enumerate(zip(texts * repeat, units * repeat, strict=True))
    )
    one, two, three = units * repeat
    return Lengths(name, text, (d, h, w), (one, two, three))


def steps(asked: Asked, lengths_in: Lengths) -> Floats:
    """Distances of voxels along D, H, W in the unit of lengths, which must be one: what derivatives are divided by."""
    if len(set(lengths_in.units)) > 1:
        raise ParameterError(
            f"{asked.kernel} {lengths_in.name} must be in one unit, that of the result (got {lengths_in.text!r})",
            hint=f"for example {lengths_in.name}=1/2/2mm",
        )
    return _steps(asked, lengths_in.units[0], f"{lengths_in.name}={lengths_in.text}")


def unit_steps(asked: Asked) -> Floats | None:
    """Distances of voxels along D, H, W in the unit that ``unit=`` says; None where there is no ``unit=``.

    Raises
    ------
    ParameterError
        An unknown unit, or a physical one on a grid that states no spacing.
    """
    text = asked.values.get("unit")
    if text is None:
        return None
    unit = text.replace("µ", "u").replace("μ", "u")
    if unit not in UNITS:
        raise ParameterError(
            f"{asked.kernel} unit must be one of {', '.join(UNITS)} (got {text!r})",
            hint="the result is per that unit, by the volume's spacing; per voxel is unit=vox",
        )
    return _steps(asked, unit, f"unit={text}")


def _steps(asked: Asked, unit: str, what: str) -> Floats:
    hint = "state it (--spacing 1,0.5,0.5um), or ask for differences per voxel, without a unit"
    d, h, w = (_step(what, unit, axis, asked, hint) for axis in range(3))
    return d, h, w


def _step(what: str, unit: str, axis: int, asked: Asked, hint: str) -> float:
    """Distance of voxels along an axis (0 is D) in a unit; 1 in voxels."""
    if unit == "vox":
        return 1.0
    spacing = asked.geometry.spacing_in(unit)
    if spacing is None:
        raise ParameterError(f"{what} needs a spacing, and {asked.source_name} states none", hint=hint)
    if not (math.isfinite(spacing[axis]) and spacing[axis] > 0):
        raise ParameterError(
            f"{what} needs a positive spacing, and {asked.source_name} states {AXES[axis]}={spacing[axis]:g}{unit}",
            hint=hint,
        )
    return spacing[axis]


def number(asked: Asked, name: str, default: float, rule: str, least: float = -math.inf) -> float:
    """A finite number above ``least``; ``rule`` says in words what it must be."""
    text = asked.values.get(name)
    if text is None:
        return default
    value = float(text) if re.fullmatch(_NUMBER, text) else math.nan
    if not (math.isfinite(value) and value > least):
        raise ParameterError(f"{asked.kernel} {name} must be {rule} (got {text!r})", hint=f"the default is {default:g}")
    return value


def numbers(asked: Asked, name: str, example: str) -> Floats:
    """Three finite numbers D/H/W."""
    text = asked.text(name, example)
    parts = [part.strip() for part in text.split("/")]
    if len(parts) != 3 or not all(re.fullmatch(_NUMBER, p) and math.isfinite(float(p)) for p in parts):
        raise ParameterError(
            f"{asked.kernel} {name} must be three finite numbers, D/H/W (got {text!r})", hint=f"for example {example}"
        )
    d, h, w = map(float, parts)
    return d, h, w


def choice(asked: Asked, name: str, allowed: Sequence[str], hint: str) -> str | None:
    """One of some words; None where the parameter is not given."""
    value = asked.values.get(name)
    if value is not None and value not in allowed:
        listed = ", ".join(allowed[:-1]) + f" or {allowed[-1]}"
        raise ParameterError(f"{asked.kernel} {name} must be {listed} (got {value!r})", hint=hint)
    return value


def check_taps(what: str, sizes: Sequence[int], text: str) -> None:
    """Refuse a kernel of more numbers than anyone can mean.

    Raises
    ------
    ParameterError
    """
    if math.prod(sizes) > MAX_TAPS:
        raise ParameterError(f"{what} must make a kernel of at most {MAX_TAPS} taps (got {text!r})")


def reach(voxels: Floats, times: float = 1.0) -> Triple:
    """How many voxels lengths reach on either side, rounded to nearest; what is far too large stays only that."""
    d, h, w = (int(min(times * v, float(MAX_TAPS)) + 0.5) for v in voxels)
    return d, h, w
