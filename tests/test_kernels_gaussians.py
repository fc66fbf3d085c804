"""Derivatives of Gaussians, LoG, DoG, unsharp mask and Gabor: by formulas written out here, and by other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import correlate
from volconv.errors import ParameterError
from volconv.geometry import Geometry
from volconv.kernels.named import build_kernel

VOXELS = Geometry()
BRAIN = Geometry.from_spacing((3.0, 1.0, 0.5), "mm")
STEPS = (3.0, 1.0, 0.5)

HESSIAN = [(2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2)]


def points(shape, steps=(1, 1, 1)):
    """Places of taps along z, y, x, from the middle one."""
    return np.meshgrid(*[(np.arange(n) - n // 2) * s for n, s in zip(shape, steps)], indexing="ij")


def sampled(shape, sigmas, steps=(1, 1, 1), truncate=4.0):
    """A Gaussian of sum 1, cut off where it says; in the unit of the steps."""
    z = points(shape, steps)
    values = np.exp(-0.5 * sum((x / s) ** 2 for x, s in zip(z, sigmas)))
    for x, s, step in zip(z, sigmas, steps):
        values[np.abs(x) > int(truncate * s / step + 0.5) * step * (1 + 1e-9)] = 0
    return values / values.sum()


def derivative(shape, sigmas, order, steps=(1, 1, 1), truncate=4.0):
    """Its derivative, as a function of where the window's middle is: minus the formula's sign for odd orders."""
    result = sampled(shape, sigmas, steps, truncate)
    for x, s, n in zip(points(shape, steps), sigmas, order):
        result = result * (1, x / s**2, x**2 / s**4 - 1 / s**2)[n]
    return result


# --- derivatives of a Gaussian


@pytest.mark.parametrize("order", [(0, 0, 1), (1, 0, 0), (0, 2, 0), (1, 1, 0), (2, 1, 0), (2, 2, 2)])
def test_a_derivative_is_the_formula_per_unit(order):
    weights = build_kernel(f"gaussian:sigma=3/2/1mm,order={'/'.join(map(str, order))}", BRAIN)
    assert weights.shape == (9, 17, 17)
    expected = derivative(weights.shape, (3, 2, 1), order, STEPS)
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-16)
    in_um = build_kernel(f"gaussian:sigma=3000/2000/1000um,order={'/'.join(map(str, order))}", BRAIN)
    np.testing.assert_allclose(in_um * 1000.0 ** sum(order), weights, rtol=1e-10, atol=1e-16)


def test_a_derivative_of_a_fwhm():
    weights = build_kernel("gaussian:fwhm=6mm,order=0/1/0", BRAIN)
    expected = derivative(weights.shape, (6 / 2.3548200450309493,) * 3, (0, 1, 0), STEPS)
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 1.3, 0.7)])
def test_slopes_and_curvatures_of_a_quadratic_are_found_whatever_the_spacing(spacing):
    """In millimetres; to 1 %, as the sampled Gaussian's own moments are."""
    geometry = Geometry.from_spacing(spacing, "mm")

    def value_of(spec):
        weights = build_kernel(spec, geometry)
        banks = weights if weights.ndim == 4 else weights[None]
        z, y, x = points(banks.shape[1:], spacing)
        volume = 7 + 3 * z - 2 * y + x + 0.5 * z**2 + 2 * y * x - x**2 + z * y
        return [float(correlate(volume, bank)[0, 0, 0]) for bank in banks]

    assert value_of("gaussian:sigma=1mm,order=1/0/0") == pytest.approx([3], rel=0.01)
    assert value_of("gradient:sigma=1mm") == pytest.approx([3, -2, 1], rel=0.01)
    assert value_of("gradient:sigma=1mm,axis=y") == pytest.approx([-2], rel=0.01)
    assert value_of("hessian:sigma=1mm,truncate=6") == pytest.approx([1, 1, 0, 0, 2, -2], rel=0.01, abs=0.01)
    assert value_of("log:sigma=1mm,truncate=6") == pytest.approx([-1], rel=0.01)
    assert value_of("log:sigma=1000um,truncate=6") == pytest.approx([-1e-6], rel=0.01)


