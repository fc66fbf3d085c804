"""Which kernels are found to be products of 1-D ones, and how exactly."""

from __future__ import annotations

import numpy as np
import pytest

import volconv
from volconv.engines.factors import find_factors
from volconv.geometry import Geometry
from volconv.kernels.gaussians import gaussian_1d
from volconv.kernels.named import build_kernel
from volconv.params import Conv3dParams
from volconv.plan import make_plan


def laplacian_of_gaussian(sigma):
    smooth = gaussian_1d(sigma)
    x = np.arange(len(smooth)) - len(smooth) // 2
    second = (x**2 / sigma**2 - 1) / sigma**2 * smooth
    return sum(np.einsum("d,h,w", *(second if i == j else smooth for j in range(3))) for i in range(3))


def found(kernel, dtype="float32"):
    weight = np.asarray(kernel)[None, None]
    return find_factors(Conv3dParams.parse(weight.shape), weight, np.dtype(dtype))


@pytest.mark.parametrize(
    "spec", ["gaussian:sigma=2", "gaussian:sigma=0.7/2/5", "box:size=4/5/6", "gaussian:sigma=0/2/3"]
)
@pytest.mark.parametrize(("stored", "dtype"), [("float64", "float64"), ("float64", "float32"), ("float32", "float32")])
def test_products_are_found_and_give_the_kernel(spec, stored, dtype):
    kernel = build_kernel(spec, Geometry()).astype(stored)
    factors = found(kernel, dtype)
    assert factors.terms == 1
    again = np.einsum("d,h,w", *(axis[0, 0] for axis in factors.along))
    allowed = max(0.5 * np.finfo(dtype).eps, 1e-15)
    assert np.abs(again - kernel).sum() <= allowed * np.abs(kernel).sum()


@pytest.mark.parametrize("stored", ["float64", "float32"])
def test_a_laplacian_of_gaussian_is_a_sum_of_few(stored):
    factors = found(laplacian_of_gaussian(2.0).astype(stored))
    assert 3 <= factors.terms <= 4
    assert factors.growth < 1.45


def test_what_is_no_product_is_not_taken_for_one():
    rng = np.random.default_rng(0)
    assert found(rng.standard_normal((7, 7, 7))) is None
    kernel = build_kernel("gaussian:sigma=2", Geometry())
    kernel[3, 4, 5] *= 1 + 1e-3
    assert found(kernel).terms > 1
    kernel[3, 4, 5] = np.nan
    assert found(kernel) is None
    assert found(np.ones((9, 1, 9)) * 1j, "complex64") is None
    assert found(np.ones((9, 1, 9)), "complex64") is None
    assert found(np.zeros((5, 5, 5))) is not None  # products of zeros


def test_every_channel_must_be_one():
    kernels = np.ones((2, 1, 5, 5, 5))
    params = Conv3dParams.parse(kernels.shape, groups=2)
    assert find_factors(params, kernels, np.dtype(np.float32)).terms == 1
    kernels[1, 0, 2, 2, 2] = 5
    factors = find_factors(params, kernels, np.dtype(np.float32))
    assert factors is None or factors.terms > 1


def test_products_are_picked_for_large_volumes():
    weight = build_kernel("gaussian:sigma=2", Geometry())[None, None]
    params = Conv3dParams.parse(weight.shape, padding="same")
    dtype = np.dtype(np.float32)
    plan = make_plan(params, (1, 1, 256, 256, 256), dtype, factors=find_factors(params, weight, dtype))
    assert plan.algorithm == "separable"


def test_products_agree_with_direct():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 1, 40, 50, 60), dtype=np.float32) + 1000
    for kernel in (build_kernel("gaussian:sigma=2", Geometry()), laplacian_of_gaussian(2.0)):
        weight = kernel[None, None].astype(np.float32)
        fast = volconv.conv3d(x, weight, padding="same", algorithm="separable")
        exact = volconv.conv3d(x.astype(float), weight, padding="same", algorithm="direct")
        bound = 16 * np.finfo(np.float32).eps * np.abs(weight).sum() * np.abs(x).max()
        assert np.abs(fast - exact).max() <= bound
