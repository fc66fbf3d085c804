"""TIFF stacks and folders of slices, against tifffile."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volconv.errors import ReadError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, open_volume, tiffpages, tiffwrite
from volconv.io.raw import RawFile
from volconv.io.tiff import DTYPES

ROOT = Path(__file__).parent.parent
GUESSED = ("v.tif does not say what its pages are, taken as slices along Z",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.tif"


def noise(shape=(7, 16, 20), dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 100).astype(dtype)


def tags(path, name):
    with tifffile.TiffFile(path) as file:
        return [page.tags[name].valueoffset for page in file.pages]


def create(path, shape=(1, 1, 4, 5, 6), dtype="uint8", **options):
    with create_volume(path, shape=shape, dtype=dtype, **options) as sink:
        sink.write(Region.whole(shape), np.ones(shape, dtype))
    return sink


@pytest.mark.parametrize("name", ["tests/data/mask3d.tif", "sample_data/nuclei.tif"])
def test_real_files(name):
    with open_volume(ROOT / name) as source:
        assert source.info.shape == (1, 1, 31, 61, 57)
        assert source.info.dtype == np.uint16
        assert source.info.format == "tiff"
        assert source.info.geometry == Geometry()
        assert source.info.notes == (f"{Path(name).name} does not say what its pages are, taken as slices along Z",)
        np.testing.assert_array_equal(source.numpy()[0, 0], tifffile.imread(ROOT / name))


@pytest.mark.parametrize(
    ("axes", "order"),
    [("TZCYX", "TCZYX"), ("CZYX", "CZYX"), ("ZCYX", "CZYX"), ("TZYX", "TZYX"), ("CTYX", "TCYX"), ("YX", "YX")],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_axes_in_any_order(path, axes, order, compression):
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 8, "X": 9}
    array = noise(tuple(sizes[axis] for axis in axes))
    tifffile.imwrite(path, array, metadata={"axes": axes}, photometric="minisblack", compression=compression)
    expected = array.transpose([axes.index(axis) for axis in order])
    with open_volume(path) as source:
        assert source.info.shape == tuple(sizes[axis] if axis in axes else 1 for axis in "TCZYX")
        assert source.info.notes == ()
        np.testing.assert_array_equal(source.numpy().reshape(expected.shape), expected)
        part = Region((0, 0, 0, 2, 3), (1, 1, 1, 7, 8))
        np.testing.assert_array_equal(source.read(part), source.numpy()[part.slices])


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_differences_are_undone(path, dtype):
    array = noise(dtype=dtype)
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", predictor=dtype != "float32")
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


def test_uncompressed_files_are_read_flat(path):
    tifffile.imwrite(path, noise(), photometric="minisblack")
    with open_volume(path) as source:
        assert isinstance(source._reader, RawFile)


def test_few_decoded_pages_are_kept(path, monkeypatch):
    array = noise()
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")
    monkeypatch.setattr(tiffpages, "CACHE_BYTES", 3 * array[0].nbytes)
    decoded = []
    with open_volume(path) as source:
        load = source._reader._load
        source._reader._load = lambda number: decoded.append(number) or load(number)
        for start in (0, 2, 4):
            source.read(Region((0, 0, start, 0, 0), (1, 1, start + 3, 4, 4)))
        assert decoded == [1, 2, 3, 4, 5, 6]  # page 0 was decoded when the file was opened
        assert len(source._reader._kept) == 3


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((4, 5, 3), "u1"), {"photometric": "rgb"}, r"hold 3 colour samples a pixel \(RGB\)"),
        (np.zeros((7, 4, 5, 4), "u1"), {"photometric": "rgb"}, "hold 4 colour samples a pixel"),
        (np.zeros((3, 4, 5), "u1"), {"photometric": "rgb", "planarconfig": "separate"}, "colour samples"),
        (np.zeros((4, 5), "u1"), {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "palette colours"),
        (np.zeros((2, 3, 4, 5), "u1"), {"photometric": "minisblack"}, r"its axes QQYX \(2, 3, 4, 5\) are not those"),
        (np.zeros((2, 4, 5), "u1"), {"photometric": "minisblack", "metadata": {"axes": "AYX"}}, "its axes AYX"),
    ],
)
def test_what_is_no_stack_of_grey_pages(path, array, options, message):
    tifffile.imwrite(path, array, **options)
    with pytest.raises(ReadError, match=message) as caught:
        open_volume(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_pages_of_several_sizes(path):
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 5), "u1"), metadata=None)
        writer.write(np.zeros((6, 5), "u1"), metadata=None)
    with pytest.raises(ReadError, match=r"its pages are of several kinds \(4 x 5 uint8, 6 x 5 uint8\)"):
        open_volume(path)


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
    content = bytearray(path.read_bytes())
    for offset in tags(path, "Compression"):
        content[offset : offset + 2] = struct.pack("<H", code)
    path.write_bytes(content)
    with pytest.raises(ReadError, match=rf"v\.tif: {message}"):
        open_volume(path)


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


@pytest.mark.parametrize(
    ("options", "spacing", "unit", "note"),
    [
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "micron"}, "resolution": (4, 5)},
            (2, 0.2, 0.25),
            "um",
            "",
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "\\u00B5m"}, "resolution": (4, 5)},
            (2, 0.2, 0.25),
            "um",
            "",
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "cm"}, "resolution": (4, 5)},
            (20, 2, 2.5),
            "mm",
            "",
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um"}, "resolution": (4, 5)},
            (1, 1, 1),
            None,
            "no spacing along Z",
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "pixel"}, "resolution": (4, 5)},
            (1, 1, 1),
            None,
            "",
        ),
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, (1, 1, 1), None, ""),
        ({"metadata": {"axes": "ZYX", "spacing": 2.5, "unit": "nm"}, "resolution": (4, 5)}, (2.5, 0.2, 0.25), "nm", ""),
        ({"metadata": {"axes": "ZYX"}, "resolution": (72, 72), "resolutionunit": "INCH"}, (1, 1, 1), None, ""),
        ({"metadata": {"axes": "ZYX"}, "resolution": (1, 1), "resolutionunit": "CENTIMETER"}, (1, 1, 1), None, ""),
        (
            {"metadata": {"axes": "ZYX"}, "resolution": (9000, 9000), "resolutionunit": "CENTIMETER"},
            (1, 1, 1),
            None,
            "along Z",
        ),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX",
                    "PhysicalSizeX": 1.0,
                    "PhysicalSizeY": 3.0,
                    "PhysicalSizeZ": 0.002,
                    "PhysicalSizeZUnit": "mm",
                },
            },
            (2, 3, 1),
            "um",
            "",
        ),
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 3.0}},
            (1, 1, 1),
            None,
            "along Z",
        ),
        ({"ome": True, "metadata": {"axes": "ZYX"}}, (1, 1, 1), None, ""),
    ],
)
def test_stated_spacing(path, options, spacing, unit, note):
    tifffile.imwrite(path, noise(), photometric="minisblack", **options)
    with open_volume(path) as source:
        np.testing.assert_allclose(source.info.geometry.spacing, spacing, rtol=1e-9)
        assert source.info.geometry.unit == unit
        assert len(source.info.notes) == bool(note)
        assert note in "".join(source.info.notes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_written(path, dtype):
    array = noise((2, 3, 4, 5, 6), dtype)
    with create_volume(path, shape=array.shape, dtype=dtype) as sink:
        sink.write(Region.whole(array.shape), array)
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej == (dtype in ("uint8", "uint16", "float32"))
        assert file.series[0].axes == ("TZCYX" if file.is_imagej else "TCZYX")
        assert not file.is_bigtiff
        got = file.series[0].asarray()
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array.transpose(0, 2, 1, 3, 4) if file.is_imagej else array)
        assert "DateTime" not in file.pages[0].tags


def test_large_stacks_are_bigtiff(path, monkeypatch):
    monkeypatch.setattr(tiffwrite, "_CLASSIC_BYTES", 100)
    create(path, dtype="uint16", geometry=Geometry.from_spacing((3, 2, 1), "um"))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert not file.is_imagej
        assert file.series[0].axes == "ZYX"
    with open_volume(path) as source:
        assert source.info.geometry.spacing == (3, 2, 1)
        assert source.info.geometry.unit == "um"


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
def test_narrow_volumes_are_not_taken_for_colours(tmp_path, width, suffix, dtype):
    for shape in (
        (1, 1, 5, 6, width),
        (1, width, 1, 5, 6),
        (2, 1, 5, 6, width),
        (1, 1, width, 5, 7),
        (1, 1, 5, width, 6),
    ):
        path = tmp_path / f"{'x'.join(map(str, shape))}{suffix}"
        array = noise(shape, dtype)
        with create_volume(path, shape=shape, dtype=dtype) as sink:
            sink.write(Region.whole(shape), array)
        with open_volume(path) as source:
            assert source.info.shape == shape
            np.testing.assert_array_equal(source.numpy(), array)


def test_what_tiff_cannot_hold_is_told(path):
    straight = Geometry.from_spacing((3, 2, 1), "um")
    assert create(path, geometry=straight).info.notes == ()
    moved = Geometry.from_spacing((3, 2, 1), "um", (0, 5, 0))
    assert create(path, geometry=moved, overwrite=True).info.notes == (
        "v.tif: TIFF holds no origin; it is dropped, the spacing kept",
    )
    flipped = Geometry.from_matrix(np.diag([-1, 2, 3, 1]))
    (note,) = create(path, geometry=flipped, overwrite=True).info.notes
    assert "TIFF holds no orientation" in note
    with open_volume(path) as source:
        assert source.info.geometry == Geometry.from_spacing((3, 2, 1), "mm")


def test_an_unknown_unit_stays_unknown(path):
    create(path, geometry=Geometry.from_spacing((3, 2, 1), None))
    with open_volume(path) as source:
        assert source.info.geometry == Geometry()


def test_the_note_and_the_slope(path):
    create(path, note="volconv 0.1 – smooth")
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags["Software"].value == "volconv 0.1 ? smooth"
    with pytest.raises(WriteError, match="TIFF has no place for a slope"):
        create_volume(path, shape=(1, 1, 1, 1, 1), dtype="uint8", scaling=Scaling(2, 0), overwrite=True)


@pytest.fixture
def slices(tmp_path):
    folder, array = tmp_path / "slices", noise((12, 5, 6))
    folder.mkdir()
    for number, plane in enumerate(array):
        tifffile.imwrite(folder / f"slice{number}.tif", plane, compression="zlib" if number % 2 else None)
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


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    create(tmp_path / "a[1].tif")
    with open_volume(tmp_path / "a[1].tif") as source:
        assert source.numpy().sum() == 120


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


def test_no_slices(tmp_path):
    with pytest.raises(ReadError, match=r"the folder holds no \.tif or \.tiff files"):
        open_volume(tmp_path)
    with pytest.raises(ReadError, match="no such files"):
        open_volume(tmp_path / "*.tif")
