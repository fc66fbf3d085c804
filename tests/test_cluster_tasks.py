"""Tasks: whole pieces of the target, each once, and the same whoever asks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.cluster import tasks
from volconv.cluster.tasks import Tasks, cut
from volconv.io.volume import Access, VolumeInfo
from volconv.params import Conv3dParams
from volconv.shapes import full_output_shape


def infos(shape, params, chunk, source_chunk=None, dtype="float32"):
    source = Access() if source_chunk is None else Access((1, 1, *source_chunk), packed=True)
    output = full_output_shape(shape, params)
    return (
        VolumeInfo(shape, np.dtype("uint16"), access=source),
        VolumeInfo(output, np.dtype(dtype), access=Access(chunk, packed=True)),
    )


@settings(deadline=None, max_examples=100)
@given(
    size=st.tuples(*[st.integers(7, 40)] * 3),
    volumes=st.integers(1, 5),
    chunk=st.tuples(st.integers(1, 3), st.just(1), *[st.integers(1, 20)] * 3),
    source_chunk=st.none() | st.tuples(*[st.integers(1, 20)] * 3),
    grid=st.tuples(*[st.integers(1, 9)] * 3),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    most=st.integers(1, 1 << 18),
)
def test_tasks_are_whole_pieces_each_once(size, volumes, chunk, source_chunk, grid, kernel, stride, most):
    params = Conv3dParams.parse((2, 1, kernel, kernel, kernel), padding=kernel // 2, stride=stride)
    source, target = infos((volumes, 1, *size), params, chunk, source_chunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "LEAST_BYTES", most)
        patch.setattr(tasks, "MOST_BYTES", most)
        found = cut(source, target, params, grid)
    seen = np.zeros(target.shape, int)
    parts = list(found)
    assert [number for number, _ in parts] == list(range(len(found)))
    for _, part in parts:
        seen[part.slices] += 1
        assert part.shape[1] == target.shape[1]
        for axis in (0, 2, 3, 4):
            assert part.start[axis] % chunk[axis] == 0
            assert part.stop[axis] % chunk[axis] == 0 or part.stop[axis] == target.shape[axis]
    assert (seen == 1).all()
    largest = max(math.prod(part.shape) for _, part in parts) * target.dtype.itemsize
    piece = math.prod(min(edge, whole) for edge, whole in zip((chunk[0], 2, *chunk[2:]), target.shape))
    assert largest <= max(most, piece * target.dtype.itemsize)


def test_large_volumes_are_cut_at_once_into_tasks_of_some_hundred_megabytes():
    params = Conv3dParams.parse((1, 1, 5, 5, 5), padding="same")
    source, target = infos((1, 1, 100_000, 100_000, 100_000), params, (1, 1, 64, 128, 128), (64, 128, 128))
    found = cut(source, target, params, (1, 1, 1))
    assert 4 * math.prod(found.box) <= tasks.MOST_BYTES < 8 * math.prod(found.box)
    number, first = next(iter(found))  # none but this one is made
    assert (number, first.shape[2:]) == (0, found.box)
    assert len(found) == math.prod(-(-100_000 // edge) for edge in found.box)


@pytest.mark.parametrize("source_chunk", [None, (64, 64, 64)])
def test_boxes_are_those_for_which_least_is_read_twice(source_chunk):
    params = Conv3dParams.parse((1, 1, 9, 9, 9), padding="same")
    source, target = infos((1, 1, 2048, 2048, 2048), params, (1, 1, 64, 64, 64), source_chunk)
    box = cut(source, target, params, (1, 1, 1)).box
    assert max(box) <= 2 * min(box)  # as good as cubes, not slabs or lines


def test_a_task_may_hold_several_small_volumes():
    params = Conv3dParams.parse((1, 1, 3, 3, 3), padding="same")
    source, target = infos((1000, 1, 40, 64, 64), params, (1, 1, 40, 64, 64))
    assert cut(source, target, params, (1, 1, 1)) == Tasks(target.shape, 51, (40, 64, 64))
