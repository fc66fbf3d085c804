"""What the system refuses while a run is under way: one line, a documented exit code, and nothing lost or left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import make_nifti, names, noise, volconv
from faults import (
    FILLING,
    KINDS,
    OUTPUTS,
    SCRIPT,
    STAYING,
    contents,
    leftovers,
    noisy_nifti,
    one_line,
    run,
    slow,
    start,
)
from volconv import apply, convert


def command(kind, source="in.nii", *more):
    """A run that makes this kind of output, and its name."""
    output, *options = OUTPUTS[kind]
    return ["apply", source, "-k", "box:size=3", "-o", output, *options, "-q", *more], output


def named(output):
    """How messages call it, as a pattern."""
    return output.replace(".", r"\.")


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# --- no room


@contextlib.contextmanager
def file_sizes_limited(limit):
    """No file of this process can grow beyond so many bytes meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("kind", OUTPUTS)
def test_no_room_for_all_of_a_file(capsys, kind):
    noisy_nifti("in.nii", (9, 40, 50))
    arguments, output = command(kind)
    volconv(*arguments)
    sizes = [file.stat().st_size for file in (Path(output).iterdir() if output.endswith("/") else [Path(output)])]
    given, complete = contents("in.nii"), contents(output)
    shutil.rmtree(output) if output.endswith("/") else Path(output).write_bytes(b"old")
    before = names(".")
    for limit in (0, 1, 100, 1000, min(sizes) // 2, min(sizes) - 1):
        with file_sizes_limited(limit):
            volconv(*arguments, "-f", code=1)
        one_line(
            capsys.readouterr().err, rf"{named(output)}: cannot be written: File too large; the file system, or .*"
        )
        assert names(".") == before
        assert contents(output) == (None if output.endswith("/") else b"old")
    assert contents("in.nii") == given
    with file_sizes_limited(max(*sizes, 9 * 40 * 50 * 4)):
        volconv(*arguments, "-f")
    assert contents(output) == complete


@pytest.fixture(scope="module")
def _mounts():
    """An ordinary user may mount a file system in a namespace of its own here."""
    line = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    if shutil.which("unshare") is None or subprocess.run(line, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("no file system can be mounted here (files of limited size are tested everywhere)")


@pytest.mark.usefixtures("_mounts")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [pytest.param(0, marks=slow), 300_000, pytest.param(600_000, marks=slow)])
def test_a_disk_that_others_fill_meanwhile(tmp_path, kind, left):
    noisy_nifti(tmp_path / "in.nii")  # 792 kB, of which outputs are 640 kB or more
    (tmp_path / "disk").mkdir()
    arguments, output = command(kind, "../in.nii", "-f")
    script = """
        mount -t tmpfs -o size=4m tmpfs disk
        cd disk
        case $1 in */) ;; *) printf old >"$1" ;; esac
        shift
        code=0
        "$@" || code=$?
        echo $code $(ls -A)
        cat o.* 2>/dev/null || true
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-euc", script, "sh", output, sys.executable, "-c", FILLING, str(left), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    one_line(done.stderr, rf"{named(output)}: cannot be written: No space left on device; make room there, or write .*")
    assert done.stdout == ("1 theirs\n" if output == "o/" else f"1 {output} theirs\nold")


CIRCULAR = ["apply", "in.nii.gz", "-k", "box:size=3", "--padding", "1", "--padding-mode", "circular", "-o", "o.nii"]


@pytest.mark.usefixtures("_mounts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (CIRCULAR, r"o\.nii: temporary files take 12000000 bytes, and .*/disk has room for \d+; set TMPDIR to .*"),
        (  # its footer is read before anything is planned
            ["convert", "in.mgz", "o.nii"],
            r"in\.mgz: cannot be unpacked into .*/disk: No space left on device; set TMPDIR to .*",
        ),
    ],
    ids=["told before any work", "found on the way"],
)
def test_no_room_to_unpack_a_gzipped_input(tmp_path, arguments, message):
    make_nifti(tmp_path / "in.nii.gz", noise((100, 300, 400), "uint8"))  # it takes several blocks
    nibabel.MGHImage(noise((2, 30, 40, 50)).transpose(), np.eye(4)).to_filename(tmp_path / "in.mgz")
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=32k tmpfs disk; TMPDIR=$PWD/disk exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-euc", script, "sh", SCRIPT, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    one_line(done.stderr, message)
    assert done.returncode == 1
    assert names(tmp_path) == ["disk", "in.mgz", "in.nii.gz"]


# --- inputs that are cut off


def cut_nifti(path):
    noisy_nifti(path, (9, 20, 30))


def cut_pair(path):
    nibabel.Nifti1Pair(noise((9, 20, 30)).transpose(), np.eye(4)).to_filename(path)


def cut_mgh(path):
    nibabel.MGHImage(noise((9, 20, 30)).transpose(), np.eye(4)).to_filename(path)


def cut_hdf5(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=noise((9, 20, 30)), **options)


def cut_tiff(path, **options):
    tifffile.imwrite(path, noise((9, 20, 30)), photometric="minisblack", **options)


INPUTS = {
    "in.nii": cut_nifti,
    "in.nii.gz": cut_nifti,
    "in.img": cut_pair,
    "in.img.gz": cut_pair,
    "in.mgh": cut_mgh,
    "in.mgz": cut_mgh,
    "in.h5": cut_hdf5,
    "in.hdf5": lambda path: cut_hdf5(path, compression="gzip", chunks=(3, 20, 30)),
    "in.tif": cut_tiff,
    "in.tiff": lambda path: cut_tiff(path, compression="zlib"),
    "in.ome.tif": lambda path: cut_tiff(path, compression="lzw", tile=(16, 16)),
}


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_is_cut_off(capsys, name):
    path, output = Path(name), "o.nii"
    INPUTS[name](path)
    whole = path.read_bytes()
    volconv("convert", name, output, "-q")
    complete = contents(output)
    Path(output).write_bytes(b"old")
    before = names(".")
    refused = 0
    for length in sorted({0, 1, 100, 400, *(len(whole) * part // 20 for part in range(1, 20)), len(whole) - 1}):
        path.write_bytes(whole[:length])
        try:
            volconv("convert", name, output, "-q", "-f", code=3)
        except AssertionError:
            assert length > len(whole) * 0.9  # what is cut off is not needed
            assert contents(output) == complete
            Path(output).write_bytes(b"old")
        else:
            one_line(capsys.readouterr().err, rf"{re.escape(name)}: .*")
            refused += 1
        assert names(".") == before
        assert contents(output) == b"old"
        assert path.read_bytes() == whole[:length]
    assert refused >= 20


# --- what may not be read or written


def without_privileges():
    """Have permissions count for root too: what is started is never granted the capabilities to pass over them."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, capability) == 0  # PR_CAPBSET_DROP


@pytest.fixture
def may_not(tmp_path):
    """Run the command without these rights on a file or folder of the folder, and expect an error."""
    if os.geteuid() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("only Linux takes root's privileges away")

    def attempt(what, mode, message, *arguments, code):
        path = tmp_path / what
        before, usual = names(tmp_path), path.stat().st_mode
        path.chmod(mode)
        try:
            said = run(tmp_path, *arguments, code=code, preexec_fn=without_privileges)
        finally:
            path.chmod(usual)
        one_line(said, message)
        assert names(tmp_path) == before

    return attempt


@pytest.mark.parametrize("name", ["in.nii", "in.img", "in.mgh", "in.h5", "in.tif"])
def test_an_input_that_may_not_be_read(tmp_path, may_not, name):
    INPUTS[name](tmp_path / name)
    may_not(name, 0, rf"{re.escape(name)}: cannot be read: Permission denied", "convert", name, "o.nii", code=3)


def test_a_folder_that_may_not_be_entered(tmp_path, may_not):
    (tmp_path / "in").mkdir()
    noisy_nifti(tmp_path / "in" / "v.nii", (3, 4, 5))
    cut_tiff(tmp_path / "in" / "v.tif")
    denied = "cannot be read: Permission denied"
    for name in ("in/v.nii", "in/v.h5:/data"):
        may_not("in", 0, rf"{re.escape(name)}: {denied}", "apply", name, "-k", "identity", "-o", "o.nii", code=3)
    may_not("in", 0, rf"in: {denied}", "info", "in", code=3)
    may_not("in", 0, r"in/\*\.tif: (no such files|cannot be read: Permission denied)", "info", "in/*.tif", code=3)
    np.save(tmp_path / "in" / "k.npy", np.ones((3, 3, 3)))
    (tmp_path / "in" / "a.toml").write_text("stride = 2")
    noisy_nifti(tmp_path / "v.nii", (3, 4, 5))
    for what, folder in ((0, "in"), (0, "in/k.npy")):
        may_not(
            folder, what, r".*in/k\.npy.*Permission denied.*", "apply", "v.nii", "-k", "in/k.npy", "-o", "o.nii", code=3
        )
    for folder in ("in", "in/a.toml"):
        arguments = ("apply", "v.nii", "-k", "identity", "-o", "o.nii", "--config", "in/a.toml")
        may_not(folder, 0, r".*in/a\.toml.*Permission denied.*", *arguments, code=2)


@pytest.mark.parametrize("kind", ["NIfTI", *(pytest.param(kind, marks=slow) for kind in OUTPUTS)])
def test_an_output_that_may_not_be_written(tmp_path, may_not, kind):
    noisy_nifti(tmp_path / "in.nii", (3, 4, 5))
    (tmp_path / "out").mkdir()
    arguments, output = command(kind)
    for mode in (0o555, 0):
        arguments[arguments.index("-o") + 1] = f"out/{output}"
        may_not("out", mode, rf"out/{named(output)}: cannot be written: .*", *arguments, code=1)
        if kind == "NIfTI":
            arguments[arguments.index("-o") + 1] = f"out/deeper/{output}"
            may_not("out", mode, rf"out/deeper/{named(output)}: .*(cannot be written|not exist).*", *arguments, code=1)
    assert names(tmp_path / "out") == []


def test_a_report_that_may_not_be_written_is_told_before_any_work(tmp_path, may_not):
    noisy_nifti(tmp_path / "in.nii", (3, 4, 5))
    (tmp_path / "out").mkdir()
    arguments = ("apply", "in.nii", "-k", "identity", "-o", "o.nii", "--report", "out/r.json")
    may_not("out", 0o555, r"out/r\.json: cannot be written: .*", *arguments, code=1)


def test_a_file_that_may_not_be_written_can_be_replaced(tmp_path):
    """As by mv: the folder counts."""
    noisy_nifti(tmp_path / "in.nii", (3, 4, 5))
    (tmp_path / "o.nii").write_bytes(b"old")
    (tmp_path / "o.nii").chmod(0o444)
    arguments = ("apply", "in.nii", "-k", "identity", "-o", "o.nii", "-q", "-f")
    run(tmp_path, *arguments, preexec_fn=without_privileges)
    assert (tmp_path / "o.nii").stat().st_mode & 0o777 == 0o444
    np.testing.assert_array_equal(nibabel.load(tmp_path / "o.nii").dataobj, nibabel.load(tmp_path / "in.nii").dataobj)


# --- others who are at the same files


def meanwhile(folder, arguments, action, *, where="volconv.making.run", when="before"):
    """Start the command, do something once it gets to a function, and let it go on; exit code and what it said."""
    with start(folder, where, when, *arguments, program=STAYING) as process:
        assert process.stdout.readline() == "there\n"
        action()
        _, said = process.communicate("go on\n", timeout=600)
    return process.returncode, said


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_of_the_output_vanishes(tmp_path, kind):
    noisy_nifti(tmp_path / "in.nii", (3, 20, 30))
    (tmp_path / "out").mkdir()
    arguments, output = command(kind)
    arguments[arguments.index(output)] = f"out/{output}"
    code, said = meanwhile(tmp_path, arguments, lambda: shutil.rmtree(tmp_path / "out"))
    assert code == 1
    one_line(said, rf"out/{named(output)}: .*(does not exist|No such file or directory).*")
    assert names(tmp_path) == ["in.nii"]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("NIfTI", []),
        *(pytest.param(kind, more, marks=slow) for kind in OUTPUTS for more in ([], ["-f"])),
    ],
)
def test_two_runs_at_one_output(tmp_path, kind, more):
    """Both are past their checks when they come to put it in place: the first one has it, or with -f the last."""
    noisy_nifti(tmp_path / "in.nii", (3, 20, 30))
    arguments, output = command(kind, "in.nii", *more)
    others = [*arguments[:3], "box:size=1", *arguments[4:]]
    made = []
    for each in (others, arguments):
        run(tmp_path, *each)
        made.append(contents(tmp_path / output))
        shutil.rmtree(tmp_path / "o") if output == "o/" else (tmp_path / output).unlink()
    where = f"volconv.io.target.{'FolderTarget' if output == 'o/' else 'Target'}._sync"
    code, said = meanwhile(tmp_path, arguments, lambda: run(tmp_path, *others), where=where, when="after")
    if more and output != "o/":
        assert (code, said) == (0, "")
    else:  # a folder that is not empty is never replaced
        assert code == 4
        one_line(said, rf"{named(output)}: (the output already exists|is not empty).*")
    assert contents(tmp_path / output) == made[1 if code == 0 else 0]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "slices" not in str(kind)])
