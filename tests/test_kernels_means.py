"""Boxes in millimetres, balls and neighbourhoods, against sums over points and against scikit-image and SciPy."""

from __future__ import annotations

import itertools
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


def test_a_box_in_millimetres_takes_voxels_in_part():
    weights = build_kernel("box:size=4mm", BRAIN)
    assert weights.shape == (3, 5, 9)
    d, h, w = [0.5 / 4, 3 / 4, 0.5 / 4], [0.5 / 4, 1 / 4, 1 / 4, 1 / 4, 0.5 / 4], [0.25 / 4, *[0.5 / 4] * 7, 0.25 / 4]
    np.testing.assert_allclose(weights, np.einsum("d,h,w", d, h, w), rtol=1e-12)
    np.testing.assert_allclose(build_kernel("box:size=9/3/2.5mm", BRAIN), np.full((3, 3, 5), 1 / 45), rtol=1e-12)
    assert build_kernel("box:size=1/0.2/0.5mm", BRAIN).tolist() == [[[1.0]]]
    assert build_kernel("box:size=3mm/3vox/1.5mm", BRAIN).shape == (1, 3, 3)
    np.testing.assert_array_equal(build_kernel("box:size=3vox", BRAIN), build_kernel("box:size=3", VOXELS))


@given(st.floats(0.1, 20), st.floats(0.2, 5), st.sampled_from(["mm", "um"]))
def test_a_box_is_the_mean_over_its_length(size, step, unit):
    """The integral of voxels as steps, which midpoints of many short intervals give."""
    weights = build_kernel(f"box:size={size!r}{unit}", Geometry.from_spacing((step, 50.0, 50.0), unit))
    line = weights[:, 0, 0]
    assert weights.shape == (len(line), 1, 1)
    assert len(line) % 2 == 1
    n = 20000
    voxels = np.round((np.arange(n) + 0.5 - n / 2) / n * size / step).astype(int)
    share = np.bincount(voxels + len(line) // 2, minlength=len(line)) / n
    assert len(share) == len(line)
    np.testing.assert_allclose(line, share, atol=2e-4)
    assert math.isclose(line.sum(), 1, rel_tol=1e-12)


@pytest.mark.parametrize("spec", ["ball:radius=3mm", "ball:radius=3000um", "ball:radius=1/3/6vox"])
def test_a_ball_is_a_mean_over_the_centres_within(spec):
    weights = build_kernel(spec, BRAIN)
    assert weights.shape == (3, 7, 13)
    near = {
        (z, y, x)
        for z, y, x in itertools.product(range(-3, 4), range(-7, 8), range(-13, 14))
        if 36 * z * z + 4 * y * y + x * x <= 36  # half millimetres
    }
    assert {tuple(p) for p in np.argwhere(weights) - (1, 3, 6)} == near
    np.testing.assert_allclose(weights[weights > 0], 1 / len(near), rtol=1e-12)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_balls_are_scikit_images(radius):
    morphology = pytest.importorskip("skimage.morphology")
    ball = morphology.ball(radius)
    np.testing.assert_allclose(build_kernel(f"ball:radius={radius}", VOXELS), ball / ball.sum(), rtol=1e-12)


@given(st.integers(1, 9), st.floats(0.1, 10))
def test_the_sphere_itself_belongs_to_the_ball(radius, step):
    """Whatever rounding does to a radius of so many voxels."""
    geometry = Geometry.from_spacing((step, step, step), "mm")
    ours = build_kernel(f"ball:radius={radius * step!r}mm", geometry)
    np.testing.assert_array_equal(ours, build_kernel(f"ball:radius={radius}", VOXELS))


@pytest.mark.parametrize(("count", "corners"), [(6, 1), (18, 2), (26, 3)])
def test_neighbours_are_counted(count, corners):
    weights = build_kernel(f"neighbours:count={count}", BRAIN)
    assert weights.sum() == count
    for place in itertools.product((-1, 0, 1), repeat=3):
        assert weights[tuple(p + 1 for p in place)] == (0 < sum(map(abs, place)) <= corners)
    mask = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(float)
    assert correlate(mask, weights).max() <= count


@pytest.mark.parametrize(("count", "connectivity"), [(6, 1), (18, 2), (26, 3)])
def test_neighbours_are_scipys(count, connectivity):
    ndimage = pytest.importorskip("scipy.ndimage")
    structure = ndimage.generate_binary_structure(3, connectivity).astype(float)
    structure[1, 1, 1] = 0
    np.testing.assert_array_equal(build_kernel(f"neighbours:count={count}", VOXELS), structure)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("ball", "ball needs radius (got none)", "for example ball:radius=3mm"),
        ("ball:radius=x", "ball radius must be one finite number or three (D/H/W), in mm, um, nm, vox (got 'x')", ""),
        ("ball:radius=-1", "ball radius must be at least 0 (got '-1')", ""),
        ("ball:radius=1e5mm", "ball radius must make a kernel of at most 134217728 taps (got '1e5mm')", ""),
        ("ball:radius=1e308nm", "ball radius must make a kernel of at most", ""),
        ("ball:diameter=2", "ball takes radius (got 'diameter=2')", ""),
        ("neighbours", "neighbours needs count (got none)", "for example neighbours:count=26"),
        ("neighbours:count=8", "neighbours count must be 6, 18 or 26 (got '8')", "they share a face"),
        ("neighbors:count=6", "(got 'neighbors:count=6')", "did you mean neighbours?"),
    ],
)
def test_errors(spec, message, hint):
    with pytest.raises(ParameterError) as caught:
        build_kernel(spec, BRAIN)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("what", ["ball:radius=3mm", "box:size=3mm"])
def test_lengths_need_a_spacing(what):
    with pytest.raises(ParameterError, match=rf"{what.partition(':')[2]} needs a spacing, and cells\.tif states none"):
        build_kernel(what, VOXELS, "cells.tif")
