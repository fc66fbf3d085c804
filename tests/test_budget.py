"""Blocks below a bound on memory: whatever the volume, the files, the kernel and the bound."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.cuts import Ends
from volconv.engines import get_engine
from volconv.errors import OutOfMemoryError
from volconv.io.volume import Access, VolumeInfo
from volconv.memory import LIBRARIES
from volconv.params import Conv3dParams
from volconv.plan import make_plan
from volconv.shapes import full_output_shape
from volconv.traffic import UNPACKING_RATE

MIB = 1 << 20
CHUNKS = [None, (1, 1, 32, 64, 64), (1, 1, 1, 512, 512), (1, 1, 1, 16, 256), (1, 3, 7, 200, 100)]


@st.composite
def runs(draw):
    """Parameters, and files of up to hundreds of gigabytes."""
    groups = draw(st.integers(1, 3))
    kernel = [draw(st.sampled_from([1, 2, 3, 5, 9])) for _ in range(3)]
    stride = draw(st.sampled_from([(1, 1, 1), (2, 2, 2), (3, 1, 2)]))
    dilation = draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 3, 2)]))
    params = Conv3dParams.parse(
        (groups * draw(st.integers(1, 4)), draw(st.integers(1, 4)), *kernel),
        stride=stride,
        dilation=dilation,
        groups=groups,
        padding=draw(st.integers(0, 2)),
        padding_mode=draw(st.sampled_from(["zeros", "replicate"])),
    )
    size = [draw(st.integers(30, 1500)) for _ in range(3)]
    shape = (draw(st.sampled_from([1, 2, 5])), params.in_channels, *size)
    output = full_output_shape(shape, params)

    def end(shape):
        chunk = draw(st.sampled_from(CHUNKS))
        if chunk is not None:
            chunk = tuple(min(c, n) for c, n in zip(chunk, shape))
        dtype = np.dtype(draw(st.sampled_from(["uint8", "int16", "float32", "float64"])))
        streams = draw(st.booleans())
        access = Access(
            chunk,
            packed=chunk is not None and draw(st.booleans()),
            order=draw(st.sampled_from([(0, 1, 2, 3, 4), (1, 0, 2, 3, 4)])),
            in_turn=streams,
            spool_bytes=math.prod(shape) * dtype.itemsize if streams else 0,
            held_bytes=draw(st.sampled_from([0, MIB, 20 * MIB])),
        )
        return VolumeInfo(shape, dtype, access=access)

    return params, Ends(end(shape), end(output))


def planned(params, ends, memory, algorithm="auto", threads=2):
    return make_plan(
        params, ends.source.shape, np.dtype(np.float32), algorithm=algorithm, threads=threads, ends=ends, memory=memory
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(runs(), st.sampled_from([130, 150, 200, 256, 512, 4096]), st.sampled_from([1, 2, 8, 64]))
def test_every_plan_is_below_its_bound_or_says_what_would_do(run, mebibytes, threads):
    params, ends = run
    memory = mebibytes * MIB
    try:
        plan = planned(params, ends, memory, threads=threads)
    except OutOfMemoryError as error:
        told = re.match(r"memory must be at least (\d+)(M|G) for this volume and kernel", error.message)
        least = int(told[1]) * (1024 if told[2] == "G" else 1)
        plan = planned(params, ends, least * MIB, threads=threads)
        memory = least * MIB
        with pytest.raises(OutOfMemoryError):
            planned(params, ends, (least - 1) * MIB, threads=threads)
    assert plan.memory.peak <= plan.memory.bound == memory
    held = plan.memory
    assert held.peak == held.libraries + held.weights + held.threads + held.files + held.blocks
    assert sum(math.prod(block.shape) for block in plan.blocks) == math.prod(plan.output_shape)
    grid = get_engine(plan.algorithm).needs(plan.problem).grid
    assert all(a % cell == 0 for block in plan.blocks for a, cell in zip(block.start[2:], grid))
    assert plan.traffic.halo >= 0
    assert plan.traffic.written_bytes == math.prod(plan.output_shape) * ends.target.dtype.itemsize


SAME = Conv3dParams.parse((1, 1, 3, 3, 3), padding="same")


def flat(shape, dtype="float32", **access):
    return VolumeInfo(shape, np.dtype(dtype), access=Access(**access))


def between(shape, **access):
    return Ends(flat(shape, **access), flat(shape))


def test_slabs_of_whole_planes_read_nothing_twice():
    plan = planned(SAME, between((1, 1, 2000, 1000, 1000)), 512 * MIB)
    assert {block.shape[3:] for block in plan.blocks} == {(1000, 1000)}
    assert len(plan.blocks) > 50
    assert plan.traffic.halo == 0
    assert plan.traffic.read_bytes == 8e9
    assert plan.copies == 2


def test_256m_holds_a_slice_and_its_halo():
    stream = {"in_turn": True, "spool_bytes": 2e9}
    for copies, size in ((2, 1300), (1, 2200)):
        plan = planned(SAME, between((1, 1, 100, size, size), **stream), 256 * MIB)
        assert {block.shape[3:] for block in plan.blocks} == {(size, size)}
        assert plan.traffic.halo == 0
        assert plan.copies == copies


def test_boxes_where_a_slice_and_its_halo_are_more_than_the_bound():
    plan = planned(SAME, between((1, 1, 30, 9000, 9000)), 256 * MIB)
    assert all(block.shape[3] < 9000 and block.shape[4] == 9000 for block in plan.blocks)
    assert 0 < plan.traffic.halo < 0.2
    wide = planned(SAME, between((1, 1, 30, 40, 3_000_000)), 256 * MIB)
    assert all(block.shape[4] < 3_000_000 for block in wide.blocks)
    assert 0 < wide.traffic.halo < 0.3


@pytest.mark.parametrize(("size", "streams"), [((100, 500, 500), True), ((30, 9000, 9000), False)])
def test_a_stream_is_read_in_turn_by_slabs_and_spooled_by_boxes(size, streams):
    shape = (2, 1, *size)
    nbytes = math.prod(shape) * 4
    access = {"in_turn": True, "spool_bytes": nbytes, "order": (1, 0, 2, 3, 4)}
    plan = planned(SAME, Ends(flat(shape, **access), flat(shape, **access)), 256 * MIB)
    assert plan.traffic.source.in_turn == streams
    assert plan.traffic.spool_bytes == (0 if streams else 2 * nbytes)


def test_channels_that_lie_apart_and_circular_padding_are_spooled():
    nbytes = 2 * 100 * 300 * 300 * 4
    stream = {"in_turn": True, "spool_bytes": nbytes, "order": (1, 0, 2, 3, 4)}
    params = Conv3dParams.parse((2, 2, 3, 3, 3), padding="same")
    shape = (1, 2, 100, 300, 300)
    plan = planned(params, Ends(flat(shape, **stream), flat(shape, **stream)), 256 * MIB)
    assert (plan.traffic.source.spool, plan.traffic.target_spool) == (nbytes, nbytes)
    together = stream | {"order": (0, 2, 1, 3, 4)}
    plan = planned(params, Ends(flat(shape, **together), flat(shape, **together)), 256 * MIB)
    assert plan.traffic.spool_bytes == 0
    around = replace(SAME, padding_mode="circular")
    one = (1, 1, 200, 300, 300)
    plan = planned(around, Ends(flat(one, **stream), flat(one)), 256 * MIB)
    assert plan.traffic.source.spool == nbytes


def test_fewer_threads_where_they_would_take_the_memory_of_blocks():
    params = Conv3dParams.parse((32, 32, 9, 9, 9), padding="same")
    shape = (1, 32, 64, 256, 256)
    many, few = (planned(params, between(shape), m << 20, "fft", threads=64) for m in (8192, 900))
    assert many.threads > few.threads >= 1


def test_a_whole_volume_that_fits_is_one_block_and_volumes_are_taken_together():
    assert len(planned(SAME, between((1, 1, 50, 60, 70)), 256 * MIB).blocks) == 1
    series = planned(SAME, between((300, 1, 50, 60, 70)), 256 * MIB)
    assert 1 < series.blocks[0].shape[0] < 300


def test_blocks_end_between_a_targets_pieces():
    target = replace(flat((1, 1, 2000, 1000, 1000)), access=Access((1, 1, 4, 100, 100), packed=True))
    plan = planned(SAME, Ends(flat((1, 1, 2000, 1000, 1000)), target), 512 * MIB)
    assert all(block.start[2] % 4 == 0 for block in plan.blocks)
    assert plan.traffic.target_cache == 0


def test_pieces_that_are_thicker_than_a_block_are_kept():
    packed = {"chunk": (1, 1, 50, 100, 100), "packed": True}
    plan = planned(SAME, Ends(flat((1, 1, 200, 300, 300), **packed), flat((1, 1, 200, 300, 300))), 256 * MIB)
    assert plan.traffic.source.cache == 50 * 300 * 300 * 4


@pytest.mark.parametrize(
    ("chunk", "dtype"),
    [
        ((32, 64, 64), "float32"),
        ((64, 128, 128), "float32"),
        ((64, 256, 256), "uint8"),
        ((64, 256, 256), "float32"),
        ((128, 128, 128), "uint16"),
    ],
)
def test_pieces_for_which_there_is_no_room_are_unpacked_again(chunk, dtype):
    shape = (1, 1, 1000, 2000, 2000)
    held = 3 * math.prod(chunk) * np.dtype(dtype).itemsize + 16 * MIB
    source = flat(shape, dtype, chunk=(1, 1, *chunk), packed=True, held_bytes=held)
    plan = planned(SAME, Ends(source, flat(shape, dtype)), 256 * MIB)
    assert plan.memory.peak <= 256 * MIB
    assert plan.traffic.seconds < 8 * source.nbytes / UNPACKING_RATE


def test_a_volume_packed_in_the_same_pieces_on_both_ends_needs_no_more_than_256m():
    shape, chunk = (1, 1, 1000, 2000, 2000), (1, 1, 32, 64, 64)
    packed = {"chunk": chunk, "packed": True, "held_bytes": 3 * math.prod(chunk) * 4 + 16 * MIB}
    plan = planned(SAME, Ends(flat(shape, **packed), flat(shape, **packed)), 256 * MIB)
    assert len(plan.blocks) < 2000


def test_what_is_unpacked_again_takes_time():
    shape, chunk = (1, 1, 200, 500, 500), (1, 1, 100, 250, 250)
    packed = {"chunk": chunk, "packed": True, "held_bytes": 3 * math.prod(chunk) * 4}
    plans = [planned(SAME, Ends(flat(shape, **packed), flat(shape)), m * MIB) for m in (280, 600)]
    assert [plan.traffic.source.cache > 0 for plan in plans] == [False, True]
    assert plans[0].traffic.seconds > 1.5 * plans[1].traffic.seconds


def test_less_than_the_libraries_take_is_no_bound():
    with pytest.raises(
        OutOfMemoryError, match=r"^memory must be at least \d+M for this volume and kernel \(got 120M\)"
    ):
        planned(SAME, between((1, 1, 2000, 1000, 1000)), LIBRARIES)


def test_the_default_grows_to_what_is_needed(monkeypatch):
    monkeypatch.setattr("volconv.budget.default_memory", lambda: LIBRARIES)
    shape = (1, 1, 100, 500, 500)
    plan = planned(SAME, between(shape), None)
    assert plan.memory.bound > LIBRARIES
    monkeypatch.setattr("volconv.budget.free_memory", lambda: LIBRARIES)
    with pytest.raises(OutOfMemoryError) as caught:
        planned(SAME, between(shape), None)
    assert caught.value.hint is None
