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
    """Voxels that an integer output could not hold as they were."""

    saturated: int = 0
    not_a_number: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.saturated + other.saturated, self.not_a_number + other.not_a_number)


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
    Counts(saturated=2, not_a_number=0)
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
