"""Is what OME-Zarr holds counted? Runs under the least bound that is accepted, under a watch."""

from __future__ import annotations

import re

import numpy as np
import pytest

from volconv.io import Region, create_volume, open_volume
from volconv.memory import parse_memory
from watched import watched

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("options", [{}, {"chunks": "32,32,32", "shards": "64,128,128"}, {"compression": "blosc"}])
@pytest.mark.parametrize(
    "command",
    [
        ["convert", "a.zarr", "b.zarr", "--pyramid"],
        ["apply", "a.zarr", "-k", "gaussian:sigma=2", "--padding", "same", "-o", "b.zarr"],
        ["apply", "a.zarr", "-k", "box:size=5", "-o", "b.zarr", "--pyramid", "--co", "shards=64,128,128"],
    ],
    ids=lambda command: " ".join(command[:1] + command[-2:]),
)
def test_a_run_keeps_to_the_least_bound(tmp_path, options, command):
    x = np.random.default_rng(0).integers(0, 4000, (1, 1, 96, 384, 384)).astype("uint16")
    with create_volume(tmp_path / "a.zarr", shape=x.shape, dtype=x.dtype, options=options) as sink:
        sink.write(Region.whole(x.shape), x)
    watched(tmp_path, *command)  # compiles what is not compiled yet
    (tmp_path / "b.zarr").rename(tmp_path / "first.zarr")
    refused = watched(tmp_path, *command, "--memory", "120M")
    least = re.search(r"memory must be at least (\w+)", refused.said)
    assert refused.code == 6
    assert least is not None
    done = watched(tmp_path, *command, "--memory", least[1])
    if done.code == 6:  # the first level fitted, and its memory for levels is a little more
        least = re.search(r"memory must be at least (\w+)", done.said)
        done = watched(tmp_path, *command, "--memory", least[1])
    assert done.code == 0, done.said
    assert done.peak <= parse_memory(least[1])
    with open_volume(tmp_path / "b.zarr") as one, open_volume(tmp_path / "first.zarr") as other:
        np.testing.assert_array_equal(one.numpy(), other.numpy())
