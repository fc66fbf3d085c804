"""What weights are: size, sum, symmetry, the products that they are made of, and how they would be applied."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.factors import LARGEST, count_terms, find_factors
from volconv.errors import ParameterError
from volconv.geometry import Geometry
from volconv.io import VolumeInfo, open_volume
from volconv.job import resolve_job
from volconv.kernels import arranged, load_kernel
from volconv.kernels.saving import check_output, save_weights
from volconv.params import AXES
from volconv.plan import make_plan

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from volconv.kernels import Kernel
    from volconv.region import Index5

#: Of the keys of :meth:`KernelReport.as_dict`, and of their meaning.
SCHEMA_VERSION = 1

#: The volume that a kernel is taken to be for where none is given: (D, H, W), float32, one for each input channel.
TYPICAL = (256, 256, 256)

#: Taps that are shown along each axis of a slice.
SHOWN = 7

#: What is smaller than so much of the largest weight is rounding: single precision, in which weights mostly are stored.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """The weights of one output channel.

    Parameters
    ----------
    sum : complex or float
    norm : float
        Root of the sum of squared magnitudes.
    ranks : tuple of 3 ints, or None
        Of the kernel unfolded along D, H, W, in single precision: all 1 where it is a product of three 1-D kernels.
    products : int or None
        How many products of 1-D kernels it is a sum of. None where they are more than a few; both None too of several
        input channels, of complex weights and of very large kernels.
    symmetry : tuple of 3 str
        "even", "odd" or "none" along D, H, W.
    """

    sum: complex
    norm: float
    ranks: tuple[int, int, int] | None
    products: int | None
    symmetry: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Slice:
    """The middle of a plane of weights, at most :data:`SHOWN` taps a side.

    Parameters
    ----------
    across : str
        Of D, H, W, which the plane is perpendicular to, through the kernel's middle.
    axes : tuple of 2 str
        Along rows' order, and along each row.
    first : tuple of 2 ints
        Taps of the first row and column, counted from the middle one.
    values : tuple of tuples
    """

    across: str
    axes: tuple[str, str]
    first: tuple[int, int]
    values: tuple[tuple[complex, ...], ...]


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What :func:`report_kernel` finds.

    Parameters
    ----------
    kernel : str
        As asked for.
    shape : tuple of 3, 4 or 5 ints
        In PyTorch's order, whatever the file's.
    dtype : str
    layout : {"oidhw", "dhwio", None}
        The file's order of five axes.
    bias : str or None
        Where the bias is that comes with the weights.
    stated : dict
        What the file says of stride, dilation and groups.
    volume : str or None
        The file that it is for; None: a typical volume.
    volume_shape : tuple of 5 ints
    volume_dtype : str
    spacing : tuple of 3 floats, or None
        D, H, W of that volume, in ``unit``.
    unit : str or None
    channels : tuple of ChannelReport
        One for each output channel.
    algorithm : str
        That which 'apply' would take for that volume, with padding "same", or none where the file states a stride.
    predicted_seconds : dict
        On one thread, by algorithm.
    shown_channel : int
    slices : tuple of 3 Slice
        Across D, H, W; of that output channel and its first input channel.
    """

    kernel: str
    shape: tuple[int, ...]
    dtype: str
    layout: str | None
    bias: str | None
    stated: dict[str, Any]
    volume: str | None
    volume_shape: Index5
    volume_dtype: str
    spacing: tuple[float, float, float] | None
    unit: str | None
    channels: tuple[ChannelReport, ...]
    algorithm: str
    predicted_seconds: dict[str, float]
    shown_channel: int
    slices: tuple[Slice, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: complex numbers are lists of two."""
        return {"schema_version": SCHEMA_VERSION} | {key: _plain(value) for key, value in asdict(self).items()}


def like_volume(
    like: str | os.PathLike[str] | None = None, spacing: tuple[tuple[float, float, float], str | None] | None = None
) -> VolumeInfo | None:
    """What is known of the volume that a kernel is for; None where nothing is.

    Parameters
    ----------
    like : path, optional
        A volume's file; only its header is read.
    spacing : (3 floats, unit or None), optional
        Distance of voxels along D, H, W, in place of the file's.

    Raises
    ------
    ReadError, ParameterError
    """
    if like is not None:
        with open_volume(like, spacing=spacing) as volume:
            return volume.info
    if spacing is None:
        return None
    if spacing[1] is None:
        raise ParameterError("spacing must have a unit where no volume states one (got none)", hint="as in 1,0.5,0.5um")
    return VolumeInfo((1, 1, *TYPICAL), np.dtype(np.float32), Geometry.from_spacing(*spacing))


def report_kernel(
    kernel: str,
    like: str | os.PathLike[str] | None = None,
    spacing: tuple[tuple[float, float, float], str | None] | None = None,
    channel: int = 0,
    weight_layout: str | None = None,
) -> KernelReport:
    """Describe what ``--kernel`` names.

    Parameters
    ----------
    kernel : str
        As :func:`volconv.kernels.load_kernel` takes it.
    like, spacing
        As :func:`like_volume` takes them.
    channel : int
        Output channel whose middle slices are shown.
    weight_layout : {"oidhw", "dhwio"}, optional
        Order of five axes; by default the file's, where its kind settles it, or that which fits ``like``, or the bias,
        or PyTorch's.

    Raises
    ------
    ReadError, ParameterError, ShapeError, DtypeError

    Examples
    --------
    >>> found = report_kernel("sobel:axis=x")
    >>> found.channels[0].symmetry, found.channels[0].products
    (('even', 'even', 'odd'), 1)
    """
    given = like_volume(like, spacing)
    loaded, weights, layout = _loaded(kernel, like, given, weight_layout)
    stated = {name: loaded.parameters[name] for name in ("stride", "dilation", "groups") if name in loaded.parameters}
    full = weights.reshape((1,) * (5 - weights.ndim) + weights.shape)
    if weights.ndim == 4:
        full = weights[:, np.newaxis]
    if not 0 <= channel < len(full):
        raise ParameterError(
            f"channel must be {'0' if len(full) == 1 else f'0 to {len(full) - 1}'} with this kernel (got {channel})"
        )
    info = given or VolumeInfo((1, 1, *TYPICAL), np.dtype(np.float32))
    if like is None:
        info = replace(info, shape=(1, full.shape[1] * stated.get("groups", 1), *TYPICAL))
    strided = any(step != 1 for step in stated.get("stride", ()))
    job = resolve_job(info, weights, source_name="volume", padding=0 if strided else "same", **stated)
    factors = find_factors(job.params, job.weight, job.compute_dtype)
    plan = make_plan(job.params, info.shape, job.compute_dtype, factors=factors)
    has_unit = info.geometry.unit is not None
    return KernelReport(
        kernel=kernel,
        shape=weights.shape,
        dtype=weights.dtype.name,
        layout=layout,
        bias=loaded.bias_name,
        stated=stated,
        volume=None if like is None else str(like),
        volume_shape=info.shape,
        volume_dtype=info.dtype.name,
        spacing=info.geometry.spacing if has_unit else None,
        unit=info.geometry.unit,
        channels=tuple(_channel(values) for values in full),
        algorithm=plan.algorithm,
        predicted_seconds=plan.candidates,
        shown_channel=channel,
        slices=tuple(_slice(full[channel, 0], axis) for axis in range(3)),
    )


def save_kernel(
    kernel: str,
    output: str,
    like: str | os.PathLike[str] | None = None,
    spacing: tuple[tuple[float, float, float], str | None] | None = None,
    *,
    weight_layout: str | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write what ``--kernel`` names into a file, as :func:`volconv.kernels.saving.save_weights` does.

    Weights are written in PyTorch's order; a bias that comes with them beside them, where the file can hold two arrays.
    What is returned are notes on what is left out.

    Raises
    ------
    ReadError, ParameterError, ShapeError, OutputExistsError, WriteError
    """
    check_output(output, overwrite=overwrite)
    loaded, weights, _ = _loaded(kernel, like, like_volume(like, spacing), weight_layout)
    bias_is_saved = save_weights(weights, output, loaded.bias, overwrite=overwrite)
    notes = []
    if loaded.bias is not None and not bias_is_saved:
        notes.append(f"{loaded.bias_name} is left out: it goes into a .npz or .h5 file, beside an array called weight")
    if loaded.parameters:
        notes.append(f"{', '.join(loaded.parameters)} that {loaded.name} states are left out")
    return tuple(notes)


def _loaded(
    kernel: str, like: str | os.PathLike[str] | None, given: VolumeInfo | None, weight_layout: str | None
) -> tuple[Kernel, NDArray[Any], str | None]:
    """What a spec names; its weights in PyTorch's order; and the order that they were in."""
    geometry = Geometry() if given is None else given.geometry
    loaded = load_kernel(kernel, geometry, "the command" if like is None else str(like))
    channels = 1 if given is None else given.shape[1]
    bias = None if loaded.bias is None else loaded.bias.size
    stated = loaded.layout
    if like is None and stated is None and loaded.weight.ndim == 5:  # no channels of a volume tell
        stated = "dhwio" if loaded.weight.shape[4] == bias != loaded.weight.shape[0] else "oidhw"
    groups = loaded.parameters.get("groups")
    return loaded, *arranged(loaded.weight, weight_layout, stated, channels, groups, bias, name=loaded.name)


def _channel(values: NDArray[Any]) -> ChannelReport:
    """Facts of (C_in, kD, kH, kW) weights."""
    wide = values.astype(np.result_type(values.dtype, np.float64))
    ranks, products = None, None
    if len(values) == 1 and wide.dtype.kind == "f" and wide.size <= LARGEST and np.isfinite(wide).all():
        d, h, w = (np.moveaxis(wide[0], axis, 0).reshape(wide.shape[axis + 1], -1) for axis in range(3))
        ranks = (_rank(d), _rank(h), _rank(w))
        products = count_terms(wide[0])
    return ChannelReport(
        sum=complex(wide.sum()) if wide.dtype.kind == "c" else float(wide.sum()),
        norm=float(np.linalg.norm(wide)),
        ranks=ranks,
        products=products,
        symmetry=(_symmetry(wide, 1), _symmetry(wide, 2), _symmetry(wide, 3)),
    )


def _rank(matrix: NDArray[np.float64]) -> int:
    values = np.linalg.svd(matrix, compute_uv=False)
    return int((values > _ROUNDING * values[0]).sum())


def _symmetry(values: NDArray[Any], axis: int) -> str:
    """Whether weights are the same, or the same with the other sign, when they are reversed along an axis."""
    turned, nothing = np.flip(values, axis), _ROUNDING * np.abs(values).max()
    if (np.abs(values - turned) <= nothing).all():
        return "even"
    return "odd" if (np.abs(values + turned) <= nothing).all() else "none"


def _slice(values: NDArray[Any], axis: int) -> Slice:
    """The plane through the middle, across an axis."""
    plane = np.moveaxis(values, axis, 0)[values.shape[axis] // 2]
    rows, columns = (name for name in AXES if name != AXES[axis])
    middle = [n // 2 for n in plane.shape]
    starts = [max(0, m - SHOWN // 2) for m in middle]
    shown = plane[starts[0] : middle[0] + SHOWN // 2 + 1, starts[1] : middle[1] + SHOWN // 2 + 1]
    return Slice(
        across=AXES[axis],
        axes=(rows, columns),
        first=(starts[0] - middle[0], starts[1] - middle[1]),
        values=tuple(tuple(row) for row in shown.tolist()),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return [value.real, value.imag] if isinstance(value, complex) else value
