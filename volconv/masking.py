"""Convolution of the voxels that count: inside a mask, label by label, and without NaN.

Normalised convolution (Knutsson and Westin, "Normalized and differential convolution", CVPR 1993): with ``m`` 1 where a
voxel counts and 0 where not, ``conv(m*x) / conv(m)``, here times the kernel's sum, so that it is ``conv(x)`` where all
voxels count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import check_scalar
from volconv.errors import DtypeError, ParameterError, ReadError, ShapeError
from volconv.geometry import grids_agree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.io.volume import VolumeInfo

#: What ``outside`` says for "as the input is there".
KEEP = "keep"

#: What ``nan`` may say.
NAN_MODES = ("spread", "ignore")

#: A kernel's sum vanishes where it is less than this share of the sum of its magnitudes.
LEAST_SUM = 1e-6

#: A weight in ``conv(m)`` that is closer than this, in eps times the sum of magnitudes, to the kernel's sum or to 0 is
#: taken for that: twice the error that convolutions may have. So results do not depend on whether it was computed.
CLOSE = 32

#: How far a label may be from a whole number: slopes are stored in single precision.
_NEARLY = 1e-3


@dataclass(frozen=True, slots=True)
class Masking:
    """Which voxels count.

    Parameters
    ----------
    labelled : bool
        There is a mask: an output is made of the voxels that have its own label, and label 0 is outside.
    ignore_nan : bool
        Voxels that are NaN do not count.
    outside : complex or None
        What outputs are where the mask is 0; None leaves them what the input is there.
    """

    labelled: bool
    ignore_nan: bool = False
    outside: complex | None = None


def resolve_masking(
    info: VolumeInfo, source_name: str, mask: tuple[str, VolumeInfo] | None, outside: str | complex, nan: str
) -> Masking | None:
    """Which voxels of a volume count, by a mask's name and header; None where all do.

    Raises
    ------
    ParameterError, ShapeError, DtypeError
        The mask does not fit the volume, or something is asked for that is not known.
    """
    if nan not in NAN_MODES:
        raise ParameterError(f"nan must be one of {', '.join(NAN_MODES)} (got {nan!r})")
    if isinstance(outside, str) and outside != KEEP:
        raise ParameterError(f"outside must be {KEEP!r} or a number (got {outside!r})")
    if mask is None:
        if outside != KEEP:
            raise ParameterError(f"outside goes with mask (got outside={outside!r} and no mask)")
        return Masking(labelled=False, ignore_nan=True) if nan == "ignore" else None
    name, other = mask
    if other.dtype.kind == "c":
        raise DtypeError(f"mask must hold whole numbers, 0 outside and a label inside (got {other.dtype} in {name})")
    volumes, channels, *size = other.shape
    if tuple(size) != info.shape[2:] or channels != 1 or volumes not in (1, info.shape[0]):
        sizes = [",".join(map(str, shape)) for shape in (other.shape, info.shape)]
        raise ShapeError(
            f"mask must have the volume's size, 1 channel, and 1 volume or as many (got {sizes[0]} in {name} for "
            f"{sizes[1]} in {source_name}, as N,C,D,H,W)"
        )
    known = info.geometry.unit is not None and other.geometry.unit is not None
    if known and not grids_agree(info.geometry, other.geometry, size):
        raise ShapeError(
            f"mask must lie where the volume does (got {other.geometry.in_words()} in {name} for "
            f"{info.geometry.in_words()} in {source_name})",
            hint="resample it to the volume's grid first",
        )
    return Masking(True, nan == "ignore", None if isinstance(outside, str) else outside)


def check_outside(masking: Masking, info: VolumeInfo, channels: int, result: np.dtype[Any]) -> None:
    """Refuse to keep what results cannot hold, or of which there is not one for each of their channels.

    Raises
    ------
    ParameterError, ShapeError, DtypeError
    """
    if masking.outside is not None:
        check_scalar("outside", masking.outside, result)
    elif masking.labelled and info.shape[1] not in (1, channels):
        raise ShapeError(
            f"outside must be a number where the output has other channels than the volume (got {KEEP!r}, and "
            f"{info.shape[1]} channels become {channels})",
            hint="--outside 0 (outside=0)",
        )
    elif masking.labelled and info.dtype.kind == "c" and result.kind != "c":
        raise DtypeError(
            f"outside must be a number where a complex volume becomes real (got {KEEP!r})",
            hint="--outside 0 (outside=0)",
        )


def kernel_sums(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum of weights, and of their magnitudes, of each output channel, in double precision.

    Raises
    ------
    ShapeError
        A sum vanishes, as that of a derivative does.
    """
    axes = (1, 2, 3, 4)
    wide = weight.astype(np.result_type(weight, np.float64))
    sums, magnitudes = wide.sum(axes), np.abs(wide).sum(axes)
    vanishing = np.flatnonzero(np.abs(sums) <= LEAST_SUM * magnitudes)
    if vanishing.size:
        channel = int(vanishing[0])
        raise ShapeError(
            f"kernel must have a sum other than 0 where only some voxels count (got sum {sums[channel]:.3g} in output "
            f"channel {channel})",
            hint="derivatives have none: smooth within the mask first, then take them without it",
        )
    return sums, magnitudes


