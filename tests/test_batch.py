"""Many volumes through one kernel, without the command."""

from __future__ import annotations

import contextlib
import re
import signal
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

import volconv
from command import make_nifti, names, noise
from volconv.batch import apply_many, run_tasks
from volconv.engines.cpu.workers import thread_count
from volconv.errors import OutOfMemoryError, ParameterError, ReadError, ShapeError, WriteError
from volconv.io import open_volume
from volconv.memory import parse_memory, share
from volconv.naming import Task

#: Seconds after which a test gives up: machines may stand still for a while.
PATIENCE = 120


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def volumes(count, shape=(12, 13, 14), name="v{}.nii"):
    return [str(make_nifti(name.format(i), noise(shape, seed=i))) for i in range(count)]


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


# --- what becomes of each


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_that_fails_stops_no_other(jobs):
    a, b = volumes(2)
    make_nifti("small.nii", noise((2, 2, 2)))
    outcomes = apply_many([a, "gone.nii", "small.nii", b], "o_{stem}.h5", "box:size=3", jobs=jobs)
    assert statuses(outcomes) == ["done", "failed", "failed", "done"]
    assert [outcome.task.inputs[0] for outcome in outcomes] == [a, "gone.nii", "small.nii", b]
    assert [type(outcome.error) for outcome in outcomes[1:3]] == [ReadError, ShapeError]
    assert outcomes[0].report.output == "o_v0.h5"
    assert names(".") == ["o_v0.h5", "o_v1.h5", "small.nii", "v0.nii", "v1.nii"]
    again = apply_many([a, b], "o_{stem}.h5", "box:size=3", jobs=jobs, skip_existing=True)
    assert statuses(again) == ["skipped", "skipped"]
    planned = apply_many([a, b], "p/{stem}.h5", "box:size=3", jobs=jobs, dry_run=True, mkdir=True)
    assert statuses(planned) == ["planned", "planned"]
    assert "p" not in names(".")


def test_nothing_is_done_where_names_are_wrong():
    a, b = volumes(2)
    with pytest.raises(ParameterError, match="outputs must have names of their own"):
        apply_many([a, b], "o.nii", "identity")
    with pytest.raises(WriteError, match=r"o/v0.nii: the output's folder does not exist"):
        apply_many([a, b], "o/{name}", "identity")
    with pytest.raises(ParameterError, match=r"jobs must be an integer of at least 1 \(got 0\)"):
        apply_many([a, b], "o_{name}", "identity", jobs=0)
    assert names(".") == [a, b]
    assert statuses(apply_many([a, b], "o/{name}", "identity", mkdir=True)) == ["done", "done"]


def test_how_inputs_are_read():
    nibabel.Nifti1Image(noise((6, 7, 8, 4), "int16"), np.eye(4)).to_filename("series.nii")
    (outcome,) = apply_many(["series.nii"], "o_{name}", "identity", reading={"time": 2})
    assert outcome.report.shape.input_shape == (1, 1, 8, 7, 6)
    (outcome,) = run_tasks([Task(("series.nii", "series.nii"), "stack.nii")], "identity", reading={"time": 1})
    assert outcome.report.shape.output_shape == (1, 2, 8, 7, 6)


@pytest.mark.parametrize("jobs", [1, 2])
def test_fail_fast_begins_no_other(jobs):
    files = ["gone.nii", *volumes(4)]
    outcomes = apply_many(files, "o_{name}", "box:size=3", jobs=jobs, fail_fast=True)
    assert statuses(outcomes) == ["failed", *["done"] * (jobs - 1), *["left"] * (5 - jobs)]
    assert names(".") == sorted([*files[1:], *(f"o_{name}" for name in files[1:jobs])])
    assert outcomes[-1].as_dict() == {"status": "left", "inputs": [files[-1]], "output": f"o_{files[-1]}"}


# --- several at once


def test_so_many_are_done_at_once():
    """Each of three waits until all three have begun; a fourth begins when one has ended."""
    files = volumes(4)
    together, seen = threading.Barrier(3), set()

    def progress(task, *_):
        if task not in seen:
            seen.add(task)
            if len(seen) <= 3:
                together.wait(PATIENCE)

    tasks = [Task((name,), f"o_{name}") for name in files]
    outcomes = list(run_tasks(tasks, "box:size=3", jobs=3, progress=progress))
    assert statuses(outcomes) == ["done"] * 4
    assert {outcome.task for outcome in outcomes} == seen == set(tasks)


