"""Files that are damaged, or made to do harm: refused by one line, or read; none crashes, hangs or fills memory.

All are opened by a process of its own, which may take 1 GB (``attempts.py``).
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import CONFIGS, KERNELS, VOLUMES, damaged, edits
from faults import slow
from volconv.errors import ReadError
from volconv.io import open_volume, trial
from volconv.kernels.files import load_array

KINDS = {"volume": VOLUMES, "kernel": KERNELS, "config": CONFIGS}
KIND_OF = {name: kind for kind, files in KINDS.items() for name in files}
HDF5 = [name for name in KIND_OF if name.endswith(".h5")]
OTHERS = [name for name in KIND_OF if name not in HDF5]

#: What a file that is made to be read must not be, though it is whole.
REFUSED = {"rgb.nii", "rgb.tif", "external.h5", "virtual.h5"}


class Opener:
    """The process that opens files, and begins anew where it ended."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "good").mkdir()
        for files in KINDS.values():
            for name, make in files.items():
                make(folder / "good" / name)
        self.good = {name: (folder / "good" / name).read_bytes() for name in KIND_OF}
        for name in ("pair.hdr", "pair.img"):
            shutil.copy(folder / "good" / name, folder / name)
        self._process = None

    def attempt(self, name, content=None, kind=None):
        """What comes of a file of this name and content."""
        path = self.folder / name
        if content is not None:
            path.write_bytes(content)
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, Path(__file__).with_name("attempts.py")]
            known = [self.folder / "good" / name for name in VOLUMES]
            self._process = subprocess.Popen(
                [*command, *known], cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._process.stdout.readline() == "ready\n"
        self._process.stdin.write(f"{kind or KIND_OF[name]}\t{path}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if name.startswith("pair"):
            (self.folder / name).write_bytes(self.good[name])
        if not said:
            return f"died {self._process.wait()}"
        return json.loads(said[4:]) if said.startswith("bug ") else said.rstrip("\n")

    def close(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait(600)


@pytest.fixture(scope="module")
def opener(tmp_path_factory):
    opener = Opener(tmp_path_factory.mktemp("damage"))
    yield opener
    opener.close()


@pytest.mark.parametrize("name", KIND_OF)
def test_what_is_whole_is_read(opener, name):
    expected = "refused" if name in REFUSED else "read"
    assert opener.attempt(name, opener.good[name]).partition(" ")[0] == expected


def many(examples):
    """Settings of a search for damage that does harm, the same at each run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def search(opener, data, names):
    name = data.draw(st.sampled_from(names))
    content = opener.good[name]
    inside = name.endswith("gz") and data.draw(st.booleans())
    content = gzip.decompress(content) if inside else content
    content = damaged(content, data.draw(edits(len(content))))
    said = opener.attempt(name, gzip.compress(content, 1) if inside else content)
    assert said == "read" or said.startswith("refused "), said


@given(st.data())
@many(400)
def test_damage_of_any_file(opener, data):
    search(opener, data, OTHERS)


@given(st.data())
@many(50)
def test_damage_of_hdf5(opener, data):
    search(opener, data, HDF5)


@slow
@given(st.data())
@many(12000)
def test_more_damage_of_any_file(opener, data):
    search(opener, data, OTHERS)


@slow
@given(st.data())
@many(1000)
def test_more_damage_of_hdf5(opener, data):
    search(opener, data, HDF5)


# --- files that announce what they do not hold


def nifti2(shape, offset=544, extension=False):
    """A header of NIfTI-2, and little behind it."""
    header = bytearray(544)
    struct.pack_into("<i8shh", header, 0, 540, b"n+2\0\r\n\x1a\n", 16, 32)
    struct.pack_into("<8q", header, 16, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<8d", header, 104, *[1.0] * 8)
    struct.pack_into("<q", header, 168, offset)
    header[540] = extension
    return bytes(header)


def mgh(shape):
    return struct.pack(">7ih", 1, *shape, 3, 0, 1).ljust(284, b"\0")


TERABYTE = (10**4, 10**4, 2500)


@pytest.mark.parametrize(
    ("name", "header", "told"),
    [
        ("v.nii.gz", nifti2(TERABYTE), "is truncated: 1000000000000 bytes of voxels expected, and it can hold at most"),
        ("v.nii.gz", nifti2((2**40, 2**40, 2**40)), "and it can hold at most"),
        ("v.nii.gz", nifti2((2, 2, 2), 2**62), "and it can hold at most"),
        ("v.nii.gz", nifti2((2, 2, 2), 10**8, extension=True), "its extensions must take less than 64 MB"),
        ("v.nii", nifti2(TERABYTE), "is truncated: 1000000000000 bytes of voxels expected"),
        ("v.nii", nifti2((2**40, 2**40, 2**40)), "is truncated"),
        ("v.nii", nifti2((-1, 2, 2)), "damaged|every axis must hold a voxel"),
        ("v.mgz", mgh((10**4, 10**4, 2500, 1)), "and it can hold at most"),
        ("v.mgh", mgh((2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1)), "is truncated"),
        ("v.mgh", mgh((-5, 4, 3, 1)), "every axis must hold a voxel"),
    ],
)
def test_a_small_file_that_announces_a_terabyte(opener, name, header, told):
    packed = name.endswith("z")
    # What is behind the header cannot be packed, but for what is to unfold in memory.
    behind = bytes(10**8) if "64 MB" in told else np.random.default_rng(0).bytes(10**6)
    content = gzip.compress(header + behind, 1) if packed else header + behind
    assert len(content) < 1.1e6
    refused(opener.attempt(name, content, "volume"), told)


def refused(said, told):
    assert re.match(f"refused .*({told})", said), said


def tiff_of_one_page(path, **tags):
    """A small stack, with tags changed to these values."""
    tifffile.imwrite(path, np.zeros((4, 5), "u2"), photometric="minisblack", metadata=None, compression="zlib")
    content = bytearray(Path(path).read_bytes())
    with tifffile.TiffFile(path) as file:
        for name, value in tags.items():
            tag = file.pages[0].tags[name]
            struct.pack_into("<HI", content, tag.offset + 2, 4, 1)
            struct.pack_into("<I", content, tag.offset + 8, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (
            {"ImageWidth": 10**6, "ImageLength": 10**6, "RowsPerStrip": 10**6},
            "is damaged: 2000000000000 bytes of voxels",
        ),
        ({"ImageWidth": 2**32 - 1, "ImageLength": 2**32 - 1, "RowsPerStrip": 2**32 - 1}, "is damaged|is truncated"),
        ({"StripByteCounts": 2**32 - 1}, "lies outside the file"),
        ({"StripOffsets": 2**32 - 1}, "lies outside the file|is damaged"),
        ({"ImageWidth": 0}, "holds no voxels|damaged"),
    ],
)
def test_a_tiff_page_that_announces_more_than_it_holds(opener, tmp_path, tags, told):
    refused(opener.attempt("v.tif", tiff_of_one_page(tmp_path / "v.tif", **tags), "volume"), told)


def test_a_tiff_page_of_zeros_that_are_not_stored(opener, tmp_path):
    """Parts of 0 bytes stand for zeros: 34 GB of them take no memory."""
    tags = {"ImageWidth": 2**32 - 1, "StripByteCounts": 0, "StripOffsets": 0}
    for rows, told in ((4, "read"), (2, "is damaged: it has 1 strips or tiles, and more are expected")):
        content = tiff_of_one_page(tmp_path / "v.tif", RowsPerStrip=rows, **tags)
        assert told in opener.attempt("v.tif", content, "volume")


def test_pages_of_a_tiff_that_follow_each_other_in_a_circle(opener, tmp_path):
    content = bytearray(tiff_of_one_page(tmp_path / "v.tif"))
    (first,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * tags, first)
    refused(opener.attempt("v.tif", bytes(content), "volume"), "is truncated or damaged: its page 2 lies outside")


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">{}</Image></OME>'
SIZES = 'DimensionOrder="XYZCT" Type="uint8" SizeX="5" SizeY="4" SizeC="1" SizeT="1"'
PIXELS = f'<Pixels ID="P:0" {SIZES} SizeZ="{{}}">{{}}</Pixels>'


@pytest.mark.parametrize(
    "words",
    [
        PIXELS.format(2 * 10**9, '<TiffData IFD="0" PlaneCount="3"/>'),
        PIXELS.format(3, '<TiffData IFD="0" PlaneCount="2000000000"/>'),
        PIXELS.format(3, '<TiffData IFD="0" FirstZ="2000000000"/>'),
        PIXELS.format("1e300", ""),
    ],
)
def test_ome_metadata_that_announce_planes_without_end(opener, tmp_path, words):
    described = {"description": OME.format(words), "metadata": None, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "v.ome.tif", np.zeros((3, 4, 5), "u1"), **described)
    said = opener.attempt("v.ome.tif", (tmp_path / "v.ome.tif").read_bytes(), "volume")
    refused(said, "is damaged: its OME metadata announce 2000000000 planes|damaged")


def test_ome_metadata_whose_entities_unfold_without_end(opener, tmp_path):
    letters = "abcdefghi"
    entities = '<!ENTITY a "aaaaaaaaaaaaaaaaaaaa">' + "".join(
        f'<!ENTITY {this} "{f"&{last};" * 20}">' for last, this in pairwise(letters)
    )
    words = f'<?xml version="1.0"?><!DOCTYPE OME [{entities}]>' + OME.format(PIXELS.format(3, "&i;"))
    described = {"description": words, "metadata": None, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "v.ome.tif", np.zeros((3, 4, 5), "u1"), **described)
    refused(opener.attempt("v.ome.tif", (tmp_path / "v.ome.tif").read_bytes(), "volume"), "OME metadata")


# --- headers that say what cannot be


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_a_spacing_that_cannot_be(opener, tmp_path, size):
    content = bytearray(opener.good["n1.nii"])
    struct.pack_into("<4f", content, 280, size, 0, 0, 0)  # srow_x
    (tmp_path / "v.nii").write_bytes(content)
    refused(
        opener.attempt("v.nii", bytes(content), "volume"), "its spacing must be between 1e-09 and 1e\\+09 .got .* mm"
    )
    struct.pack_into("<12f", content, 280, *[0.0] * 12)
    (tmp_path / "v.nii").write_bytes(content)
    with open_volume(tmp_path / "v.nii", spacing=((3.0, 2.0, 1.0), "mm")) as volume:
        assert volume.info.geometry.spacing == (3.0, 2.0, 1.0)


def test_what_a_file_says_does_not_reach_the_terminal_as_it_is(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["a\x1b[31m\n"] = np.zeros(4)
    with pytest.raises(ReadError, match=r"/a\\x1b\[31m\\n \(4,\)") as caught:
        open_volume(tmp_path / "v.h5")
    assert str(caught.value).isprintable()


# --- weights and configurations


def npy(shape, kind="<f8", behind=b""):
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(words)) + words + behind


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            npy((10**6, 10**6, 1000)),
            r"must take at most 1 GB \(got shape \(1000000, 1000000, 1000\), 8000000000000000 bytes",
        ),
        (npy((-1, 3, 3)), "must take at most 1 GB"),
        (npy((3, 3, 3)), "cannot read (kernel|weights)"),
        (npy("(((((((((((((((((((("), "cannot read (kernel|weights)"),
        (npy("__import__('os')"), "cannot read (kernel|weights)"),
        (npy((3, 3, 3), "|O", pickle.dumps(os.getpid)), "holds Python objects, which volconv never loads"),
        (pickle.dumps(os.getpid), "holds Python objects, which volconv never loads"),
    ],
)
def test_an_array_that_lies(opener, content, told):
    refused(opener.attempt("w.npy", content, "kernel"), told)


def test_an_array_that_python_2_wrote(opener):
    """Without NumPy's warning."""
    assert opener.attempt("w.npy", npy("(3L, 3L, 3L)", behind=np.ones(27).tobytes()), "kernel") == "read"


def test_an_archive_that_unfolds_to_gigabytes(opener, tmp_path):
    packing = zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED)
    with packing as archive, archive.open("w.npy", "w", force_zip64=True) as member:
        member.write(npy((1000, 1000, 500)))
        member.write(bytes(10**7))
    said = opener.attempt("w.npz", (tmp_path / "w.npz").read_bytes(), "kernel")
    refused(said, "must take at most 1 GB")


def test_weights_in_another_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.ones((3, 3, 3))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/w")
        file.create_dataset("raw", (3, 3, 3), "u1", external=[(b"/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    for key, told in (("link", "links are not followed out of a file"), ("raw", "other files are not followed")):
        with pytest.raises(ReadError, match=told):
            load_array(f"{tmp_path}/w.h5:{key}", "kernel", (3,))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kernel = " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
        ("co = " + "{a=" * 5000 + "1" + "}" * 5000, "is nested too deeply"),
        ("kernel = " + "[" * 90 + "1" + "]" * 90, "kernel must be a string, or nested lists"),
        ("stride = " + "9" * 5000, "is no valid TOML"),
        ("a." * 2000 + "b = 1", "key must be one of"),
    ],
)
def test_a_configuration_that_goes_too_far(opener, text, told):
    refused(opener.attempt("b.toml", text.encode(), "config"), told)


# --- what a library does not survive


def test_a_crash_is_an_error(monkeypatch):
    def crash():
        os.kill(os.getpid(), signal.SIGSEGV)

    def abort():
        os.abort()

    def grow():
        return bytes(8 << 30)

    def fail():
        raise ValueError("told when it is done in earnest")

    for attempt, told in ((crash, "crashes over it"), (abort, "crashes over it"), (grow, "take more than 1 GB")):
        with pytest.raises(ReadError, match=rf"v\.h5: its structure is damaged: HDF5 .*{told}"):
            trial.try_out(attempt, "v.h5", "HDF5")
    trial.try_out(fail, "v.h5", "HDF5")
    monkeypatch.setattr(trial, "_SECONDS", 1)
    with pytest.raises(ReadError, match="HDF5 finds no end in it"):
        trial.try_out(lambda: [None for _ in iter(int, 1)], "v.h5", "HDF5")


def test_a_trial_changes_nothing(tmp_path):
    """Neither files that are open and what waits to be written to them, nor what is done with signals."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with (tmp_path / "a").open("w") as file:
        file.write("once")
        trial.try_out(lambda: file.write("never"), "v.h5", "HDF5")
    assert (tmp_path / "a").read_text() == "once"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
