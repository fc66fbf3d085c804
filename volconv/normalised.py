"""How a block is computed of which only some voxels count.

Normalised convolution (Knutsson and Westin, "Normalized and differential convolution", CVPR 1993): with ``m`` 1 where a
voxel counts and 0 where not, ``conv(m*x) / conv(m)``, here times the kernel's sum, so that it is ``conv(x)`` where all
voxels count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError
from volconv.masking import kernel_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.epilogue import Epilogue
    from volconv.masking import Masking

#: A weight in ``conv(m)`` that is closer than this, in eps times the sum of magnitudes, to the kernel's sum or to 0 is
#: taken for that: twice the error that convolutions may have. So results do not depend on whether it was computed.
CLOSE = 32

#: How far a label may be from a whole number: slopes are stored in single precision.
_NEARLY = 1e-3


class Normalised:
    """Normalised convolution, one padded block at a time.

    Parameters
    ----------
    convolve : callable
        From a padded block (C, parts, D, H, W), the first group in it and a name, to results (C_out, d, h, w), which
        stay as they are until it is called with that name again. Without bias.
    weight : (C_out, C_in/groups, kD, kH, kW) array
        In the compute dtype.
    bias : (C_out,) array
        In the compute dtype.
    groups : int
    masking : Masking
    epilogue : Epilogue
    """

    def __init__(
        self,
        convolve: Callable[[NDArray[Any], int, str], NDArray[Any]],
        weight: NDArray[Any],
        bias: NDArray[Any],
        groups: int,
        masking: Masking,
        epilogue: Epilogue,
    ) -> None:
        self._convolve, self._masking, self._epilogue = convolve, masking, epilogue
        sums, magnitudes = kernel_sums(weight)
        self._per_in, self._per_out = weight.shape[1], len(weight) // groups
        self._bias = bias[:, None, None, None]
        self._sums = sums.astype(weight.dtype)[:, None, None, None]
        close = CLOSE * np.finfo(weight.dtype).eps * magnitudes
        self._close = close.astype(weight.real.dtype)[:, None, None, None]

    def __call__(
        self,
        block: NDArray[Any],
        some: NDArray[Any],
        labels: NDArray[Any] | None,
        centres: tuple[slice, ...],
        first_group: int,
    ) -> NDArray[Any]:
        """Results (C_out, d, h, w) after the epilogue; NaN where no voxel counts, and what there is outside of a mask.

        Parameters
        ----------
        block : (C, parts, D, H, W) array
            Real, or real and imaginary parts.
        some : array
            Room for another such block.
        labels : (D, H, W) array or None
            The mask's, whole numbers.
        centres : 3 slices
            The block's voxels that outputs are centred on.
        first_group : int
            Which group the block starts with.
        """
        counted = ~np.isnan(block).any(axis=1) if self._masking.ignore_nan else None
        if counted is not None and counted.all():
            counted = None
        if labels is None:
            return self._of(block, some, counted, first_group)
        own = labels[centres]
        low, high = own.min(), own.max()
        # Mostly a mask has no more than two values here: to sort for others takes longer.
        found = [low] if low == high else [low, high]
        if not ((own == low) | (own == high)).all():
            found = list(np.unique(own))
        result: NDArray[Any] | None = None
        for label in found:
            if label:
                here = labels == label
                voxels = here[np.newaxis] if counted is None else counted & here
                values = self._of(block, some, None if voxels.all() else voxels, first_group)
            else:
                values = self._outside(block, centres)
            if len(found) == 1 and label:
                return values
            if result is None:
                channels = 1 if self._epilogue.reduce is not None else len(block) // self._per_in * self._per_out
                result = np.empty((channels, *own.shape), self._epilogue.dtype(self._sums.dtype))
            np.copyto(result, values, where=own == label)
        assert result is not None  # noqa: S101  # there is one label at least
        return result

    def _of(
        self, block: NDArray[Any], some: NDArray[Any], counted: NDArray[np.bool_] | None, first_group: int
    ) -> NDArray[Any]:
        """Results of the voxels that count, (C or 1, D, H, W); None for all."""
        first = first_group * self._per_out
        if counted is None:
            values = self._convolve(block, first_group, "values")
        else:
            np.multiply(block, counted[:, None], out=some)
            if not np.isfinite(some).all():  # 0 times infinity
                np.copyto(some, 0, where=~counted[:, None])
            values = self._convolve(some, first_group, "values")
            some[...] = 0
            some[:, 0] = counted
            self._divide(values, self._convolve(some, first_group, "weights"), first)
        values += self._bias[first : first + len(values)]
        return self._epilogue(values)

    def _divide(self, values: NDArray[Any], weights: NDArray[Any], first: int) -> None:
        """Make of sums what they would be if all voxels counted."""
        sums, close = (of_all[first : first + len(values)] for of_all in (self._sums, self._close))
        whole, nothing = _magnitude(weights - sums) <= close, _magnitude(weights) <= close
        if values.dtype.kind != "c":
            scale = sums / weights
            scale[whole] = 1
            values *= scale
        else:
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

    def _outside(self, block: NDArray[Any], centres: tuple[slice, ...]) -> Any:
        """What outputs are where the mask is 0."""
        if self._masking.outside is not None:
            return self._masking.outside
        real = block[:, 0][:, *centres]
        return real if block.shape[1] == 1 else real + 1j * block[:, 1][:, *centres]


def _magnitude(values: NDArray[Any]) -> NDArray[Any]:
    magnitude: NDArray[Any] = np.hypot(values.real, values.imag) if values.dtype.kind == "c" else np.abs(values)
    return magnitude


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
