"""Named kernels against formulas written out here, and against scipy.ndimage where it is installed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import correlate
from volconv.errors import ParameterError
from volconv.geometry import Geometry
from volconv.kernels import NAMES
from volconv.kernels.gaussians import gaussian_1d
from volconv.kernels.named import REGISTRY, build_kernel
from volconv.kernels.parsing import MAX_TAPS

VOXELS = Geometry()
BRAIN = Geometry.from_spacing((3.0, 1.0, 0.5), "mm")


def gaussian_reference(sigmas: tuple[float, float, float], truncate: float = 4.0) -> np.ndarray:
    """Samples of the 3-D Gaussian at integer offsets, divided by their sum."""
    radii = [int(truncate * s + 0.5) for s in sigmas]
    offsets = np.meshgrid(*(np.arange(-r, r + 1) for r in radii), indexing="ij")
    exponent = sum((x / s) ** 2 for x, s in zip(offsets, sigmas, strict=True) if s > 0)
    values = np.exp(-0.5 * exponent) if np.ndim(exponent) else np.ones((1, 1, 1))
    return values / values.sum()


# --- gaussian


@pytest.mark.parametrize(
    ("spec", "geometry", "sigmas", "truncate"),
    [
        ("gaussian:sigma=1.5", VOXELS, (1.5, 1.5, 1.5), 4),
        ("gaussian:sigma=1.5vox", BRAIN, (1.5, 1.5, 1.5), 4),
        ("gaussian:sigma=1/2/0.7", VOXELS, (1, 2, 0.7), 4),
        ("gaussian:sigma=1.5mm", BRAIN, (0.5, 1.5, 3), 4),
        ("gaussian:sigma=1500um", BRAIN, (0.5, 1.5, 3), 4),
        ("gaussian:sigma=1500µm", BRAIN, (0.5, 1.5, 3), 4),
        ("gaussian:sigma=1.5e6nm", BRAIN, (0.5, 1.5, 3), 4),
        ("gaussian:sigma=3/2/1mm", BRAIN, (1, 2, 2), 4),
        ("gaussian:sigma=3mm/2vox/1mm", BRAIN, (1, 2, 2), 4),
        ("gaussian:sigma=1,truncate=2.5", VOXELS, (1, 1, 1), 2.5),
        ("gaussian: truncate = 3 , sigma = 1 mm ", BRAIN, (1 / 3, 1, 2), 3),
        ("gaussian:fwhm=3", VOXELS, (3 / 2.3548200450309493,) * 3, 4),
        ("gaussian:sigma=0/1/0", VOXELS, (0, 1, 0), 4),
        ("gaussian:sigma=0", VOXELS, (0, 0, 0), 4),
    ],
)
def test_gaussian_is_the_sampled_formula(spec, geometry, sigmas, truncate):
    weights = build_kernel(spec, geometry)
    expected = gaussian_reference(sigmas, truncate)
    assert weights.shape == expected.shape
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_gaussian_of_zero_width_is_one_voxel():
    assert build_kernel("gaussian:sigma=0mm", BRAIN).tolist() == [[[1.0]]]


@pytest.mark.parametrize("sigmas", [(1.5, 1.5, 1.5), (0.4, 2.0, 1.0), (0.0, 1.0, 3.3), (1e-16, 1.0, 0.1)])
@pytest.mark.parametrize("truncate", [4.0, 2.0])
def test_gaussian_is_bit_for_bit_what_scipy_does(sigmas, truncate):
    ndimage = pytest.importorskip("scipy.ndimage")
    weights = build_kernel(f"gaussian:sigma={sigmas[0]}/{sigmas[1]}/{sigmas[2]},truncate={truncate}", VOXELS)
    for axis, sigma in enumerate(sigmas):
        impulse = np.zeros(weights.shape[axis] + 2)
        impulse[impulse.size // 2] = 1
        line = ndimage.gaussian_filter(impulse, sigma, truncate=truncate)[1:-1]
        np.testing.assert_array_equal(gaussian_1d(sigma, truncate), line)
    rng = np.random.default_rng(1)
    volume = rng.standard_normal([n + 3 for n in weights.shape])
    inner = tuple(slice(n // 2, n // 2 + 4) for n in weights.shape)
    expected = ndimage.gaussian_filter(volume, sigmas, truncate=truncate)[inner]
    np.testing.assert_allclose(correlate(volume, weights), expected, rtol=1e-12, atol=1e-14)


widths = st.floats(0.0, 4.0, allow_nan=False)


@given(st.tuples(widths, widths, widths))
def test_gaussian_sums_to_one_and_is_symmetric(sigmas):
    weights = build_kernel("gaussian:sigma=" + "/".join(map(repr, sigmas)), VOXELS)
    assert math.isclose(weights.sum(), 1, rel_tol=1e-12)
    assert all(n % 2 for n in weights.shape)
    for axis in range(3):
        np.testing.assert_array_equal(weights, np.flip(weights, axis))
    assert weights.max() == weights[tuple(n // 2 for n in weights.shape)]


@given(st.tuples(*[st.floats(0.3, 3.0)] * 3), st.floats(0.5, 3.0), st.sampled_from(["mm", "um", "nm"]))
def test_gaussian_has_the_same_physical_width_whatever_the_spacing(spacing, sigma, unit):
    geometry = Geometry.from_spacing(spacing, unit)
    weights = build_kernel(f"gaussian:sigma={sigma!r}{unit},truncate=6", geometry)
    for axis, step in enumerate(spacing):
        if sigma / step < 1:  # too coarse a grid to carry the width
            continue
        line = weights.sum(axis=tuple(a for a in range(3) if a != axis))
        x = (np.arange(line.size) - line.size // 2) * step
        assert math.isclose(math.sqrt((line * x**2).sum()), sigma, rel_tol=1e-5)


def test_gaussian_of_an_oblique_affine_uses_the_columns_norms():
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) @ np.diag([0.5, 1.0, 3.0])
    np.testing.assert_allclose(
        build_kernel("gaussian:sigma=1.5mm", Geometry.from_matrix(turned)), build_kernel("gaussian:sigma=1.5mm", BRAIN)
    )


# --- the others


def test_box_is_a_mean():
    weights = build_kernel("box:size=3", VOXELS)
    assert weights.shape == (3, 3, 3)
    assert (weights == 1 / 27).all()
    assert build_kernel("box:size=3/4/5", VOXELS).shape == (3, 4, 5)
    assert (build_kernel("box:size=2", VOXELS) == 0.125).all()


def test_identity_is_one_voxel():
    assert build_kernel("identity", VOXELS).tolist() == [[[1.0]]]


def test_laplacian_of_a_quadratic_is_its_second_derivative():
    z, y, x = np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij")
    response = correlate(2 * z**2 + 3 * y**2 - x**2 + 4 * x - 7 + z * y, build_kernel("laplacian", VOXELS))
    assert (response == 2 * (2 + 3 - 1)).all()
    assert build_kernel("laplacian", VOXELS)[1, 1, 1] == -6


@pytest.mark.parametrize(("axis", "position"), [("z", 0), ("y", 1), ("x", 2)])
def test_sobel_is_positive_where_values_increase(axis, position):
    weights = build_kernel(f"sobel:axis={axis}", VOXELS)
    ramps = np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij")
    for other, ramp in enumerate(ramps):  # 2 voxels apart, weights 4*4: a slope of 1 gives 32
        assert (correlate(ramp, weights) == (32 if other == position else 0)).all()


def test_plain_sobel_is_the_bank_of_all_three():
    bank = build_kernel("sobel", VOXELS)
    assert bank.shape == (3, 3, 3, 3)
    for channel, axis in enumerate("zyx"):
        np.testing.assert_array_equal(bank[channel], build_kernel(f"sobel:axis={axis}", VOXELS))


def test_sobel_laplacian_and_box_are_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    volume = np.random.default_rng(0).standard_normal((6, 7, 8))
    inner = (slice(1, -1),) * 3
    for axis, name in enumerate("zyx"):
        ours = correlate(volume, build_kernel(f"sobel:axis={name}", VOXELS))
        np.testing.assert_allclose(ours, ndimage.sobel(volume, axis)[inner], atol=1e-12)
    for spec, theirs in [("laplacian", ndimage.laplace(volume)), ("box:size=3", ndimage.uniform_filter(volume, 3))]:
        np.testing.assert_allclose(correlate(volume, build_kernel(spec, VOXELS)), theirs[inner], atol=1e-12)


def test_every_name_has_a_line_and_an_example_that_works():
    smoothing, derivatives = {"gaussian", "box", "ball"}, {"laplacian", "gradient", "hessian"}
    edges, blobs = {"sobel", "scharr", "prewitt"}, {"log", "dog", "gabor", "unsharp"}
    assert set(NAMES) == set(REGISTRY) == smoothing | derivatives | edges | blobs | {"neighbours", "identity"}
    for name, kernel in REGISTRY.items():
        assert NAMES[name] == kernel.description
        assert "\n" not in kernel.description
        assert kernel.build.__doc__
        assert kernel.example.partition(":")[0] == name
        assert build_kernel(kernel.example, Geometry.from_spacing((1.0, 1.0, 0.5), "mm")).ndim in (3, 4)


def test_the_readme_names_all():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    table = text.split("| `-k` | what |")[1].split("| `FILE[:KEY]`")[0]
    assert {spec.partition(":")[0] for spec in re.findall(r"`([a-z]+(?::[^`]*)?)`", table)} >= set(NAMES)


# --- errors

LENGTH = "in mm, um, nm, vox"


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("gausian:sigma=2", "(got 'gausian:sigma=2')", "did you mean gaussian?"),
        ("Box", "scharr, prewitt, gabor, unsharp, identity (got 'Box')", "did you mean box?"),
        ("qqq", "kernel must be a file (.npy, .npz, .h5, ", None),
        ("", "(got '')", None),
        ("gaussian", "gaussian needs either sigma or fwhm (got neither)", "for example gaussian:sigma=1.5mm"),
        ("gaussian:truncate=3", "gaussian needs either sigma or fwhm (got neither)", "gaussian:sigma=1.5mm"),
        ("gaussian:sigma=1,fwhm=2", "gaussian needs either sigma or fwhm (got both)", None),
        ("gaussian:sgima=1", "gaussian takes sigma, fwhm, truncate and order (got 'sgima=1')", "did you mean sigma?"),
        ("gaussian:q=1", "gaussian takes sigma, fwhm, truncate and order (got 'q=1')", None),
        ("gaussian:sigma=1,sigma=2", "gaussian sigma must be given once (got '1' and '2')", None),
        ("gaussian:", "gaussian parameters must be param=value, separated by commas (got '')", "gaussian:sigma=1mm,"),
        ("gaussian:1.5mm", "gaussian parameters must be param=value, separated by commas (got '1.5mm')", None),
        ("gaussian:sigma=", "must be param=value", None),
        ("gaussian:sigma=1,", "must be param=value", None),
        (
            "gaussian:sigma=abc",
            f"gaussian sigma must be one finite number or three (D/H/W), {LENGTH} (got 'abc')",
            None,
        ),
        ("gaussian:sigma=nan", "(got 'nan')", "for example sigma=1.5mm"),
        ("gaussian:sigma=inf", "must be one finite number or three", None),
        ("gaussian:sigma=1e999", "must be one finite number or three", None),
        ("gaussian:sigma=1_0", "must be one finite number or three", None),
        ("gaussian:sigma=1/2", "must be one finite number or three (D/H/W)", "sigma=1/2/2mm"),
        ("gaussian:sigma=1/2/3/4", "must be one finite number or three (D/H/W)", None),
        ("gaussian:sigma=1/2/", "must be one finite number or three (D/H/W)", None),
        ("gaussian:fwhm=x", "gaussian fwhm must be one finite number", "for example fwhm=1.5mm"),
        ("gaussian:sigma=1cm", "gaussian sigma must be in mm, um, nm, vox (got '1cm')", "no unit means vox"),
        (
            "gaussian:sigma=1mm/2/3",
            "gaussian sigma must be in mm, um, nm, vox (got '1mm/2/3')",
            "one after each number",
        ),
        ("gaussian:sigma=-1", "gaussian sigma must be at least 0 (got '-1')", None),
        ("gaussian:sigma=1/-2/3mm", "gaussian sigma must be at least 0 (got '1/-2/3mm')", None),
        (
            "gaussian:sigma=1,truncate=0",
            "gaussian truncate must be a number of sigmas above 0 (got '0')",
            "default is 4",
        ),
        ("gaussian:sigma=1,truncate=-4", "gaussian truncate must be", None),
        ("gaussian:sigma=1,truncate=nan", "gaussian truncate must be", None),
        ("gaussian:sigma=1,truncate=4mm", "gaussian truncate must be", None),
        ("gaussian:sigma=1000", f"gaussian sigma must make a kernel of at most {MAX_TAPS} taps (got '1000')", None),
        ("gaussian:sigma=1e300,truncate=1e300", "gaussian sigma must make a kernel of at most", None),
        ("box", "box needs size (got none)", "for example box:size=3"),
        ("box:size=0", "box size must be one positive integer or three (D/H/W) of voxels", "box:size=3"),
        ("box:size=-3", "box size must be one positive integer or three", None),
        ("box:size=3.0", "box size must be one positive integer or three", None),
        ("box:size=2.5vox", "mm, um, nm (got '2.5vox')", "sizes count voxels"),
        ("box:size=3mm/2vox/3mm", "box size must be one positive integer or three", "sizes in voxels must be odd"),
        ("box:size=3mm/2.5vox/3mm", "box size must be one positive integer or three", "sizes in voxels must be odd"),
        ("box:size=0mm", "box size must be one positive integer or three", "for example box:size=3mm"),
        ("box:size=-1mm", "box size must be at least 0 (got '-1mm')", None),
        ("box:size=3cm", "box size must be in mm, um, nm, vox (got '3cm')", "no unit means vox"),
        ("box:size=1e9mm", "box size must make a kernel of at most", None),
        ("box:size=3/3", "box size must be one positive integer or three", None),
        ("box:size=" + "9" * 5000, "box size must be one positive integer or three", None),
        ("box:size=99999", "box size must make a kernel of at most", None),
        ("box:sise=3", "box takes size (got 'sise=3')", "did you mean size?"),
        ("identity:size=3", "identity takes no parameters (got 'size=3')", None),
        ("identity:", "identity takes no parameters (got '')", None),
        ("laplacian:", "laplacian parameters must be param=value", "laplacian:points=27"),
        ("sobel:axis=d", "sobel axis must be z, y or x (got 'd')", "z is D, y is H, x is W"),
        ("sobel:axis=Z", "sobel axis must be z, y or x (got 'Z')", None),
    ],
)
def test_errors(spec, message, hint):
    with pytest.raises(ParameterError) as caught:
        build_kernel(spec, BRAIN)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    if hint is None:
        assert "did you mean" not in str(caught.value)
    else:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("given_length", ["sigma=1.5mm", "fwhm=2um", "sigma=1/2/2mm"])
def test_a_physical_width_needs_a_spacing(given_length):
    with pytest.raises(ParameterError) as caught:
        build_kernel(f"gaussian:{given_length}", VOXELS, "cells.tif")
    assert caught.value.message == f"{given_length} needs a spacing, and cells.tif states none"
    name = given_length.partition("=")[0]
    assert caught.value.hint == (
        f"state it (--spacing 1,0.5,0.5um), or give {name} in voxels, without a unit, as in {name}=2"
    )


@pytest.mark.parametrize("step", [0.0, math.inf, math.nan])
def test_a_physical_width_needs_a_positive_spacing(step):
    geometry = Geometry(((1, 0, 0, 0), (0, step, 0, 0), (0, 0, 2, 0), (0, 0, 0, 1)), "mm")
    with pytest.raises(ParameterError, match=rf"needs a positive spacing, and bad.nii states H={step:g}mm"):
        build_kernel("gaussian:sigma=1mm", geometry, "bad.nii")
