"""Copies in other formats and dtypes: what is kept, what is changed, and what is said of it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, NUCLEI, ROOT, make_nifti, names, noise, read
from volconv import __version__, copying
from volconv.conversion import convert, converted
from volconv.copying import blocks
from volconv.difference import diff
from volconv.errors import (
    DtypeError,
    OutOfMemoryError,
    OutputExistsError,
    ParameterError,
    ReadError,
    WriteError,
)
from volconv.geometry import Geometry, grids_agree
from volconv.io import ArraySource, OpenVolume, Region, Scaling, VolumeInfo, open_stack, open_volume

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
SUFFIXES = (".nii", ".nii.gz", ".h5", ".tif", ".ome.tif")
SPACING = (2.5, 0.75, 0.5)
FUNC = ROOT / "tests" / "data" / "func_discrete.nii.gz"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, array, spacing=SPACING):
    """A (D, H, W) array in micrometres, by the format's own library."""
    if ".nii" in path:
        return make_nifti(path, array, np.diag([*spacing[::-1], 1]), unit="micron")
    if path.endswith(".h5"):
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=array).attrs["element_size_um"] = spacing
    elif path.endswith(".ome.tif"):
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", spacing)}
        tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX", **sizes})
    else:
        resolution = (1 / spacing[2], 1 / spacing[1])
        metadata = {"axes": "ZYX", "spacing": spacing[0], "unit": "um"}
        tifffile.imwrite(path, array, imagej=True, resolution=resolution, metadata=metadata)
    return path


def scaled(path, array, slope=0.1, intercept=-3.0):
    image = nibabel.Nifti1Image(array.transpose(), np.diag([1, 2, 3, 1]), dtype=array.dtype)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def spacing_of(path):
    """In micrometres, along D, H, W, by the format's own library."""
    if ".nii" in path:
        header = nibabel.load(path).header
        assert header.get_xyzt_units()[0] == "micron"
        return header.get_zooms()[2::-1]
    if path.endswith(".h5"):
        with h5py.File(path) as file:
            return tuple(file["data"].attrs["element_size_um"])
    with tifffile.TiffFile(path) as file:
        if file.is_ome:
            known = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            return tuple(known[f"PhysicalSize{axis}"] for axis in "ZYX")
        x, y = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        return file.imagej_metadata["spacing"], y[1] / y[0], x[1] / x[0]


# --- formats


@pytest.mark.parametrize(("old", "new"), list(itertools.product(SUFFIXES, SUFFIXES)))
def test_any_format_to_any(old, new):
    array = noise((5, 6, 7), "uint16")
    report = convert(write(f"old{old}", array), f"new{new}")
    got = read(f"new{new}")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got.reshape(array.shape), array)
    np.testing.assert_allclose(spacing_of(f"new{new}"), SPACING, rtol=1e-6)
    assert (report.sources, report.destination) == ((f"old{old}",), f"new{new}")
    assert (report.input_dtype, report.output_dtype, report.shape) == ("uint16", "uint16", (1, 1, 5, 6, 7))
    np.testing.assert_allclose(report.spacing, SPACING, rtol=1e-6)
    assert report.unit == "um"
    assert (report.saturated, report.not_a_number, report.notes) == (0, 0, ())
    assert report.seconds > 0


@pytest.mark.parametrize("path", [ANISO, FUNC, ROOT / "tests" / "data" / "small_64D.nii"], ids=lambda path: path.name)
@pytest.mark.parametrize("new", [".nii.gz", ".h5"])
def test_real_files_and_back(path, new):
    convert(path, f"there{new}")
    convert(f"there{new}", "back.nii")
    first, last = nibabel.load(path), nibabel.load("back.nii")
    np.testing.assert_array_equal(np.asarray(last.dataobj), np.asarray(first.dataobj))
    assert last.get_data_dtype() == first.get_data_dtype().newbyteorder("=")
    with open_volume(path) as before, open_volume("back.nii") as after:
        assert grids_agree(before.info.geometry, after.info.geometry, before.info.shape[2:])
        assert before.info.shape == after.info.shape
        assert before.info.time_step == after.info.time_step


def test_a_nifti_header_is_carried_on():
    convert(FUNC, "new.nii")
    first, last = nibabel.load(FUNC).header, nibabel.load("new.nii").header
    for name in ("dim", "pixdim", "sform_code", "qform_code", "xyzt_units", "intent_code", "toffset"):
        np.testing.assert_array_equal(first[name], last[name])


