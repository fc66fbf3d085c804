"""Bad input at the command line: one line that says what, where and what to do, and a documented exit code."""

from __future__ import annotations

import gzip
import os
import re
import struct
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, make_nifti, names, noise, read, volconv
from volconv_cli import exits


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def nifti(**fields):
    """A NIfTI file whose header says what it should not."""
    make_nifti("in.nii", noise())
    content = bytearray(Path("in.nii").read_bytes())
    for offset, data in fields.values():
        content[offset : offset + len(data)] = data
    Path("in.nii").write_bytes(content)


def gzipped(share):
    make_nifti("in.nii", noise())
    packed = gzip.compress(Path("in.nii").read_bytes())
    Path("in.nii.gz").write_bytes(packed[: int(len(packed) * share)])


def hdf5(**datasets):
    with h5py.File("in.h5", "w") as file:
        for name, values in datasets.items():
            file[name] = values


def missing_filter():
    """A dataset that says it was packed by a filter that nobody has."""
    with h5py.File("in.h5", "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((4, 4, 4))
        creation.set_filter(511, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((4, 4, 4))
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, creation)


def tiff(values, **options):
    tifffile.imwrite("in.tif", values, **{"photometric": "minisblack", **options})


def mixed_pages():
    with tifffile.TiffWriter("in.tif") as file:
        for size in (8, 9):
            file.write(np.zeros((size, size), np.uint8), photometric="minisblack", metadata=None)


def truncated_tiff():
    tiff(noise((5, 30, 30), "uint16"))
    content = Path("in.tif").read_bytes()
    Path("in.tif").write_bytes(content[: len(content) * 2 // 3])


def mixed_slices():
    Path("slices").mkdir()
    for i, size in enumerate((8, 8, 9)):
        tifffile.imwrite(f"slices/z{i}.tif", np.zeros((size, 8), np.uint8))


def pickled():
    np.save("k.npy", np.array([{}], dtype=object), allow_pickle=True)
    good()


def good(name="in.nii"):
    make_nifti(name, noise())


PALETTE = {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}
IN, H5, TIF = ["in.nii"], ["in.h5"], ["in.tif"]

CASES = {
    "missing file": (lambda: None, IN, 3, "in.nii: no such file"),
    "directory": (lambda: Path("in.nii").mkdir(), IN, 3, "in.nii: is a folder, and holds no .tif or .tiff files"),
    "empty file": (lambda: Path("in.nii").write_bytes(b""), IN, 3, "in.nii: is empty"),
    "empty HDF5": (lambda: Path("in.h5").write_bytes(b""), H5, 3, "in.h5: is empty"),
    "empty TIFF": (lambda: Path("in.tif").write_bytes(b""), TIF, 3, "in.tif: is empty"),
    "truncated .nii.gz": (lambda: gzipped(0.5), ["in.nii.gz"], 3, "in.nii.gz: is truncated: its gzip stream ends"),
    "truncated header": (lambda: gzipped(0.01), ["in.nii.gz"], 3, "in.nii.gz: is truncated"),
    "not a NIfTI": (lambda: Path("in.nii").write_text("hello " * 200), IN, 3, "in.nii: is no NIfTI file"),
    "dimensions that are too large": (
        lambda: nifti(width=(42, struct.pack("<h", 3000))),
        IN,
        3,
        r"in.nii: is truncated: \d+ bytes of voxels expected, \d+ found",
    ),
    "negative dimensions": (lambda: nifti(width=(42, struct.pack("<h", -3))), IN, 3, r"in.nii: .*\(-3, 10, 9\)"),
    "no dimensions": (lambda: nifti(width=(40, struct.pack("<h", 0))), IN, 3, "in.nii: "),
    "NaN slope": (lambda: nifti(slope=(112, struct.pack("<f", np.nan))), IN, 3, "in.nii: its slope .*nan"),
    "HDF5 without datasets": (lambda: hdf5(), H5, 3, "in.h5: holds no dataset"),
    "HDF5 1-D": (lambda: hdf5(a=np.zeros(4)), H5, 3, "in.h5: holds no dataset of 3 axes"),
    "HDF5 1-D by name": (lambda: hdf5(a=np.zeros(4)), ["in.h5:/a"], 3, r"in.h5:/a: a volume has 3 axes.*--axes"),
    "HDF5 strings": (
        lambda: hdf5(a=np.full((2, 2, 2), b"ab", "S2")),
        H5,
        3,
        r"in.h5:/a: voxels of dtype .* are not supported",
    ),
    "HDF5 compound": (
        lambda: hdf5(a=np.zeros((2, 2, 2), [("x", "f4"), ("y", "f4")])),
        H5,
        3,
        r"in.h5:/a: voxels of dtype .* are not supported",
    ),
    "HDF5 missing filter": (
        missing_filter,
        H5,
        3,
        "in.h5:/raw: is packed by a filter that .* number 511.*; .*HDF5_PLUGIN_PATH",
    ),
    "several datasets": (
        lambda: hdf5(a=np.zeros((2, 3, 4)), b=np.zeros((3, 3, 3))),
        H5,
        3,
        r"in.h5: holds 2 datasets that could be the volume: /a \(2, 3, 4\), /b \(3, 3, 3\); name one, as in in.h5:/a",
    ),
    "TIFF palette": (lambda: tiff(np.zeros((9, 9), np.uint8), **PALETTE), TIF, 3, "in.tif: its pages hold palette"),
    "TIFF of colours": (
        lambda: tiff(np.zeros((9, 9, 3), np.uint8), photometric="rgb"),
        TIF,
        3,
        r"in.tif: .*pass --rgb \(rgb=True\) to take them as channels",
    ),
    "TIFF mixed pages": (mixed_pages, TIF, 3, "in.tif: its pages are of several kinds"),
    "TIFF truncated": (truncated_tiff, TIF, 3, "in.tif: is truncated"),
    "mixed-size slices": (mixed_slices, ["slices"], 3, r"slices/z2.tif: slices must be of one size and dtype \(got"),
    "kernel larger than the volume": (
        good,
        [*IN, "-k", "box:size=12"],
        5,
        r"in.nii: kernel must fit into the padded input \(got D=9",
    ),
    "channel mismatch": (
        lambda: (good(), np.save("k.npy", np.ones((2, 3, 3, 3, 3)))),
        [*IN, "-k", "k.npy"],
        5,
        r"in.nii: .*in_channels.*3.*1",
    ),
    "bad groups": (
        lambda: (good(), np.save("k.npy", np.ones((3, 1, 3, 3, 3)))),
        [*IN, "-k", "k.npy", "--groups", "2"],
        5,
        r"groups must divide out_channels \(got groups=2, out_channels=3\)",
    ),
    "same with stride 2": (good, [*IN, "--padding", "same", "--stride", "2"], 2, "padding='same' needs stride 1"),
    "reflect too wide": (
        good,
        [*IN, "--padding", "9", "--padding-mode", "reflect"],
        5,
        r"in.nii: .*reflect.*\(got .*9.*D=9",
    ),
    "pickled .npy": (pickled, [*IN, "-k", "k.npy"], 3, "k.npy holds Python objects, which volconv never loads"),
    "unknown config key": (
        lambda: (good(), Path("a.toml").write_text("strid = 2")),
        [*IN, "--config", "a.toml"],
        2,
        r"a.toml: key must be one of .*\(got 'strid'\); did you mean stride\?",
    ),
    "missing output folder": (good, [*IN, "-o", "none/o.nii"], 1, "none/o.nii: the output's folder does not exist"),
    "existing output": (
        lambda: (good(), good("o.nii")),
        [*IN, "-o", "o.nii"],
        4,
        r"o.nii: the output already exists; pass -f/--overwrite",
    ),
    "output that is only read": (good, [*IN, "-o", "o.mgz"], 2, r"\(got 'o.mgz'; .* is only read\)"),
    "series that is not there": (lambda: tiff(noise()), ["in.tif:3"], 3, "in.tif: has no series 3 "),
    "dataset that is not there": (lambda: hdf5(a=noise()), ["in.h5:/b"], 3, r"in.h5: holds no dataset /b .*/a"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_a_code(capsys, case):
    make, arguments, code, message = CASES[case]
    make()
    before = names(".")
    arguments = [*arguments, *([] if "-k" in arguments else ["-k", "identity"])]
    volconv("apply", *arguments, *([] if "-o" in arguments else ["-o", "out.h5"]), code=code)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("volconv: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert names(".") == before
    assert f"\n  {code}  " in exits.HELP


@pytest.mark.parametrize("output", ["locked/o.nii", "locked/o/"])
@pytest.mark.parametrize("dry", [[], ["-n"]])
def test_a_folder_that_cannot_be_written(capsys, monkeypatch, output, dry):
    good()
    Path("locked").mkdir()
    may = os.access  # asked in this way because to root nothing is denied
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("locked") and may(path, mode))
    volconv("apply", "in.nii", "-k", "identity", "-o", output, *dry, code=1)
    assert f"{output}: cannot be written: its folder takes no new files (got " in capsys.readouterr().err
    assert names("locked") == []


def test_the_message_of_a_folder_that_cannot_be_written(capsys, monkeypatch):
    """The same for root, to whom nothing is denied."""
    good()
    opened = Path.open

    def deny(path, mode="r", *more, **options):
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", deny)
    volconv("apply", "in.nii", "-k", "identity", "-o", "o.nii", code=1)
    assert capsys.readouterr().err == "volconv: error: o.nii: cannot be written: Permission denied\n"
    assert names(".") == ["in.nii"]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.h5", "v.tif"])
def test_the_input_may_be_the_output(name):
    volconv("convert", ANISO, name)
    before = read(name).astype(np.float64)
    volconv("apply", name, "-k", "box:size=1/1/3", "--padding", "same", "-o", name, "-f")
    after = read(name)
    windows = np.pad(before, [(0, 0)] * 4 + [(1, 1)])
    np.testing.assert_allclose(
        after, (windows[..., :-2] + windows[..., 1:-1] + windows[..., 2:]) / 3, rtol=1e-5, atol=1e-2
    )
    assert names(".") == [name]


def test_a_file_of_which_the_header_is_fine(capsys):
    """Nothing is written before the damage is found."""
    nibabel.Nifti1Image(np.zeros((40, 50, 60), np.float32), np.eye(4)).to_filename("in.nii.gz")
    content = Path("in.nii.gz").read_bytes()
    Path("in.nii.gz").write_bytes(content[:-20])
    good("o.nii")
    before = Path("o.nii").read_bytes()
    volconv("apply", "in.nii.gz", "-k", "identity", "-o", "o.nii", "-f", code=3)
    assert "in.nii.gz: is truncated" in capsys.readouterr().err
    assert Path("o.nii").read_bytes() == before
    assert names(".") == ["in.nii.gz", "o.nii"]
