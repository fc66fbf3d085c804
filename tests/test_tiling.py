"""How an output is cut up: every output in exactly one block and one work item, whatever the sizes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.params import Conv3dParams
from volconv.region import Region
from volconv.shapes import block_shape
from volconv.tiling import ITEMS_PER_THREAD, io_blocks, item_shape, work_items

small = st.integers(1, 4)


@st.composite
def convolutions(draw):
    """Parameters, an output shape, and an algorithm's grid."""
    groups = draw(small)
    params = Conv3dParams.parse(
        (groups * draw(small), draw(small), *(draw(small) for _ in range(3))),
        stride=tuple(draw(small) for _ in range(3)),
        dilation=tuple(draw(small) for _ in range(3)),
        groups=groups,
    )
    shape = (draw(st.integers(1, 3)), params.out_channels, *(draw(st.integers(1, 20)) for _ in range(3)))
    return params, shape, tuple(draw(st.integers(1, 6)) for _ in range(3))


budgets = st.integers(0, 200_000)


def times_covered(shape, boxes):
    """How often each output voxel is in one of the boxes."""
    times = np.zeros(shape, int)
    for box in boxes:
        times[box] += 1
    return times


# --- I/O blocks


@settings(deadline=None)
@given(convolutions(), st.floats(0, 50), budgets)
def test_blocks_cover_the_output_once(convolution, voxel_bytes, budget):
    params, shape, grid = convolution
    blocks = io_blocks(shape, params, grid, voxel_bytes, budget)
    assert (times_covered(shape, [block.slices for block in blocks]) == 1).all()
    assert blocks == sorted(blocks, key=lambda block: block.start)


@settings(deadline=None)
@given(convolutions(), st.floats(0, 50), budgets)
def test_blocks_start_on_the_grid_and_hold_whole_planes(convolution, voxel_bytes, budget):
    params, shape, grid = convolution
    for block in io_blocks(shape, params, grid, voxel_bytes, budget):
        assert block.start[2] % grid[0] == 0
        assert block.start[1:2] + block.start[3:] == (0, 0, 0)
        assert block.stop[1:2] + block.stop[3:] == shape[1:2] + shape[3:]


@settings(deadline=None)
@given(convolutions(), st.floats(0, 50), budgets, st.integers(1, 9))
def test_blocks_end_between_chunks_where_they_are_thick_enough(convolution, voxel_bytes, budget, chunk):
    params, shape, grid = convolution
    together = math.lcm(grid[0], chunk)
    blocks = io_blocks(shape, params, grid, voxel_bytes, budget, chunk)
    assert (times_covered(shape, [block.slices for block in blocks]) == 1).all()
    thickest = max((block.shape[2] for block in blocks), default=0)
    if thickest < shape[2]:
        alone = max(block.shape[2] for block in io_blocks(shape, params, grid, voxel_bytes, budget))
        assert thickest <= alone
        assert thickest == alone // together * together or alone < together


@settings(deadline=None)
@given(convolutions(), st.floats(1, 50), budgets)
def test_blocks_fit_the_budget_or_are_as_thin_as_can_be(convolution, voxel_bytes, budget):
    params, shape, grid = convolution
    for block in io_blocks(shape, params, grid, voxel_bytes, budget):
        assert math.prod(block.shape) * voxel_bytes <= budget * (1 + 1e-9) or (
            block.shape[0] == 1 and block.shape[2] <= grid[0]
        )


def test_a_budget_that_holds_everything_makes_one_block():
    params = Conv3dParams.parse((2, 1, 3, 3, 3))
    shape = (3, 2, 8, 9, 10)
    assert io_blocks(shape, params, (1, 1, 1), 8, 8 * math.prod(shape)) == [Region.whole(shape)]


def test_volumes_are_cut_last():
    params = Conv3dParams.parse((2, 1, 3, 3, 3))
    shape = (5, 2, 8, 9, 10)
    blocks = io_blocks(shape, params, (1, 1, 1), 8, 2 * 8 * math.prod(shape[1:]))
    assert [(block.start[0], block.stop[0]) for block in blocks] == [(0, 2), (2, 4), (4, 5)]
    assert all(block.shape[1:] == shape[1:] for block in blocks)


def test_no_volumes_are_no_blocks():
    assert io_blocks((0, 1, 5, 5, 5), Conv3dParams.parse((1, 1, 3, 3, 3)), (1, 1, 1), 8, 100) == []


