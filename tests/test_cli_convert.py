"""``volconv convert``: options, and what is said."""

from __future__ import annotations

import re
import sys

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, NUCLEI, make_nifti, names, noise, read, volconv
from volconv import __version__


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys):
    """What a call says on stderr; nothing goes to stdout."""

    def call(*arguments, code=0):
        volconv("convert", *arguments, code=code)
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return call


def test_a_copy_and_one_line(said):
    array = noise((5, 6, 7), "int16")
    make_nifti("a.nii", array, np.diag([1, 2, 3, 1]))
    assert re.fullmatch(r"a\.nii -> b\.h5: 1,1,5,6,7, 3x2x1 mm, int16, \d+\.\d\d s\n", said("a.nii", "b.h5"))
    np.testing.assert_array_equal(read("b.h5").reshape(array.shape), array)
    assert "a.nii -> c.h5: 1,1,5,6,7, 3x2x1 mm, int16 -> float64, " in said("a.nii", "c.h5", "--dtype", "float64")
    assert read("c.h5").dtype == np.float64
    assert said("a.nii", "d.h5", "-q") == ""
    assert names(".") == ["a.nii", "b.h5", "c.h5", "d.h5"]


def test_what_changed_is_said(said):
    make_nifti("a.nii", np.array([[[300, -1, np.nan, 7, np.inf]]], np.float32))
    lines = said("a.nii", "b.tif", "--dtype", "uint8").splitlines()
    assert lines[1:] == ["  3 voxels saturated in uint8", "  1 voxels not a number, stored as 0 in uint8"]
    lines = said(ANISO, "c.tif").splitlines()
    assert lines[0].endswith(" s")
    assert any(line.startswith("  note: c.tif: TIFF holds no orientation") for line in lines[1:])
    with h5py.File("half.h5", "w") as file:
        file["x"] = noise((3, 4, 5), "float16")
    assert "  note: d.nii: NIfTI holds no float16, written as float32\n" in said("half.h5", "d.nii")


def test_stack(said):
    arrays = [noise((3, 4, 5), "uint8", seed=seed) for seed in range(3)]
    for i, array in enumerate(arrays):
        make_nifti(f"{i}.nii", array)
    line = said("--stack", "0.nii", "1.nii", "2.nii", "out.nii")
    assert line.startswith("0.nii + 1.nii + 2.nii -> out.nii: 1,3,3,4,5, ")
    np.testing.assert_array_equal(read("out.nii")[0], arrays)
    assert f"volconv {__version__}: converted from 0.nii + 1.nii + 2.nii" in str(
        nibabel.load("out.nii").header["descrip"]
    )
    said("--stack", "1.nii", "one.nii")
    np.testing.assert_array_equal(read("one.nii")[0, 0], arrays[1])


def test_reading_options(said):
    series = noise((4, 3, 5, 6), "int16")
    make_nifti("a.nii", series)
    said("a.nii", "b.nii", "--time", "1:3", "--spacing", "1,2,3um")
    np.testing.assert_array_equal(read("b.nii")[:, 0], series[1:3])
    header = nibabel.load("b.nii").header
    np.testing.assert_allclose(header.get_zooms()[:3], (3, 2, 1))
    assert header.get_xyzt_units()[0] == "micron"
    said("a.nii", "c.nii", "--axes", "XYZC", "--channel", "2")
    np.testing.assert_array_equal(read("c.nii")[0, 0], series[2])
    tifffile.imwrite("rgb.tif", noise((3, 4, 5, 3), "uint8"), photometric="rgb", metadata={"axes": "ZYXS"})
    said("rgb.tif", "d.nii", "--rgb")
    assert read("d.nii").shape == (1, 3, 3, 4, 5)


def test_creation_options(said):
    said(NUCLEI, "a.h5", "--co", "compression=gzip", "--co", "chunks=8,16,16")
    with h5py.File("a.h5") as file:
        assert (file["data"].compression, file["data"].chunks[-3:]) == ("gzip", (8, 16, 16))
    said(NUCLEI, "a.tif", "--co", "compression=zlib")
    with tifffile.TiffFile("a.tif") as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        np.testing.assert_array_equal(file.asarray(), tifffile.imread(NUCLEI))


def test_in_place(said):
    array = noise((3, 4, 5), "uint8")
    make_nifti("a.nii", array)
    assert said("a.nii", "a.nii", code=4).count("\n") == 1
    said("a.nii", "a.nii", "-f", "--dtype", "int32")
    assert read("a.nii").dtype == np.int32
    np.testing.assert_array_equal(read("a.nii")[0, 0], array)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'IN... OUT'"),
        (["a.nii"], 2, r"give IN and OUT \(got only 'a\.nii'\)"),
        (["--stack", "a.nii"], 2, r"give IN and OUT \(got only 'a\.nii'\)"),
        (["a.nii", "a.nii", "b.nii"], 2, r"give one IN and one OUT, or --stack .* \(got 3 names\)"),
        (["gone.nii", "b.nii"], 3, "gone.nii: no such file"),
        (["--stack", "a.nii", "gone.nii", "b.nii"], 3, "gone.nii: no such file"),
        (["a.nii", "b.xyz"], 2, "output must have a suffix that names a format"),
        (["a.nii", "b.nii", "--dtype", "int17"], 2, r"dtype must be a NumPy dtype .* \(got 'int17'\)"),
        (["a.nii", "b.nii", "--dtype", "float16"], 1, "NIfTI cannot hold dtype float16"),
        (["a.nii", "b.nii", "--dtype", "bool"], 5, "a.nii: dtype must be an integer, float or complex one"),
        (["a.nii", "b.h5", "--co", "compresion=gzip"], 2, r"\(got 'compresion'\); did you mean compression\?"),
        (["a.nii", "b.h5", "--co", "gzip"], 2, r"must be NAME=VALUE"),
        (["a.nii", "gone/b.h5"], 1, "the output's folder does not exist"),
        (["a.nii", "b.h5", "--time", "7"], 5, "time must be an index below 1"),
    ],
)
def test_errors(said, arguments, code, message):
    make_nifti("a.nii", noise())
    err = said(*arguments, code=code)
    assert re.search(message, err), err
    assert err.startswith("volconv: error: ")
    assert err.count("\n") == 1
    assert names(".") == ["a.nii"]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    make_nifti("a.nii", noise())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    volconv("convert", "a.nii", "b.nii")
    err = capsys.readouterr().err
    assert "a.nii" in err.split("\n")[0]
    assert "100%" in err
    volconv("convert", "a.nii", "c.nii", "-q")
    assert capsys.readouterr().err == ""