def test_options_of_the_output():
    array = noise((64, 70, 7), "uint16")
    write("a.tif", array)
    convert("a.tif", "b.h5", options={"compression": "gzip"})
    with h5py.File("b.h5") as file:
        assert file["data"].compression == "gzip"
        np.testing.assert_array_equal(file["data"][()].reshape(array.shape), array)
    with pytest.raises(ParameterError, match=r"creation option must be one of .* \(got 'compresion'\); did you mean"):
        convert("a.tif", "c.h5", options={"compresion": "gzip"})
    assert names(".") == ["a.tif", "b.h5"]


def test_several_files_and_parts_of_them():
    first, second = noise((3, 4, 5), "int16"), noise((3, 4, 5), "int16", seed=1)
    make_nifti("a.nii", first)
    make_nifti("b.nii", second)
    with open_stack(["a.nii", "b.nii"]) as volume:
        report = convert(volume, "both.h5")
        assert report.sources == ("a.nii", "b.nii")
        np.testing.assert_array_equal(read("both.h5").reshape(2, 3, 4, 5), [first, second])
        np.testing.assert_array_equal(volume.numpy()[0, 1], second)  # it was left open
    with open_volume("both.h5", channel=1) as volume:
        convert(volume, "one.nii")
    np.testing.assert_array_equal(read("one.nii")[0, 0], second)


def test_an_array():
    array = np.arange(24.0).reshape(1, 1, 2, 3, 4)
    report = convert(ArraySource(array, Geometry.from_spacing((1, 1, 1))), "a.nii")
    np.testing.assert_array_equal(read("a.nii"), array)
    assert report.sources == ()
    assert str(nibabel.load("a.nii").header["descrip"].astype(str)).startswith(
        f"volconv {__version__}: converted from an array"
    )


# --- scaling


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "int32", "complex64"])
@pytest.mark.parametrize("new", [".nii", ".nii.gz"])
def test_stored_values_and_scaling_are_kept(dtype, new):
    array = noise((5, 6, 7), dtype)
    report = convert(scaled("a.nii", array), f"b{new}")
    first, last = nibabel.load("a.nii"), nibabel.load(f"b{new}")
    assert last.dataobj.slope == first.dataobj.slope == np.float32(0.1)
    assert last.dataobj.inter == first.dataobj.inter == -3
    np.testing.assert_array_equal(last.dataobj.get_unscaled(), first.dataobj.get_unscaled())
    assert last.get_data_dtype() == array.dtype
    assert report.notes == ()


@pytest.mark.parametrize(
    ("dtype", "real"),
    [
        ("uint8", "float32"),
        ("int16", "float32"),
        ("uint16", "float32"),
        ("float32", "float32"),
        ("int32", "float64"),
        ("uint64", "float64"),
        ("float64", "float64"),
        ("complex64", "complex64"),
        ("complex128", "complex128"),
    ],
)
@pytest.mark.parametrize("new", [".h5", ".tif"])
def test_real_values_where_a_format_has_no_scaling(dtype, real, new):
    array = noise((5, 6, 7), dtype)
    slope = float(np.float32(0.1))
    report = convert(scaled("a.nii", array), f"b{new}")
    got = read(f"b{new}").reshape(array.shape)
    assert got.dtype == real
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    np.testing.assert_array_equal(got, (array.astype(wide) * slope - 3).astype(real))
    assert report.output_dtype == real
    title = "HDF5" if new == ".h5" else "OME-TIFF" if ".ome" in new else "TIFF"
    said = f"{title} holds no slope and intercept, real values written as {real}"
    assert report.notes[0] == f"b{new}: {said}"
    if new == ".h5":
        with h5py.File("b.h5") as file:
            assert any(said in str(value) for value in file["data"].attrs.values())


def test_a_slope_that_would_be_rounded_is_applied():
    array = np.arange(24, dtype=np.int16).reshape(1, 1, 2, 3, 4)

    class Scaled(ArraySource):
        info: VolumeInfo

    source = Scaled(array, Geometry.from_spacing((1, 1, 1)))
    source.info = VolumeInfo(array.shape, array.dtype, source.info.geometry, Scaling(0.1, 0.0))
    report = convert(source, "a.nii")
    got = read("a.nii")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, (array * 0.1).astype(np.float32))
    assert nibabel.load("a.nii").dataobj.slope == 1
    assert report.notes == ("a.nii: NIfTI holds this slope and intercept only rounded, real values written as float32",)
    source.info = VolumeInfo(array.shape, array.dtype, source.info.geometry, Scaling(0.5, 0.0))
    assert convert(source, "b.nii").notes == ()
    assert nibabel.load("b.nii").dataobj.slope == 0.5


