"""Folders and patterns of TIFF slices, against tifffile."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volconv.errors import ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io import Entry, Region, list_contents, open_volume


def noise(shape, dtype="uint16"):
    return (np.random.default_rng(0).normal(size=shape) * 20 + 100).astype(dtype)


def write(folder, array, **options):
    """One file for each item of the first axis."""
    folder.mkdir()
    for number, page in enumerate(array):
        tifffile.imwrite(folder / f"slice{number}.tif", page, **{"photometric": "minisblack", **options})
    return folder


@pytest.fixture
def slices(tmp_path):
    folder, array = tmp_path / "slices", noise((12, 5, 6))
    write(folder, array)
    tifffile.imwrite(folder / "slice1.tif", array[1], compression="zlib")
    (folder / "notes.txt").write_text("not a slice")
    (folder / ".hidden.tif").write_text("not one either")
    return folder, array


@pytest.mark.parametrize("pattern", ["", "/*.tif", "/slice*", "/slice[0-9]*.tif", "/slice?*.tif"])
def test_folders_and_patterns_in_natural_order(slices, pattern):
    folder, array = slices
    with open_volume(f"{folder}{pattern}") as source:
        assert source.info.shape == (1, 1, 12, 5, 6)
        np.testing.assert_array_equal(source.numpy()[0, 0], array)
        region = Region((0, 0, 9, 1, 2), (1, 1, 11, 4, 6))
        np.testing.assert_array_equal(source.read(region), source.numpy()[region.slices])


def test_what_is_known_of_slices(slices):
    folder, _ = slices
    with open_volume(folder) as source:
        info = source.info
        assert (info.format, info.axes, info.dtype) == ("slices", "ZYX", np.uint16)
        assert info.geometry == Geometry()
        assert info.access.chunk == (1, 1, 1, 5, 6)
        assert info.compression == "mixed"
        assert info.time_step is None
        assert info.notes == ()
    assert list_contents(folder) == [Entry(str(folder), (12, 5, 6), "uint16", "ZYX")]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_how_slices_are_packed(tmp_path, compression):
    write(tmp_path / "s", noise((3, 5, 6)), compression=compression)
    with open_volume(tmp_path / "s") as source:
        assert source.info.compression == compression


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    array = noise((4, 5, 6))
    tifffile.imwrite(tmp_path / "a[1].tif", array, photometric="minisblack")
    with open_volume(tmp_path / "a[1].tif") as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


@pytest.mark.parametrize("axes", ["ZYX", "DHW", "TYX", "nyx", "CYX"])
def test_files_that_are_volumes_or_channels(slices, axes):
    folder, array = slices
    order = {"Z": (0, 0), "D": (0, 0), "T": (slice(None), 0, 0), "N": (slice(None), 0, 0), "C": (0, slice(None), 0)}
    with open_volume(folder, axes=axes) as source:
        assert source.info.axes == axes.upper()
        assert source.info.notes == ()
        np.testing.assert_array_equal(source.numpy()[order[axes[0].upper()]], array)
        n, c, d = (size - 1 for size in source.info.shape[:3])
        region = Region((n, c, d, 1, 2), (n + 1, c + 1, d + 1, 4, 5))
        np.testing.assert_array_equal(source.read(region)[0, 0, 0], array[11, 1:4, 2:5])


@pytest.mark.parametrize("axes", ["YXZ", "ZXY"])
def test_axes_that_slices_do_not_have(slices, axes):
    folder, _ = slices
    with pytest.raises(ParameterError) as caught:
        open_volume(folder, axes=axes)
    assert caught.value.message == f"axes of a folder of slices must be one of ZYX, TYX, CYX (got {axes!r})"


@pytest.mark.parametrize("axes", ["YX", "TZYX", "QYX"])
def test_axes_that_are_no_three(slices, axes):
    folder, _ = slices
    with pytest.raises(
        ParameterError, match=r"axes must name each of the 3 axes of .*slices, shape \(12, 5, 6\), once"
    ):
        open_volume(folder, axes=axes)


@pytest.mark.parametrize(
    ("shape", "options", "letters"),
    [
        ((4, 5, 6, 3), {}, "YXS"),
        ((4, 5, 6, 4), {"compression": "zlib"}, "YXS"),
        ((4, 3, 5, 6), {"planarconfig": "separate"}, "SYX"),
    ],
    ids=str,
)
def test_slices_of_colours(tmp_path, shape, options, letters):
    array = noise(shape, "uint8")
    folder = write(tmp_path / "s", array, photometric="rgb", **options)
    samples = shape[1 + letters.index("S")]
    with pytest.raises(ReadError, match=rf"slice0\.tif: its pages hold {samples} colour samples a pixel") as caught:
        open_volume(folder)
    assert caught.value.hint == "pass --rgb (rgb=True) to take them as channels"
    expected = array if letters == "SYX" else array.transpose(0, 3, 1, 2)
    with open_volume(folder, rgb=True) as source:
        assert source.info.axes == f"Z{letters}"
        assert source.info.access.chunk == (1, samples, 1, 5, 6)
        np.testing.assert_array_equal(source.numpy()[0], expected.transpose(1, 0, 2, 3))
        region = Region((0, 1, 2, 1, 2), (1, 3, 4, 4, 6))
        np.testing.assert_array_equal(source.read(region), source.numpy()[region.slices])
    with open_volume(folder, rgb=True, axes=f"T{letters}") as source:
        np.testing.assert_array_equal(source.numpy()[:, :, 0], expected)
    with open_volume(folder, axes=f"Z{letters}".replace("S", "C")) as source:
        np.testing.assert_array_equal(source.numpy()[0], expected.transpose(1, 0, 2, 3))
    with pytest.raises(ParameterError, match="axes must name each of the 4 axes"):
        open_volume(folder, rgb=True, axes=f"C{letters}")
    assert list_contents(folder) == [Entry(str(folder), shape, "uint8", f"Z{letters}")]


def test_slices_of_several_pages_of_size_one(tmp_path):
    array = noise((3, 1, 1, 5, 6))
    folder = write(tmp_path / "s", array, metadata={"axes": "ZCYX"})
    with open_volume(folder) as source:
        assert source.info.axes == "ZYX"
        np.testing.assert_array_equal(source.numpy()[0, 0], array[:, 0, 0])


def test_spacing_and_time_of_slices(tmp_path):
    sizes = {"PhysicalSizeX": 1.0, "PhysicalSizeY": 3.0, "PhysicalSizeZ": 2.0, "TimeIncrement": 0.5}
    folder = write(tmp_path / "s", noise((3, 5, 6)), ome=True, metadata={"axes": "YX", **sizes})
    with open_volume(folder) as source:
        assert source.info.geometry == Geometry.from_spacing((2, 3, 1), "um")
        assert source.info.time_step is None
    with open_volume(folder, axes="TYX") as source:
        assert source.info.time_step == 0.5
    metadata, resolution = {"unit": "um"}, (4, 5)
    folder = write(tmp_path / "t", noise((3, 5, 6)), imagej=True, metadata=metadata, resolution=resolution)
    with open_volume(folder) as source:
        assert source.info.geometry == Geometry()
        assert source.info.notes == (
            "slice0.tif states no spacing along Z (only Y 0.2 um, X 0.25 um), so its spacing counts as unknown",
        )


def test_slices_that_count_from_white(tmp_path):
    array = noise((3, 5, 6), "uint8")
    folder = write(tmp_path / "s", array, photometric="miniswhite")
    with open_volume(folder) as source:
        assert source.info.notes == ("slice0.tif counts from white to black (MINISWHITE); values are as stored",)
        np.testing.assert_array_equal(source.numpy()[0, 0], array)
    tifffile.imwrite(folder / "slice1.tif", array[1], photometric="minisblack")
    with pytest.raises(
        ReadError, match=r"slice1\.tif: slices must all count from black to white, .* \(unlike slice0\.tif\)"
    ):
        open_volume(folder)


def test_slices_that_do_not_fit(slices):
    folder, _ = slices
    tifffile.imwrite(folder / "slice7.tif", np.zeros((5, 7), "u2"))
    with pytest.raises(
        ReadError, match=r"slice7\.tif: slices must be of one size and dtype \(got \(5, 7\) uint16, slice0"
    ):
        open_volume(folder)
    tifffile.imwrite(folder / "slice7.tif", np.zeros((5, 6), "u1"))
    with pytest.raises(ReadError, match=r"got \(5, 6\) uint8, slice0\.tif is \(5, 6\) uint16"):
        open_volume(folder)
    tifffile.imwrite(folder / "slice7.tif", np.zeros((9, 5, 6), "u2"), photometric="minisblack")
    with pytest.raises(ReadError, match=r"slice7\.tif: a slice must be one 2-D page"):
        open_volume(folder)
    (folder / "slice7.tif").write_bytes(b"junk")
    with pytest.raises(ReadError, match=r"slice7\.tif: is no TIFF file"):
        open_volume(folder)


def test_slices_that_vanish(slices):
    folder, _ = slices
    with open_volume(folder) as source:
        (folder / "slice3.tif").unlink()
        with pytest.raises(ReadError, match=r"slice3\.tif: cannot be read: No such file"):
            source.numpy()
    with pytest.raises(ValueError, match="is closed"):
        source.read(Region.whole(source.info.shape))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((5, 6), "u1"), {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "palette colours"),
        (np.zeros((5, 6, 3), "u1"), {"photometric": "rgb"}, "its pages hold 3 colour samples"),
        (np.zeros((2, 5, 6), "u2"), {"metadata": {"axes": "CYX"}}, r"one 2-D page \(got axes CYX, shape \(2, 5, 6\)"),
        (np.zeros((2, 5, 6), "u2"), {"metadata": {"axes": "TYX"}}, r"one 2-D page \(got axes TYX"),
    ],
)
def test_files_that_are_no_slices(slices, array, options, message):
    folder, _ = slices
    tifffile.imwrite(folder / "slice7.tif", array, **{"photometric": "minisblack", **options})
    with pytest.raises(ReadError, match=rf"slice7\.tif: .*{message}"):
        open_volume(folder)


def test_slices_of_several_series(slices):
    folder, array = slices
    with tifffile.TiffWriter(folder / "slice7.tif", ome=True) as writer:
        for page in array[:2]:
            writer.write(page, photometric="minisblack", metadata={"axes": "YX"})
    with pytest.raises(ReadError, match=r"slice7\.tif: a slice must be one 2-D page \(.*, 2 series\)"):
        open_volume(folder)


@pytest.mark.parametrize("size", [4, 100])
def test_damaged_slices(slices, size):
    folder, _ = slices
    content = (folder / "slice7.tif").read_bytes()
    (folder / "slice7.tif").write_bytes(content[:size])
    with pytest.raises(ReadError, match=r"slice7\.tif: ") as caught:
        open_volume(folder)
    assert "\n" not in str(caught.value)
    (folder / "slice7.tif").write_bytes(b"II*\0" + bytes(8))
    with pytest.raises(ReadError, match=r"slice7\.tif: holds no pages"):
        open_volume(folder)


def test_slices_that_change(slices):
    folder, _ = slices
    with open_volume(folder) as source:
        tifffile.imwrite(folder / "slice3.tif", np.zeros((6, 7), "u2"))
        with pytest.raises(ReadError, match=r"slice3\.tif: has changed since it was opened"):
            source.numpy()


def test_no_slices(tmp_path):
    with pytest.raises(ReadError) as caught:
        open_volume(tmp_path)
    assert caught.value.message == f"{tmp_path}: is a folder, and holds no .tif or .tiff files"
    for name in ("brain.nii", "cells.h5"):
        (tmp_path / name).mkdir()
        with pytest.raises(ReadError, match=rf"{name}: is a folder, and holds no \.tif or \.tiff files"):
            open_volume(tmp_path / name)
    with pytest.raises(ReadError, match=r"\*\.tif: no such files"):
        open_volume(tmp_path / "*.tif")
    with pytest.raises(ReadError, match=r"cells\*: the pattern names no \.tif or \.tiff files"):
        open_volume(tmp_path / "cells*")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ReadError, match="cannot be read: Permission denied"):
        open_volume(tmp_path)


def test_series_of_slices(slices):
    folder, _ = slices
    with pytest.raises(ReadError, match=r"slices are whole files, not series of them \(got :1\)") as caught:
        open_volume(f"{folder}/*.tif:1")
    assert caught.value.hint == "leave the number out"