def test_threads_and_memory_are_shared():
    files = volumes(2)
    cases = [(8, 2, 4, 2), (1, 2, 1, 2), (3, 2, 1, 2), (4, 1, 4, 1), (8, 99, 4, 2)]
    for threads, jobs, each, at_once in cases:
        for outcome in apply_many(
            files, "o_{name}", "box:size=3", jobs=jobs, threads=threads, memory="1G", overwrite=True
        ):
            assert outcome.report.plan.threads == each
            assert outcome.report.plan.memory.bound == share(parse_memory("1G"), at_once)
    (outcome, _) = apply_many(files, "o_{name}", "box:size=3", jobs=2, overwrite=True)
    assert outcome.report.plan.threads == max(1, thread_count(None) // 2)


@pytest.mark.slow
def test_a_volume_that_needs_more_than_its_share_of_memory_is_done_alone():
    small = volumes(3)
    with h5py.File("large.h5", "w") as file:  # a piece of it takes more than a third of the bound
        file.create_dataset("data", (30, 1000, 1000), "u1", chunks=(30, 1000, 1000), compression="gzip")
    with pytest.raises(OutOfMemoryError) as caught:
        volconv.apply("large.h5", "o.nii", "box:size=3", memory="130M", dry_run=True)
    least = int(re.search(r"at least (\d+)M", str(caught.value))[1])
    tasks = [Task((name,), f"o_{Path(name).stem}.nii") for name in ("large.h5", *small)]
    outcomes = list(run_tasks(tasks, "box:size=3", jobs=3, threads=6, memory=f"{least}M"))
    assert [(outcome.task.inputs[0], outcome.status) for outcome in outcomes[-1:]] == [("large.h5", "done")]
    bounds = [outcome.report.plan.memory.bound for outcome in outcomes]
    assert bounds == [share(least << 20, 3)] * 3 + [least << 20]
    outcomes = list(run_tasks(tasks, "box:size=3", jobs=3, memory=f"{least - 1}M", overwrite=True))
    assert statuses(outcomes) == ["done"] * 3 + ["failed"]
    assert f"pass --memory {least}M" in str(outcomes[-1].error)
    # A volume that may yet fit is no failure; when it does not, it is.
    outcomes = list(run_tasks(tasks, "box:size=3", jobs=2, memory=f"{least - 1}M", fail_fast=True, overwrite=True))
    assert statuses(outcomes) == ["done"] * 3 + ["failed"]


@pytest.mark.parametrize(
    ("kernel", "ext"),
    [("gaussian:sigma=1.5", ".nii.gz"), ("box:size=3", ".nii"), ("sobel", ".h5"), ("box:size=11", ".ome.tif")],
)
def test_bits_do_not_depend_on_jobs(kernel, ext):
    files = volumes(6, (70, 80, 90), "v{}.nii.gz")
    for folder, jobs in (("one", 1), ("four", 4)):
        Path(folder).mkdir()
        outcomes = apply_many(
            files, f"{folder}/{{stem}}{ext}", kernel, jobs=jobs, padding="same", memory="512M", threads=3
        )
        assert statuses(outcomes) == ["done"] * 6
    for name in names("one"):
        assert (Path("one") / name).read_bytes() == (Path("four") / name).read_bytes()
    assert len({(Path("one") / name).read_bytes() for name in names("one")}) == 6


def test_what_is_told_of_one_header_is_not_told_of_another(monkeypatch):
    """What catches warnings is the process's, so only one header at a time may be read."""
    make_nifti("good.nii", noise((2, 3, 4)))
    content = Path("good.nii").read_bytes()
    extension = struct.pack("<ii", 24, 6) + b"volconv x".ljust(16, b"\0")  # sizes are multiples of 16
    head = content[:108] + struct.pack("<f", 376) + content[112:348]
    Path("odd.nii").write_bytes(head + b"\1\0\0\0" + extension + content[352:])
    read = nibabel.Nifti1Header.from_fileobj.__func__

    def slowly(*arguments, **options):
        time.sleep(0.01)
        return read(*arguments, **options)

    monkeypatch.setattr(nibabel.Nifti1Header, "from_fileobj", classmethod(slowly))

    def notes(name):
        with open_volume(name) as volume:
            return sum("multiple of 16" in note for note in volume.info.notes)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(notes, ["odd.nii", "good.nii"] * 16)) == [1, 0] * 16


# --- stopped


def interrupted(tasks, jobs):
    """Run tasks, and interrupt this thread when as many as may be are under way."""
    main = threading.get_ident()
    begun, together = set(), threading.Barrier(jobs, lambda: signal.pthread_kill(main, signal.SIGINT))

    def progress(task, _, total):
        if total and task not in begun:
            begun.add(task)
            together.wait(PATIENCE)
            time.sleep(0.3)

    running = run_tasks(tasks, "box:size=3", jobs=jobs, threads=jobs, progress=progress)
    with pytest.raises(KeyboardInterrupt), contextlib.closing(running):
        for _ in running:
            pass


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_stops_all_that_is_under_way(jobs):
    files = volumes(3, (200, 210, 220))
    before = threading.active_count()
    interrupted([Task((name,), f"o_{name}.gz") for name in files], jobs)
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert names(".") == files


def test_who_asks_no_more_stops_the_others():
    files = ["gone.nii", *volumes(3, (200, 210, 220))]

    def progress(_, done, total):
        if total and done < total:
            time.sleep(0.1)

    tasks = [Task((name,), f"o_{name}") for name in files]
    running = run_tasks(tasks, "box:size=3", jobs=2, threads=2, progress=progress)
    assert next(running).status == "failed"
    running.close()
    assert len(names(".")) < 7
    assert not [name for name in names(".") if name.endswith(".tmp")]


def test_a_bug_is_not_taken_for_a_failure(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("volconv.functional.apply", fail)
    for jobs in (1, 2):
        with pytest.raises(ZeroDivisionError):
            apply_many(volumes(3), "o_{name}", "identity", jobs=jobs)


def test_it_is_a_public_name():
    assert volconv.apply_many is apply_many
