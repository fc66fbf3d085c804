"""TIFF stacks as they are written: read back by tifffile, by libtiff and by SimpleITK."""

import contextlib
import errno
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from volconv.errors import OutputExistsError, ParameterError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, describe_volume, open_volume
from volconv.io.formats import SUFFIXES
from volconv.io.tiff import sink as sink_module
from volconv.io.tiff import words as words_module
from volconv.io.tiff.packing import Packing
from volconv.io.volume import VolumeInfo

DTYPES = SUFFIXES[".tif"].dtypes
OME_DTYPES = SUFFIXES[".ome.tif"].dtypes
IMAGEJ = ("uint8", "uint16", "float32")
SHAPE = (2, 3, 4, 37, 41)
WORDS = {"imagej": ("v.tif", "uint16"), "plain": ("v.tif", "int16"), "ome": ("v.ome.tif", "uint16")}
MICRONS = Geometry.from_spacing((2.5, 0.65, 0.325), "um")
PACKINGS = (
    {"compression": "zlib"},
    {"compression": "Deflate"},
    {"compression": "lzw", "predictor": "yes"},
    {"compression": "zstd", "tile": "16,32", "predictor": "yes"},
    {"compression": "zlib", "tile": "32", "predictor": "YES"},
    {"compression": "lzma"},
    {"compression": "packbits", "predictor": "no"},
    {"tile": "48, 48"},
    {"compression": "none", "tile": "16"},
)


def needs_codecs(options):
    """Whether tifffile alone cannot pack so."""
    plain = options.get("compression", "none").lower() in ("none", "zlib", "deflate", "lzma")
    return not plain or options.get("predictor", "no").lower() == "yes"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.tif"


@pytest.fixture(params=WORDS)
def words(request, tmp_path):
    """A name and a dtype for which a file is an ImageJ hyperstack, a plain stack, an OME-TIFF."""
    name, dtype = WORDS[request.param]
    return request.param, tmp_path / name, dtype


def noise(shape=SHAPE, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 100).astype(dtype)


