"""Which axes TIFF stacks have: their order, colours, series, and what --axes says, against tifffile."""

import itertools

import numpy as np
import pytest
import tifffile

from volconv.errors import ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io import Entry, Region, list_contents, open_volume
from volconv.io.raw import RawFile

SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 8, "X": 9}
GUESSED = "v.tif does not say what its pages are, taken as slices along Z"
ONE_SLICE = "v.tif holds one slice (D = 1); quote a pattern or name a folder to read slices as one volume"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.tif"


def noise(shape, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 20 + 100).astype(dtype)


def as_volume(array, axes):
    """(N, C, D, H, W) of an array whose axes have these letters."""
    missing = [letter for letter in "TCZYX" if letter not in axes]
    axes = "".join(missing) + axes
    array = array.reshape((1,) * len(missing) + array.shape)
    return array.transpose([axes.index(letter) for letter in "TCZYX"])


def check(source, expected):
    """Whole and in parts, the source is the (N, C, D, H, W) array."""
    assert source.info.shape == expected.shape
    np.testing.assert_array_equal(source.numpy(), expected)
    rng = np.random.default_rng(1)
    for _ in range(10):
        ends = [sorted(rng.integers(0, size + 1, 2).tolist()) for size in expected.shape]
        region = Region(tuple(a for a, _ in ends), tuple(b for _, b in ends))
        np.testing.assert_array_equal(source.read(region), expected[region.slices])


ORDERS = [
    *("TZCYX", "CZYX", "ZCYX", "TZYX", "CTYX", "ZYX"),
    *("YXZ", "XYZ", "ZXY", "XZY", "YZX", "XY"),
    *("YXZC", "XYZTC", "CYXTZ"),
]


@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_axes_in_any_order(path, axes, compression):
    array = noise(tuple(SIZES[axis] for axis in axes))
    tifffile.imwrite(path, array, metadata={"axes": axes}, photometric="minisblack", compression=compression)
    with open_volume(path) as source:
        assert source.info.axes == axes
        assert source.info.notes == ((ONE_SLICE,) if axes == "XY" else ())
        assert isinstance(source._reader, RawFile) == (compression is None)
        if compression is not None:
            page = [SIZES[axis] if axis in axes[-2:] else 1 for axis in "TCZYX"]
            assert source.info.access.chunk == tuple(page)
        check(source, as_volume(array, axes))


@pytest.mark.parametrize("axes", ["".join(first) + "YX" for first in itertools.permutations("TCZ")])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_in_any_order(tmp_path, axes, compression):
    array = noise(tuple(SIZES[axis] for axis in axes))
    options = {"metadata": {"axes": axes}, "compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "v.ome.tif", array, **options)
    with open_volume(tmp_path / "v.ome.tif") as source:
        assert source.info.axes == axes
        assert source.info.notes == ()
        check(source, as_volume(array, axes))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_hyperstacks_of_imagej(path, dtype):
    array = noise((2, 4, 3, 8, 9), dtype)
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TZCYX"})
    with open_volume(path) as source:
        assert source.info.axes == "TZCYX"
        assert source.info.notes == ()
        check(source, as_volume(array, "TZCYX"))


def test_a_hyperstack_in_one_page(path):
    """As ImageJ stores what takes more than 4 GB: one page, behind which the others lie."""
    array = noise((4, 3, 8, 9))
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZCYX"})
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[0], file.pages[1].offset
        chain = first.offset + 2 + 12 * len(first.tags)
    content = bytearray(path.read_bytes())
    assert int.from_bytes(content[chain : chain + 4], "little") == second
    content[chain : chain + 4] = bytes(4)
    path.write_bytes(content)
    with open_volume(path) as source:
        check(source, as_volume(array, "ZCYX"))


@pytest.mark.parametrize(
    ("axes", "shape", "taken", "notes"),
    [
        ("QYX", (4, 8, 9), "ZYX", (GUESSED,)),
        ("IYX", (4, 8, 9), "ZYX", (GUESSED,)),
        ("YXQ", (8, 9, 4), "YXZ", (GUESSED,)),
        ("TQYX", (2, 4, 8, 9), "TZYX", (GUESSED,)),
        ("AYX", (4, 8, 9), "ZYX", ("v.tif has an axis A, taken as slices along Z",)),
        ("HCYX", (4, 3, 8, 9), "ZCYX", ("v.tif has an axis H, taken as slices along Z",)),
        ("QZYX", (1, 4, 8, 9), "ZYX", ()),
        ("QQYX", (1, 4, 8, 9), "ZYX", (GUESSED,)),
        ("ZZYX", (1, 4, 8, 9), "ZYX", ()),
        ("TCYX", (2, 1, 8, 9), "TCYX", ()),
        ("ZYXQ", (4, 8, 9, 1), "ZYX", ()),
        ("ZYXS", (4, 8, 9, 1), "ZYX", ()),
        ("QYX", (1, 8, 9), "YX", (ONE_SLICE,)),
    ],
)
def test_axes_that_a_file_does_not_name(path, axes, shape, taken, notes):
    array = noise(shape)
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes})
    kept = array.squeeze() if "C" not in axes else array
    with open_volume(path) as source:
        assert source.info.axes == taken
        assert source.info.notes == notes
        np.testing.assert_array_equal(source.numpy(), as_volume(kept, taken))


