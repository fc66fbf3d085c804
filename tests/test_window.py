"""Blocks' inputs one after another: what a window gives is what a source has there, whatever was kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.io import ArraySource
from volconv.io.volume import Access
from volconv.padding import padded_axes
from volconv.params import Conv3dParams
from volconv.region import Region
from volconv.shapes import full_output_shape
from volconv.steps import steps
from volconv.tiling import io_blocks
from volconv.window import Room, Window


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(*[st.integers(5, 12)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.sampled_from(["zeros", "circular", "reflect"]),
    st.sampled_from([(0, 1, 2, 3, 4), (1, 0, 2, 3, 4), (0, 2, 1, 3, 4), (4, 3, 2, 1, 0)]),
)
def test_a_window_holds_what_each_block_needs(size, box, kernel, copies, mode, order):
    params = Conv3dParams.parse((2, 2, kernel, kernel, kernel), padding=kernel // 2, padding_mode=mode)
    array = np.random.default_rng(0).integers(0, 1000, (2, 2, *size))
    source = ArraySource(array)
    object.__setattr__(source.info, "access", Access(order=order))
    output = full_output_shape(array.shape, params)
    wanted = list(steps(io_blocks(Region.whole(output), 1, box), padded_axes(size, params), params, (2, 2)))
    window = Window(source, wanted, copies)
    for step in wanted:
        values = window.read(step)
        n = slice(step.block.start[0], step.block.stop[0])
        where = [[i for a, b in parts for i in range(a, b)] for parts in step.piece.extents]
        np.testing.assert_array_equal(values, array[n][:, :, *np.ix_(*where)])


@pytest.mark.parametrize("order", list(itertools.islice(itertools.permutations(range(5)), 0, 120, 7)))
def test_what_is_written_lies_without_gaps(order):
    room = Room((2, 3, 4, 5, 6), np.dtype(np.int16), order)
    for shape in ((2, 3, 4, 5, 6), (1, 3, 2, 5, 6), (2, 1, 4, 3, 2)):
        values = room.of(shape)
        assert values.shape == shape
        assert values.transpose(order).flags.c_contiguous
