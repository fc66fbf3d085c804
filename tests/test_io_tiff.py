"""TIFF stacks: how pages may be stored, and damage, against tifffile."""

import importlib
import struct
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile

from volconv.errors import OutOfMemoryError, ReadError, VolconvError
from volconv.geometry import Geometry
from volconv.io import Region, list_contents, open_volume
from volconv.io.formats import SUFFIXES
from volconv.io.raw import RawFile
from volconv.io.tiff import open_file, opening, pages
from volconv.io.volume import Reading

ROOT = Path(__file__).parent.parent
DTYPES = SUFFIXES[".tif"].dtypes
GUESSED = ("v.tif does not say what its pages are, taken as slices along Z",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.tif"


def noise(shape=(7, 16, 20), dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 100).astype(dtype)


def tags(path, name):
    with tifffile.TiffFile(path) as file:
        return [page.tags[name].valueoffset for page in file.pages]


def patched(path, tag, value):
    """Change the inline value of a tag of all pages."""
    content = bytearray(path.read_bytes())
    for offset in tags(path, tag):
        content[offset : offset + 2] = struct.pack("<H", value)
    path.write_bytes(content)


@pytest.fixture
def without_imagecodecs(monkeypatch):
    """A function that makes tifffile what it is where imagecodecs is not installed."""

    def hide():
        monkeypatch.setattr(tifffile.tifffile, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
        for codecs in (tifffile.TIFF.DECOMPRESSORS, tifffile.TIFF.UNPREDICTORS):
            monkeypatch.setattr(codecs, "_codecs", {})  # those that were found so far

    return hide


@pytest.mark.parametrize("name", ["tests/data/mask3d.tif", "sample_data/nuclei.tif"])
def test_real_files(name):
    with open_volume(ROOT / name) as source:
        assert source.info.shape == (1, 1, 31, 61, 57)
        assert source.info.dtype == np.uint16
        assert source.info.format == "tiff"
        assert source.info.geometry == Geometry()
        assert source.info.axes == "ZYX"
        assert source.info.compression == "zlib"
        assert source.info.access.chunk == (1, 1, 1, 61, 57)
        assert source.info.time_step is source.info.scaling is source.info.header is None
        assert source.info.notes == (f"{Path(name).name} does not say what its pages are, taken as slices along Z",)
        np.testing.assert_array_equal(source.numpy()[0, 0], tifffile.imread(ROOT / name))


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">", "bigtiff": True},
        {"compression": "zlib"},
        {"compression": "lzma"},
        {"tile": (16, 16)},
        {"metadata": None},
        {"rowsperstrip": 3},
    ],
    ids=str,
)
def test_dtypes_and_layouts(path, dtype, options):
    array = noise(dtype=dtype)
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    with open_volume(path) as source:
        assert source.info.dtype == (np.uint8 if dtype == "bool" else array.dtype)
        assert source.info.dtype.isnative
        assert source.info.notes == GUESSED
        got = source.numpy()
        assert got.dtype == source.info.dtype
        np.testing.assert_array_equal(got[0, 0], array)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "lzma", "packbits", None])
@pytest.mark.parametrize(
    "layout", [{}, {"rowsperstrip": 3}, {"tile": (16, 16)}, {"tile": (16, 16), "bigtiff": True}], ids=str
)
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(("dtype", "predictor"), [("uint8", 2), ("int32", 2), ("float32", 3), ("float64", 1)])
def test_compressions_and_predictors(path, compression, layout, byteorder, dtype, predictor):
    predictor = predictor if compression not in (None, "packbits") else 1
    array = noise((2, 19, 37), dtype)
    tifffile.imwrite(
        path,
        array,
        photometric="minisblack",
        compression=compression,
        predictor=predictor,
        byteorder=byteorder,
        **layout,
    )
    with open_volume(path) as source:
        assert source.info.compression == compression
        flat = compression is None and "tile" not in layout
        piece = layout.get("tile") or (layout.get("rowsperstrip", 19), 37)
        assert source.info.access.chunk == (None if flat else (1, 1, 1, *piece))
        assert isinstance(source._reader, RawFile) == flat
        np.testing.assert_array_equal(source.numpy()[0, 0], array)
        part = Region((0, 0, 1, 2, 15), (1, 1, 2, 18, 36))
        np.testing.assert_array_equal(source.read(part)[0, 0], array[part.slices[2:]])