@pytest.mark.parametrize(
    ("axes", "shape", "message", "example"),
    [
        ("QQYX", (2, 3, 4, 5), r"its axes QQYX \(2, 3, 4, 5\) are not those of a volume", "CZYX"),
        ("QZYX", (2, 3, 4, 5), r"its axes QZYX \(2, 3, 4, 5\) are not those of a volume", "CZYX"),
        ("TAZYX", (2, 2, 3, 4, 5), "its axes TAZYX", "TCZYX"),
        ("AHYX", (2, 3, 4, 5), "its axes AHYX", "CZYX"),
        ("ZZYX", (2, 3, 4, 5), "its axes ZZYX", "CZYX"),
    ],
)
def test_axes_that_are_not_those_of_a_volume(path, axes, shape, message, example):
    tifffile.imwrite(path, noise(shape), photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(ReadError, match=message) as caught:
        open_volume(path)
    assert caught.value.hint == f"state them, as in --axes {example} (axes=)"


def test_more_axes_than_a_volume_has(path):
    tifffile.imwrite(path, noise((2, 2, 2, 2, 4, 5)), photometric="minisblack", metadata={"axes": "TRCZYX"})
    with pytest.raises(ReadError, match=r"its axes TRCZYX \(2, 2, 2, 2, 4, 5\) are not those") as caught:
        open_volume(path)
    assert caught.value.hint is None


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("own", "shape", "stated"),
    [
        ("QYX", (4, 8, 9), "TYX"),
        ("QYX", (4, 8, 9), "CYX"),
        ("QYX", (4, 8, 9), "nyx"),
        ("QYX", (4, 8, 9), "ZYX"),
        ("QYX", (4, 8, 9), "YXZ"),
        ("ZYX", (4, 8, 9), "DHW"),
        ("QQYX", (3, 4, 8, 9), "CZYX"),
        ("TAZYX", (2, 3, 4, 8, 9), "TCZYX"),
        ("YX", (8, 9), "ZX"),
        ("QZYX", (1, 4, 8, 9), "TZYX"),
    ],
)
def test_stated_axes_win(path, own, shape, stated, compression):
    array = noise(shape)
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": own}, compression=compression)
    with open_volume(path, axes=stated) as source:
        assert source.info.notes == ()
        assert source.info.axes == stated.upper()
        letters = stated.upper().translate(str.maketrans("NDHW", "TZYX"))
        check(source, as_volume(array, letters))


@pytest.mark.parametrize("stated", ["YX", "TCYX", "QYX", "ZZX", "ZYY", ""])
def test_stated_axes_that_do_not_fit(path, stated):
    tifffile.imwrite(path, noise((4, 8, 9)), photometric="minisblack")
    with pytest.raises(
        ParameterError, match=rf"axes must name each of the 3 axes of .*v\.tif, .*\(got '{stated}'\)"
    ) as caught:
        open_volume(path, axes=stated)
    assert caught.value.hint == "letters are T (or N), C, Z, Y, X, in the file's own order"


