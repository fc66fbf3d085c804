"""Where voxels lie, against nibabel's own arithmetic of affines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import apply_affine, voxel_sizes

from volconv.geometry import MILLIMETRES, Geometry, grids_agree, output_geometry
from volconv.params import Conv3dParams
from volconv.shapes import full_output_shape

numbers = st.floats(-10, 10, allow_subnormal=False)
spacings = st.floats(0.01, 10)
small = st.integers(1, 4)
triples = st.tuples(small, small, small)


@st.composite
def affines(draw):
    """Any affine, sheared and mirrored too."""
    matrix = np.eye(4)
    matrix[:3] = np.array(draw(st.lists(numbers, min_size=12, max_size=12))).reshape(3, 4)
    return matrix


@st.composite
def parameters(draw):
    options = {"dilation": draw(triples), "padding": draw(st.tuples(*[st.integers(0, 4)] * 3)), "stride": draw(triples)}
    if draw(st.booleans()):
        options |= {"padding": "same", "stride": 1}
    return Conv3dParams.parse((1, 1, *draw(triples)), **options)


@given(affines(), parameters(), st.tuples(*[st.integers(0, 50)] * 3))
def test_an_output_voxel_lies_at_its_windows_centre(matrix, params, output):
    moved = output_geometry(Geometry.from_matrix(matrix, "um"), params)
    centre = [
        np.mean([o * stride - low + tap * dilation for tap in range(kernel)])  # the input voxels that it sees
        for o, stride, low, dilation, kernel in zip(
            output, params.stride, params.padding_low, params.dilation, params.kernel_size, strict=True
        )
    ]
    there = apply_affine(moved.matrix, output[::-1])
    np.testing.assert_allclose(there, apply_affine(matrix, centre[::-1]), rtol=1e-12, atol=1e-9)
    assert moved.unit == "um"


@given(affines(), triples)
def test_same_with_odd_kernels_moves_nothing(matrix, half):
    geometry = Geometry.from_matrix(matrix)
    params = Conv3dParams.parse((1, 1, *(2 * h + 1 for h in half)), padding="same")
    np.testing.assert_array_equal(output_geometry(geometry, params).matrix, geometry.matrix)


def test_a_centre_of_mass_stays_where_it_is():
    """A symmetric kernel spreads a point evenly about where it lies in the world, whatever the padding."""
    geometry = Geometry.from_matrix(np.array([[0, -2, 0.5, 3], [1, 0, 0, -7], [0, 0.3, 4, 11], [0, 0, 0, 1]]))
    params = Conv3dParams.parse((1, 1, 4, 6, 2), padding=(4, 6, 2))
    volume = (9, 10, 8)
    point = (4, 5, 3)
    _, _, *size = full_output_shape((1, 1, *volume), params)
    hits = [
        o
        for o in itertools.product(*map(range, size))
        if all(
            0 <= p + low - i < k for p, low, i, k in zip(point, params.padding_low, o, params.kernel_size, strict=True)
        )
    ]
    world = apply_affine(output_geometry(geometry, params).matrix, np.array(hits)[:, ::-1])
    np.testing.assert_allclose(world.mean(axis=0), apply_affine(geometry.matrix, point[::-1]))


@given(affines())
def test_spacing_is_the_columns_norm_in_d_h_w_order(matrix):
    geometry = Geometry.from_matrix(matrix)
    # Squares of less than that are zero, as nibabel forms them.
    np.testing.assert_allclose(geometry.spacing, voxel_sizes(matrix)[::-1], atol=1e-150)
    assert geometry.origin == tuple(matrix[:3, 3][::-1])
    np.testing.assert_array_equal(geometry.matrix, matrix)


@given(st.tuples(spacings, spacings, spacings), st.tuples(numbers, numbers, numbers))
def test_from_spacing_round_trips(spacing, origin):
    geometry = Geometry.from_spacing(spacing, "nm", origin)
    np.testing.assert_allclose(geometry.spacing, spacing, rtol=1e-15)
    assert geometry.origin == origin
    assert geometry.is_axis_aligned
    position = apply_affine(geometry.matrix, (1, 2, 3))  # x, y, z: one along W, two along H, three along D
    np.testing.assert_allclose(position, [origin[2 - i] + (i + 1) * spacing[2 - i] for i in range(3)])


@pytest.mark.parametrize(
    ("unit", "other", "factor"),
    [("mm", "mm", 1), ("mm", "um", 1e3), ("um", "mm", 1e-3), ("nm", "um", 1e-3), ("m", "nm", 1e9), ("um", "nm", 1e3)],
)
def test_spacing_in_another_unit(unit, other, factor):
    spacing = Geometry.from_spacing((3.0, 2.0, 0.5), unit).spacing_in(other)
    np.testing.assert_allclose(spacing, [3 * factor, 2 * factor, 0.5 * factor])


def test_no_unit_no_spacing():
    assert Geometry().spacing_in("mm") is None
    assert Geometry().spacing == (1, 1, 1)
    assert Geometry().origin == (0, 0, 0)


def test_matrix_is_a_copy():
    geometry = Geometry()
    geometry.matrix[0, 0] = 5
    assert geometry.matrix[0, 0] == 1


@pytest.mark.parametrize(
    ("matrix", "aligned"),
    [
        (np.diag([1, 2, 3, 1]), True),
        (np.diag([-1, 2, 3, 1]), False),
        (np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), False),
        (np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), False),
        (np.array([[1, 0, 0, 9], [0, 1, 0, 9], [0, 0, 1, 9], [0, 0, 0, 1]]), True),
    ],
)
def test_axis_aligned(matrix, aligned):
    assert Geometry.from_matrix(matrix).is_axis_aligned is aligned


@given(affines(), st.tuples(spacings, spacings, spacings))
def test_another_spacing_keeps_directions_and_origin(matrix, spacing):
    lengths = voxel_sizes(matrix)
    changed = Geometry.from_matrix(matrix).with_spacing(spacing, None)
    for axis in range(3):
        if lengths[axis] > 1e-6:
            direction = matrix[:3, axis] / lengths[axis]
            np.testing.assert_allclose(changed.matrix[:3, axis], direction * spacing[::-1][axis], atol=1e-9)
    np.testing.assert_array_equal(changed.matrix[:3, 3], matrix[:3, 3])
    assert changed.unit == "mm"


def test_another_unit_measures_the_same_place():
    geometry = Geometry.from_spacing((3.0, 2.0, 1.0), "mm", origin=(30.0, 20.0, 10.0))
    changed = geometry.with_spacing((300.0, 200.0, 100.0), "um")
    assert changed.origin == (30000.0, 20000.0, 10000.0)
    assert changed.unit == "um"
    np.testing.assert_allclose(changed.spacing_in("mm"), (0.3, 0.2, 0.1))


def test_a_first_spacing_starts_at_the_origin():
    moved = Geometry().resampled((1, 1, 1), (2.5, 0.0, 0.0))
    assert moved.with_spacing((2.0, 1.0, 1.0), "um") == Geometry.from_spacing((2.0, 1.0, 1.0), "um")


@given(affines(), st.sampled_from(sorted(MILLIMETRES)), st.sampled_from(sorted(MILLIMETRES)))
def test_units_do_not_matter_to_a_grid(matrix, unit, other):
    matrix[:3, :3] += np.eye(3) * 20  # a grid without extent agrees with nothing, not even with itself
    scaled = matrix.copy()
    scaled[:3] *= MILLIMETRES[unit] / MILLIMETRES[other]
    assert grids_agree(Geometry.from_matrix(matrix, unit), Geometry.from_matrix(scaled, other), (5, 6, 7))


@pytest.mark.parametrize(("shift", "agree"), [(0.0009, True), (0.0011, False)])
@pytest.mark.parametrize("where", [(0, 3), (1, 3), (2, 3), (0, 0), (2, 1)])
def test_grids_differ_by_a_thousandth_of_a_voxel_at_a_corner(shift, agree, where):
    one = Geometry.from_spacing((2.0, 0.5, 1.0))
    matrix = one.matrix
    size = (9, 5, 7)
    matrix[where] += 0.5 * shift / (1 if where[1] == 3 else size[::-1][where[1]] - 1)
    assert grids_agree(one, Geometry.from_matrix(matrix), size) is agree


def test_a_grid_without_a_unit_agrees_with_its_like():
    assert grids_agree(Geometry(), Geometry(), (2, 2, 2))
    assert not grids_agree(Geometry(), Geometry.from_spacing((1.0, 1.0, 1.0)), (2, 2, 2))


def test_a_geometry_in_words():
    assert Geometry.from_spacing((3.0, 0.5, 1.0), "um", (1.0, 0.0, -2.0)).in_words() == (
        "affine [1 0 0 -2; 0 0.5 0 0; 0 0 3 1] um"
    )
    assert Geometry().in_words().endswith(" without a unit")