@pytest.mark.parametrize(
    ("dtype", "compression", "arguments"),
    [
        ("uint16", "jpeg2000", {"level": 0}),
        ("uint8", "jpegxl", {"lossless": True}),
        ("uint16", "png", None),
        ("float32", "lerc", None),
        ("uint8", "jpegxr", {"level": 1.0}),
    ],
)
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressions_of_images(path, dtype, compression, arguments, tile):
    array = noise((2, 24, 40), dtype)
    options = {"compression": compression, "compressionargs": arguments, "tile": tile}
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    with open_volume(path) as source:
        assert source.info.compression == compression
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


@pytest.mark.parametrize(("code", "name"), [(8, "zlib"), (32946, "zlib"), (50013, "pixtiff")])
def test_names_of_deflate(path, code, name):
    array = noise()
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")
    patched(path, "Compression", code)
    with open_volume(path) as source:
        assert source.info.compression == name
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


@pytest.mark.parametrize(("compression", "loses"), [("webp", False), ("jpeg", True)])
def test_compressions_of_colours(path, compression, loses):
    array = noise((2, 24, 40, 3), "uint8")
    arguments = None if loses else {"lossless": True}
    tifffile.imwrite(path, array, photometric="rgb", compression=compression, compressionargs=arguments)
    with open_volume(path, rgb=True) as source:
        got = source.numpy()[0].transpose(1, 2, 3, 0)
        np.testing.assert_array_equal(got, tifffile.imread(path))
        assert np.array_equal(got, array) != loses


@pytest.mark.parametrize(
    ("bits", "dtype", "byteorder"),  # tifffile mixes up bytes when it writes 12 bits big-endian
    [(1, "uint8", "<"), (1, "uint8", ">"), (4, "uint8", "<"), (4, "uint8", ">"), (12, "uint16", "<")],
)
def test_few_bits_a_sample(path, bits, dtype, byteorder):
    array = noise((3, 9, 11), dtype) % (1 << bits)
    stored, options = (array.astype(bool), {}) if bits == 1 else (array, {"bitspersample": bits})
    tifffile.imwrite(path, stored, photometric="minisblack", byteorder=byteorder, **options)
    with open_volume(path) as source:
        assert source.info.dtype == dtype
        np.testing.assert_array_equal(source.numpy()[0, 0], array)
        assert bits > 1 or set(np.unique(source.numpy())) == {0, 1}


@pytest.mark.parametrize("dtype", ["bool", "uint8"])
def test_white_as_zero_is_told_and_left(path, dtype):
    array = noise((3, 9, 11), "uint8") % 2
    tifffile.imwrite(path, array.astype(dtype), photometric="miniswhite")
    with open_volume(path) as source:
        assert source.info.notes == (*GUESSED, "v.tif counts from white to black (MINISWHITE); values are as stored")
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16), (2, 16, 16)], ids=str)
def test_pages_with_a_depth(path, compression, tile):
    array = noise((2, 5, 20, 24))
    options = {"volumetric": True, "tile": tile, "compression": compression, "metadata": {"axes": "TZYX"}}
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].axes == "ZYX"
    with open_volume(path) as source:
        assert source.info.shape == (2, 1, 5, 20, 24)
        assert source.info.access.chunk == (None if compression is tile is None else (1, 1, 5, 20, 24))
        np.testing.assert_array_equal(source.numpy()[:, 0], array)
        part = Region((1, 0, 2, 3, 4), (2, 1, 4, 9, 11))
        np.testing.assert_array_equal(source.read(part), array[:, None][part.slices])


def test_reading_holds_to_the_volume(path):
    tifffile.imwrite(path, noise(), photometric="minisblack", compression="zlib")
    with open_volume(path) as source:
        assert source.read(Region((0, 0, 3, 4, 5), (1, 1, 3, 6, 7))).shape == (1, 1, 0, 2, 2)
        with pytest.raises(ValueError, match="within the volume"):
            source.read(Region((0, 0, 0, 0, 0), (1, 1, 8, 1, 1)))
    with pytest.raises(ValueError, match=r"v\.tif is closed"):
        source.read(Region((0, 0, 0, 0, 0), (1, 1, 1, 1, 1)))


def decoded_pieces(source):
    """A list that grows by (page, piece) with each that is decoded."""
    decoded, load = [], source._reader._load
    source._reader._load = lambda page, piece: decoded.append((page, piece)) or load(page, piece)
    return decoded


def test_few_decoded_pages_are_kept(path, monkeypatch):
    array = noise()
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")
    monkeypatch.setattr(pages, "CACHE_BYTES", 3 * array[0].nbytes)
    with open_volume(path) as source:
        decoded = decoded_pieces(source)
        for start in (0, 2, 4):
            source.read(Region((0, 0, start, 0, 0), (1, 1, start + 3, 4, 4)))
        assert [page for page, _ in sorted(decoded)] == [1, 2, 3, 4, 5, 6]  # page 0 was decoded by opening the file
        assert len(source._reader._kept) == 3
        source.expect(Reading())
        del decoded[:]
        for _ in range(2):
            source.read(Region((0, 0, 0, 0, 0), (1, 1, 1, 4, 4)))
        assert decoded == [(0, 0)] * 2