def test_a_dtype_applies_to_real_values_and_ends_scaling():
    array = noise((5, 6, 7), "int16")
    scaled("a.nii", array, slope=2.5, intercept=0.25)
    report = convert("a.nii", "b.nii", dtype="int16")
    image = nibabel.load("b.nii")
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(read("b.nii")[0, 0], np.rint(array * 2.5 + 0.25).astype(np.int16))
    assert (report.input_dtype, report.output_dtype, report.saturated) == ("int16", "int16", 0)
    report = convert("a.nii", "c.nii", dtype="uint8")
    real = np.rint(array * 2.5 + 0.25)
    assert report.saturated == np.count_nonzero(real > 255) > 0
    np.testing.assert_array_equal(read("c.nii")[0, 0], np.clip(real, 0, 255))


# --- dtypes


@pytest.mark.parametrize(("old", "new"), list(itertools.product(INTEGERS, INTEGERS)))
def test_integers_become_integers_exactly(old, new):
    limit, target = np.iinfo(old), np.iinfo(new)
    around = [m + d for m in (0, 2**31, 2**53, -(2**53), limit.min, limit.max) for d in (-1, 0, 1)]
    values = [v for v in around if limit.min <= v <= limit.max]
    stored = np.array(values, old)
    got, counts = converted(stored, None, np.dtype(new))
    assert got.dtype == new
    assert got.tolist() == [min(max(v, target.min), target.max) for v in values]
    assert counts.saturated == sum(not target.min <= v <= target.max for v in values)
    assert counts.not_a_number == 0
    assert stored.tolist() == values


@pytest.mark.parametrize("old", ["float16", "float32", "float64"])
def test_floats_become_integers_rounded_and_saturated(old):
    stored = np.array([0.5, 1.5, 2.5, -0.5, 200.75, 255.5, 300, -1, np.inf, -np.inf, np.nan], old)
    before = stored.copy()
    got, counts = converted(stored, None, np.dtype(np.uint8))
    assert got.tolist() == [0, 2, 2, 0, 201, 255, 255, 0, 255, 0, 0]
    assert (counts.saturated, counts.not_a_number) == (5, 1)
    np.testing.assert_array_equal(stored, before)
    got, counts = converted(np.array([2.0**63, -(2.0**63), 2.0**62]), None, np.dtype(np.int64))
    assert got.tolist() == [2**63 - 1, -(2**63), 2**62]
    assert counts.saturated == 1


