"""Kernels of neighbours' differences: on polynomials, whose derivatives are known, and against other libraries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reference import correlate
from volconv.errors import ParameterError
from volconv.geometry import Geometry
from volconv.kernels.named import build_kernel

VOXELS = Geometry()
SPACING = (3.0, 1.0, 0.5)
BRAIN = Geometry.from_spacing(SPACING, "mm")
CUBES = Geometry.from_spacing((0.5, 0.5, 0.5), "mm")
INNER = (slice(1, -1),) * 3


def grid(steps=(1, 1, 1), size=5):
    return np.meshgrid(*[(np.arange(size) - size // 2) * s for s in steps], indexing="ij")


def noise():
    return np.random.default_rng(0).standard_normal((6, 7, 8))


def embedded(weights):
    """In the middle of 3x3x3."""
    return np.pad(weights, [((3 - n) // 2,) * 2 for n in weights.shape])


@pytest.mark.parametrize("unit", ["mm", "um", "nm", "vox", "µm", None])
@pytest.mark.parametrize("name", ["gradient", "sobel", "scharr", "prewitt"])
def test_a_slope_is_found_per_unit(name, unit):
    steps = (1, 1, 1) if unit in ("vox", None) else SPACING
    length = {"um": 1e3, "µm": 1e3, "nm": 1e6}.get(unit, 1)
    whole = {"sobel": 32, "scharr": 512, "prewitt": 18}.get(name, 1) if unit is None else 1
    z, y, x = grid(steps)
    volume = 5 + 2 * z - 3 * y + 7 * x
    bank = build_kernel(name if unit is None else f"{name}:unit={unit}", BRAIN)
    assert bank.shape == (3, 3, 3, 3)
    for weights, slope in zip(bank, (2, -3, 7)):
        np.testing.assert_allclose(correlate(volume, weights), slope / length * whole, rtol=1e-12, atol=1e-12)
    for axis, weights in zip("zyx", bank):
        spec = f"{name}:axis={axis}" if unit is None else f"{name}:axis={axis},unit={unit}"
        np.testing.assert_array_equal(embedded(build_kernel(spec, BRAIN)), weights)


@pytest.mark.parametrize(
    ("name", "across"), [("sobel", [1, 2, 1]), ("scharr", [3, 10, 3]), ("prewitt", [1, 1, 1]), ("gradient", None)]
)
def test_they_are_products(name, across):
    for axis, weights in enumerate(build_kernel(name, VOXELS)):
        lines = [[0, 1, 0] if across is None else across] * 3
        lines[axis] = [-1, 0, 1]
        expected = np.einsum("d,h,w", *map(np.array, lines)) * (0.5 if across is None else 1)
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("unit", ["mm", "vox"])
def test_second_derivatives_of_a_quadratic_are_exact(unit):
    z, y, x = grid(SPACING if unit == "mm" else (1, 1, 1))
    volume = 1 + z - y + 2 * x + 0.5 * z**2 + 2 * z * y - z * x + 3 * y**2 + 4 * y * x - x**2
    bank = build_kernel(f"hessian:unit={unit}", BRAIN)
    assert bank.shape == (6, 3, 3, 3)
    for weights, second in zip(bank, (1, 2, -1, 6, 4, -2)):  # zz, zy, zx, yy, yx, xx
        np.testing.assert_allclose(correlate(volume, weights), second, atol=1e-11)
    weights = build_kernel(f"laplacian:unit={unit}", BRAIN)
    np.testing.assert_allclose(correlate(volume, weights), 1 + 6 - 2, atol=1e-11)
    np.testing.assert_array_equal(build_kernel("hessian", BRAIN), build_kernel("hessian:unit=vox", BRAIN))


@pytest.mark.parametrize("points", [7, 19, 27])
def test_laplacians(points):
    weights = build_kernel(f"laplacian:points={points}", BRAIN)
    assert np.count_nonzero(weights) == points
    assert abs(weights.sum()) < 1e-14
    z, y, x = grid()
    for volume, expected in [
        (2 * z**2 + 3 * y**2 - x**2 + 4 * x - 7 + z * y - x * y, 8),
        (z * y * x + z**2 * x + z, 2 * x[INNER]),
    ]:
        np.testing.assert_allclose(correlate(volume, weights), np.broadcast_to(expected, (3, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(build_kernel(f"laplacian:points={points},unit=mm", CUBES), weights * 4, rtol=1e-12)
    np.testing.assert_allclose(build_kernel(f"laplacian:points={points},unit=um", CUBES), weights * 4e-6, rtol=1e-12)


def test_weights_of_laplacians_by_neighbourhood():
    for points, by_distance in [
        (7, (-6, 1, 0, 0)),
        (19, (-4, 1 / 3, 1 / 6, 0)),
        (27, (-38 / 9, 4 / 9, 1 / 9, 1 / 36)),
    ]:
        weights = build_kernel(f"laplacian:points={points}", VOXELS)
        for place in itertools.product((-1, 0, 1), repeat=3):
            away = sum(map(abs, place))
            np.testing.assert_allclose(weights[tuple(p + 1 for p in place)], by_distance[away], rtol=1e-14)
    twentyseven = 6 * np.einsum("d,h,w", *[[1 / 6, 2 / 3, 1 / 6]] * 3)
    twentyseven[1, 1, 1] -= 6
    np.testing.assert_allclose(weights, twentyseven, rtol=1e-14)


@pytest.mark.parametrize(("points", "isotropic"), [(7, False), (19, True), (27, True)])
def test_errors_of_larger_laplacians_are_the_same_in_all_directions(points, isotropic):
    """The terms of fourth order make a multiple of (k.k)**2: sum w x^4 = 3 sum w x^2 y^2."""
    weights = build_kernel(f"laplacian:points={points}", VOXELS)
    z, y, x = grid(size=3)
    fourth = [(weights * a**4).sum() for a in (z, y, x)]
    mixed = [3 * (weights * a**2 * b**2).sum() for a, b in [(z, y), (z, x), (y, x)]]
    assert np.allclose(fourth, mixed) == isotropic


def test_a_laplacian_of_header_precision_spacing():
    steps = tuple(np.float32([0.3, 0.1 * 3, 0.3]) * [1, 1 + 1e-7, 1])
    build_kernel("laplacian:points=27,unit=mm", Geometry.from_spacing(steps, "mm"))
    np.testing.assert_array_equal(build_kernel("laplacian", VOXELS), build_kernel("laplacian:unit=vox", BRAIN))


# --- the same in other libraries


def test_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    volume = noise()
    for spec, theirs in [
        ("laplacian", ndimage.laplace(volume)),
        *((f"sobel:axis={name}", ndimage.sobel(volume, axis)) for axis, name in enumerate("zyx")),
        *((f"prewitt:axis={name}", ndimage.prewitt(volume, axis)) for axis, name in enumerate("zyx")),
    ]:
        np.testing.assert_allclose(correlate(volume, build_kernel(spec, VOXELS)), theirs[INNER], atol=1e-12)


def test_numpys_gradient():
    volume = noise()
    bank = build_kernel("gradient:unit=mm", BRAIN)
    for weights, theirs in zip(bank, np.gradient(volume, *SPACING)):
        np.testing.assert_allclose(correlate(volume, weights), theirs[INNER], atol=1e-12)


@pytest.mark.parametrize("name", ["sobel", "scharr", "prewitt"])
def test_scikit_image(name):
    filters = pytest.importorskip("skimage.filters")
    volume = noise()
    for axis, letter in enumerate("zyx"):
        theirs = getattr(filters, name)(volume, axis=axis)
        ours = correlate(volume, build_kernel(f"{name}:axis={letter},unit=vox", VOXELS))
        np.testing.assert_allclose(2 * ours, theirs[INNER], atol=1e-12)  # theirs is per two voxels


def test_simpleitk():
    sitk = pytest.importorskip("SimpleITK")
    volume = noise()
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(SPACING[::-1])

    def theirs(image):
        return sitk.GetArrayFromImage(image)[INNER]

    gradients = theirs(sitk.Gradient(image, useImageSpacing=True, useImageDirection=False))
    for axis, weights in enumerate(build_kernel("gradient:unit=mm", BRAIN)):
        np.testing.assert_allclose(correlate(volume, weights), gradients[..., 2 - axis], atol=1e-6)
    ours = correlate(volume, build_kernel("laplacian:unit=mm", BRAIN))
    np.testing.assert_allclose(ours, theirs(sitk.Laplacian(image, useImageSpacing=True)), atol=1e-6)
    for channel, axis in [(0, 2), (3, 1), (5, 0)]:  # zz, yy, xx; its axes count from x
        # Per voxel: with spacing it divides by that once, which is right for first derivatives only.
        second = theirs(sitk.Derivative(image, direction=axis, order=2, useImageSpacing=False))
        ours = correlate(volume, build_kernel("hessian", BRAIN)[channel])
        np.testing.assert_allclose(ours, second, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("sobel:unit=cm", "sobel unit must be one of mm, um, nm, vox (got 'cm')", "per that unit"),
        ("scharr:axis=d", "scharr axis must be z, y or x (got 'd')", "plain scharr gives all three"),
        ("gradient:axis=0", "gradient axis must be z, y or x (got '0')", "plain gradient gives all three"),
        ("prewitt:size=3", "prewitt takes axis and unit (got 'size=3')", ""),
        ("laplacian:points=9", "laplacian points must be 7, 19 or 27 (got '9')", "7 is the default"),
        (
            "laplacian:points=19,unit=mm",
            "laplacian points=19 needs the same spacing along all axes (got 3, 1, 0.5 mm along D, H, W)",
            "points=7 is for any",
        ),
        ("hessian:axis=z", "hessian takes unit, sigma and truncate (got 'axis=z')", ""),
    ],
)
def test_errors(spec, message, hint):
    with pytest.raises(ParameterError) as caught:
        build_kernel(spec, BRAIN)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["sobel", "gradient", "hessian", "laplacian"])
def test_a_unit_needs_a_spacing(name):
    with pytest.raises(ParameterError) as caught:
        build_kernel(f"{name}:unit=mm", VOXELS, "cells.tif")
    assert caught.value.message == "unit=mm needs a spacing, and cells.tif states none"
    assert "--spacing 1,0.5,0.5um" in caught.value.hint
    tiny = Geometry.from_spacing((1e-200,) * 3, "mm")
    if name in ("hessian", "laplacian"):
        with pytest.raises(ParameterError, match=f"{name} must make weights that are finite numbers"):
            build_kernel(f"{name}:unit=mm", tiny)
