"""Complex convolution as a real one: real and imaginary parts become neighbouring channels.

``(wr + i wi)(xr + i xi) = (wr xr - wi xi) + i (wi xr + wr xi)``, so each complex weight is the 2 x 2 real matrix
``[[wr, -wi], [wi, wr]]``. These are the products of the direct complex sum and no others, so non-finite values spread
as they do there, and every algorithm serves complex dtypes without knowing of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.params import Conv3dParams


def planar_params(params: Conv3dParams) -> Conv3dParams:
    """Parameters of the real convolution."""
    return replace(params, in_channels=2 * params.in_channels, out_channels=2 * params.out_channels)


def planar_weight(weight: NDArray[Any]) -> NDArray[Any]:
    """(C_out, C, ...) complex weights as (2*C_out, 2*C, ...) real ones."""
    out_channels, channels, *kernel = weight.shape
    real = np.empty((out_channels, 2, channels, 2, *kernel), dtype=weight.real.dtype)
    real[:, 0, :, 0] = real[:, 1, :, 1] = weight.real
    real[:, 0, :, 1] = -weight.imag
    real[:, 1, :, 0] = weight.imag
    return real.reshape(2 * out_channels, 2 * channels, *kernel)


def planar_bias(bias: NDArray[Any]) -> NDArray[Any]:
    """(C_out,) complex values as (2*C_out,) real ones."""
    return np.stack([bias.real, bias.imag], axis=1).reshape(-1)
