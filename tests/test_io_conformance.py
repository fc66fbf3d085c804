"""What every file format must do alike; each is compared with its own library."""

import os
import subprocess
import sys

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from volconv.errors import DtypeError, OutputExistsError, ReadError, VolconvError, WriteError
from volconv.geometry import Geometry
from volconv.io import (
    NewVolume,
    OpenVolume,
    Region,
    Sink,
    Source,
    create_volume,
    open_volume,
    split_path,
    stem_and_ext,
)

FORMATS = (".nii", ".nii.gz", ".h5", ".tif", ".ome.tif")
SPACING = (2.5, 0.75, 0.5)
GEOMETRY = Geometry.from_spacing(SPACING, "um")
SHAPES = ((1, 1, 7, 6, 5), (3, 1, 4, 5, 6), (2, 3, 4, 5, 6), (1, 3, 4, 1, 7), (1, 1, 1, 9, 8))


def volume(shape, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 50 + 100).astype(dtype)


def library_write(path, array, byteorder="<"):
    """Write an (N, C, D, H, W) array as the format's own library does."""
    array = array.astype(array.dtype.newbyteorder(byteorder))
    if path.name.endswith((".nii", ".nii.gz")):
        header = nibabel.Nifti1Header(endianness=byteorder)
        header.set_xyzt_units("micron")
        image = nibabel.Nifti1Image(array.transpose(4, 3, 2, 0, 1), GEOMETRY.matrix, header, dtype=array.dtype)
        image.to_filename(path)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", data=array)
            data.attrs["element_size_um"] = SPACING
    elif path.name.endswith(".ome.tif"):
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", SPACING, strict=True)}
        tifffile.imwrite(path, array, byteorder=byteorder, ome=True, metadata={"axes": "TCZYX", **sizes})
    else:
        tifffile.imwrite(
            path,
            array.transpose(0, 2, 1, 3, 4),
            byteorder=byteorder,
            imagej=True,
            resolution=(1 / SPACING[2], 1 / SPACING[1]),
            metadata={"axes": "TZCYX", "spacing": SPACING[0], "unit": "um"},
        )


