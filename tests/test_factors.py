"""Which kernels are found to be products of 1-D ones, and how exactly."""

from __future__ import annotations

import numpy as np
import pytest

import volconv
from volconv.engines.factors import count_terms, find_factors
from volconv.geometry import Geometry
from volconv.kernels.named import build_kernel
from volconv.params import Conv3dParams
from volconv.plan import make_plan

CUBES = Geometry.from_spacing((1.0, 1.0, 1.0), "mm")


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


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("gaussian:sigma=2,order=0/1/2", 1),
        ("box:size=4.5mm", 1),
        ("unsharp:sigma=2,amount=0.7", 2),
        ("dog:low=1,high=4", 2),
        ("dog:low=2", 4),  # two, of which each is more than twice as large as their difference
        ("log:sigma=2", 3),
        ("log:sigma=2/3/3", 3),
        ("gabor:sigma=3,wavelength=6,direction=0/1/0", 1),
        ("gabor:sigma=3,wavelength=6,direction=0/1/2,phase=20", 2),
    ],
)
@pytest.mark.parametrize("stored", ["float64", "float32"])
def test_named_kernels_are_sums_of_few(spec, terms, stored):
    kernel = build_kernel(spec, CUBES).astype(stored)
    factors = found(kernel)
    assert factors.terms == terms
    again = np.einsum("rd,rh,rw->dhw", *(axis[0] for axis in factors.along))
    assert np.abs(again - kernel).sum() <= 0.5 * np.finfo(np.float32).eps * np.abs(kernel).sum()
    assert factors.growth * (3 * 6 + terms) <= 32  # six roundings of each pass are left


@pytest.mark.parametrize("name", ["gradient", "hessian"])
def test_banks_are_products(name):
    bank = build_kernel(f"{name}:sigma=2", CUBES)[:, None]
    assert find_factors(Conv3dParams.parse(bank.shape), bank, np.dtype(np.float32)).terms == 1


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("sobel:axis=z", 1),
        ("laplacian", 3),
        ("laplacian:points=19", 4),
        ("laplacian:points=27", 2),
        ("dog:low=2", 2),
        ("log:sigma=1", 3),
        ("gabor:sigma=3,wavelength=6,direction=1/1/1", 4),
        ("neighbours:count=26", 2),
        ("ball:radius=4", None),
        ("identity", 1),
    ],
)
def test_terms_are_counted_whether_they_pay_or_not(spec, terms):
    assert count_terms(build_kernel(spec, CUBES)) == terms


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["two", "three"])
def test_sums_of_random_products_are_found(seed, kind):
    """Two products; three with the factors of a Laplacian of a Gaussian; not in vain along other axes."""
    rng = np.random.default_rng(seed)
    (a, b), (c, d), (e, f) = (rng.standard_normal((2, n)) for n in rng.integers(2, 8, 3))
    terms = [(a, c, e), (b, d, f)] if kind == "two" else [(b, c, e), (a, d, e), (a, c, f)]
    assert count_terms(sum(np.einsum("d,h,w", *term) for term in terms)) <= len(terms)


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
    for spec in ("gaussian:sigma=2", "log:sigma=2", "dog:low=2", "unsharp:sigma=1.5", "gaussian:sigma=1,order=0/0/1"):
        kernel = build_kernel(spec, CUBES)
        weight = kernel[None, None].astype(np.float32)
        fast = volconv.conv3d(x, weight, padding="same", algorithm="separable")
        exact = volconv.conv3d(x.astype(float), weight, padding="same", algorithm="direct")
        bound = 16 * np.finfo(np.float32).eps * np.abs(weight).sum() * np.abs(x).max()
        assert np.abs(fast - exact).max() <= bound
