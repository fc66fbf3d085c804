"""Kernels that have a name: ``gaussian:sigma=1.5mm``, ``box:size=3``, ``sobel:axis=z``.

Weights are float64, axes D, H, W, and are defined as **applied by cross-correlation** (no flip), as Conv3d does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from volconv.errors import ParameterError
from volconv.kernels.files import KINDS, other_file_hint
from volconv.params import AXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from volconv.geometry import Geometry

    Float64s = NDArray[np.float64]
    Builder = Callable[[dict[str, str], Geometry, str], Float64s]

#: Units of a length; "vox" is the default.
UNITS = ("mm", "um", "nm", "vox")

#: One GiB of float64: a typing error ("sigma=1000mm") should be told, not computed.
MAX_TAPS = 2**27

_LENGTH = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\W\d]*)")
_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
_DIFFERENCE, _SMOOTHING = np.array([-1.0, 0.0, 1.0]), np.array([1.0, 2.0, 1.0])


@dataclass(frozen=True, slots=True)
class NamedKernel:
    """What a name stands for.

    Parameters
    ----------
    description : str
        One line for a list of all names.
    example : str
        A spec that works.
    parameters : tuple of str
        What may follow the name.
    build : callable
        From the parameters' texts, the volume's geometry and the volume's name to the weights.
    """

    description: str
    example: str
    parameters: tuple[str, ...]
    build: Builder


def build_kernel(spec: str, geometry: Geometry, source_name: str = "volume") -> Float64s:
    """Weights of a named kernel.

    Parameters
    ----------
    spec : str
        ``NAME[:param=value,...]``, NAME one of :data:`NAMES`.
    geometry : Geometry
        Of the volume that the kernel is for: it turns millimetres into voxels.
    source_name : str
        What errors call that volume.

    Returns
    -------
    ndarray of float64
        Axes (D, H, W), or (C_out, D, H, W) for a bank.

    Raises
    ------
    ParameterError
        An unknown name, or parameters that break the kernel's rules.

    Examples
    --------
    >>> from volconv.geometry import Geometry
    >>> build_kernel("box:size=1/1/2", Geometry()).tolist()
    [[[0.5, 0.5]]]
    >>> build_kernel("gaussian:sigma=1mm", Geometry.from_spacing((2.0, 1.0, 1.0))).shape
    (5, 9, 9)
    """
    name, colon, rest = spec.partition(":")
    try:
        kernel = REGISTRY[name]
    except KeyError:
        raise ParameterError(
            f"kernel must be a file ({KINDS}) or one of {', '.join(NAMES)} (got {spec!r})",
            hint=other_file_hint(spec) or _did_you_mean(name, NAMES),
        ) from None
    return kernel.build(_parameters(name, kernel, rest) if colon else {}, geometry, source_name)


def gaussian_1d(sigma: float, truncate: float = 4.0) -> Float64s:
    """Sampled Gaussian of sum 1 along one axis.

    ``exp(-x**2 / (2*sigma**2))`` at the integers up to ``int(truncate*sigma + 0.5)``, divided by its sum: the same
    numbers as ``scipy.ndimage.gaussian_filter1d`` (``_gaussian_kernel1d``), which also leaves an axis alone
    where sigma is at most 1e-15.

    Parameters
    ----------
    sigma : float
        Standard deviation in voxels.
    truncate : float
        Where to stop, in sigmas.

    Examples
    --------
    >>> gaussian_1d(0.5, truncate=2).round(4).tolist()
    [0.1065, 0.787, 0.1065]
    """
    if sigma <= 1e-15:
        return np.ones(1)
    radius = int(truncate * sigma + 0.5)
    values = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    normalised: Float64s = values / values.sum()
    return normalised


def _gaussian(values: dict[str, str], geometry: Geometry, source_name: str) -> Float64s:
    given = [name for name in ("sigma", "fwhm") if name in values]
    if len(given) != 1:
        raise ParameterError(
            f"gaussian needs either sigma or fwhm (got {'both' if given else 'neither'})",
            hint="for example gaussian:sigma=1.5mm",
        )
    voxels = _lengths(given[0], values[given[0]], geometry, source_name)
    sigmas = [v / _FWHM_PER_SIGMA for v in voxels] if given == ["fwhm"] else voxels
    truncate = _truncate(values.get("truncate", "4"))
    reach = [min(truncate * s, float(MAX_TAPS)) for s in sigmas]
    _check_taps(f"gaussian {given[0]}", [2 * int(r + 0.5) + 1 for r in reach], values[given[0]])
    return _outer([gaussian_1d(s, truncate) for s in sigmas])


def _box(values: dict[str, str], _geometry: Geometry, _source_name: str) -> Float64s:
    if "size" not in values:
        raise ParameterError("box needs size (got none)", hint="for example box:size=3, or box:size=3/5/5 for D/H/W")
    parts = values["size"].split("/")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"[0-9]{1,18}", p) and int(p) > 0 for p in parts):
        raise ParameterError(
            f"box size must be one positive integer or three (D/H/W) (got {values['size']!r})",
            hint="sizes count voxels: box:size=3",
        )
    sizes = [int(p) for p in parts] * (3 // len(parts))
    _check_taps("box size", sizes, values["size"])
    return np.full(sizes, 1.0 / math.prod(sizes))


def _identity(_values: dict[str, str], _geometry: Geometry, _source_name: str) -> Float64s:
    return np.ones((1, 1, 1))


def _laplacian(_values: dict[str, str], _geometry: Geometry, _source_name: str) -> Float64s:
    weights = np.zeros((3, 3, 3))
    weights[1, 1, :] = weights[1, :, 1] = weights[:, 1, 1] = 1.0
    weights[1, 1, 1] = -6.0
    return weights


def _sobel(values: dict[str, str], _geometry: Geometry, _source_name: str) -> Float64s:
    one_axis = {
        axis: _outer([_DIFFERENCE if axis == other else _SMOOTHING for other in ("z", "y", "x")])
        for axis in ("z", "y", "x")
    }
    if "axis" not in values:
        return np.stack(list(one_axis.values()))
    if values["axis"] not in one_axis:
        raise ParameterError(
            f"sobel axis must be z, y or x (got {values['axis']!r})",
            hint="z is D, y is H, x is W; plain sobel gives all three",
        )
    return one_axis[values["axis"]]


REGISTRY: dict[str, NamedKernel] = {
    "gaussian": NamedKernel(
        "Gaussian of sum 1: sigma= or fwhm= in mm, um, nm or vox (1.5mm; 1/2/2mm is D/H/W), truncate= in sigmas (4)",
        "gaussian:sigma=1.5mm",
        ("sigma", "fwhm", "truncate"),
        _gaussian,
    ),
    "box": NamedKernel("mean of a box: size= in voxels (3; 3/5/5 is D/H/W)", "box:size=3", ("size",), _box),
    "identity": NamedKernel("one voxel of weight 1: the volume itself", "identity", (), _identity),
    "laplacian": NamedKernel(
        "7-point Laplacian, voxels counted as 1 apart: the 6 neighbours minus 6 times the centre",
        "laplacian",
        (),
        _laplacian,
    ),
    "sobel": NamedKernel(
        "derivative along axis= z, y or x, smoothed by 1 2 1 across, not normalised; without axis= all three",
        "sobel:axis=z",
        ("axis",),
        _sobel,
    ),
}

#: Name to one-line description, in the order to list them.
NAMES: dict[str, str] = {name: kernel.description for name, kernel in REGISTRY.items()}


def _parameters(name: str, kernel: NamedKernel, text: str) -> dict[str, str]:
    """``a=1,b=2`` as a dict, checked against what the kernel takes."""
    takes = " and ".join(filter(None, [", ".join(kernel.parameters[:-1]), *kernel.parameters[-1:]])) or "no parameters"
    values: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if kernel.parameters and not (key and equals and value):
            raise ParameterError(
                f"{name} parameters must be param=value, separated by commas (got {text!r})",
                hint=f"for example {kernel.example}",
            )
        if key not in kernel.parameters:
            raise ParameterError(f"{name} takes {takes} (got {item!r})", hint=_did_you_mean(key, kernel.parameters))
        if key in values:
            raise ParameterError(f"{name} {key} must be given once (got {values[key]!r} and {value!r})")
        values[key] = value
    return values


def _did_you_mean(word: str, known: Iterable[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


def _lengths(name: str, text: str, geometry: Geometry, source_name: str) -> list[float]:
    """``1.5mm``, ``1/2/2mm`` or ``1mm/2mm/2mm`` as three numbers of voxels (D, H, W)."""
    matches = [_LENGTH.fullmatch(part.strip()) for part in text.split("/")]
    texts = [m[1] for m in matches if m]
    if len(texts) != len(matches) or len(texts) not in (1, 3) or not all(math.isfinite(float(t)) for t in texts):
        raise ParameterError(
            f"gaussian {name} must be one finite number or three (D/H/W), in {', '.join(UNITS)} (got {text!r})",
            hint=f"for example {name}=1.5mm, or {name}=1/2/2mm",
        )
    units = [m[2].replace("µ", "u").replace("μ", "u") for m in matches if m]
    if not any(units[:-1]):
        units = [units[-1] or "vox"] * len(units)
    if not set(units) <= set(UNITS):
        raise ParameterError(
            f"gaussian {name} must be in {', '.join(UNITS)} (got {text!r})",
            hint="give one unit at the end, or one after each number; no unit means vox",
        )
    if any(float(t) < 0 for t in texts):
        raise ParameterError(f"gaussian {name} must be at least 0 (got {text!r})")
    repeat = 3 // len(texts)
    in_voxels = f"state it (--spacing 1,0.5,0.5um), or give {name} in voxels, without a unit, as in {name}=2"
    return [
        float(number) / _spacing(f"{name}={text}", unit, axis, geometry, source_name, in_voxels)
        for axis, (number, unit) in enumerate(zip(texts * repeat, units * repeat, strict=True))
    ]


def _spacing(what: str, unit: str, axis: int, geometry: Geometry, source_name: str, hint: str) -> float:
    """Distance of voxels along an axis (0 is D) in a unit; 1 in voxels."""
    if unit == "vox":
        return 1.0
    spacing = geometry.spacing_in(unit)
    if spacing is None:
        raise ParameterError(f"{what} needs a spacing, and {source_name} states none", hint=hint)
    if not (math.isfinite(spacing[axis]) and spacing[axis] > 0):
        raise ParameterError(
            f"{what} needs a positive spacing, and {source_name} states {AXES[axis]}={spacing[axis]:g}{unit}", hint=hint
        )
    return spacing[axis]


def _truncate(text: str) -> float:
    match = _LENGTH.fullmatch(text)
    value = float(match[1]) if match and not match[2] else math.nan
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(
            f"gaussian truncate must be a number of sigmas above 0 (got {text!r})", hint="the default is 4"
        )
    return value


def _check_taps(what: str, sizes: Sequence[int], text: str) -> None:
    if math.prod(sizes) > MAX_TAPS:
        raise ParameterError(f"{what} must make a kernel of at most {MAX_TAPS} taps (got {text!r})")


def _outer(factors: Sequence[Float64s]) -> Float64s:
    """Kernel (D, H, W) that is the product of three 1-D ones."""
    return reduce(np.multiply.outer, factors)
