"""Kernels that have a name: ``gaussian:sigma=1.5mm``, ``box:size=3``, ``sobel:axis=z``.

Weights are float64, axes D, H, W, and are defined as **applied by cross-correlation** (no flip), as Conv3d does.
Formula, source and normalisation of each are in the docstring of the function that builds it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError
from volconv.kernels import differences, gaussians, means
from volconv.kernels.files import KINDS, other_file_hint
from volconv.kernels.parsing import Asked, did_you_mean, parse_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.geometry import Geometry

    Float64s = NDArray[np.float64]


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
        From what is asked to the weights.
    """

    description: str
    example: str
    parameters: tuple[str, ...]
    build: Callable[[Asked], Float64s]

    @property
    def documentation(self) -> str:
        """Formula, normalisation and source, in reStructuredText."""
        return inspect.getdoc(self.build) or ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {name: getattr(self, name) for name in ("description", "parameters", "example", "documentation")}
        return {"name": self.example.partition(":")[0]} | facts


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
            hint=other_file_hint(spec) or did_you_mean(name, NAMES),
        ) from None
    values = parse_values(name, kernel.parameters, kernel.example, rest) if colon else {}
    with np.errstate(all="ignore"):  # what comes of lengths out of all proportion is told below
        weights = kernel.build(Asked(name, values, geometry, source_name))
    if not np.isfinite(weights).all():
        raise ParameterError(
            f"{name} must make weights that are finite numbers (got {spec!r})", hint="its lengths are out of range"
        )
    return weights


REGISTRY: dict[str, NamedKernel] = {
    "gaussian": NamedKernel(
        "Gaussian of sum 1, or with order= its derivative, per unit of the sigma",
        "gaussian:sigma=1mm,order=0/0/1",
        ("sigma", "fwhm", "truncate", "order"),
        gaussians.gaussian,
    ),
    "box": NamedKernel("mean over a box; size= in voxels or a length", "box:size=3", ("size",), means.box),
    "ball": NamedKernel("mean over the voxels within radius=", "ball:radius=3mm", ("radius",), means.ball),
    "neighbours": NamedKernel(
        "sum over the 6, 18 or 26 neighbours, without the voxel itself",
        "neighbours:count=26",
        ("count",),
        means.neighbours,
    ),
    "log": NamedKernel(
        "Laplacian of a Gaussian, per unit of the sigma squared", "log:sigma=2mm", ("sigma", "truncate"), gaussians.log
    ),
    "dog": NamedKernel(
        "difference of Gaussians, low minus high (default 1.6 times low)",
        "dog:low=1mm,high=1.6mm",
        ("low", "high", "truncate"),
        gaussians.dog,
    ),
    "laplacian": NamedKernel(
        "sum of second differences of 7, 19 or 27 points, per voxel or unit= squared",
        "laplacian:points=27",
        ("points", "unit"),
        differences.laplacian,
    ),
    "gradient": NamedKernel(
        "central differences along z, y, x (3 channels), or of a Gaussian with sigma=",
        "gradient:unit=mm",
        ("axis", "unit", "sigma", "truncate"),
        differences.gradient,
    ),
    "hessian": NamedKernel(
        "second derivatives zz, zy, zx, yy, yx, xx (6 channels), as gradient",
        "hessian:sigma=1.5mm",
        ("unit", "sigma", "truncate"),
        differences.hessian,
    ),
    **{
        name: NamedKernel(
            f"difference along z, y, x (3 channels) or axis=, smoothed {across} across; unit= normalises",
            f"{name}:axis=z",
            ("axis", "unit"),
            differences.smoothed_difference,
        )
        for name, across in (("sobel", "1 2 1"), ("scharr", "3 10 3"), ("prewitt", "1 1 1"))
    },
    "gabor": NamedKernel(
        "Gaussian times a plane wave along direction= D/H/W; phase= in degrees",
        "gabor:sigma=2mm,wavelength=6mm,direction=0/0/1",
        ("sigma", "wavelength", "direction", "phase", "truncate"),
        gaussians.gabor,
    ),
    "unsharp": NamedKernel(
        "sharpens: the volume plus amount= (1) times what a Gaussian takes away",
        "unsharp:sigma=1mm,amount=1",
        ("sigma", "amount", "truncate"),
        gaussians.unsharp,
    ),
    "identity": NamedKernel("one voxel of weight 1: the volume itself", "identity", (), means.identity),
}


def named_kernels(name: str | None = None) -> dict[str, NamedKernel]:
    """All named kernels, or the one of this name.

    Raises
    ------
    ParameterError
        There is none.

    Examples
    --------
    >>> named_kernels("box")["box"].parameters
    ('size',)
    """
    if name is None:
        return dict(REGISTRY)
    if name not in REGISTRY:
        raise ParameterError(
            f"name must be one of {', '.join(NAMES)} (got {name!r})",
            hint=other_file_hint(name) or did_you_mean(name.partition(":")[0], NAMES),
        )
    return {name: REGISTRY[name]}


#: Name to one-line description, in the order to list them.
NAMES: dict[str, str] = {name: kernel.description for name, kernel in REGISTRY.items()}