@pytest.mark.parametrize(
    ("stored", "dtype", "expected", "saturated"),
    [
        (np.array([1e300, -1e300, np.inf, np.nan, 0.1]), "float32", [np.inf, -np.inf, np.inf, np.nan, 0.1], 2),
        (np.array([70000, 7], np.uint32), "float16", [np.inf, 7], 1),
        (np.array([70000, 7], np.float32), "float16", [np.inf, 7], 1),
        (np.array([1e300 + 1j, 1 + 2j]), "complex64", [complex(np.inf, 1), 1 + 2j], 1),
        (np.array([3, 4], np.int64), "complex64", [3, 4], 0),
        (np.array([2**53 + 1]), "float64", [2**53], 0),
    ],
)
def test_to_narrower_floats(stored, dtype, expected, saturated):
    got, counts = converted(stored, None, np.dtype(dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.array(expected, dtype))
    assert (counts.saturated, counts.not_a_number) == (saturated, 0)


def test_what_need_not_change_is_not_copied():
    stored = np.arange(5)
    assert converted(stored, None, np.dtype(np.int64))[0] is stored


def test_scaling_is_applied_in_double_precision():
    stored, scaling = np.array([3, 5], np.int16), Scaling(0.1, 0.2)
    np.testing.assert_array_equal(converted(stored, scaling, np.dtype(np.float64))[0], stored * 0.1 + 0.2)
    # 0.5 exactly in double precision, which rounds to even; more than that in single
    assert converted(np.array([5], np.int16), Scaling(0.1, 0), np.dtype(np.uint8))[0].tolist() == [0]
    got, _ = converted(np.array([1 + 1j], np.complex64), Scaling(2, 3), np.dtype(np.complex64))
    assert got.tolist() == [5 + 2j]


def test_dtypes_in_files():
    array = np.array([[[-5, 2**53 + 1, 2**63 - 1]]])
    with h5py.File("a.h5", "w") as file:
        file["x"] = array
    report = convert("a.h5", "b.h5", dtype="uint64")
    assert read("b.h5").ravel().tolist() == [0, 2**53 + 1, 2**63 - 1]
    assert (report.input_dtype, report.output_dtype, report.saturated) == ("int64", "uint64", 1)
    make_nifti("a.nii", np.array([[[1.5, np.nan, 1e9]]], np.float32))
    report = convert("a.nii", "b.nii", dtype="int16")
    assert read("b.nii").ravel().tolist() == [2, 0, 32767]
    assert (report.saturated, report.not_a_number) == (1, 1)


def test_a_dtype_that_a_format_lacks_is_widened():
    array = noise((5, 6, 7), "float16")
    write("a.h5", array)
    report = convert("a.h5", "b.nii")
    assert read("b.nii").dtype == np.float32
    np.testing.assert_array_equal(read("b.nii")[0, 0], array)
    assert report.notes == ("b.nii: NIfTI holds no float16, written as float32",)
    assert (report.input_dtype, report.output_dtype) == ("float16", "float32")
    with pytest.raises(WriteError, match=r"c\.nii: NIfTI cannot hold dtype float16 \(it holds .*\)"):
        convert("a.h5", "c.nii", dtype="float16")
    assert names(".") == ["a.h5", "b.nii"]


@pytest.mark.parametrize(
    ("dtype", "error", "message"),
    [
        ("float32", DtypeError, r"a\.nii: dtype must be complex, as its voxels are \(got float32\)"),
        ("bool", DtypeError, r"a\.nii: dtype must be complex, as its voxels are \(got bool\)"),
        ("int17", ParameterError, r"dtype must be a NumPy dtype such as uint8, int16 or float32 \(got 'int17'\)"),
        ("same", ParameterError, r"dtype must be a NumPy dtype .* \(got 'same'\)"),
        ("str", ParameterError, r"dtype must be a NumPy dtype .* \(got 'str'\)"),
    ],
)
def test_dtypes_that_voxels_cannot_become(dtype, error, message):
    make_nifti("a.nii", noise((2, 3, 4), "complex64"))
    with pytest.raises(error, match=message):
        convert("a.nii", "b.h5", dtype=dtype)
    assert names(".") == ["a.nii"]


def test_booleans_are_no_output():
    make_nifti("a.nii", noise((2, 3, 4), "uint8"))
    with pytest.raises(DtypeError, match=r"a\.nii: dtype must be an integer, float or complex one \(got bool\)"):
        convert("a.nii", "b.h5", dtype="bool")


def test_the_byte_order_of_a_dtype_does_not_matter():
    make_nifti("a.nii", noise((2, 3, 4), "uint8"))
    assert convert("a.nii", "b.h5", dtype=">i2").output_dtype == "int16"


# --- files


def test_where_a_file_comes_from_is_kept():
    write("a.h5", noise((2, 3, 4), "uint8"))
    convert("a.h5:/data", "b.nii")
    descrip = nibabel.load("b.nii").header["descrip"].item().decode()
    assert descrip == f"volconv {__version__}: converted from a.h5:/data"
    convert(ANISO, "c.h5")
    with h5py.File("c.h5") as file:
        told = [str(value) for value in file["data"].attrs.values()]
    assert any(f"volconv {__version__}: converted from aniso_vox.nii.gz" in text for text in told)


def test_what_was_noted_is_reported():
    report = convert(NUCLEI, "a.nii")
    with open_volume(NUCLEI) as volume:
        assert volume.info.notes != ()
        assert report.notes[: len(volume.info.notes)] == volume.info.notes
    assert (report.spacing, report.unit) == (None, None)
    convert(ANISO, "b.h5")
    report = convert("b.h5", "c.tif")
    assert any("c.tif: TIFF holds no orientation" in note for note in report.notes)


def test_an_output_is_not_replaced_unless_asked_for():
    array = noise((5, 6, 7), "int16")
    make_nifti("a.nii", array)
    before = (ROOT / "tests" / "data" / "small_64D.nii").read_bytes()
    with pytest.raises(OutputExistsError, match=r"a\.nii: the output already exists"):
        convert(ANISO, "a.nii")
    np.testing.assert_array_equal(read("a.nii")[0, 0], array)
    convert("a.nii", "a.nii", dtype="float32", overwrite=True)
    assert read("a.nii").dtype == np.float32
    np.testing.assert_array_equal(read("a.nii")[0, 0], array)
    assert names(".") == ["a.nii"]
    assert (ROOT / "tests" / "data" / "small_64D.nii").read_bytes() == before


class Failing(OpenVolume):
    """Reads a first block, and then no more."""

    def __init__(self, error):
        self.info = VolumeInfo((4, 1, 5, 6, 7), np.dtype(np.int16), Geometry.from_spacing((1, 1, 1)))
        self.names = ("failing.nii",)
        self.left = 1
        self.error = error

    def read(self, region):
        if not self.left:
            raise self.error
        self.left -= 1
        return np.zeros(region.shape, np.int16)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (ReadError("failing.nii: is truncated"), ReadError, "failing.nii: is truncated"),
        (MemoryError(), OutOfMemoryError, "failing.nii: needs more memory than there is"),
        (OutOfMemoryError("a page does not fit"), OutOfMemoryError, "^failing.nii: a page does not fit$"),
    ],
)
@pytest.mark.parametrize("new", SUFFIXES)
def test_a_copy_that_fails_leaves_nothing(monkeypatch, error, expected, message, new):
    cut_small(monkeypatch)
    with pytest.raises(expected, match=message):
        convert(Failing(error), f"b{new}")
    assert names(".") == []