def whole_labels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Labels as whole numbers, NaN as 0; in place.

    Raises
    ------
    ReadError
        They are none: a probability, say.
    """
    values[np.isnan(values)] = 0
    whole = np.rint(values)
    odd = np.abs(values - whole) > _NEARLY
    if odd.any():
        raise ReadError(
            f"mask must hold whole numbers, 0 outside and a label inside (got {values[odd][0]:g})",
            hint="make it one by a threshold first",
        )
    values[...] = whole
    return values


class Normalised:
    """Normalised convolution, one padded block at a time.

    Parameters
    ----------
    convolve : callable
        From a padded block (C, parts, D, H, W), the first group in it and a name, to results (C_out, d, h, w), which
        stay as they are until it is called with that name again. Without bias.
    weight : (C_out, C_in/groups, kD, kH, kW) array
        In the compute dtype.
    room : callable
        From a padded block to room for another of its shape.
    """

    def __init__(
        self,
        convolve: Callable[[NDArray[Any], int, str], NDArray[Any]],
        weight: NDArray[Any],
        room: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> None:
        self._convolve, self._room = convolve, room
        sums, magnitudes = kernel_sums(weight)
        self._sums = sums.astype(weight.dtype)[:, None, None, None]
        close = CLOSE * np.finfo(weight.dtype).eps * magnitudes
        self._close = close.astype(weight.real.dtype)[:, None, None, None]

    def __call__(self, block: NDArray[Any], counted: NDArray[np.bool_], first_group: int, first_out: int) -> Any:
        """Results (C_out, d, h, w) of the voxels that count; NaN where none does.

        Parameters
        ----------
        block : (C, parts, D, H, W) array
            Real, or real and imaginary parts.
        counted : (C or 1, D, H, W) array
        first_group, first_out : int
            Of the block, and of its results.
        """
        if counted.all():
            return self._convolve(block, first_group, "values")
        some = self._room(block)
        some[...] = 0
        np.copyto(some, block, where=counted[:, None])
        values = self._convolve(some, first_group, "values")
        some[...] = 0
        some[:, 0] = counted
        weights = self._convolve(some, first_group, "weights")
        channels = slice(first_out, first_out + len(values))
        sums, close = self._sums[channels], self._close[channels]
        whole, nothing = _magnitude(weights - sums) <= close, _magnitude(weights) <= close
        if values.dtype.kind != "c":
            scale = sums / weights
            scale[whole] = 1
            values *= scale
            values[nothing] = np.nan
            return values
        # NumPy rounds complex products in one way or another, by where in memory they are: here they are real ones.
        squared = weights.real * weights.real + weights.imag * weights.imag
        real = (sums.real * weights.real + sums.imag * weights.imag) / squared
        imag = (sums.imag * weights.real - sums.real * weights.imag) / squared
        real[whole], imag[whole] = 1, 0
        values.real, values.imag = (
            values.real * real - values.imag * imag,
            values.real * imag + values.imag * real,
        )
        values[nothing] = np.nan
        return values


def _magnitude(values: NDArray[Any]) -> NDArray[Any]:
    magnitude: NDArray[Any] = np.hypot(values.real, values.imag) if values.dtype.kind == "c" else np.abs(values)
    return magnitude