def write(path, array, step=None, **options):
    """Write a volume in blocks, in an order that no file has."""
    with create_volume(path, shape=array.shape, dtype=array.dtype, **options) as sink:
        step = step or (1, 2, 3, 20, 30)
        starts = [
            tuple(i * s for i, s in zip(index, step))
            for index in np.ndindex(*(-(-a // b) for a, b in zip(array.shape, step)))
        ]
        np.random.default_rng(1).shuffle(starts)
        for start in starts:
            region = Region(tuple(start), tuple(min(a + s, size) for a, s, size in zip(start, step, array.shape)))
            sink.write(region, array[region.slices])
    return sink.info


def timed(step):
    return VolumeInfo(SHAPE, np.dtype("uint8"), time_step=step)


def values(path):
    """Array as tifffile reads it, axes N, C, D, H, W, and the axes that it names."""
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        array, axes = series.asarray(), series.axes
    order = [axes.index(axis) for axis in "TCZYX" if axis in axes]
    shape = [array.shape[axes.index(axis)] if axis in axes else 1 for axis in "TCZYX"]
    return array.transpose(order).reshape(shape), axes


def tags(path):
    with tifffile.TiffFile(path) as file:
        return {tag.name: tag.value for tag in file.pages[0].tags}


def stated(path):
    """What the description of a file states, and in whose words."""
    with tifffile.TiffFile(path) as file:
        if file.is_ome:
            image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
            return "ome", {**image["Pixels"], **{k: v for k, v in image.items() if k != "Pixels"}}
        if file.is_imagej:
            return "imagej", file.imagej_metadata
        return "plain", file.shaped_metadata[0]


@contextlib.contextmanager
def small_disk(size):
    """Files end at so many bytes: the nearest to a full disk that a test may bring about."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_written(path, dtype):
    array = noise((2, 3, 4, 5, 6), dtype)
    info = write(path, array)
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej == (dtype in IMAGEJ)
        assert file.series[0].axes == info.axes == ("TZCYX" if file.is_imagej else "TCZYX")
        assert not file.is_bigtiff
        assert "DateTime" not in file.pages[0].tags
    got, _ = values(path)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("dtype", OME_DTYPES)
def test_every_dtype_of_ome(tmp_path, dtype):
    path, array = tmp_path / "v.OME.TIFF", noise((2, 3, 4, 5, 6), dtype)
    info = write(path, array)
    words, known = stated(path)
    assert words == "ome"
    assert [known[f"Size{axis}"] for axis in "TCZYX"] == [2, 3, 4, 5, 6]
    got, axes = values(path)
    assert axes == info.axes == "TCZYX"
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_axes_of_one_page_are_left_out(tmp_path):
    for shape, axes in (
        ((1, 1, 4, 5, 6), "ZYX"),
        ((1, 2, 1, 5, 6), "CYX"),
        ((1, 1, 1, 1, 1), "YX"),
        ((3, 1, 2, 1, 1), "TZYX"),
    ):
        for name, dtype in WORDS.values():
            path = tmp_path / f"{axes}-{dtype}-{name}"
            info = write(path, noise(shape, dtype))
            assert info.axes == axes
            got, found = values(path)
            assert found == axes
            np.testing.assert_array_equal(got, noise(shape, dtype))


def test_what_is_told_beforehand(words):
    kind, path, dtype = words
    for options in ({}, *(packing for packing in PACKINGS if not needs_codecs(packing))):
        arguments = {"shape": SHAPE, "dtype": dtype, "geometry": MICRONS, "like": timed(1.5), "options": options}
        told = describe_volume(path, **arguments)
        assert not path.exists()
        sink = create_volume(path, **arguments)
        sink.abort()
        assert sink.info == told
        assert told.format == ("ome" if kind == "ome" else "tiff")
        unpacked_by_imagej = (
            options.get("compression") in (None, "zlib", "Deflate", "packbits") and "tile" not in options
        )
        assert told.axes == ("TZCYX" if kind == "imagej" and unpacked_by_imagej else "TCZYX")
        assert told.time_step == 1.5
        assert told.geometry == MICRONS
        assert bool(told.access.spool_bytes) == bool(options)
    assert told.access.chunk == (1, 1, 1, 16, 16)
    assert told.compression is None
    packed = describe_volume(path, shape=SHAPE, dtype=dtype, options={"compression": "Deflate"})
    assert packed.compression == "zlib"
    assert packed.access.chunk == (1, 1, 1, 37, 41)
    assert describe_volume(path, shape=SHAPE, dtype=dtype).access.chunk is None
    large = describe_volume(path, shape=SHAPE, dtype=dtype, options={"tile": "16,256"})
    assert large.access.chunk == (1, 1, 1, 16, 41)


@pytest.mark.parametrize("options", PACKINGS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint64", "float16", "float32", "float64", "complex64"])
def test_packed_stacks_are_read_back(tmp_path, options, dtype):
    if dtype == "complex64" and options.get("predictor", "no").lower() == "yes":
        return
    if needs_codecs(options):
        pytest.importorskip("imagecodecs")
    array = noise(dtype=dtype)
    for name in ("v.tif", "v.ome.tif"):
        if name == "v.ome.tif" and dtype not in OME_DTYPES:
            continue
        path = tmp_path / name
        write(path, array, geometry=MICRONS, options=options)
        got, _ = values(path)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        known = tags(path)
        tile = {"16,32": (16, 32), "32": (32, 32), "48, 48": (48, 48), "16": (16, 16)}.get(options.get("tile"))
        assert (known.get("TileLength"), known.get("TileWidth")) == (tile or (None, None))
        compression = options.get("compression", "none").lower()
        assert known["Compression"].name == {"zlib": "ADOBE_DEFLATE", "deflate": "ADOBE_DEFLATE"}.get(
            compression, compression.upper()
        )
        differences = options.get("predictor", "no").lower() == "yes"
        assert known.get("Predictor", 1) == (1 if not differences else 3 if dtype.startswith("float") else 2)
        assert [file.name for file in tmp_path.iterdir()] == [name]
        path.unlink()


@pytest.mark.parametrize("options", PACKINGS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_libtiff_reads_what_is_packed(path, options, dtype):
    imagecodecs = pytest.importorskip("imagecodecs")
    array = noise((1, 1, 5, 37, 41), dtype)
    write(path, array, options=options)
    np.testing.assert_array_equal(imagecodecs.tiff_decode(path.read_bytes(), index=None), array[0, 0])


@pytest.mark.parametrize(
    ("compression", "dtypes"),
    [
        ("jpeg2000", ("uint8", "int8", "uint16", "int16")),
        ("jpegxl", ("uint8", "uint16")),
        ("lerc", ("uint8", "int8", "uint16", "int16", "uint32", "int32")),
        ("png", ("uint8", "uint16")),
    ],
)
@pytest.mark.parametrize("tile", [None, "16"])
def test_codecs_of_pictures_lose_nothing(path, compression, dtypes, tile):
    pytest.importorskip("imagecodecs")
    options = {"compression": compression} | ({"tile": tile} if tile else {})
    for dtype in dtypes:
        limits = np.iinfo(dtype)
        for shape in ((1, 2, 3, 37, 41), (1, 1, 2, 5, 1), (1, 1, 1, 1, 1)):
            array = np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype, endpoint=True)
            write(path, array, options=options, overwrite=True)
            np.testing.assert_array_equal(values(path)[0], array)
    for dtype in sorted(set(DTYPES) - set(dtypes)):
        with pytest.raises(
            ParameterError,
            match=rf"compression {compression} keeps {', '.join(dtypes)} without loss, .*\(got {dtype}\)",
        ) as caught:
            create_volume(path, shape=SHAPE, dtype=dtype, options=options, overwrite=True)
        assert caught.value.hint == "choose one of zlib, lzw, zstd, lzma, packbits"


@pytest.mark.parametrize(
    ("options", "dtype", "message", "hint"),
    [
        (
            {"compression": "zlip"},
            "uint8",
            r"compression must be one that loses nothing: none, zlib, lzw, .* \(got 'zlip'\)",
            "did you mean zlib?",
        ),
        ({"compression": ""}, "uint8", r"\(got ''\)", None),
        ({"compression": "jpg"}, "uint8", r"\(got 'jpg'\)", None),
        ({"compression": "jpeg"}, "uint8", r"one that loses nothing: .* \(got 'jpeg'\)", None),
        ({"compression": "JPEG_2000_LOSSY"}, "uint8", r"\(got 'JPEG_2000_LOSSY'\)", None),
        ({"compression": "webp"}, "uint8", r"\(got 'webp'\)", None),
        ({"compression": "8"}, "uint8", r"\(got '8'\)", None),
        ({"predictor": "yes"}, "uint8", r"predictor needs compression to be one of zlib, .*, lzma \(got none\)", None),
        ({"predictor": "yes", "compression": "packbits"}, "uint8", r"\(got packbits\)", None),
        ({"predictor": "yes", "compression": "png"}, "uint8", r"\(got png\)", None),
        ({"predictor": "yes", "compression": "zlib"}, "complex64", r"must be no .* \(got yes, complex64\)", None),
        ({"predictor": "2", "compression": "zlib"}, "uint8", r"predictor must be yes or no \(got '2'\)", None),
        ({"tile": "100"}, "uint8", r"tile must be H,W in multiples of 16, or one number for both \(got '100'\)", None),
        ({"tile": "16,24"}, "uint8", r"\(got '16,24'\)", None),
        ({"tile": "24,16"}, "uint8", r"\(got '24,16'\)", None),
        ({"tile": "0"}, "uint8", r"\(got '0'\)", None),
        ({"tile": "16,0"}, "uint8", r"\(got '16,0'\)", None),
        ({"tile": "-16"}, "uint8", r"\(got '-16'\)", None),
        ({"tile": "16,16,16"}, "uint8", r"\(got '16,16,16'\)", None),
        ({"tile": "16x16"}, "uint8", r"\(got '16x16'\)", None),
        ({"tile": "none"}, "uint8", r"\(got 'none'\)", None),
        ({"tile": ""}, "uint8", r"\(got ''\)", None),
        ({"tile": "32768,32768"}, "uint16", r"tile must take less than 2 GiB \(got '32768,32768', uint16\)", None),
        ({"tiles": "16"}, "uint8", r"creation option must be one of .* \(got 'tiles'\)", "did you mean tile?"),
    ],
)
def test_creation_options_that_break_a_rule(tmp_path, options, dtype, message, hint):
    pytest.importorskip("imagecodecs")
    for call in (describe_volume, create_volume):
        with pytest.raises(ParameterError, match=message) as caught:
            call(tmp_path / "v.tif", shape=SHAPE, dtype=dtype, options=options)
        assert caught.value.hint == hint
    assert not list(tmp_path.iterdir())


MISSING = """
import sys
sys.modules["imagecodecs"] = None
import numpy as np
from volconv.errors import WriteError
from volconv.io import Region, create_volume, open_volume
for compression in ("zlib", "lzma", "zstd", "lzw", "packbits", "jpeg2000", "jpegxl", "lerc", "png"):
    for predictor in ("no", "yes") if compression in ("zlib", "lzma") else ("no",):
        for dtype in ("uint16", "float32") if predictor == "yes" else ("uint16",):
            options = {"compression": compression, "predictor": predictor}
            try:
                shape = (1, 1, 2, 3, 4)
                with create_volume(sys.argv[1], shape=shape, dtype=dtype, options=options, overwrite=True) as sink:
                    sink.write(Region.whole(shape), np.arange(24, dtype=dtype).reshape(shape))
                print(compression, predictor, dtype, "written")
            except WriteError as error:
                print(compression, predictor, dtype, error)
"""


def test_codecs_that_are_not_installed(path):
    done = subprocess.run([sys.executable, "-c", MISSING, str(path)], capture_output=True, text=True, check=True)
    told = {" ".join(line.split()[:3]): line.split(" ", 3)[3] for line in done.stdout.splitlines()}
    assert len(told) == 13
    hint = "needs a codec that is not installed; pip install 'volconv[tiff]'"
    for key in ("zlib no uint16", "lzma no uint16", "zlib yes uint16", "lzma yes uint16"):
        assert told.pop(key) == "written"
    assert told.pop("zlib yes float32") == f"{path}: compression zlib with a predictor of float32 {hint}"
    assert told.pop("lzma yes float32") == f"{path}: compression lzma with a predictor of float32 {hint}"
    if sys.version_info >= (3, 14):
        told.pop("zstd no uint16")
    for key, line in told.items():
        assert line == f"{path}: compression {key.split()[0]} of uint16 {hint}"


def test_large_stacks_are_bigtiff(path, monkeypatch):
    monkeypatch.setattr(words_module, "_CLASSIC_BYTES", 100)
    array = noise((1, 1, 4, 5, 6))
    for options in ({}, {"tile": "16"}, {"compression": "zlib"}):
        write(path, array, geometry=MICRONS, options=options, overwrite=True)
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff
            assert not file.is_imagej
            assert file.series[0].axes == "ZYX"
            assert file.shaped_metadata[0]["spacing"] == [2.5, 0.65, 0.325]
        np.testing.assert_array_equal(values(path)[0], array)
    ome = path.with_name("v.ome.tif")
    write(ome, array)
    with tifffile.TiffFile(ome) as file:
        assert file.is_bigtiff
        assert file.is_ome


@pytest.mark.parametrize("shape", [(1, 1, 300, 16, 16), (2, 3, 4, 50, 60), (1, 1, 3, 1, 1), (1, 1, 1, 700, 900)])
@pytest.mark.parametrize("options", [{}, *PACKINGS, {"compression": "png"}, {"compression": "jpeg2000"}], ids=str)
def test_files_are_never_larger_than_they_are_thought(tmp_path, shape, options):
    pytest.importorskip("imagecodecs")
    array = np.random.default_rng(0).integers(0, 2**16, shape, "uint16")
    path = tmp_path / "v.ome.tif"
    bound = []
    layout_of = words_module.layout_of

    def spy(request, packing):
        bound.append(packing.most_bytes(request.shape, request.dtype))
        return layout_of(request, packing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink_module, "layout_of", spy)
        write(path, array, step=shape, options=options)
    assert path.stat().st_size < bound[0] + 2000  # what OME says of the volume


def test_many_small_pages_count():
    # 60 million pages of 8 x 8 take 3.8 GB, and their directories more than twice that.
    shape = (1, 1, 60_000_000, 8, 8)
    assert Packing().most_bytes(shape, np.dtype("uint8")) > 2**32
    assert Packing().most_bytes((1, 1, 60, 8000, 8000), np.dtype("uint8")) < 2**32 - 2**25


@pytest.mark.slow
def test_a_stack_above_four_gigabytes(path):
    shape = (1, 1, 5, 30000, 30000)
    corner = Region((0, 0, 4, 29999, 29999), (1, 1, 5, 30000, 30000))
    with create_volume(path, shape=shape, dtype="uint8") as sink:
        sink.write(corner, np.full((1, 1, 1, 1, 1), 7, np.uint8))
    with open_volume(path) as source:
        assert source.info.shape == shape
        assert source.read(corner).item() == 7
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert file.pages[4].asarray()[-1, -1] == 7
    path.unlink()


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": "16"}], ids=str)
def test_narrow_volumes_are_not_taken_for_colours(tmp_path, width, suffix, dtype, options):
    for shape in (
        (1, 1, 5, 6, width),
        (1, width, 1, 5, 6),
        (2, 1, 5, 6, width),
        (1, 1, width, 5, 7),
        (1, 1, 5, width, 6),
    ):
        path = tmp_path / f"{'x'.join(map(str, shape))}{suffix}"
        array = noise(shape, dtype)
        write(path, array, options=options)
        np.testing.assert_array_equal(values(path)[0], array)
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].shape == shape[3:]
            assert len(file.pages) == np.prod(shape[:3])
        with open_volume(path) as source:
            assert source.info.shape == shape
            np.testing.assert_array_equal(source.numpy(), array)


def ratio(pair):
    return pair[1] / pair[0]


@pytest.mark.parametrize("unit", ["um", "mm", "nm", "m"])
@pytest.mark.parametrize(
    "spacing", [(2.5, 0.65, 0.325), (1, 1, 1), (3.0, 1 / 3, 2 / 7), (0.9000000357627869, 120.5, 0.02)]
)
def test_spacing_is_stated_wherever_readers_look(words, unit, spacing):
    kind, path, dtype = words
    geometry = Geometry.from_spacing(spacing, unit)
    write(path, noise((1, 1, 3, 4, 5), dtype), geometry=geometry)
    found, known = stated(path)
    assert found == kind
    held = tags(path)
    x, y = ratio(held["XResolution"]), ratio(held["YResolution"])
    if kind == "imagej":
        assert known["unit"] == {"um": "\\u00B5m"}.get(unit, unit)
        assert (known["spacing"], y, x) == spacing
        assert held["ResolutionUnit"] == 1
    else:
        if kind == "plain":
            assert (known["spacing"], known["unit"]) == (list(spacing), unit)
        else:
            assert [known[f"PhysicalSize{axis}"] for axis in "ZYX"] == list(spacing)
            assert [known[f"PhysicalSize{axis}Unit"] for axis in "ZYX"] == [{"um": "µm"}.get(unit, unit)] * 3
        factor = {"um": 1e4, "mm": 10, "nm": 1e7, "m": 0.01}[unit]
        np.testing.assert_allclose((y * factor, x * factor), spacing[1:], rtol=1e-9)
        assert held["ResolutionUnit"].name == "CENTIMETER"
    with open_volume(path) as source:
        assert source.info.geometry == geometry
        assert source.info.notes == ()


@pytest.mark.parametrize("kind", ["plain", "ome"])
def test_simpleitk_reads_the_spacing_of_pixels(tmp_path, kind):
    sitk = pytest.importorskip("SimpleITK")
    name, dtype = WORDS[kind]
    array = noise((1, 1, 1, 37, 41), dtype)
    write(tmp_path / name, array, geometry=MICRONS)
    image = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_allclose(image.GetSpacing()[:2], (0.325e-3, 0.65e-3), rtol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).reshape(37, 41), array[0, 0, 0])


def test_spacing_that_resolution_tags_cannot_hold_is_in_the_description(path):
    geometry = Geometry.from_spacing((1e-12, 2e-12, 3e-12), "m")
    write(path, noise((1, 1, 3, 4, 5), "uint8"), geometry=geometry)
    kind, known = stated(path)
    assert (kind, known["spacing"], known["unit"]) == ("plain", [1e-12, 2e-12, 3e-12], "m")
    assert tags(path)["ResolutionUnit"] == 1
    assert tags(path)["XResolution"] == (1, 1)
    large = Geometry.from_spacing((1.0, 1.0, 1e11), "m")
    write(path, noise((1, 1, 3, 4, 5), "uint8"), geometry=large, overwrite=True)
    assert stated(path)[0] == "plain"


@given(st.floats(1e-6, 1e6))
def test_resolutions_are_near(size):
    pixels, units = words_module._pixels_a_unit(words_module.Fraction(repr(size)))
    assert 0 < pixels < 2**32
    assert 0 < units < 2**32
    assert units / pixels == pytest.approx(size, rel=1e-9)
    if len(repr(size)) < 9 and "e" not in repr(size):
        assert units / pixels == size


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, np.inf, 1), (1, 1, np.nan)])
def test_spacing_that_is_none(words, spacing):
    kind, path, dtype = words
    write(path, noise((1, 1, 3, 4, 5), dtype), geometry=Geometry.from_spacing(spacing, "um"))
    found, known = stated(path)
    assert found == kind
    assert not {"spacing", "unit", "PhysicalSizeX"} & set(known)
    assert tags(path)["XResolution"] == (1, 1)


def test_an_unknown_unit_stays_unknown(words):
    kind, path, dtype = words
    write(path, noise((1, 1, 3, 4, 5), dtype), geometry=Geometry.from_spacing((3, 2, 1), None))
    found, known = stated(path)
    assert found == kind
    assert not {"spacing", "unit", "PhysicalSizeX"} & set(known)
    with open_volume(path) as source:
        assert source.info.geometry == Geometry()


def test_the_time_step(words):
    kind, path, dtype = words
    write(path, noise(dtype=dtype), like=timed(0.7))
    _, known = stated(path)
    assert known["TimeIncrement" if kind == "ome" else "finterval"] == 0.7
    assert known.get("TimeIncrementUnit", "s") == "s"
    write(path, noise((1, 1, 3, 4, 5), dtype), like=timed(0.7), overwrite=True)
    assert not {"TimeIncrement", "finterval"} & set(stated(path)[1])


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ('volconv 0.1 – gaussian:sigma=2µm <a> & "b" {c}', 'volconv 0.1 – gaussian:sigma=2µm <a> & "b" {c}'),
        ("from a\nb\x00c\x1b\udcff.nii", "from a b c  .nii"),
        ("体积 𝔸", "体积 𝔸"),
    ],
)
def test_the_note_is_kept(words, note, kept):
    kind, path, dtype = words
    write(path, noise((1, 1, 3, 4, 5), dtype), note=note)
    assert stated(path)[1][{"ome": "Description", "imagej": "Info", "plain": "note"}[kind]] == kept
    assert tags(path)["Software"] == "volconv"


def test_no_note_is_no_note(words):
    _, path, dtype = words
    write(path, noise((1, 1, 3, 4, 5), dtype))
    assert not {"Description", "Info", "note"} & set(stated(path)[1])


def test_what_tiff_cannot_hold_is_told(path):
    array = noise((1, 1, 3, 4, 5), "uint8")
    assert write(path, array, geometry=MICRONS).notes == ()
    moved = Geometry.from_spacing((3, 2, 1), "um", (0, 5, 0))
    dropped = "TIFF holds no origin, only spacing: dropped 0,5,0 (D,H,W)"
    assert write(path, array, geometry=moved, note="smooth", overwrite=True).notes == (f"v.tif: {dropped}",)
    assert stated(path)[1]["Info"] == f"smooth; {dropped}"
    flipped = Geometry.from_matrix(np.diag([-1, 2, 3, 1]))
    (note,) = write(path, array, geometry=flipped, overwrite=True).notes
    assert note.startswith("v.tif: TIFF holds no orientation, only spacing: dropped affine [-1 0 0 0; ")
    with open_volume(path) as source:
        assert source.info.geometry == Geometry.from_spacing((3, 2, 1), "mm")


def test_what_has_no_place(path):
    with pytest.raises(WriteError, match="TIFF has no place for a slope"):
        create_volume(path, shape=(1, 1, 1, 1, 1), dtype="uint8", scaling=Scaling(2, 0))
    with pytest.raises(ParameterError, match=r"output must be a whole file: .* \(got .*v\.tif:1\)"):
        create_volume(f"{path}:1", shape=(1, 1, 1, 1, 1), dtype="uint8")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": "16"}], ids=str)
def test_bytes_are_reproducible(tmp_path, words, options):
    _, path, dtype = words
    found = []
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / path.name, noise(dtype=dtype), geometry=MICRONS, note="n", options=options)
        found.append((tmp_path / folder / path.name).read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
def test_an_abort_leaves_nothing(tmp_path, words, options):
    _, path, dtype = words
    array = noise(dtype=dtype)
    sink = create_volume(path, shape=array.shape, dtype=dtype, options=options)
    sink.write(Region.whole(array.shape), array)
    sink.abort()
    sink.abort()
    sink.commit()
    assert not list(tmp_path.iterdir())
    write(path, array, options=options)
    before = path.read_bytes()
    for call in (create_volume, describe_volume):
        with pytest.raises(OutputExistsError):
            call(path, shape=array.shape, dtype=dtype, options=options)
    with (
        pytest.raises(KeyboardInterrupt),
        create_volume(path, shape=(1,) * 5, dtype=dtype, options=options, overwrite=True),
    ):
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    sink = create_volume(path, shape=(1,) * 5, dtype=dtype, options=options, overwrite=True)
    sink.commit()
    sink.commit()
    sink.abort()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() != before


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
def test_blocks_must_fit(path, options):
    sink = create_volume(path, shape=SHAPE, dtype="uint16", options=options)
    with pytest.raises(ValueError, match="sink's dtype uint16"):
        sink.write(Region.whole(SHAPE), noise(dtype="uint8"))
    with pytest.raises(ValueError, match="within the volume"):
        sink.write(Region((0, 0, 4, 0, 0), (2, 3, 5, 37, 41)), noise()[:, :, :1])
    sink.abort()


@pytest.mark.parametrize("size", [50, 1000, 50_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, words, size):
    _, path, dtype = words
    path.write_bytes(b"old")
    array = noise((1, 1, 4, 200, 200), dtype)  # 320 kB
    with (
        small_disk(size),
        pytest.raises(WriteError, match=rf"{re.escape(str(path))}: cannot be written: File too large"),
    ):
        write(path, array, overwrite=True)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_fills_up_while_packing(tmp_path, words):
    _, path, dtype = words
    array = np.random.default_rng(0).integers(0, 2**15, (1, 1, 4, 100, 100)).astype(dtype)

    def fill():
        with create_volume(path, shape=array.shape, dtype=dtype, options={"compression": "zlib"}) as sink:
            sink.write(Region.whole(array.shape), array)

    with small_disk(30_000), pytest.raises(WriteError, match=r"cannot be written: File too large"):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_failing_write_is_translated(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    for options in ({}, {"tile": "16"}):
        with pytest.raises(WriteError, match=r"v\.tif: cannot be written: No space left on device"):
            write(path, noise(), options=options)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"tile": "16"}, {"compression": "lzw", "tile": "32,16"}])
@pytest.mark.parametrize(("suffix", "order"), [("v.tif", (0, 2, 1)), ("v.ome.tif", (0, 1, 2)), ("v/", (0, 1, 2))])
def test_planes_are_packed_as_they_come_in_the_order_of_the_file(tmp_path, monkeypatch, options, suffix, order):
    array = noise((1, 1, 5, 40, 50) if suffix == "v/" else (2, 3, 5, 40, 50), "uint16")
    if suffix == "v.tif" and "tile" in options:
        order = (0, 1, 2)  # ImageJ knows no tiles
    planes = [Region((n, c, z, 0, 0), (n + 1, c + 1, z + 1, 40, 50)) for n, c, z in np.ndindex(array.shape[:3])]
    in_order = sorted(planes, key=lambda plane: [plane.start[axis] for axis in order])
    parts = [part for plane in in_order for part in (plane.along(3, 0, 7), plane.along(3, 7, 40))]
    spools, files = [], {}
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **how: spools.append(how) or real(**how))
    for name, regions in (("order", in_order), ("parts", parts), ("back", in_order[::-1])):
        (tmp_path / name).mkdir()
        target = f"{tmp_path}/{name}/{suffix}"
        with create_volume(target, shape=array.shape, dtype=array.dtype, options=options) as sink:
            for region in regions:
                sink.write(region, array[region.slices])
        assert len(spools) == (name == "back")
        path = Path(target)
        files[name] = [f.read_bytes() for f in (sorted(path.iterdir()) if path.is_dir() else [path])]
        with open_volume(target) as source:
            np.testing.assert_array_equal(source.numpy(), array)
    assert files["order"] == files["parts"] == files["back"]


@pytest.mark.parametrize("written", [0, 3])
def test_giving_up_ends_the_thread_that_packs(tmp_path, written):
    before = threading.active_count()
    array = noise((1, 1, 5, 40, 50), "uint16")
    for suffix in ("v.tif", "v/"):
        sink = create_volume(
            f"{tmp_path}/{suffix}", shape=array.shape, dtype=array.dtype, options={"compression": "zlib"}
        )
        sink.write(Region((0, 0, 0, 0, 0), (1, 1, written, 40, 50)), array[:, :, :written])
        sink.abort()
        sink.abort()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())
