"""Folders of slices as they are written: read back by tifffile."""

import errno
import os

import numpy as np
import pytest
import tifffile

from volconv.errors import ParameterError, WriteError
from volconv.geometry import Geometry
from volconv.io import (
    NewVolume,
    Region,
    Sink,
    create_volume,
    describe_volume,
    open_volume,
)
from volconv.io.tiff import words
from volconv.io.tiff.slicesink import slice_name

SHAPE = (1, 1, 12, 37, 41)
MICRONS = Geometry.from_spacing((2.5, 0.65, 0.325), "um")
PACKINGS = ({}, {"compression": "zlib"}, {"tile": "16,32"}, {"compression": "lzma", "tile": "16"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "slices"


@pytest.fixture(params=PACKINGS, ids=str)
def options(request):
    return request.param


def noise(shape=SHAPE, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 100).astype(dtype)


def create(folder, shape=SHAPE, dtype="uint16", **arguments):
    return create_volume(f"{folder}/", shape=shape, dtype=dtype, **arguments)


def write(folder, array, step=(1, 1, 5, 20, 30), **arguments):
    """Write a volume in blocks, in an order that no folder has."""
    with create(folder, shape=array.shape, dtype=array.dtype, **arguments) as sink:
        counts = [-(-size // s) for size, s in zip(array.shape, step)]
        starts = [tuple(i * s for i, s in zip(index, step)) for index in np.ndindex(*counts)]
        np.random.default_rng(1).shuffle(starts)
        for start in starts:
            region = Region(tuple(start), tuple(min(a + s, size) for a, s, size in zip(start, step, array.shape)))
            sink.write(region, array[region.slices])
    return sink


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64", "complex64"])
def test_every_slice_is_a_file(folder, options, dtype):
    array = noise(dtype=dtype)
    sink = write(folder, array, geometry=MICRONS, options=options, note="volconv 0.1 – µ")
    assert isinstance(sink, NewVolume)
    assert isinstance(sink, Sink)
    assert sink.view(Region.whole(SHAPE)) is None
    assert names(folder) == [f"slice_{number:04}.tif" for number in range(12)]
    for plane, path in zip(array[0, 0], sorted(folder.iterdir())):
        with tifffile.TiffFile(path) as file:
            (page,) = file.pages
            assert file.series[0].axes == "YX"
            assert page.dtype == array.dtype
            np.testing.assert_array_equal(page.asarray(), plane)
            assert page.is_tiled == ("tile" in options)
            assert (page.compression != 1) == ("compression" in options)
            known = file.imagej_metadata or file.shaped_metadata[0]
            assert known["Info" if file.is_imagej else "note"] == "volconv 0.1 – µ"
            unpacked_by_imagej = options.get("compression") in (None, "zlib") and "tile" not in options
            assert file.is_imagej == (dtype in ("uint8", "uint16", "float32") and unpacked_by_imagej)
            assert known["spacing"] == (2.5 if file.is_imagej else [2.5, 0.65, 0.325])
            assert page.tags["XResolution"].value == ((40, 13) if file.is_imagej else (400_000, 13))
    with open_volume(folder) as source:
        assert source.info.shape == SHAPE
        assert source.info.geometry == MICRONS
        np.testing.assert_array_equal(source.numpy(), array)


@pytest.mark.parametrize(("count", "digits"), [(1, 4), (10_000, 4), (10_001, 5)])
def test_names_sort_as_numbers_do(count, digits):
    found = [slice_name(number, count) for number in range(count)]
    assert found == sorted(found)
    assert found[0] == f"slice_{'0' * digits}.tif"


def test_what_is_told_beforehand(folder, options):
    told = describe_volume(f"{folder}/", shape=SHAPE, dtype="uint16", geometry=MICRONS, options=options)
    assert not folder.exists()
    sink = create(folder, geometry=MICRONS, options=options)
    sink.abort()
    assert sink.info == told
    assert (told.format, told.axes, told.shape, told.geometry) == ("slices", "ZYX", SHAPE, MICRONS)
    assert told.compression == options.get("compression")
    assert bool(told.access.spool_bytes) == bool(options)
    tile = {"16,32": (16, 32), "16": (16, 16)}.get(options.get("tile"), (37, 41))
    assert told.access.chunk == ((1, 1, 1, *tile) if options else None)


@pytest.mark.parametrize(("shape", "got"), [((2, 1, 3, 4, 5), "2 volumes of 1"), ((1, 3, 3, 4, 5), "1 volumes of 3")])
def test_one_channel_of_one_volume(tmp_path, folder, shape, got):
    with pytest.raises(
        WriteError, match=rf"slices/: a folder of slices holds one channel of one volume \(got {got} channels\)"
    ) as caught:
        create(folder, shape=shape)
    for way in ("--time", "--channel", ".ome.tif"):
        assert way in caught.value.hint
    assert names(tmp_path) == []


def test_options_and_names_are_checked(tmp_path, folder):
    with pytest.raises(ParameterError, match="compression must be one that loses nothing"):
        create(folder, options={"compression": "jpeg"})
    with pytest.raises(ParameterError, match="tile must be H,W"):
        create(folder, options={"tile": "1"})
    with pytest.raises(ParameterError, match=r"output must be a folder \(got .*v\.h5:/data/\)"):
        create(tmp_path / "v.h5:/data")
    with pytest.raises(WriteError, match=r"b/: the output's folder does not exist \(got .*a\)"):
        create(tmp_path / "a" / "b")
    assert names(tmp_path) == []


def test_a_folder_that_is_not_empty_is_never_replaced(tmp_path, folder):
    folder.mkdir()
    write(folder, noise())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for overwrite in (False, True):
        for call in (create_volume, describe_volume):
            with pytest.raises(WriteError, match=r"slices/: is not empty, and a non-empty folder is never replaced"):
                call(f"{folder}/", shape=SHAPE, dtype="uint16", overwrite=overwrite)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(WriteError, match=r"file/: is a file, and is not replaced by a folder"):
        create(tmp_path / "file", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert names(tmp_path) == ["file", "slices"]


def test_nothing_is_visible_before_the_commit(tmp_path, folder, options):
    sink = create(folder, options=options)
    sink.write(Region.whole(SHAPE), noise())
    (temporary,) = names(tmp_path)
    assert temporary.startswith(f".slices.volconv-{os.getpid()}-")
    assert temporary.endswith(".tmp")
    sink.commit()
    assert names(tmp_path) == ["slices"]
    before = names(folder)
    sink.commit()
    sink.abort()
    assert names(folder) == before


def test_an_abort_leaves_nothing(tmp_path, folder, options):
    sink = create(folder, options=options)
    sink.write(Region.whole(SHAPE), noise())
    sink.abort()
    sink.abort()
    sink.commit()
    assert names(tmp_path) == []
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), create(folder, options=options):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["slices"]
    assert names(folder) == []


def test_slices_that_nobody_wrote_are_there(folder, options):
    with create(folder, options=options) as sink:
        sink.write(Region((0, 0, 7, 0, 0), (1, 1, 8, 37, 41)), noise()[:, :, :1])
    with open_volume(folder) as source:
        assert source.info.shape == SHAPE
        written = source.numpy().any(axis=(0, 1, 3, 4))
    assert np.flatnonzero(written).tolist() == [7]


def test_bytes_are_reproducible(tmp_path, options):
    for name in "ab":
        write(tmp_path / name, noise(), geometry=MICRONS, options=options, note="n")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_blocks_must_fit(folder, options):
    sink = create(folder, options=options)
    with pytest.raises(ValueError, match="sink's dtype uint16"):
        sink.write(Region.whole(SHAPE), noise(dtype="uint8"))
    with pytest.raises(ValueError, match="within the volume"):
        sink.write(Region((0, 0, 12, 0, 0), (1, 1, 13, 37, 41)), noise()[:, :, :1])
    sink.abort()


def test_a_failing_write_is_translated(tmp_path, folder, options, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        with pytest.raises(WriteError, match=r"slices/: cannot be written: No space left on device"):
            write(folder, noise(), options=options)
    assert names(tmp_path) == []
    sink = create(folder, options=options)
    sink.write(Region((0, 0, 3, 0, 0), (1, 1, 4, 37, 41)), noise()[:, :, :1])
    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(WriteError, match=r"slices/: cannot be written: No space left on device"):
        sink.commit()
    assert names(tmp_path) == []


def test_a_slice_of_four_gigabytes_counts_and_not_all_of_them(folder, monkeypatch):
    monkeypatch.setattr(words, "_CLASSIC_BYTES", 37 * 41 * 2 * 2)
    write(folder, noise())
    with tifffile.TiffFile(folder / "slice_0000.tif") as file:
        assert file.is_imagej
        assert not file.is_bigtiff
    monkeypatch.setattr(words, "_CLASSIC_BYTES", 37 * 41 * 2)
    write(folder.with_name("large"), noise())
    with tifffile.TiffFile(folder.with_name("large") / "slice_0000.tif") as file:
        assert file.is_bigtiff
