"""What a file says of itself, and the table of formats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, NUCLEI, ROOT, make_nifti, noise
from volconv.describe import (
    FIELDS,
    Description,
    describe,
    dtypes_in_words,
    formats,
    formats_markdown,
    keeps_in_words,
)
from volconv.errors import ParameterError, ReadError, ShapeError
from volconv.geometry import Geometry
from volconv.io import FORMATS, Entry, Region, create_volume, list_contents, open_volume
from volconv.io.orientation import orientation

REAL = sorted((ROOT / "tests" / "data").glob("*.nii*"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_scaled_series(path="series.nii", kind=nibabel.Nifti1Image, endianness="<"):
    """X, Y, Z, T = 7, 6, 5, 4 of int16, 3 x 2 x 1 mm, 2.5 s, and a slope."""
    array = noise((4, 5, 6, 7), "int16")
    affine = np.array([[-1, 0, 0, 10], [0, 0, 3, -20], [0, 2, 0, 30], [0, 0, 0, 1.0]])
    image = kind(array.transpose(), affine, kind.header_class(endianness=endianness), dtype=array.dtype)
    image.header.set_slope_inter(0.5, -3)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((1, 2, 3, 2.5))
    image.to_filename(path)
    return path


def test_every_fact_of_a_nifti_file():
    make_scaled_series()
    assert describe("series.nii") == Description(
        file="series.nii",
        format="nifti",
        format_version="NIfTI-1, little-endian",
        axes="XYZT",
        file_shape=(7, 6, 5, 4),
        shape=(4, 1, 5, 6, 7),
        dtype="int16",
        slope=0.5,
        intercept=-3.0,
        spacing=(3.0, 2.0, 1.0),
        origin=(30.0, -20.0, 10.0),
        unit="mm",
        affine=((-1.0, 0.0, 0.0, 10.0), (0.0, 0.0, 3.0, -20.0), (0.0, 2.0, 0.0, 30.0), (0.0, 0.0, 0.0, 1.0)),
        orientation="LSA",
        time_step=2.5,
        chunks=None,
        compression=None,
        file_bytes=352 + 4 * 5 * 6 * 7 * 2,
        data_bytes=4 * 5 * 6 * 7 * 2,
        provenance=None,
        notes=(),
        contents=(Entry("series.nii", (7, 6, 5, 4), "int16", "XYZT"),),
    )


@pytest.mark.parametrize(
    ("kind", "endianness", "version"),
    [
        (nibabel.Nifti1Image, ">", "NIfTI-1, big-endian"),
        (nibabel.Nifti2Image, "<", "NIfTI-2, little-endian"),
        (nibabel.Nifti2Image, ">", "NIfTI-2, big-endian"),
    ],
)
def test_versions_of_nifti(kind, endianness, version):
    make_scaled_series("a.nii.gz", kind, endianness)
    found = describe("a.nii.gz")
    assert found.format_version == version
    assert (found.dtype, found.spacing, found.slope) == ("int16", (3, 2, 1), 0.5)
    assert found.compression == "gzip"
    assert found.file_bytes == Path("a.nii.gz").stat().st_size


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_files_as_nibabel_sees_them(path):
    found, image = describe(path), nibabel.load(path)
    x, y, z, *t = image.shape
    assert found.shape == (t[0] if t else 1, 1, z, y, x)
    assert found.file_shape == image.shape
    assert found.dtype == image.get_data_dtype().newbyteorder("=").name
    assert found.orientation == "".join(nibabel.aff2axcodes(image.affine))
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.unit == "mm"
    assert found.file_bytes == path.stat().st_size


def test_orientation_of_a_flat_affine():
    flat = Geometry(((1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1)), "mm")
    assert orientation(flat) == "RP?"


def test_tiff():
    resolution = (1 / 0.25, 1 / 0.5)
    metadata = {"axes": "TZCYX", "spacing": 2, "unit": "um", "finterval": 3}
    array = noise((4, 5, 2, 6, 7), "uint16")
    tifffile.imwrite("a.tif", array, imagej=True, resolution=resolution, metadata=metadata)
    found = describe("a.tif")
    assert (found.format, found.axes, found.file_shape, found.shape) == (
        "tiff",
        "TZCYX",
        (4, 5, 2, 6, 7),
        (4, 2, 5, 6, 7),
    )
    np.testing.assert_allclose(found.spacing, (2, 0.5, 0.25))
    assert (found.unit, found.time_step, found.slope, found.intercept) == ("um", 3, 1, 0)
    assert found.orientation is found.format_version is None
    assert found.contents == tuple(list_contents("a.tif"))


def test_a_file_that_states_no_spacing():
    found = describe(NUCLEI)
    assert found.spacing is found.unit is found.origin is found.affine is found.orientation is None
    assert found.shape == (1, 1, 31, 61, 57)
    assert len(found.notes) == 1


def test_series_of_a_tiff():
    with tifffile.TiffWriter("a.ome.tif", ome=True) as file:
        file.write(noise((3, 4, 5), "uint8"), photometric="minisblack", metadata={"axes": "ZYX"})
        file.write(noise((6, 7, 8), "uint16"), photometric="minisblack", metadata={"axes": "ZYX"})
    first, second = describe("a.ome.tif"), describe("a.ome.tif:1")
    assert (first.shape, second.shape) == ((1, 1, 3, 4, 5), (1, 1, 6, 7, 8))
    assert first.contents == second.contents
    assert [(entry.name, entry.shape) for entry in first.contents] == [
        ("a.ome.tif:0", (3, 4, 5)),
        ("a.ome.tif:1", (6, 7, 8)),
    ]
    assert second.file_bytes == Path("a.ome.tif").stat().st_size


def test_a_dataset():
    with h5py.File("a.h5", "w") as file:
        data = file.create_dataset("group/raw", data=noise((8, 9, 10), "uint16"), chunks=(4, 3, 5), compression="gzip")
        data.attrs["element_size_um"] = (2, 0.5, 0.25)
    found = describe("a.h5")
    assert (found.format, found.axes, found.file_shape, found.shape) == ("hdf5", "ZYX", (8, 9, 10), (1, 1, 8, 9, 10))
    assert (found.spacing, found.unit, found.origin) == ((2, 0.5, 0.25), "um", (0, 0, 0))
    assert (found.chunks, found.orientation) == ((1, 1, 4, 3, 5), "RAS")
    assert "gzip" in found.compression
    assert (found.data_bytes, found.file_bytes) == (8 * 9 * 10 * 2, Path("a.h5").stat().st_size)
    assert [(entry.name, entry.shape, entry.dtype) for entry in found.contents] == [
        ("a.h5:/group/raw", (8, 9, 10), "uint16")
    ]


def test_several_datasets_are_listed():
    with h5py.File("a.h5", "w") as file:
        file["raw"] = noise((8, 9, 10), "uint16")
        file["label"] = noise((8, 9, 10), "uint8")
        file["time"] = np.arange(5.0)
    found = describe("a.h5")
    assert [(entry.name, entry.shape, entry.dtype) for entry in found.contents] == [
        ("a.h5:/label", (8, 9, 10), "uint8"),
        ("a.h5:/raw", (8, 9, 10), "uint16"),
        ("a.h5:/time", (5,), "float64"),
    ]
    assert (found.file, found.format, found.file_bytes) == ("a.h5", "hdf5", Path("a.h5").stat().st_size)
    known = {"file", "format", "file_bytes", "notes", "contents"}
    assert all((getattr(found, field.name) is None) == (field.name not in known) for field in dataclasses.fields(found))
    assert len(found.notes) == 1
    assert "name one, as in a.h5:/label" in found.notes[0]
    named = describe("a.h5:/raw")
    assert (named.file, named.dtype, named.shape) == ("a.h5:/raw", "uint16", (1, 1, 8, 9, 10))
    assert named.contents == found.contents
    assert named.file_bytes == found.file_bytes


@pytest.mark.parametrize("name", ["text", None])
def test_datasets_that_are_no_volume_are_listed(name):
    with h5py.File("a.h5", "w") as file:
        if name is not None:
            file[name] = ["some", "words"]
    found = describe("a.h5")
    assert [entry.name for entry in found.contents] == ([] if name is None else ["a.h5:/text"])
    assert found.shape is None
    assert len(found.notes) == 1
    assert found.notes[0].startswith("a.h5: ")


def test_files_that_cannot_be_read():
    Path("bad.h5").write_bytes(b"no HDF5")
    Path("bad.nii").write_bytes(b"no NIfTI")
    with h5py.File("a.h5", "w") as file:
        file["raw"] = noise((8, 9, 10), "uint16")
    for name, message in [
        ("gone.h5", "gone.h5: no such file"),
        ("bad.h5", "bad.h5: is no HDF5 file"),
        ("bad.nii", "bad.nii: "),
        ("a.h5:/gone", "a.h5: holds no dataset /gone"),
        ("a.txt", "a.txt: no such file"),
    ]:
        with pytest.raises(ReadError, match=message):
            describe(name)


def test_what_is_read_can_be_chosen():
    make_scaled_series()
    found = describe("series.nii", time=slice(1, 3), spacing=((1, 2, 3), "um"))
    assert (found.shape, found.file_shape) == ((2, 1, 5, 6, 7), (7, 6, 5, 4))
    assert found.data_bytes == 2 * 5 * 6 * 7 * 2
    assert (found.spacing, found.unit) == ((1, 2, 3), "um")
    found = describe("series.nii", axes="XYZC", channel=3)
    assert (found.shape, found.axes) == ((1, 1, 5, 6, 7), "XYZC")
    with pytest.raises(ShapeError, match="time must be an index below 4"):
        describe("series.nii", time=4)
    with pytest.raises(ParameterError, match="axes must name each of the 4 axes"):
        describe("series.nii", axes="XYZ")


def test_colours():
    tifffile.imwrite("a.tif", noise((3, 4, 5, 3), "uint8"), photometric="rgb", metadata={"axes": "ZYXS"})
    with pytest.raises(ReadError, match="--rgb"):
        describe("a.tif")
    found = describe("a.tif", rgb=True)
    assert (found.shape, found.axes, found.file_shape) == ((1, 3, 3, 4, 5), "ZYXS", (3, 4, 5, 3))


def test_sizes_of_files_that_belong_together():
    Path("slices").mkdir()
    for i in range(3):
        tifffile.imwrite(f"slices/{i}.tif", noise((4, 5), "uint8"))
    Path("slices/readme.txt").write_text("no slice")
    Path("slices/._0.tif").write_text("what macOS leaves")
    size = sum(path.stat().st_size for path in Path("slices").glob("[0-9].tif"))
    assert describe("slices").file_bytes == describe("slices/").file_bytes == size
    assert describe("slices/[01].tif").file_bytes == size * 2 // 3
    assert describe("slices").shape == (1, 1, 3, 4, 5)
    image = nibabel.Nifti1Pair(noise((4, 5, 6), "int16"), np.eye(4), dtype="int16")
    image.to_filename("pair.hdr")
    size = sum(Path(name).stat().st_size for name in ("pair.hdr", "pair.img"))
    assert describe("pair.hdr").file_bytes == describe("pair.img").file_bytes == size
    assert describe("pair.hdr").format_version == "NIfTI-1, little-endian"


def test_freesurfer():
    affine = np.diag([-1, 2, 3, 1.0])
    nibabel.MGHImage(noise((4, 5, 6), "int16"), affine).to_filename("a.mgz")
    found = describe("a.mgz")
    assert (found.format, found.orientation, found.shape) == ("mgh", "LAS", (1, 1, 6, 5, 4))
    assert found.format_version is None


def test_as_json():
    with h5py.File("a.h5", "w") as file:
        file["raw"] = noise((8, 9, 10), "uint16")
        file["other"] = np.arange(3)
    for path in (make_scaled_series(), "a.h5", "a.h5:/raw", NUCLEI, ANISO):
        facts = json.loads(json.dumps(describe(path).as_dict(), allow_nan=False))
        assert tuple(facts) == FIELDS
        assert facts["schema_version"] == 1
        assert {frozenset(entry) for entry in facts["contents"]} == {frozenset({"name", "shape", "dtype", "axes"})}
    assert describe("series.nii").as_dict()["contents"][0]["axes"] == "XYZT"
    assert describe("a.h5").as_dict()["contents"][0]["axes"] is None


# --- formats


def test_formats_as_data():
    found = json.loads(json.dumps(formats()))
    assert [form["name"] for form in found] == [form.name for form in FORMATS]
    for facts, form in zip(found, FORMATS):
        assert {key: facts[key] for key in ("title", "writes", "axes", "geometry", "scaling", "time")} == {
            key: getattr(form, key) for key in ("title", "writes", "axes", "geometry", "scaling", "time")
        }
        assert facts["options"] == (form.options or {})
        assert facts["suffixes"] == list(form.suffixes)
        assert facts["dtypes"] == list(form.dtypes)
        assert "module" not in facts


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_dtypes_in_words_are_all_dtypes(form):
    names = []
    for word in dtypes_in_words(form).split(", "):
        if word.startswith("(u)int8-"):
            most = int(word.removeprefix("(u)int8-"))
            names += [f"{sign}int{bits}" for bits in (8, 16, 32, 64) if bits <= most for sign in ("u", "")]
        else:
            kind, *bits = word.replace("/", " ").split()
            stem = kind.rstrip("0123456789")
            names += [kind, *(stem + more for more in bits)]
    assert names == list(form.dtypes)


def test_the_table_in_markdown():
    head, rule, *rows = formats_markdown().splitlines()
    assert len(rows) == len(FORMATS)
    columns = head.count("|")
    assert rule == "|" + "---|" * (columns - 1)
    for row, form in zip(rows, FORMATS):
        assert row.count("|") == columns
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == form.title
        assert cells[1].split() == [f"`{suffix}`" for suffix in form.suffixes or ("folder/",)]
        assert cells[2] == ("read, write" if form.writes else "read")
        assert cells[3] == dtypes_in_words(form)
        assert cells[5] == keeps_in_words(form)
        assert cells[6] == ", ".join(form.options or {})


@pytest.mark.parametrize("form", [form for form in FORMATS if form.writes], ids=lambda form: form.name)
def test_the_table_is_true_of_what_is_written(form):
    """Each dtype, and geometry, time step and scaling where the table says so."""
    suffix = form.suffixes[0] if form.suffixes else "/"
    shape = (2 if form.time else 1, 1, 3, 4, 5)
    geometry = Geometry.from_matrix(np.array([[0, 0, 2, 1], [-3, 0, 0, 2], [0, 4, 0, 3], [0, 0, 0, 1.0]]), "um")
    for dtype in form.dtypes:
        name = f"{dtype}{suffix}"
        with create_volume(name, shape=shape, dtype=dtype, geometry=geometry) as sink:
            sink.write(Region.whole(shape), np.ones(shape, dtype))
        with open_volume(name) as volume:
            assert volume.info.dtype == dtype
            np.testing.assert_allclose(volume.info.geometry.spacing_in("um"), geometry.spacing)
            kept = np.allclose(volume.info.geometry.matrix, geometry.matrix)
            assert kept == (form.geometry == "affine")


def test_a_path_object():
    make_nifti("a.nii", noise())
    assert describe(Path("a.nii")).file == "a.nii"