@pytest.mark.parametrize("order", [*HESSIAN, (0, 0, 0), (1, 0, 0), (0, 0, 1), (2, 0, 1)])
@pytest.mark.parametrize("truncate", [4.0, 3.0])
def test_derivatives_are_scipys(order, truncate):
    ndimage = pytest.importorskip("scipy.ndimage")
    sigmas = (0.8, 1.5, 2.0)
    spec = f"gaussian:sigma=0.8/1.5/2,order={'/'.join(map(str, order))},truncate={truncate}"
    weights = build_kernel(spec, VOXELS)
    volume = np.random.default_rng(1).standard_normal([n + 3 for n in weights.shape])
    inner = tuple(slice(n // 2, n // 2 + 4) for n in weights.shape)
    expected = ndimage.gaussian_filter(volume, sigmas, order, truncate=truncate)[inner]
    np.testing.assert_allclose(correlate(volume, weights), expected, rtol=1e-11, atol=1e-13)


def test_the_log_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    weights = build_kernel("log:sigma=0.8/1.5/2", VOXELS)
    volume = np.random.default_rng(1).standard_normal([n + 3 for n in weights.shape])
    inner = tuple(slice(n // 2, n // 2 + 4) for n in weights.shape)
    expected = ndimage.gaussian_laplace(volume, (0.8, 1.5, 2.0))[inner]
    np.testing.assert_allclose(correlate(volume, weights), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("axis", "name"), [(0, "z"), (1, "y"), (2, "x")])
def test_derivatives_per_millimetre_are_simpleitks(axis, name):
    """Its recursive Gaussian approximates, by some thousandths of the largest value."""
    sitk = pytest.importorskip("SimpleITK")
    spacing = (2.0, 1.0, 0.8)
    smooth = build_kernel("gaussian:sigma=2", VOXELS)
    volume = correlate(np.random.default_rng(2).standard_normal((44, 44, 44)), smooth)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing[::-1])
    theirs = sitk.GetArrayFromImage(sitk.GradientRecursiveGaussian(image, sigma=1.6))[..., 2 - axis]
    weights = build_kernel(f"gradient:sigma=1.6mm,axis={name}", Geometry.from_spacing(spacing, "mm"))
    ours = correlate(volume, weights)
    inner = tuple(slice(n // 2, n // 2 + m) for n, m in zip(weights.shape, ours.shape))
    assert np.abs(ours - theirs[inner]).max() < 0.01 * np.abs(ours).max()


def test_the_hessian_has_its_channels_in_order():
    bank = build_kernel("hessian:sigma=3/2/1mm,truncate=3", BRAIN)
    assert bank.shape == (6, 7, 13, 13)
    for weights, order in zip(bank, HESSIAN):
        np.testing.assert_allclose(
            weights, derivative(bank.shape[1:], (3, 2, 1), order, STEPS, 3.0), rtol=1e-10, atol=1e-16
        )
    bank = build_kernel("gradient:sigma=3/2/1mm", BRAIN)
    for weights, order in zip(bank, [(1, 0, 0), (0, 1, 0), (0, 0, 1)]):
        np.testing.assert_allclose(weights, derivative(bank.shape[1:], (3, 2, 1), order, STEPS), rtol=1e-10, atol=1e-16)


def test_the_log_is_the_formula():
    weights = build_kernel("log:sigma=3/2/1mm", BRAIN)
    z, y, x = points(weights.shape, STEPS)
    factor = (z**2 / 9 - 1) / 9 + (y**2 / 4 - 1) / 4 + x**2 - 1
    np.testing.assert_allclose(weights, factor * sampled(weights.shape, (3, 2, 1), STEPS), rtol=1e-10, atol=1e-16)
    assert weights[tuple(n // 2 for n in weights.shape)] < 0  # dark in the middle of a bright blob
    for truncate, nothing in [(4, 1e-3), (6, 1e-6)]:
        weights = build_kernel(f"log:sigma=2,truncate={truncate}", VOXELS)
        assert abs(weights.sum()) < nothing * np.abs(weights).sum()


def test_one_derivative_needs_to_be_sampled_along_its_axis_alone():
    weights = build_kernel("gradient:sigma=1mm,axis=x", BRAIN)
    np.testing.assert_array_equal(weights, build_kernel("gaussian:sigma=1mm,order=0/0/1", BRAIN))


# --- differences of Gaussians


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        ("dog:low=1mm,high=2mm", (1, 1, 1), (2, 2, 2)),
        ("dog:low=1mm", (1, 1, 1), (1.6, 1.6, 1.6)),
        ("dog:low=0/1/1mm,high=2000um", (0, 1, 1), (2, 2, 2)),
    ],
)
def test_a_dog_is_the_difference(spec, low, high):
    weights = build_kernel(spec, BRAIN)
    narrow = sampled(weights.shape, [max(s, 1e-3) for s in low], STEPS)
    np.testing.assert_allclose(weights, narrow - sampled(weights.shape, high, STEPS), rtol=1e-10, atol=1e-15)
    assert abs(weights.sum()) < 1e-14
    assert weights[tuple(n // 2 for n in weights.shape)] > 0


@pytest.mark.parametrize("amount", [1.0, 0.3, 5.0])
def test_an_unsharp_mask_adds_what_a_gaussian_takes(amount):
    weights = build_kernel(f"unsharp:sigma=2mm,amount={amount}", BRAIN)
    identity = np.zeros(weights.shape)
    identity[tuple(n // 2 for n in weights.shape)] = 1
    expected = identity + amount * (identity - sampled(weights.shape, (2, 2, 2), STEPS))
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-15)
    assert math.isclose(weights.sum(), 1, rel_tol=1e-12)
    np.testing.assert_array_equal(
        build_kernel("unsharp:sigma=1", VOXELS), build_kernel("unsharp:sigma=1,amount=1", VOXELS)
    )


def test_dog_and_unsharp_are_scikit_images():
    filters = pytest.importorskip("skimage.filters")
    volume = np.random.default_rng(3).random((26, 26, 26))
    for spec, theirs in [
        ("dog:low=1,high=2", filters.difference_of_gaussians(volume, 1, 2)),
        ("dog:low=1", filters.difference_of_gaussians(volume, 1)),
        ("unsharp:sigma=2,amount=0.7", filters.unsharp_mask(volume, 2, 0.7, preserve_range=True)),
    ]:
        weights = build_kernel(spec, VOXELS)
        ours = correlate(volume, weights)
        inner = tuple(slice(n // 2, n // 2 + m) for n, m in zip(weights.shape, ours.shape))
        np.testing.assert_allclose(ours, theirs[inner], atol=1e-12)


# --- gabor


@pytest.mark.parametrize("phase", [0, -90, 30, 1e6])
def test_a_gabor_is_the_formula_in_space(phase):
    weights = build_kernel(f"gabor:sigma=3/2/2mm,wavelength=7mm,direction=1/2/-2,phase={phase}", BRAIN)
    z, y, x = points(weights.shape, STEPS)
    wave = np.cos(2 * np.pi * (z + 2 * y - 2 * x) / 3 / 7 + np.deg2rad(phase))
    np.testing.assert_allclose(weights, sampled(weights.shape, (3, 2, 2), STEPS) * wave, rtol=1e-7, atol=1e-14)


def test_a_gabor_answers_to_its_own_waves():
    even = build_kernel("gabor:sigma=3,wavelength=6,direction=0/1/1", VOXELS)
    odd = build_kernel("gabor:sigma=3,wavelength=6,direction=0/1/1,phase=-90", VOXELS)
    _, y, x = points(even.shape)
    along, across = ((y + s * x) * 2 * np.pi / 6 / math.sqrt(2) for s in (1, -1))
    assert (even * np.cos(along)).sum() == pytest.approx(0.5, rel=0.01)
    assert abs((even * np.cos(across)).sum()) < 0.01
    assert (odd * np.sin(along)).sum() == pytest.approx(0.5, rel=0.01)
    assert (odd * (y + x)).sum() > 0
    assert even.sum() == pytest.approx(math.exp(-2 * (math.pi * 3 / 6) ** 2), rel=0.05)
    assert abs(odd.sum()) < 1e-14


def test_a_gabor_along_x_is_simpleitks():
    sitk = pytest.importorskip("SimpleITK")
    weights = build_kernel("gabor:sigma=2/1.5/3,wavelength=5,direction=0/0/1", VOXELS)
    size = weights.shape[::-1]
    middle = [n // 2 for n in size]
    theirs = sitk.GetArrayFromImage(sitk.GaborSource(sitk.sitkFloat64, size, (3, 1.5, 2), middle, 1 / 5))
    gaussian = sitk.GetArrayFromImage(sitk.GaborSource(sitk.sitkFloat64, size, (3, 1.5, 2), middle, 0))
    np.testing.assert_allclose(weights, theirs / gaussian.sum(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_an_even_and_an_odd_gabor_are_scikit_images(angle):
    """In a plane. It is normalised by the integral, not the sum, which at this sigma are the same to 1e-4."""
    filters = pytest.importorskip("skimage.filters")
    theirs = filters.gabor_kernel(1 / 6, angle, sigma_x=2, sigma_y=2, n_stds=4)
    direction = f"0/{math.sin(angle)!r}/{math.cos(angle)!r}"
    for phase, part in [(0, theirs.real), (-90, theirs.imag)]:
        ours = build_kernel(f"gabor:sigma=0/2/2,wavelength=6,direction={direction},phase={phase}", VOXELS)[0]
        rows, columns = (n // 2 for n in part.shape)
        r, c = (n // 2 for n in ours.shape)
        h, w = min(rows, r), min(columns, c)
        shared = ours[r - h : r + h + 1, c - w : c + w + 1]
        np.testing.assert_allclose(
            shared, part[rows - h : rows + h + 1, columns - w : columns + w + 1], atol=2e-4 * np.abs(part).max()
        )


# --- what is the same for all


@given(st.tuples(*[st.floats(0.7, 4.0)] * 3), st.tuples(*[st.integers(0, 2)] * 3))
def test_derivatives_are_even_or_odd_by_their_order(sigmas, order):
    spec = f"gaussian:sigma={'/'.join(map(repr, sigmas))},order={'/'.join(map(str, order))}"
    weights = build_kernel(spec, VOXELS)
    for axis, n in enumerate(order):
        np.testing.assert_array_equal(np.flip(weights, axis), weights * (-1) ** n)


DERIVED = "a sigma of at least 0.7 voxels along every axis of a derivative"


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("gaussian:sigma=1,order=1", "gaussian order must be three of 0, 1, 2 (D/H/W) (got '1')", "order=0/0/1"),
        ("gaussian:sigma=1,order=0/0/3", "gaussian order must be three of 0, 1, 2 (D/H/W) (got '0/0/3')", ""),
        ("gaussian:sigma=1,order=0/0", "gaussian order must be three of", ""),
        ("gaussian:sigma=1mm,order=1/0/0", f"must be {DERIVED} (got '1mm', 0.333 voxels along D)", "sigma=D/H/W"),
        ("gaussian:fwhm=1mm,order=0/1/0", f"gaussian fwhm must be {DERIVED} (got '1mm', 0.425 voxels along H)", ""),
        ("gaussian:sigma=0,order=0/0/1", f"gaussian sigma must be {DERIVED} (got '0', 0 voxels along W)", ""),
        ("log:sigma=1mm", f"log sigma must be {DERIVED} (got '1mm', 0.333 voxels along D)", "laplacian"),
        ("gaussian:sigma=1,order=0/0/1,truncate=2", "gaussian truncate must be at least 3 where a derivative", "4"),
        ("log:sigma=3mm/2vox/2vox", "log sigma must be in one unit, that of the result (got '3mm/2vox/2vox')", ""),
        ("gradient:sigma=1mm", f"gradient sigma must be {DERIVED} (got '1mm', 0.333 voxels along D)", ""),
        ("log", "log needs sigma (got none)", "for example log:sigma=1.5mm"),
        ("log:sigma=2,scale=1", "log takes sigma and truncate (got 'scale=1')", ""),
        ("dog", "dog needs low (got none)", "dog:low=1mm,high=1.6mm"),
        ("dog:sigma=1", "dog takes low, high and truncate (got 'sigma=1')", ""),
        ("dog:low=2,high=1", "dog high must be wider than low (got low=2, high=1)", ""),
        ("dog:low=2,high=2", "dog high must be wider than low (got low=2, high=2)", ""),
        ("dog:low=1/1/2,high=2/2/1", "dog high must be wider than low", ""),
        ("dog:low=1,high=1e4", "dog high must make a kernel of at most 134217728 taps (got '1e4')", ""),
        ("dog:low=-1", "dog low must be at least 0 (got '-1')", ""),
        ("unsharp", "unsharp needs sigma (got none)", ""),
        ("unsharp:sigma=1,amount=0", "unsharp amount must be a number above 0 (got '0')", "the default is 1"),
        ("unsharp:sigma=1,amount=x", "unsharp amount must be a number above 0 (got 'x')", ""),
        ("gabor:sigma=1", "gabor needs wavelength (got none)", "gabor:sigma=2mm,wavelength=4mm,direction=0/0/1"),
        ("gabor:sigma=1,wavelength=4", "gabor needs direction (got none)", ""),
        ("gabor:sigma=1,wavelength=4,direction=x", "gabor direction must be three finite numbers, D/H/W (got 'x')", ""),
        ("gabor:sigma=1,wavelength=4,direction=0/0/0", "gabor direction must not be 0/0/0", ""),
        (
            "gabor:sigma=1,wavelength=4,direction=1.7e308/1.7e308/1.7e308",
            "gabor direction must not be 0/0/0, nor too",
            "",
        ),
        ("gabor:sigma=1,wavelength=1/2/3,direction=0/0/1", "gabor wavelength must be one length (got '1/2/3')", ""),
        ("gabor:sigma=1,wavelength=1.9,direction=0/0/1", "gabor wavelength must be at least 2 voxels along", ""),
        ("gabor:sigma=1,wavelength=4mm,direction=1/0/0", "gabor wavelength must be at least 2 voxels along", ""),
        ("gabor:sigma=1,wavelength=0,direction=0/0/1", "gabor wavelength must be at least 2 voxels along", ""),
        ("gabor:sigma=1,wavelength=4,direction=0/0/1,phase=a", "gabor phase must be a number of degrees (got 'a')", ""),
        ("gradient:sigma=1,unit=mm", "gradient takes either sigma or unit (got both)", "per its unit"),
        ("hessian:truncate=3", "hessian truncate goes with sigma (got truncate=3 alone)", "hessian:sigma=1.5mm"),
    ],
)
def test_errors(spec, message, hint):
    with pytest.raises(ParameterError) as caught:
        build_kernel(spec, BRAIN)
    assert message in caught.value.message.replace("'3' alone", "3 alone")
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")
