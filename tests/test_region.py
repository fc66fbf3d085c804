"""Boxes of voxels, against NumPy's own indexing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv.region import Region

SHAPE = (2, 3, 4, 5, 6)
VOXELS = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def interval(size):
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)


@st.composite
def regions(draw, shape=SHAPE):
    pairs = [draw(interval(n)) for n in shape]
    return Region(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def test_whole():
    whole = Region.whole(SHAPE)
    assert whole == Region((0, 0, 0, 0, 0), SHAPE)
    assert whole.shape == SHAPE
    np.testing.assert_array_equal(VOXELS[whole.slices], VOXELS)


@given(regions())
def test_shape_is_that_of_the_slices(region):
    assert VOXELS[region.slices].shape == region.shape
    assert region.within(region) == Region.whole(region.shape)


@given(regions(), st.integers(0, 4), st.data())
def test_along_changes_one_axis(region, axis, data):
    start, stop = data.draw(interval(SHAPE[axis]))
    changed = region.along(axis, start, stop)
    expected = list(region.slices)
    expected[axis] = slice(start, stop)
    assert changed.slices == tuple(expected)


@given(regions(), st.data())
def test_within_indexes_the_outer_box(outer, data):
    pairs = [data.draw(interval(n)) for n in outer.shape]
    inner = Region(
        tuple(o + a for o, (a, _) in zip(outer.start, pairs, strict=True)),
        tuple(o + b for o, (_, b) in zip(outer.start, pairs, strict=True)),
    )
    np.testing.assert_array_equal(VOXELS[outer.slices][inner.within(outer).slices], VOXELS[inner.slices])
    assert inner.within(outer).shape == inner.shape


def test_within_refuses_a_box_that_starts_outside():
    with pytest.raises(ValueError, match="0 <= start <= stop"):
        Region.whole(SHAPE).within(Region.whole(SHAPE).along(3, 1, 5))


@pytest.mark.parametrize(
    ("start", "stop"), [((0, 0, -1, 0, 0), (1, 1, 1, 1, 1)), ((0, 0, 2, 0, 0), (1, 1, 1, 1, 1)), ((0,) * 4, (1,) * 5)]
)
def test_bad_boxes_are_refused(start, stop):
    with pytest.raises(ValueError, match=r"0 <= start <= stop|zip\(\)"):
        Region(start, stop)


def test_a_region_is_a_value():
    assert len({Region.whole(SHAPE), Region.whole(SHAPE)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Region.whole(SHAPE).start = (1,) * 5