@pytest.mark.parametrize(
    ("own", "stated", "spacing"),
    [
        ("ZYX", "ZYX", (3, 2, 1)),
        ("ZYX", "XYZ", (1, 2, 3)),
        ("ZYX", "ZXY", (3, 1, 2)),
        ("ZYX", "WHD", (1, 2, 3)),
        ("TYX", "ZYX", (3, 2, 1)),
        ("ZYX", "TYX", (3, 2, 1)),
    ],
)
def test_a_stated_axis_keeps_its_spacing(tmp_path, own, stated, spacing):
    sizes = {"PhysicalSizeZ": 3, "PhysicalSizeY": 2, "PhysicalSizeX": 1}
    tifffile.imwrite(tmp_path / "v.ome.tif", noise((4, 8, 9)), metadata={"axes": own, **sizes})
    with open_volume(tmp_path / "v.ome.tif", axes=stated) as source:
        assert source.info.geometry == Geometry.from_spacing(spacing, "um")


COLOURS = {
    "contiguous": ((4, 8, 9, 3), "ZYXS", {"planarconfig": "contig"}),
    "planar": ((4, 3, 8, 9), "ZSYX", {"planarconfig": "separate"}),
    "with alpha": ((4, 8, 9, 4), "ZYXS", {"extrasamples": ["unassalpha"]}),
    "planar with alpha": ((4, 4, 8, 9), "ZSYX", {"planarconfig": "separate", "extrasamples": ["unassalpha"]}),
    "volumes": ((2, 4, 8, 9, 3), "TZYXS", {}),
    "one page": ((8, 9, 3), "YXS", {}),
    "one planar page": ((3, 8, 9), "SYX", {"planarconfig": "separate"}),
}


@pytest.mark.parametrize(("shape", "axes", "options"), COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("packing", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}], ids=str)
@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif"])
def test_colours_are_channels_where_asked_for(tmp_path, name, shape, axes, options, packing):
    path, array = tmp_path / name, noise(shape, "uint8")
    tifffile.imwrite(path, array, photometric="rgb", metadata={"axes": axes}, **options, **packing)
    samples = shape[axes.index("S")]
    with pytest.raises(ReadError, match=rf"its pages hold {samples} colour samples a pixel \(RGB\)") as caught:
        open_volume(path)
    assert caught.value.hint == "pass --rgb (rgb=True) to take them as channels"
    assert list_contents(path) == [Entry(str(path), shape, "uint8", axes)]
    with open_volume(path, rgb=True) as source:
        assert source.info.axes == axes
        check(source, as_volume(array, axes.replace("S", "C")))
        if packing:
            page = axes[-3:] if "S" in axes[-3:] else axes[-2:]
            letters = ["T", "S", "Z", "Y", "X"]
            assert source.info.access.chunk == tuple(shape[axes.index(s)] if s in page else 1 for s in letters)


def test_many_samples_that_are_no_colours(path):
    array = noise((4, 8, 9, 5))
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", metadata={"axes": "ZYXS"})
    with pytest.raises(ReadError, match=r"its pages hold 5 colour samples a pixel \(MINISBLACK\)"):
        open_volume(path)
    with open_volume(path, rgb=True) as source:
        check(source, as_volume(array, "ZYXC"))
    with open_volume(path, axes="ZYXC") as source:
        check(source, as_volume(array, "ZYXC"))


def test_colours_whose_axes_are_stated(path):
    array = noise((4, 8, 9, 3), "uint8")
    tifffile.imwrite(path, array, photometric="rgb")
    with open_volume(path, axes="TYXC") as source:
        assert source.info.notes == ()
        check(source, as_volume(array, "TYXC"))
    with open_volume(path, axes="TYXS", rgb=True) as source:
        check(source, as_volume(array, "TYXC"))
    with pytest.raises(ReadError, match="its pages hold 3 colour samples a pixel"):
        open_volume(path, axes="TYXS")


def test_rgb_says_nothing_of_grey_pages(path):
    array = noise((4, 8, 9))
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "CYX"})
    with open_volume(path, rgb=True) as source:
        check(source, as_volume(array, "CYX"))