def library_read(path, shape):
    """Values and (D, H, W) spacing in micrometres as the format's own library has them."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        values = values.reshape(values.shape + (1,) * (5 - values.ndim)).transpose(3, 4, 2, 1, 0)
        assert image.header.get_xyzt_units()[0] == "micron"
        return values, image.header.get_zooms()[2::-1]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return file["data"][()].reshape(shape), tuple(file["data"].attrs["element_size_um"])
    with tifffile.TiffFile(path) as file:
        values = file.series[0].asarray()
        if file.is_ome:
            known = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            assert known["PhysicalSizeZUnit"] == "µm"
            return values.reshape(shape), tuple(known[f"PhysicalSize{axis}"] for axis in "ZYX")
        if file.is_imagej:
            n, c, d, h, w = shape
            values, known = values.reshape(n, d, c, h, w).transpose(0, 2, 1, 3, 4), file.imagej_metadata
        else:
            values, known = values.reshape(shape), file.shaped_metadata[0]
        assert known["unit"] == "um"
        tags = file.pages[0].tags
        y, x = (tags[tag].value[1] / tags[tag].value[0] for tag in ("YResolution", "XResolution"))
        return values, (known["spacing"], y, x)


def random_regions(shape, count, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ends = [sorted(rng.integers(0, size + 1, 2)) for size in shape]
        yield Region(tuple(int(a) for a, _ in ends), tuple(int(b) for _, b in ends))


def blocks(shape, step, seed=2):
    """Regions that tile a volume, shuffled."""
    tiles = [
        Region(start, tuple(min(a + s, size) for a, s, size in zip(start, step, shape, strict=True)))
        for start in (
            tuple(i * s for i, s in zip(index, step, strict=True))
            for index in np.ndindex(*(-(-size // s) for size, s in zip(shape, step, strict=True)))
        )
    ]
    np.random.default_rng(seed).shuffle(tiles)
    return tiles


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=FORMATS)
def suffix(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("byteorder", "<>")
def test_regions_read_in_any_order_equal_slices(tmp_path, suffix, shape, byteorder):
    array, path = volume(shape), tmp_path / f"v{suffix}"
    library_write(path, array, byteorder)
    with open_volume(path) as source:
        assert isinstance(source, OpenVolume)
        assert isinstance(source, Source)
        assert source.info.shape == shape
        assert source.info.dtype == array.dtype
        assert source.info.dtype.isnative
        assert not source.info.access.in_memory
        assert source.info.geometry.unit == "um"
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)
        for region in random_regions(shape, 40):
            got = source.read(region)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array[region.slices])
        np.testing.assert_array_equal(source.numpy(), array)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_blocks_written_in_any_order_are_read_by_the_library(tmp_path, suffix, shape, dtype):
    array, path = volume(shape, dtype), tmp_path / f"v{suffix}"
    with create_volume(path, shape=shape, dtype=dtype, geometry=GEOMETRY) as sink:
        assert isinstance(sink, NewVolume)
        assert isinstance(sink, Sink)
        assert sink.view(Region.whole(shape)) is None
        for region in blocks(shape, (1, 2, 3, 2, 4)):
            sink.write(region, array[region.slices])
    values, spacing = library_read(path, shape)
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)
    np.testing.assert_allclose(spacing, SPACING, rtol=1e-6)
    with open_volume(path) as source:
        assert source.info.geometry.unit == "um"
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)
        np.testing.assert_array_equal(source.numpy(), array)
    assert names(tmp_path) == [path.name]


def test_non_contiguous_values_are_written_as_they_are(tmp_path, suffix):
    array = volume((1, 1, 4, 5, 6), "float32")
    path = tmp_path / f"v{suffix}"
    with create_volume(path, shape=(1, 1, 4, 6, 5), dtype="float32") as sink:
        sink.write(Region.whole((1, 1, 4, 6, 5)), array.transpose(0, 1, 2, 4, 3))
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy(), array.transpose(0, 1, 2, 4, 3))


def test_bool_is_kept_as_uint8(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    with create_volume(path, shape=(1, 1, 2, 2, 2), dtype=bool) as sink:
        assert sink.info.dtype == np.uint8
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    with open_volume(path) as source:
        assert source.info.dtype == np.uint8


def test_nothing_is_visible_before_the_commit(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    sink = create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8")
    sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    assert not path.exists()
    (temporary,) = names(tmp_path)
    assert temporary.startswith(f".v{suffix}.volconv-{os.getpid()}-")
    assert temporary.endswith(".tmp")
    sink.commit()
    assert names(tmp_path) == [path.name]
    sink.abort()
    sink.commit()
    assert names(tmp_path) == [path.name]


def test_abort_leaves_nothing(tmp_path, suffix):
    sink = create_volume(tmp_path / f"v{suffix}", shape=(1, 1, 2, 3, 4), dtype="uint8")
    sink.abort()
    sink.abort()
    assert names(tmp_path) == []


def test_an_exception_keeps_the_old_file(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    library_write(path, volume((1, 1, 3, 4, 5)))
    before = path.read_bytes()

    def fail():
        with create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8", overwrite=True) as sink:
            sink.write(Region((0, 0, 0, 0, 0), (1, 1, 1, 3, 4)), np.ones((1, 1, 1, 3, 4), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_an_existing_output_is_refused(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="already exists; pass -f/--overwrite") as caught:
        create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8")
    assert str(path) in caught.value.message
    assert path.read_bytes() == b"mine"
    with create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8", overwrite=True) as sink:
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    with open_volume(path) as source:
        assert source.numpy().sum() == 24


def test_input_and_output_may_be_the_same_path(tmp_path, suffix):
    array, path = volume((1, 1, 6, 4, 5)), tmp_path / f"v{suffix}"
    library_write(path, array)
    with (
        open_volume(path) as source,
        create_volume(path, shape=array.shape, dtype=array.dtype, like=source.info, overwrite=True) as sink,
    ):
        for region in blocks(array.shape, (1, 1, 2, 4, 5)):
            sink.write(region, source.read(region) + np.uint16(1))
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy(), array + 1)
        assert source.info.geometry.unit == "um"
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)


def test_bytes_are_reproducible(tmp_path, suffix):
    array = volume((1, 2, 4, 5, 6))
    for name in "ab":
        (tmp_path / name).mkdir()
        with create_volume(
            tmp_path / name / f"v{suffix}", shape=array.shape, dtype=array.dtype, geometry=GEOMETRY, note="n"
        ) as sink:
            sink.write(Region.whole(array.shape), array)
    assert (tmp_path / "a" / f"v{suffix}").read_bytes() == (tmp_path / "b" / f"v{suffix}").read_bytes()


def test_what_a_sink_is_given_must_fit(tmp_path, suffix):
    with create_volume(tmp_path / f"v{suffix}", shape=(1, 1, 2, 3, 4), dtype="uint8") as sink:
        whole = Region.whole(sink.info.shape)
        with pytest.raises(ValueError, match="sink's dtype uint8"):
            sink.write(whole, np.ones(whole.shape))
        with pytest.raises(ValueError, match="region's shape"):
            sink.write(whole, np.ones((1, 1, 2, 3, 3), np.uint8))
        with pytest.raises(ValueError, match="within the volume"):
            sink.write(Region((0, 0, 2, 0, 0), (1, 1, 3, 3, 4)), np.ones((1, 1, 1, 3, 4), np.uint8))


def test_reads_out_of_bounds_and_after_close_are_errors(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    library_write(path, volume((1, 1, 3, 4, 5)))
    with open_volume(path) as source:
        with pytest.raises(ValueError, match="within the volume"):
            source.read(Region((0, 0, 0, 0, 0), (1, 1, 4, 4, 5)))
        source.read(Region.whole(source.info.shape))
    with pytest.raises((ValueError, VolconvError)):
        source.read(Region.whole(source.info.shape))


@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"hello " * 200], ids=["empty", "zeros", "text"])
def test_junk_is_one_line(tmp_path, suffix, content):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(ReadError) as caught:
        open_volume(path)
    assert caught.value.message.startswith(f"{path}: is ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.3, 0.6, 0.8])
def test_truncated_files_are_read_errors(tmp_path, suffix, kept):
    path = tmp_path / f"v{suffix}"
    library_write(path, volume((1, 1, 30, 20, 25)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    def read():
        with open_volume(path) as source:
            source.numpy()

    with pytest.raises(ReadError) as caught:
        read()
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_give_values_or_one_line(tmp_path, suffix, seed):
    path, rng = tmp_path / f"v{suffix}", np.random.default_rng(seed)
    library_write(path, volume((1, 2, 3, 4, 5)))
    content = bytearray(path.read_bytes())
    for place in rng.integers(min(len(content), 400), size=3):
        content[place] = rng.choice([0, 1, 127, 128, 255])
    path.write_bytes(content)
    try:
        with open_volume(path) as source:
            source.read(Region((0, 0, 0, 0, 0), tuple(min(size, 2) for size in source.info.shape)))
    except VolconvError as error:
        told = str(error)
    else:
        told = str(path)
    assert str(path) in told
    assert "\n" not in told


def test_long_doubles_are_refused(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    with pytest.raises(WriteError, match=r"cannot hold dtype longdouble|cannot hold dtype float128") as caught:
        create_volume(path, shape=(1, 1, 1, 1, 1), dtype=np.longdouble)
    assert "uint8" in caught.value.message
    assert "--dtype" in caught.value.hint
    assert not isinstance(caught.value, DtypeError)
    assert names(tmp_path) == []


def test_unknown_suffixes_and_missing_files(tmp_path):
    (tmp_path / "v.xyz").write_bytes(b"")
    with pytest.raises(
        ReadError, match=r"v\.xyz: the suffix names no known kind of volume \(known: \.nii, \.nii\.gz, "
    ):
        open_volume(tmp_path / "v.xyz")
    with pytest.raises(WriteError, match=r"known: .*\.tiff\)"):
        create_volume(tmp_path / "v.xyz", shape=(1, 1, 1, 1, 1), dtype="uint8")
    with pytest.raises(ReadError, match=r"nowhere\.nii: no such file"):
        open_volume(tmp_path / "nowhere.nii")
    with pytest.raises(ReadError, match=r"nowhere\.h5:/a: no such file"):
        open_volume(f"{tmp_path}/nowhere.h5:/a")


def test_names():
    assert [str(part) for part in split_path("a/b.h5:/c/d")] == ["a/b.h5", "/c/d"]
    assert split_path("b.HDF5:c/")[1] == "/c"
    assert split_path("b.h5:")[1] is None
    assert split_path("x:y.nii")[1] is None
    assert stem_and_ext("a/b.NII.GZ") == ("b", ".NII.GZ")
    assert stem_and_ext("a/b.c.ome.tiff") == ("b.c", ".ome.tiff")
    assert stem_and_ext(".nii.gz") == (".nii", ".gz")
    assert stem_and_ext("b") == ("b", "")


def test_importing_the_package_loads_no_format_library():
    code = "import sys, volconv.io; print({'nibabel', 'h5py', 'tifffile'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
