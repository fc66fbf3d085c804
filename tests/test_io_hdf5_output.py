"""HDF5 files on disks that fail: chunks that HDF5 still holds must not bring the process down."""

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from cases import few
from volconv.io.hdf5.output import Output

# Every call that changes the file fails once, and from there on; the process must end well after each.
FAILING = """
import gc, os, sys
from pathlib import Path
import numpy as np
import volconv
from volconv.io import Region, create_volume
folder, options, called = Path(sys.argv[1]), eval(sys.argv[2]), 0
calls = {"pwrite": os.pwrite, "ftruncate": os.ftruncate}
def failing(name, at):
    def call(*arguments):
        global called
        called += 1
        if called > at:
            raise OSError(28, "No space left on device") if sys.argv[3] == "full disk" else KeyboardInterrupt("seen")
        return calls[name](*arguments)
    return call
values, at, told = np.random.default_rng(0).integers(0, 9, (1, 1, 8, 32, 32)).astype("u1"), 0, set()
while True:
    called = 0
    for name in calls:
        setattr(os, name, failing(name, at))
    try:
        with create_volume(folder / "v.h5", shape=(1, 1, 32, 32, 32), dtype="u1", options=options) as sink:
            for d in range(0, 32, 8):
                sink.write(Region((0, 0, d, 0, 0), (1, 1, d + 8, 32, 32)), values)
    except (volconv.WriteError, KeyboardInterrupt) as error:
        told.add(str(error).partition(": ")[2] or str(error))
        assert list(folder.iterdir()) == []
    else:
        break
    gc.collect()
    at += 1
print(at, *told)
"""


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ("full disk", "cannot be written: No space left on device; make room there, or write to another disk\n"),
        ("interrupt", "seen\n"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip", "chunks": "8,16,16"},
        *few([{"chunks": "7,9,11"}, {"compression": "lzf", "chunks": "5,32,32"}]),
    ],
)
def test_a_full_disk_or_an_interrupt_is_no_crash(tmp_path, options, failure, expected):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, tmp_path, str(options), failure], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    failures, _, told = done.stdout.partition(" ")
    assert int(failures) > 10
    assert told == expected
    assert [path.name for path in tmp_path.iterdir()] == ["v.h5"]


def test_output_as_a_file(tmp_path):
    with (tmp_path / "v.h5").open("x+b") as file:
        output = Output(file.fileno())
        with h5py.File(output, "w") as h5:
            h5.create_dataset("a", data=np.arange(1000), chunks=(10,))
        assert output.error is None
        assert output.seek(0, os.SEEK_END) == os.fstat(file.fileno()).st_size
        assert output.seek(-4, os.SEEK_CUR) == output.tell()
        output.seek(0)
        assert output.read(4) == b"\x89HDF"
        assert output.tell() == 4
    with h5py.File(tmp_path / "v.h5") as h5:
        np.testing.assert_array_equal(h5["a"][()], np.arange(1000))


def test_output_keeps_the_first_error(tmp_path):
    with (tmp_path / "v").open("x+b") as file:
        output = Output(file.fileno())
        assert output.write(b"abc") == 3
    for call in (lambda: output.write(b"d"), lambda: output.truncate(9), lambda: output.read(2)):
        call()
    assert output.error is not None
    assert output.error.errno == errno.EBADF
    first = output.error
    output.seek(0)
    assert output.read(2) == b""
    assert output.error is first


def test_what_was_given_up_is_written_no_more(tmp_path):
    with (tmp_path / "v").open("x+b") as file:
        output = Output(file.fileno())
        output.write(b"abc")
        output.give_up()
        assert output.write(b"def") == 3
        assert output.truncate(100) == 100
        assert output.seek(0, os.SEEK_END) == 100
        assert output.error is None
    assert (tmp_path / "v").read_bytes() == b"abc"