@pytest.mark.parametrize("rgb", [False, True])
def test_channels_of_colours(path, rgb):
    tifffile.imwrite(path, noise((2, 4, 8, 9, 3), "uint8"), photometric="rgb", metadata={"axes": "CZYXS"})
    with pytest.raises(
        ReadError, match=r"holds both channels and colour samples \(axes CZYXS, shape \(2, 4, 8, 9, 3\)\)"
    ) as caught:
        open_volume(path, rgb=rgb)
    assert caught.value.hint == "state other axes with --axes (axes=), or keep each channel in a file of its own"
    with open_volume(path, axes="TZYXC") as source:
        assert source.info.shape == (2, 3, 4, 8, 9)


def test_one_channel_of_colours(path):
    array = noise((1, 4, 8, 9, 3), "uint8")
    tifffile.imwrite(path, array, photometric="rgb", metadata={"axes": "CZYXS"})
    with open_volume(path, rgb=True) as source:
        assert source.info.axes == "ZYXS"
        check(source, as_volume(array[0], "ZYXC"))


@pytest.mark.parametrize("rgb", [False, True])
def test_palettes_are_refused(path, rgb):
    colours = np.zeros((3, 256), "uint16")
    tifffile.imwrite(path, noise((8, 9), "uint8"), photometric="palette", colormap=colours)
    with pytest.raises(ReadError, match=r"v\.tif: its pages hold palette colours") as caught:
        open_volume(path, rgb=rgb)
    assert caught.value.hint == "convert them to grey values"
    assert list_contents(path) == [Entry(str(path), (8, 9), "uint8", "YX")]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif"])
def test_series(tmp_path, name, options):
    path = tmp_path / name
    arrays = [noise((4, 8, 9)), noise((3, 2, 6, 5), "uint8"), noise((7, 7), "float32")]
    with tifffile.TiffWriter(path) as writer:
        for array, axes in zip(arrays, ("ZYX", "CZYX", "YX"), strict=True):
            writer.write(array, photometric="minisblack", metadata={"axes": axes}, **options)
    with open_volume(path) as source:
        assert source.info.notes == (f"{name} holds 3 series; this is the first, others are {name}:1 to {name}:2",)
        check(source, as_volume(arrays[0], "ZYX"))
    for number, (array, axes) in enumerate(zip(arrays, ("ZYX", "CZYX", "YX"), strict=True)):
        with open_volume(f"{path}:{number}") as source:
            assert source.info.notes == ()
            assert source.info.dtype == array.dtype
            check(source, as_volume(array, axes))
    with open_volume(f"{path}:1", axes="TZYX") as source:
        check(source, as_volume(arrays[1], "TZYX"))
    with pytest.raises(
        ReadError, match=rf"{name}: has no series 3 \(series and shapes: 0: 4 x 8 x 9, 1: 3 x 2 x 6 x 5, 2: 7 x 7\)"
    ):
        open_volume(f"{path}:3")
    assert list_contents(path) == [
        Entry(f"{path}:0", (4, 8, 9), "uint16", "ZYX"),
        Entry(f"{path}:1", (3, 2, 6, 5), "uint8", "CZYX"),
        Entry(f"{path}:2", (7, 7), "float32", "YX"),
    ]


def test_many_series(tmp_path):
    path = tmp_path / "v.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(10):
            writer.write(noise((2, 4, 5)), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(ReadError, match=r"has no series 10 \(.*7: 2 x 4 x 5, \.\.\.\)"):
        open_volume(f"{path}:10")


def test_two_series_and_a_damaged_second(tmp_path):
    path = tmp_path / "v.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        for seed in (0, 1):
            writer.write(
                noise((2, 4, 5), seed=seed), photometric="minisblack", metadata={"axes": "ZYX"}, compression="zlib"
            )
    with open_volume(path) as source:
        assert source.info.notes == ("v.ome.tif holds 2 series; this is the first, the other is v.ome.tif:1",)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.series[1][0].dataoffsets[0]
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"v\.ome\.tif:1: page 1 cannot be decoded"):
        open_volume(f"{path}:1")


