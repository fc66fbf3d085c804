"""From the compute dtype to the output's: rounding, saturation, and counts of what did not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import DtypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.io.volume import Scaling


@dataclass(frozen=True, slots=True)
class Counts:
    """Output voxels that are worth a word.

    ``saturated`` and ``not_a_number`` (stored as 0) could not be held by an integer output; ``non_finite`` are NaN or
    infinite in a float one.
    """

    saturated: int = 0
    not_a_number: int = 0
    non_finite: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.saturated + other.saturated,
            self.not_a_number + other.not_a_number,
            self.non_finite + other.non_finite,
        )


#: What most blocks lose.
NONE_LOST = Counts()


def check_output_dtype(dtype: np.dtype[Any], compute_dtype: np.dtype[Any]) -> None:
    """Refuse an output dtype that cannot hold what is computed.

    Raises
    ------
    DtypeError
        Not a number, or real where results are complex.
    """
    if dtype.kind not in "iufc":
        raise DtypeError(f"output dtype must be an integer, float or complex one (got {dtype})")
    if compute_dtype.kind == "c" and dtype.kind != "c":
        raise DtypeError(f"output dtype must be complex, as the results are (got {dtype})")


def count_non_finite(values: NDArray[Any]) -> Counts:
    """Count NaN and infinite values of a float or complex array.

    Examples
    --------
    >>> count_non_finite(np.array([1.0, np.nan, -np.inf]))
    Counts(saturated=0, not_a_number=0, non_finite=2)
    """
    if values.dtype.kind not in "fc":
        return NONE_LOST
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # a sum is quick, and NaN and infinity stay in it
            return NONE_LOST
    return Counts(non_finite=values.size - int(np.count_nonzero(np.isfinite(values))))


def store(values: NDArray[Any], target: NDArray[Any], scaling: Scaling | None = None) -> Counts:
    """Store results in another dtype.

    Integers are rounded to nearest even and saturate; NaN becomes 0. Both are counted.

    Parameters
    ----------
    values : array
        Results in the compute dtype; used as scratch.
    target : array
        Receives them; of the same shape.
    scaling : Scaling, optional
        Of the stored values: ``stored = (value - intercept) / slope``.

    Examples
    --------
    >>> out = np.empty(4, np.uint8)
    >>> store(np.array([0.5, 1.5, 300.0, -2.0]), out)
    Counts(saturated=2, not_a_number=0, non_finite=0)
    >>> out
    array([  0,   2, 255,   0], dtype=uint8)
    """
    if scaling is not None:
        values -= scaling.intercept
        values /= scaling.slope
    if target.dtype.kind not in "iu" or values.dtype.kind not in "fc":
        np.copyto(target, values, casting="unsafe")
        return NONE_LOST
    limits = np.iinfo(target.dtype)
    np.rint(values, out=values)
    nan = np.isnan(values)
    low = values < limits.min
    # The largest integer may not be a float, but the next one, a power of two, always is.
    high = values >= float(limits.max + 1)
    counts = Counts(int(np.count_nonzero(low) + np.count_nonzero(high)), int(np.count_nonzero(nan)))
    if counts != NONE_LOST:
        values[nan | low | high] = 0
    np.copyto(target, values, casting="unsafe")
    if counts.saturated:
        target[low] = limits.min
        target[high] = limits.max
    return counts
