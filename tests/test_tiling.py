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
from volconv.tiling import halved, io_blocks, item_shape, work_items

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


boxes = st.tuples(st.integers(1, 25), st.integers(1, 25), st.integers(1, 25))
sizes_of_items = st.integers(0, 200_000)


def times_covered(shape, boxes):
    """How often each output voxel is in one of the boxes."""
    times = np.zeros(shape, int)
    for box in boxes:
        times[box] += 1
    return times


# --- I/O blocks


@settings(deadline=None)
@given(convolutions(), boxes, st.integers(1, 3))
def test_blocks_cover_the_output_once(convolution, box, volumes):
    _, shape, _ = convolution
    blocks = list(io_blocks(Region.whole(shape), volumes, box))
    assert (times_covered(shape, [block.slices for block in blocks]) == 1).all()
    assert all(n <= b for block in blocks for n, b in zip(block.shape[2:], box, strict=True))
    assert max(block.shape[0] for block in blocks) == min(volumes, shape[0])


def test_a_column_is_gone_through_along_d():
    blocks = io_blocks(Region.whole((2, 1, 4, 6, 8)), 1, (2, 3, 8))
    starts = [(block.start[0], *block.start[2:]) for block in blocks]
    assert starts == [(n, z, y, 0) for n in (0, 1) for y in (0, 3) for z in (0, 2)]


def test_no_volumes_are_no_blocks():
    assert list(io_blocks(Region.whole((0, 1, 5, 5, 5)), 1, (2, 2, 2))) == []


@settings(deadline=None)
@given(convolutions(), boxes)
def test_halved_blocks_lie_on_the_grid_and_cover_the_same(convolution, box):
    _, shape, grid = convolution
    on_grid = tuple(max(cell, n // cell * cell) for n, cell in zip(box, grid, strict=True))
    blocks = list(io_blocks(Region.whole(shape), 2, on_grid))
    for _ in range(16):
        parts = [part for block in blocks for part in halved(block, grid)]
        assert (times_covered(shape, [part.slices for part in parts]) == 1).all()
        assert all(a % cell == 0 for part in parts for a, cell in zip(part.start[2:], grid, strict=True))
        blocks = parts
    assert all(n <= cell for block in blocks for n, cell in zip(block.shape[2:], grid, strict=True))
    assert all(block.shape[0] == 1 for block in blocks)


# --- work items


@settings(deadline=None)
@given(convolutions(), st.sampled_from([2, 4, 8]), sizes_of_items, st.integers(1, 9))
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
@given(convolutions(), sizes_of_items, st.integers(1, 9), boxes)
def test_items_of_all_blocks_cover_the_output_once_on_the_grid(convolution, block_bytes, threads, block_box):
    params, shape, grid = convolution
    item_groups, box = item_shape(shape, params, grid, 4, block_bytes, threads)
    per_group = params.out_channels // params.groups
    covered = []
    on_grid = tuple(max(cell, n // cell * cell) for n, cell in zip(block_box, grid, strict=True))
    for block in io_blocks(Region.whole(shape), 1, on_grid):
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
    assert -(-len(items) // threads) * threads <= 1.25 * len(items)  # none waits long for others


def test_a_small_job_is_one_item():
    params = Conv3dParams.parse((8, 4, 3, 3, 3), padding="same")
    shape = (1, 8, 12, 12, 12)
    groups, box = item_shape(shape, params, (1, 1, 1), 4, 1 << 19, 4, seconds=30e-6)
    assert (groups, box) == (1, shape[2:])


def test_a_halo_is_small_beside_its_box():
    for kernel, padded in itertools.product((3, 5, 9), (128, 256)):
        params = Conv3dParams.parse((1, 1, kernel, kernel, kernel), padding="same")
        _, box = item_shape((1, 1, padded, padded, padded), params, (1, 1, 1), 4, 1 << 19, 2)
        assert math.prod(block_shape(box, params)) < 3 * math.prod(box)