@pytest.mark.parametrize("subifds", [0, 2])
def test_levels_and_thumbnails_are_no_series(path, subifds):
    array = noise((4, 16, 16))
    with tifffile.TiffWriter(path, ome=bool(subifds)) as writer:
        writer.write(array, photometric="minisblack", metadata={"axes": "ZYX"}, subifds=subifds)
        for step in (2, 4):
            writer.write(array[:, ::step, ::step], photometric="minisblack", subfiletype=1, metadata={"axes": "ZYX"})
    with open_volume(path) as source:
        assert source.info.notes == ()
        check(source, as_volume(array, "ZYX"))


def test_pages_of_several_kinds(path):
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((3, 4, 5), "u1"), photometric="minisblack", metadata=None)
        writer.write(np.ones((2, 6, 5), "u1"), photometric="minisblack", metadata=None)
    with pytest.raises(
        ReadError, match=r"its pages are of several kinds \(3 x 4 x 5 uint8, 2 x 6 x 5 uint8\)"
    ) as caught:
        open_volume(path)
    assert caught.value.hint == f"name those that are meant, as in {path}:0, or keep one stack in a file"
    with open_volume(f"{path}:1") as source:
        assert source.info.shape == (1, 1, 2, 6, 5)
        assert source.numpy().all()


def test_a_thumbnail_beside_a_plain_stack(path):
    array = noise((3, 8, 9))
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, photometric="minisblack", metadata=None)
        writer.write(np.zeros((4, 3), "u1"), photometric="minisblack", subfiletype=1, metadata=None)
    with open_volume(path) as source:
        assert source.info.notes == (GUESSED,)
        check(source, as_volume(array, "ZYX"))


@pytest.fixture
def ome(tmp_path, monkeypatch):
    """Path of an OME-TIFF of 2 channels, and a function that edits its XML."""
    path = tmp_path / "v.ome.tif"
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(path, noise((2, 3, 8, 9)), photometric="minisblack", metadata={"axes": "CZYX"})

    def edit(old, new):
        text = tifffile.tiffcomment(path)
        assert old in text
        tifffile.tiffcomment(path, text.replace(old, new).encode())

    return path, edit


def test_pages_in_other_files_are_not_followed(ome, monkeypatch):
    path, edit = ome
    tifffile.imwrite(path.with_name("other.tif"), noise((3, 8, 9)), photometric="minisblack")
    data = '<TiffData IFD="0" PlaneCount="6"/>'
    edit(data, '<TiffData IFD="0" PlaneCount="3"/><TiffData FirstC="1" IFD="0" PlaneCount="3">'
         '<UUID FileName="other.tif">urn:uuid:other</UUID></TiffData>')  # fmt: skip
    opened = []
    start = tifffile.FileHandle.open
    monkeypatch.setattr(tifffile.FileHandle, "open", lambda self: (opened.append(self._name), start(self)))
    with pytest.raises(ReadError, match="some of its pages are missing, or in other files, which is not supported"):
        open_volume(path)
    assert opened == ["v.ome.tif"]


def test_pages_that_metadata_promise(ome):
    path, edit = ome
    edit('SizeZ="3"', 'SizeZ="4"')
    with pytest.raises(ReadError, match="some of its pages are missing, or in other files"):
        open_volume(path)


def test_pages_that_were_never_written(ome):
    path, _ = ome
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[4].tags["StripOffsets"].overwrite(0)
    with pytest.raises(ReadError, match="some of its pages are missing, or in other files"):
        open_volume(path)


@pytest.mark.parametrize(("old", "new"), [("</Pixels>", ""), ('SizeX="9"', 'SizeX="8"')])
def test_metadata_that_does_not_fit(ome, old, new):
    path, edit = ome
    edit(old, new)
    with pytest.raises(ReadError, match=r"v\.ome\.tif: its OME metadata does not fit its pages") as caught:
        open_volume(path)
    assert caught.value.hint == "state their axes, as in --axes ZYX (axes=)"
    with open_volume(path, axes="ZYX") as source:
        assert source.info.shape == (1, 1, 6, 8, 9)