def test_files_that_cannot_be_read_or_written():
    with pytest.raises(ReadError, match=r"gone\.nii: no such file"):
        convert("gone.nii", "b.nii")
    make_nifti("a.nii", noise())
    with pytest.raises(ParameterError, match=r"output must have a suffix that names a format: .* \(got 'b\.txt'\)"):
        convert("a.nii", "b.txt")
    with pytest.raises(WriteError, match="the output's folder does not exist"):
        convert("a.nii", "gone/b.nii")
    assert names(".") == ["a.nii"]


# --- blocks


def cut_small(monkeypatch):
    def small(shape, chunks, voxel_bytes, _, *order):
        return blocks(shape, chunks, voxel_bytes, voxel_bytes * 50, *order)

    monkeypatch.setattr(copying, "blocks", small)


@pytest.mark.parametrize("new", SUFFIXES)
def test_many_blocks_and_progress(monkeypatch, new):
    cut_small(monkeypatch)
    array = np.random.default_rng(0).integers(0, 1000, (2, 3, 5, 6, 7)).astype(np.int16)
    calls = []
    convert(
        ArraySource(array, Geometry.from_spacing((1, 1, 1))),
        f"b{new}",
        dtype="uint8",
        progress=lambda *done: calls.append(done),
    )
    with open_volume(f"b{new}") as volume:
        np.testing.assert_array_equal(volume.numpy(), np.clip(array, 0, 255))
    assert len(calls) > 2
    assert calls == sorted(calls)
    assert calls[-1] == (array.size, array.size)


def test_memory_is_bounded():
    largest = 0

    class Large(OpenVolume):
        info = VolumeInfo((1, 2, 40, 1000, 1000), np.dtype(np.uint8), Geometry.from_spacing((1, 1, 1)))

        def read(self, region):
            nonlocal largest
            largest = max(largest, math.prod(region.shape))
            return np.broadcast_to(np.uint8(7), region.shape)

    convert(Large(), "a.nii", dtype="int8")
    assert 2**20 < largest * 18 <= copying.BLOCK_BYTES
    assert (read("a.nii") == 7).all()


def test_blocks_cover_a_volume_once_and_keep_to_the_budget():
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(rng.integers(1, [4, 5, 12, 12, 12]).tolist())
        chunks = [
            None if rng.random() < 0.3 else tuple(int(rng.integers(1, size + 3)) for size in shape) for _ in range(2)
        ]
        voxel_bytes, budget = int(rng.integers(1, 9)), int(rng.integers(1, 4000))
        found = blocks(shape, chunks, voxel_bytes, budget)
        count = np.zeros(shape, int)
        first = [min(c, s) for c, s in zip(chunks[0] or (1,) * 5, shape)]
        for block in found:
            count[block.slices] += 1
            size = math.prod(block.shape)
            assert size * voxel_bytes <= budget or size <= math.prod(first)
            for start, stop, step, whole in zip(block.start, block.stop, first, shape):
                assert start % step == 0
                assert stop % step == 0 or stop == whole
        assert (count == 1).all()