@pytest.mark.parametrize("layout", [{"rowsperstrip": 3}, {"tile": (16, 16)}], ids=str)
@pytest.mark.parametrize("threads", [1, 4])
def test_only_pieces_that_are_asked_for_are_decoded(path, monkeypatch, layout, threads):
    array = noise((4, 50, 70))
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", **layout)
    with open_volume(path) as source:
        monkeypatch.setattr(source._reader, "_threads", threads)
        decoded = decoded_pieces(source)
        part = Region((0, 0, 1, 20, 17), (1, 1, 3, 33, 33))
        np.testing.assert_array_equal(source.read(part)[0, 0], array[part.slices[2:]])
        pieces = [6, 7, 8, 9, 10] if "tile" not in layout else [6, 7, 11, 12]
        assert sorted(decoded) == [(page, piece) for page in (1, 2) for piece in pieces]


def test_pieces_that_are_not_there_hold_nothing(path):
    array = noise((1, 48, 32))
    given = iter([array[0, :16], None, array[0, 32:]])
    tifffile.imwrite(path, given, shape=array.shape, dtype="uint16", tile=(16, 32), photometric="minisblack")
    array[0, 16:32] = 0
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


@pytest.mark.parametrize(
    "options", [{"compression": "zlib"}, {"compression": "zlib", "metadata": None}, {"metadata": None}]
)
@pytest.mark.parametrize("kept", [0.05, 0.2, 0.5, 0.8])
def test_truncated_stacks_never_pass_for_shorter_ones(path, options, kept):
    tifffile.imwrite(path, noise((30, 40, 50)), photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    def read():
        with open_volume(path) as source:
            source.numpy()

    with pytest.raises(ReadError, match=r"v\.tif: ") as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}, {"compression": "zlib"}], ids=str)
def test_a_stack_whose_last_page_is_cut_off(path, options):
    tifffile.imwrite(path, noise(), photometric="minisblack", **options)
    with tifffile.TiffFile(path) as file:
        end = file.pages[-1].offset + 20
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ReadError, match=r"v\.tif: is truncated or damaged: .* page [17] lies outside the file"):
        open_volume(path)


def test_an_empty_file(path):
    path.touch()
    for read in (open_volume, list_contents):
        with pytest.raises(ReadError, match=r"v\.tif: is empty$"):
            read(path)


def test_a_circular_chain_of_pages(path):
    tifffile.imwrite(path, noise(), photometric="minisblack", metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[0].offset, file.pages[1].offset
    content = bytearray(path.read_bytes())
    end = second + 2 + 12 * struct.unpack_from("<H", content, second)[0]
    content[end : end + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="is truncated or damaged: its page 3"):
        open_volume(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (34887, r"page 1 (is packed by LERC, whose codec|cannot be decoded \(LERC\))"),
        (257, r"page 1 cannot be decoded \(compression 257\)"),
    ],
)
def test_codecs_that_are_not_there(path, code, message):
    tifffile.imwrite(path, noise(), photometric="minisblack", compression="zlib")
    patched(path, "Compression", code)
    with pytest.raises(ReadError, match=rf"v\.tif: {message}"):
        open_volume(path)


@pytest.mark.parametrize(
    ("dtype", "options", "packing"),
    [
        ("uint16", {"compression": "lzw"}, "LZW"),
        ("uint8", {"compression": "jpeg"}, "JPEG"),
        ("uint16", {"compression": "jpeg2000"}, "JPEG2000"),
        ("float32", {"compression": "zlib", "predictor": 3}, "ADOBE_DEFLATE with predictor FLOATINGPOINT"),
        ("uint16", {"bitspersample": 12}, "samples of 12 bits"),
    ],
)
def test_a_missing_library_of_codecs_is_named(path, without_imagecodecs, dtype, options, packing):
    tifffile.imwrite(path, noise(dtype=dtype), photometric="minisblack", **options)
    without_imagecodecs()
    with pytest.raises(ReadError) as caught:
        open_volume(path)
    assert caught.value.message == f"{path}: page 1 is packed by {packing}, whose codec is not installed"
    assert caught.value.hint == "pip install 'volconv[tiff]'"


def test_what_needs_no_library_of_codecs(path, without_imagecodecs):
    array = noise()
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", predictor=2)
    without_imagecodecs()
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