# --- work items


@settings(deadline=None)
@given(convolutions(), st.sampled_from([2, 4, 8]), budgets, st.integers(1, 9))
def test_an_items_box_lies_on_the_grid_and_groups_fit_its_bytes(convolution, itemsize, block_bytes, threads):
    params, shape, grid = convolution
    groups, box = item_shape(shape, params, grid, itemsize, block_bytes, threads)
    assert 1 <= groups <= params.groups
    for edge, cell, size in zip(box, grid, shape[2:], strict=True):
        assert 1 <= edge <= size
        assert edge % cell == 0 or edge == size
    a_group = itemsize * params.in_channels // params.groups * math.prod(block_shape(box, params))
    assert groups * a_group <= block_bytes or groups == 1


@pytest.mark.parametrize("block_bytes", [1 << 19, 1 << 21])
@pytest.mark.parametrize(
    ("size", "channels", "kernel", "dilation"),
    [
        (256, 1, 3, 1),
        (64, 32, 3, 1),
        (128, 1, 31, 1),
        (24, 64, 3, 12),
        (40, 64, 3, 12),
        (112, 1, 3, 40),
        (100, 1, 3, 39),
    ],
)
def test_no_voxel_is_read_over_and_over(size, channels, kernel, dilation, block_bytes):
    params = Conv3dParams.parse((4, channels, kernel, kernel, kernel), dilation=dilation, padding="same")
    shape = (1, 4, size, size, size)
    _, box = item_shape(shape, params, (1, 1, 1), 4, block_bytes, 2)
    items = math.prod(-(-s // b) for s, b in zip(shape[2:], box, strict=True))
    read = items * math.prod(block_shape(box, params))
    assert read <= 16 * math.prod(block_shape((size, size, size), params))


@settings(deadline=None)
@given(convolutions(), budgets, st.integers(1, 9), st.data())
def test_items_of_all_blocks_cover_the_output_once_on_the_grid(convolution, block_bytes, threads, data):
    params, shape, grid = convolution
    item_groups, box = item_shape(shape, params, grid, 4, block_bytes, threads)
    per_group = params.out_channels // params.groups
    covered = []
    for block in io_blocks(shape, params, grid, 8.0, data.draw(budgets)):
        for item in work_items(block, params.groups, item_groups, box):
            first, last = item.groups
            assert 0 <= first < last <= params.groups
            start = [block.start[2 + i] + item.start[i] for i in range(3)]
            stop = [block.start[2 + i] + item.stop[i] for i in range(3)]
            assert all(s % cell == 0 for s, cell in zip(start, grid, strict=True))
            assert all(b - a <= edge for a, b, edge in zip(start, stop, box, strict=True))
            volume = block.start[0] + item.volume
            channels = slice(first * per_group, last * per_group)
            covered.append((slice(volume, volume + 1), channels, *map(slice, start, stop)))
    assert (times_covered(shape, covered) == 1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 4, 3, 1, 9)])
def test_items_are_made_one_by_one(shape):
    items = work_items(Region.whole(shape), 1, 1, (1, 1, 1))
    assert next(items).start == (0, 0, 0)
    assert len(list(items)) == shape[0] * math.prod(shape[2:]) - 1


@pytest.mark.parametrize("threads", [1, 2, 8, 16])
@pytest.mark.parametrize("shape", [(1, 1, 64, 64, 64), (4, 8, 32, 32, 32), (1, 64, 16, 64, 64)])
def test_there_are_items_for_all_threads(shape, threads):
    params = Conv3dParams.parse((shape[1], 1, 3, 3, 3), groups=shape[1])
    groups, box = item_shape(shape, params, (1, 1, 1), 4, 1 << 19, threads)
    items = list(work_items(Region.whole(shape), params.groups, groups, box))
    assert len(items) >= ITEMS_PER_THREAD * threads


def test_a_halo_is_small_beside_its_box():
    for kernel, padded in itertools.product((3, 5, 9), (128, 256)):
        params = Conv3dParams.parse((1, 1, kernel, kernel, kernel), padding="same")
        _, box = item_shape((1, 1, padded, padded, padded), params, (1, 1, 1), 4, 1 << 19, 2)
        assert math.prod(block_shape(box, params)) < 3 * math.prod(box)