def test_blocks_are_as_large_as_they_may_be():
    shape = (2, 3, 8, 10, 10)
    assert blocks(shape, [None], 1, 10**6) == [Region.whole(shape)]
    assert [block.shape for block in blocks(shape, [None], 1, 2400)] == [(1, 3, 8, 10, 10)] * 2
    assert {block.shape for block in blocks(shape, [None], 1, 1200)} == {(1, 3, 4, 10, 10)}
    assert {block.shape for block in blocks(shape, [None], 1, 299)} == {(1, 2, 1, 10, 10), (1, 1, 1, 10, 10)}
    assert {block.shape for block in blocks(shape, [None], 1, 50)} == {(1, 1, 1, 5, 10)}
    assert {block.shape for block in blocks(shape, [None], 1, 3)} == {(1, 1, 1, 1, 3), (1, 1, 1, 1, 1)}
    # chunks of both files where they fit together, otherwise those of the first
    assert {block.shape for block in blocks(shape, [(1, 1, 2, 5, 5), (1, 1, 3, 5, 10)], 1, 2000)} == {
        (1, 3, 6, 10, 10),
        (1, 3, 2, 10, 10),
    }
    assert {block.shape for block in blocks(shape, [(1, 1, 2, 5, 5), (1, 1, 8, 10, 10)], 1, 600)} == {(1, 3, 2, 10, 10)}


# --- memory


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("first", ["a.nii.gz", "a.h5"])
@pytest.mark.parametrize("second", ["b.nii.gz", "b.h5", "b.tif"])
def test_streams_are_copied_in_their_order_without_temporary_files(monkeypatch, channels, first, second):
    array = np.random.default_rng(0).integers(0, 1000, (2, channels, 9, 10, 11)).astype(np.int16)
    convert(ArraySource(array, Geometry.from_spacing((1, 1, 1))), first)
    options = {"compression": "zlib"} if second == "b.tif" else None
    with monkeypatch.context() as patch:
        cut_small(patch)
        patch.setattr("tempfile.TemporaryFile", None)
        if (channels, first, second) == (2, "a.nii.gz", "b.tif"):  # apart in the one, together in the other
            with pytest.raises(TypeError):
                convert(first, second, options=options)
            return
        convert(first, second, options=options)
    assert diff(first, second).largest == 0


def test_two_gzipped_files_are_compared_without_temporary_files(monkeypatch):
    array = np.random.default_rng(0).integers(0, 1000, (2, 2, 9, 10, 11)).astype(np.int16)
    for name in ("a.nii.gz", "b.nii.gz"):
        convert(ArraySource(array, Geometry.from_spacing((1, 1, 1))), name)
    cut_small(monkeypatch)
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    assert diff("a.nii.gz", "b.nii.gz").same


def test_damage_at_the_end_of_what_is_read_in_turn_is_told():
    convert(ArraySource(np.ones((1, 1, 9, 10, 11)), Geometry.from_spacing((1, 1, 1))), "a.nii.gz")
    content = bytearray(Path("a.nii.gz").read_bytes())
    content[-6] ^= 255
    Path("a.nii.gz").write_bytes(content)
    for call in (lambda: convert("a.nii.gz", "b.nii"), lambda: diff("a.nii.gz", "a.nii.gz")):
        with pytest.raises(ReadError, match=r"a\.nii\.gz: its gzip stream is damaged: CRC check failed"):
            call()
    assert not Path("b.nii").exists()


@pytest.mark.slow
def test_pieces_that_are_too_large_for_a_bound_are_refused():
    array = np.zeros((1, 1, 50, 300, 300), np.float32)
    convert(ArraySource(array), "a.h5", options={"chunks": "50,300,300", "compression": "lzf"})
    with pytest.raises(
        OutOfMemoryError, match=r"a\.h5: memory must be at least \d+M for the pieces .* \(got 150M\)"
    ) as caught:
        convert("a.h5", "b.nii", memory="150M")
    least = caught.value.hint.split()[2]
    assert not Path("b.nii").exists()
    convert("a.h5", "b.nii", memory=least)
