"""Memory that runs out within a run: blocks are halved, bits stay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import volconv
from cases import few
from command import make_nifti, names, noise
from command import volconv as command
from volconv.errors import OutOfMemoryError
from volconv.memory import parse_memory

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
OPTIONS = {"padding": 1, "padding_mode": "reflect", "algorithm": "direct", "threads": 2, "overwrite": True}


@pytest.fixture(autouse=True)
def _blocks(tmp_path, monkeypatch):
    """Several blocks for a small volume."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 300_000)


def source(name="in.nii", shape=(37, 60, 50)):
    make_nifti(name, noise(shape))
    return name


def failing(monkeypatch, where, when):
    """Have a function raise MemoryError whenever ``when`` says so of the number of its call."""
    module, _, name = where.rpartition(".")
    calls, real = [0], getattr(__import__(module, fromlist=[name]), name)

    def fail(*arguments, **options):
        calls[0] += 1
        if when(calls[0]):
            raise MemoryError
        return real(*arguments, **options)

    monkeypatch.setattr(where, fail)
    return calls


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".h5", ".tif"])
@pytest.mark.parametrize("first", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)])
def test_a_work_item_that_finds_no_memory(monkeypatch, suffix, first):
    name = source(f"in{'.nii.gz' if suffix == '.nii.gz' else '.nii'}")
    whole = volconv.apply(name, f"a{suffix}", KERNEL, **OPTIONS)
    assert whole.halvings == 0
    assert len(whole.plan.blocks) > 3
    real = volconv.convolution.Convolution._item
    calls = [0]

    def fail(self, *arguments):
        calls[0] += 1
        if calls[0] == first:
            raise MemoryError
        return real(self, *arguments)

    monkeypatch.setattr("volconv.convolution.Convolution._item", fail)
    counted = []
    halved = volconv.apply(name, f"b{suffix}", KERNEL, progress=lambda *done: counted.append(done), **OPTIONS)
    assert Path(f"a{suffix}").read_bytes() == Path(f"b{suffix}").read_bytes()
    assert halved.halvings == 1
    assert halved.counts == whole.counts
    assert "memory ran out once: it went on in smaller blocks" in halved.notes
    assert halved.as_dict()["halvings"] == 1
    assert counted[-1] == (4 * 37 * 60 * 50,) * 2
    assert names(".") == sorted([name, f"a{suffix}", f"b{suffix}"])


def test_the_command_says_that_memory_ran_out(monkeypatch, capsys):
    name = source()
    np.save("kernel.npy", KERNEL)
    line = ["apply", name, "-k", "kernel.npy", "--padding", "1"]
    command(*line, "-o", "a.nii")
    assert "memory ran out" not in capsys.readouterr().err
    failing(monkeypatch, "volconv.pipeline.Room", lambda call: call in (1, 3))
    command(*line, "-o", "b.nii", "--json", "--report", "r.json")
    told = capsys.readouterr()
    note = "memory ran out 2 times: it went on in smaller blocks"
    assert note in told.err
    for text in (told.out, Path("r.json").read_text()):
        (run,) = json.loads(text)["runs"]
        assert (run["status"], run["halvings"]) == ("done", 2)
        assert note in run["notes"]
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()


@pytest.mark.parametrize("times", few([1, 2, 3], 2))
def test_blocks_that_find_no_memory_are_halved_until_they_do(monkeypatch, times):
    name = source()
    volconv.apply(name, "a.nii", KERNEL, **OPTIONS)
    failing(monkeypatch, "volconv.pipeline.Room", lambda call: call <= times)
    halved = volconv.apply(name, "b.nii", KERNEL, **OPTIONS)
    assert halved.halvings == times
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_reading_that_finds_no_memory(monkeypatch, suffix):
    name = source(f"in{suffix}")
    volconv.apply(name, "a.nii", KERNEL, **OPTIONS)
    for first in (1, 2, 4):
        with monkeypatch.context() as patch:
            failing(patch, "volconv.io.raw._contiguous_from", lambda call, first=first: call == first)
            halved = volconv.apply(name, "b.nii", KERNEL, **OPTIONS)
        assert halved.halvings == 1
        assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()


@pytest.mark.slow
def test_no_memory_at_all_is_an_error_and_leaves_nothing(monkeypatch):
    name = source()
    calls = failing(monkeypatch, "volconv.pipeline.Room", lambda _: True)
    with pytest.raises(OutOfMemoryError, match=r"^in\.nii: needs more memory than there is"):
        volconv.apply(name, "b.nii", KERNEL, **OPTIONS)
    assert 5 < calls[0] < 40  # down to blocks of few voxels, and to one thread
    assert names(".") == [name]


def test_a_write_that_finds_no_memory_is_not_done_again(monkeypatch):
    name = source()
    failing(monkeypatch, "volconv.io.spool.in_file_order", lambda call: call == 3)
    with pytest.raises(OutOfMemoryError, match=r"^in\.nii: memory ran out while the output was written$"):
        volconv.apply(name, "b.nii.gz", KERNEL, **OPTIONS)
    assert names(".") == [name]


def test_bits_do_not_depend_on_memory():
    name = source("in.nii.gz", (40, 90, 80))
    bounds = ("180M", "200M", "256M", "1G")
    for bound in bounds:
        report = volconv.apply(name, f"{bound}.nii.gz", "gaussian:sigma=2", padding="same", memory=bound)
        assert report.plan.memory.bound == parse_memory(bound)
    assert len({Path(f"{bound}.nii.gz").read_bytes() for bound in bounds}) == 1


#: A run that may have so many more bytes of addresses than the process has when it begins.
LIMITED = """
import resource, sys
import volconv.making
from volconv_cli.main import main

def limited(*everything):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[1]),) * 2)
    return run(*everything)

run, volconv.making.run = volconv.making.run, limited
main(sys.argv[2:])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a system that tells what a process has")
def test_a_real_limit_on_addresses():
    """Blocks of 64 MB are planned, two of input and two of output, and there is not room for all."""
    name = source("in.nii", (120, 300, 300))
    np.save("kernel.npy", KERNEL)
    line = ["apply", name, "-k", "kernel.npy", "--padding", "1", "--algorithm", "direct", "--threads", "1", "-q"]
    for output, room in (("a.nii", 4 << 30), ("b.nii", 200 << 20)):
        command = [sys.executable, "-c", LIMITED, str(room), *line, "-o", output, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        assert (run["halvings"] > 0) == (output == "b.nii")
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()