def test_the_output_is_the_input(tmp_path, kind):
    """It is read as it was to the end of the run, and stays as it was where that fails."""
    output, *options = OUTPUTS[kind]
    noisy_nifti(tmp_path / "in.nii", (3, 20, 30))
    run(tmp_path, "convert", "in.nii", output, "-q", *options)
    given = contents(tmp_path / output)
    arguments = ["apply", output, "-k", "box:size=3", "--padding", "1", "-o", output, *options, "-q"]
    one_line(run(tmp_path, *arguments, code=4), rf"{named(output)}: the output already exists; .*")
    run(tmp_path, *arguments[:3], "box:size=99", *arguments[4:], "-f", code=5)
    assert contents(tmp_path / output) == given
    (tmp_path / "other").mkdir()
    run(tmp_path, *arguments[:7], f"other/{output}", *arguments[8:])
    run(tmp_path, *arguments, "-f")
    assert contents(tmp_path / output) == contents(tmp_path / "other" / output)
    assert leftovers(tmp_path) == []


# --- the disk


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("work", [apply, convert])
def test_all_is_on_the_disk_before_it_has_its_name(monkeypatch, kind, work):
    output, *options = OUTPUTS[kind]
    noisy_nifti("in.nii", (3, 20, 30))
    synced, placed = {}, []
    sync, link, rename = os.fsync, os.link, Path.rename

    def on_sync(descriptor):
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve() if Path("/proc/self/fd").exists() else None
        synced[os.fstat(descriptor).st_ino] = contents(path) if path else None

    def on_placing(place):
        def placing(temporary, final):
            files = [temporary, *temporary.iterdir()] if temporary.is_dir() else [temporary]
            placed.append({file.stat().st_ino: contents(file) for file in files})
            assert placed[-1].items() <= synced.items()
            synced.clear()
            place(temporary, final)

        return placing

    monkeypatch.setattr(os, "fsync", on_sync)
    monkeypatch.setattr(os, "link", on_placing(link))
    monkeypatch.setattr(Path, "rename", on_placing(rename))
    options = dict(option.split("=") for option in options if "=" in option)
    work("in.nii", output, *(["box:size=3"] if work is apply else []), options=options)
    assert len(placed) == 1
    assert list(synced) == [Path.cwd().stat().st_ino]  # and its folder, which has the name, after it


def test_standard_output_that_is_full(tmp_path):
    noisy_nifti(tmp_path / "in.nii", (3, 4, 5))
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        assert run(tmp_path, "info", "in.nii", stdout=full, code=1) == "volconv: error: No space left on device\n"