def test_a_damaged_page_is_named(path):
    tifffile.imwrite(path, noise(), photometric="minisblack", compression="zlib")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[4].dataoffsets[0]
    content[place : place + 20] = b"\xff" * 20
    path.write_bytes(content)
    with open_volume(path) as source:
        source.read(Region((0, 0, 0, 0, 0), (1, 1, 4, 16, 20)))
        with pytest.raises(ReadError, match=r"v\.tif: page 5 cannot be decoded \(ADOBE_DEFLATE\)"):
            source.numpy()


def test_samples_of_an_unknown_type(path):
    tifffile.imwrite(path, noise(dtype="float32"), photometric="minisblack", metadata=None)
    patched(path, "BitsPerSample", 8)
    with pytest.raises(
        ReadError, match=r"v\.tif: its pages have an unknown sample type \(got 8 bits, sample format 3\)"
    ):
        open_volume(path)
    assert [entry.dtype for entry in list_contents(path)] == ["unknown"]


def test_samples_of_a_type_that_volumes_do_not_have(path, monkeypatch):
    tifffile.imwrite(path, noise(), photometric="minisblack")
    known = opening.SUFFIXES[".tif"]
    monkeypatch.setitem(opening.SUFFIXES, ".tif", replace(known, dtypes=("uint8", "int8")))
    with pytest.raises(ReadError, match=r"v\.tif: voxels of dtype uint16 are not supported \(known: uint8, int8\)"):
        open_volume(path)


def test_values_that_are_encoded(path):
    gel = [(33445, "I", 1, 2, True), (33446, "2I", 1, (1, 100), True)]
    tifffile.imwrite(path, noise()[0], photometric="minisblack", metadata=None, extratags=gel)
    with pytest.raises(ReadError, match=r"v\.tif: its values are encoded in a way that is not supported \(mdgel\)"):
        open_volume(path)


def test_a_file_without_pages(path):
    path.write_bytes(b"II*\0" + bytes(8))
    with pytest.raises(ReadError, match=r"v\.tif: holds no pages"):
        open_volume(path)
    assert list_contents(path) == []


def test_pages_without_voxels(path):
    tifffile.imwrite(path, noise(), photometric="minisblack", metadata=None)
    patched(path, "ImageLength", 0)
    with pytest.raises(ReadError, match=r"v\.tif: "):
        open_volume(path)


#: Pages that are decoded as a whole, not by strips or tiles.
DEEP = {"volumetric": True, "tile": (2, 16, 16), "compression": "zlib", "photometric": "minisblack"}


def test_a_page_beyond_memory(path, monkeypatch):
    tifffile.imwrite(path, noise((5, 20, 24)), **DEEP)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", mock.Mock(side_effect=MemoryError))
    with pytest.raises(
        OutOfMemoryError, match=r"v\.tif: page 1 does not fit in memory \(shape \(5, 20, 24\), uint16\)"
    ):
        open_volume(path)


def test_a_page_of_another_size(path, monkeypatch):
    tifffile.imwrite(path, noise((5, 20, 24)), **DEEP)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", mock.Mock(return_value=np.zeros((15, 20), np.uint16)))
    with pytest.raises(ReadError, match=r"page 1 cannot be decoded \(ADOBE_DEFLATE\): 2400 voxels expected, 300 found"):
        open_volume(path)


def test_a_folder_of_that_name(path):
    path.mkdir()
    with pytest.raises(ReadError, match=r"v\.tif: is a folder, and holds no \.tif or \.tiff files"):
        open_volume(path)
    with pytest.raises(ReadError, match=r"v\.tif: cannot be read: Is a directory"):
        open_file(path, None, axes=None, rgb=False)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd", "tile": (16, 16)},
        {"compression": "jpeg2000"},
        {"compression": "zlib", "metadata": None},
        {"compression": "packbits", "ome": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um"}},
    ],
    ids=str,
)
def test_damaged_files_give_values_or_one_line(path, options, seed):
    tifffile.imwrite(path, noise(), photometric="minisblack", **options)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    with tifffile.TiffFile(path) as file:
        heads = [0, *(page.offset for page in file.pages)]
    for place in rng.choice(heads, size=3) + rng.integers(200, size=3):
        content[min(place, len(content) - 1)] = rng.choice([0, 1, 2, 127, 255])
    path.write_bytes(content)
    for read in (list_contents, read_corner):
        told = str(path)
        try:
            read(path)
        except VolconvError as error:
            told = str(error)
        assert str(path) in told
        assert "\n" not in told


def read_corner(path):
    with open_volume(path) as source:
        source.read(Region((0, 0, 0, 0, 0), tuple(min(size, 2) for size in source.info.shape)))
