"""Runs that are interrupted, terminated or killed, at whatever they are: nothing is lost, and nothing remains."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from command import names
from faults import (
    KILLED,
    OUTPUTS,
    STAYING,
    TEMPORARY,
    await_temporary,
    contents,
    huge_nifti,
    leftovers,
    noisy_nifti,
    run,
    slow,
    start,
)
from volconv import apply

SIGNALS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGHUP: (129, "hung up")}

#: Work that goes on for many seconds, by what it is that goes on.
LONG = {
    "compiled loops": ("apply", "in.nii", "-k", "k.npy", "--algorithm", "direct", "-o", "o.nii", "-f"),
    "FFTs": ("apply", "in.nii", "-k", "k.npy", "--algorithm", "fft", "-o", "o.nii", "-f"),
    "gzip": ("convert", "in.nii", "o.nii.gz", "-f"),
    "HDF5": ("convert", "in.nii", "o.h5", "--co", "compression=gzip", "--co", "level=9", "-f"),
    "TIFF": ("convert", "in.nii", "o.tif", "--co", "compression=lzma", "-f"),
    "slices": ("convert", "in.nii", "o/", "--co", "compression=lzma", "-f"),
}


def ended(process, within=600):
    """Exit code and what was said on stderr, soon."""
    _, said = process.communicate(timeout=within)
    return process.returncode, said


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (signal.SIGINT, "compiled loops"),
        (signal.SIGINT, "HDF5"),
        (signal.SIGTERM, "gzip"),
        (signal.SIGHUP, "slices"),
        *(pytest.param(number, what, marks=slow) for number in SIGNALS for what in LONG),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_ends_the_run_and_removes_what_is_unfinished(tmp_path, number, what):
    huge_nifti(tmp_path / "in.nii", 4 << 30)
    np.save(tmp_path / "k.npy", np.random.default_rng(0).standard_normal((15, 15, 15)))
    arguments = LONG[what]
    output = arguments[arguments.index("-o") + 1] if "-o" in arguments else arguments[2]
    if not output.endswith("/"):
        (tmp_path / output).write_bytes(b"old")
    before = names(tmp_path)
    with start(tmp_path, *arguments, env=os.environ | {"TMPDIR": str(tmp_path)}) as process:
        await_temporary(tmp_path, process)
        time.sleep(0.3)
        process.send_signal(number)
        code, said = ended(process)
    assert (code, said.splitlines()[-1:]) == (SIGNALS[number][0], [f"volconv: {SIGNALS[number][1]}"])
    assert "Traceback" not in said
    assert names(tmp_path) == before
    assert contents(tmp_path / output) == (None if output.endswith("/") else b"old")


# What a signal meets, and exit codes that are right then: what is being put in place is not stopped halfway.
MOMENTS = {
    "before the temporary file": ("volconv.functional.create_volume", "before", {143}),
    "while it is made": ("pathlib.Path.open", "after", {143}),
    "before the voxels": ("volconv.making.run", "before", {143}),
    "while they are brought to the disk": ("os.fsync", "before", {143}),
    "before the file is put in place": ("os.link", "before", {0, 143}),
    "just after": ("os.link", "after", {0, 143}),
    "while its folder is brought to the disk": ("volconv.io.target._sync_folder", "before", {143}),
}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What the command of the next test makes."""
    folder = tmp_path_factory.mktemp("complete")
    apply(noisy_nifti(folder / "in.nii"), folder / "o.nii", "box:size=3")
    return contents(folder / "o.nii")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_each_step(tmp_path, complete, moment):
    where, when, codes = MOMENTS[moment]
    noisy_nifti(tmp_path / "in.nii")
    arguments = ("apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "-q")
    with start(tmp_path, where, when, *arguments, program=STAYING) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        _, said = process.communicate("go on\n", timeout=600)
    assert (process.returncode, said) in [(code, "volconv: terminated\n" if code else "") for code in codes]
    placed = "os.link" in where or "sync_folder" in where
    assert contents(tmp_path / "o.nii") == (complete if placed else None)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_signal_does_not_wait(tmp_path, number):
    """Even where the system takes its time to remove a folder."""
    noisy_nifti(tmp_path / "in.nii")
    arguments = ("convert", "in.nii", "o/")
    with start(tmp_path, "volconv.io.target._discard", "before", *arguments, program=STAYING) as process:
        await_temporary(tmp_path, process)
        process.send_signal(number)
        assert process.stdout.readline() == "there\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(number)
        process.wait(60)  # before its input ends, which would let it go on
        assert ended(process) == (SIGNALS[number][0], "")
    assert [TEMPORARY.fullmatch(name)["output"] for name in names(tmp_path) if name != "in.nii"] == ["o"]


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As under nohup."""
    noisy_nifti(tmp_path / "in.nii")
    arguments = ("volconv.making.run", "before", "apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "-q")

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with start(tmp_path, *arguments, program=STAYING, preexec_fn=ignore) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate("go on\n", timeout=600) == ("", "")
    assert process.returncode == 0
    assert names(tmp_path) == ["in.nii", "o.nii"]


def test_an_interrupt_at_the_terminal_leaves_it_as_it_was(tmp_path):
    huge_nifti(tmp_path / "in.nii", 4 << 30)
    terminal, other = pty.openpty()
    with start(tmp_path, "convert", "in.nii", "o.nii.gz", stderr=other, stdin=other, start_new_session=True) as process:
        os.close(other)
        await_temporary(tmp_path, process)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 130
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert shown.endswith("\r\x1b[2K\x1b[?25hvolconv: interrupted\r\n")  # no bar, and the cursor is back


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("where", ["computing", "os.fsync"])
def test_an_interrupt_in_python_is_an_exception_that_leaves_nothing(tmp_path, monkeypatch, kind, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    output, *options = OUTPUTS[kind]
    noisy_nifti(tmp_path / "in.nii")
    if where != "computing":
        monkeypatch.setattr(where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        apply(
            tmp_path / "in.nii",
            f"{tmp_path}/{output}",
            "box:size=3",
            options=dict(option.split("=") for option in options if "=" in option),
            progress=interrupt if where == "computing" else None,
        )
    assert names(tmp_path) == ["in.nii"]


def test_an_output_that_nobody_ends_goes_with_the_process(tmp_path):
    program = "import volconv, sys\nsink = volconv.create_volume(sys.argv[1], shape=(1, 1, 2, 3, 4), dtype='uint8')"
    for output in ("o.nii", "o.h5", "o.tif", "o/"):
        subprocess.run([sys.executable, "-c", program, output], cwd=tmp_path, check=True, timeout=6000)
    assert names(tmp_path) == []


# --- SIGKILL, which no program can answer


def prepared(folder, kind, shape):
    """An input, the command, and what it makes; its output is ``old`` again, where something may be replaced."""
    output, *options = OUTPUTS[kind]
    noisy_nifti(folder / "in.nii", shape)
    arguments = ["apply", "in.nii", "-k", "box:size=3", "-o", output, *options, "-f", "-q", "--threads", "2"]
    run(folder, *arguments)
    complete = contents(folder / output)
    assert complete
    put_back(folder, output)
    return arguments, output, complete


def put_back(folder, output):
    """What was there before the run: an old file, or no folder."""
    if output.endswith("/"):
        shutil.rmtree(folder / output, ignore_errors=True)
    else:
        (folder / output).write_bytes(b"old")


def check_after_a_kill(folder, output, complete, given):
    """The old output or the new one, the input as it was, and temporary files that say what they are."""
    old = None if output.endswith("/") else b"old"
    assert contents(folder / output) in (old, complete)
    assert contents(folder / "in.nii") == given
    remains = leftovers(folder)
    assert set(names(folder)) - set(remains) <= {"in.nii", output.rstrip("/")}
    assert {TEMPORARY.fullmatch(name)["output"] for name in remains} <= {output.rstrip("/")}


@pytest.mark.parametrize("kind", ["TIFF", *(pytest.param(kind, marks=slow) for kind in OUTPUTS)])
def test_killed_at_every_step_that_touches_its_files(tmp_path, kind):
    """At each, one after the other, until a run gets to its end; what the earlier ones left lies in its way."""
    arguments, output, complete = prepared(tmp_path, kind, (3, 20, 30))
    given = contents(tmp_path / "in.nii")
    codes = []
    while not codes or codes[-1]:
        with start(tmp_path, len(codes), *arguments, program=KILLED) as process:
            _, said = process.communicate(timeout=6000)
        codes.append(process.returncode)
        assert process.returncode in (0, -signal.SIGKILL), said
        check_after_a_kill(tmp_path, output, complete, given)
        if process.returncode:
            put_back(tmp_path, output)
    assert 5 < len(codes) < 60
    assert len(leftovers(tmp_path)) >= len(codes) - 4
    assert contents(tmp_path / output) == complete


@slow
@pytest.mark.parametrize("kind", OUTPUTS)
def test_killed_at_any_moment(tmp_path, kind):
    arguments, output, complete = prepared(tmp_path, kind, (20, 300, 300))
    given = contents(tmp_path / "in.nii")
    with start(tmp_path, *arguments) as process:
        await_temporary(tmp_path, process)
        made = time.monotonic()
        process.wait(600)
        length = time.monotonic() - made
    assert process.returncode == 0
    ends = set()
    for delay in range(-2, 42):  # from before anything is made to after the end
        put_back(tmp_path, output)
        before = leftovers(tmp_path)
        with start(tmp_path, *arguments) as process:
            if delay >= 0:
                await_temporary(tmp_path, process, beside=before)
            time.sleep(max(0, delay) / 36 * length)
            process.kill()
        check_after_a_kill(tmp_path, output, complete, given)
        ends.add((contents(tmp_path / output) == complete, len(leftovers(tmp_path)) > len(before)))
    assert ends >= {(False, True), (True, False)}  # hit while it was under way, and once it was done
