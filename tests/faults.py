"""Runs of the command that are disturbed from outside, and what must be true after each."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

SCRIPT = Path(sys.executable).parent / "volconv"

#: What a person must be able to make of a temporary file: whose it is, and of which output.
TEMPORARY = re.compile(r"\.(?P<output>.+)\.volconv-\d+-[0-9a-f]{8}\.tmp")

#: An output of every kind that is written in its own way, and the options that make it.
OUTPUTS = {
    "NIfTI": ("o.nii",),
    "gzipped NIfTI": ("o.nii.gz",),
    "contiguous HDF5": ("o.h5",),
    "packed HDF5": ("o.h5", "--co", "compression=gzip"),
    "TIFF": ("o.tif",),
    "packed TIFF": ("o.tif", "--co", "compression=zlib"),
    "OME-TIFF": ("o.ome.tif",),
    "packed OME-TIFF": ("o.ome.tif", "--co", "compression=zlib", "--co", "tile=64"),
    "slices": ("o/",),
    "packed slices": ("o/", "--co", "compression=zlib"),
}

slow = pytest.mark.slow

#: For tests that start the command: all kinds in the slow tier, and in the other a file and a folder.
KINDS = [kind if kind in ("NIfTI", "slices") else pytest.param(kind, marks=slow) for kind in OUTPUTS]

#: The command as a program that kills itself at the N-th thing that it does to a file in the current folder.
KILLED = """
import os, signal, sys
from pathlib import Path
steps, folder = int(sys.argv.pop(1)), os.getcwd()

def watch(event, arguments):
    global steps
    if event.partition(".")[0] in ("open", "os", "shutil"):
        names = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, (str, bytes))]
        if any(name.startswith(folder) and ".volconv-" in name for name in names):
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)

from volconv_cli.main import main
sys.addaudithook(watch)
main()
"""

#: The command as a program that says so where it first calls a function, or has called it, and waits for an answer.
STAYING = """
import functools, pkgutil, sys
where, when = sys.argv.pop(1), sys.argv.pop(1)
from volconv_cli.main import main
place, _, name = where.rpartition(".")
place = pkgutil.resolve_name(place)
function = getattr(place, name)

@functools.wraps(function)
def staying(*arguments, **options):
    setattr(place, name, function)
    done = function(*arguments, **options) if when == "after" else None
    print("there", flush=True)
    sys.stdin.readline()
    return done if when == "after" else function(*arguments, **options)

setattr(place, name, staying)
main()
"""


#: The command as a program that fills the disk up to so many bytes once its output is begun.
FILLING = """
import os, sys
from pathlib import Path
import volconv.making
from volconv_cli.main import main
left, begun = int(sys.argv.pop(1)), volconv.making.run

def filling(*arguments, **options):
    disk = os.statvfs(".")
    Path("theirs").write_bytes(bytes(disk.f_bavail * disk.f_frsize - left))
    return begun(*arguments, **options)

volconv.making.run = filling
main()
"""


def start(folder, *arguments, program=None, **options):
    """Start ``volconv ...`` in a folder, or a program that is it."""
    command = [SCRIPT] if program is None else [sys.executable, "-c", program]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*command, *map(str, arguments)], cwd=folder, **options)


def run(folder, *arguments, code=0, **options):
    """Run ``volconv ...`` in a folder, expect this exit code, and give back what it said on stderr."""
    with start(folder, *arguments, **options) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


def one_line(said, message):
    """Whether what was said is one line of error that says this."""
    assert re.fullmatch(rf"volconv: error: {message}\n", said), said


def noisy_nifti(path, shape=(20, 90, 110), seed=0):
    """A volume of which no compression makes much less."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    nibabel.Nifti1Image(values.transpose(), np.eye(4)).to_filename(path)
    return path


def huge_nifti(path, size):
    """A volume of ``size`` bytes, all zeros, that takes no room on the disk."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((512, 512, size // (512 * 512 * 4)))
    with Path(path).open("wb") as file:
        header.write_to(file)
        file.truncate(352 + size)
    return path


def contents(path):
    """Bytes of a file, or of all files in a folder; None where there is nothing."""
    path = Path(path)
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    return path.read_bytes() if path.exists() else None


def leftovers(folder):
    """Temporary files and folders, each named as one; anything else in the folder must be known."""
    return [path.name for path in Path(folder).iterdir() if TEMPORARY.fullmatch(path.name)]


def await_temporary(folder, process, deadline=600, beside=()):
    """Return as soon as the run has made its temporary file, beside those of others, or has ended."""
    end = time.monotonic() + deadline
    while len(leftovers(folder)) == len(beside) and process.poll() is None:
        assert time.monotonic() < end, "no temporary file"
        time.sleep(0.001)
