"""Which voxels count: those inside a mask, each label by itself, and those that are not NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import check_scalar
from volconv.errors import DtypeError, ParameterError, ShapeError
from volconv.geometry import grids_agree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.io.volume import VolumeInfo

#: What ``outside`` says for "as the input is there".
KEEP = "keep"

#: What ``nan`` may say.
NAN_MODES = ("spread", "ignore")

#: A kernel's sum vanishes where it is less than this share of the sum of its magnitudes.
LEAST_SUM = 1e-6


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
