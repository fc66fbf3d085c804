"""What TIFF files say of spacing and time: in words of OME, ImageJ and tifffile, and in microscopes' tags."""

import struct

import numpy as np
import pytest
import tifffile

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io import open_volume


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.tif"


def noise(shape=(7, 16, 20), dtype="uint16"):
    return (np.random.default_rng(0).normal(size=shape) * 20 + 100).astype(dtype)


def imagej(resolution=(4, 5), resolutionunit=None, **words):
    metadata = {"axes": "ZYX", **words}
    return {"imagej": True, "metadata": metadata, "resolution": resolution, "resolutionunit": resolutionunit}


def plain(resolution=None, resolutionunit=None, **words):
    return {"metadata": {"axes": "ZYX", **words}, "resolution": resolution, "resolutionunit": resolutionunit}


def ome(**words):
    return {"ome": True, "metadata": {"axes": "ZYX", **words}}


ALL_THREE = {"PhysicalSizeX": 1.0, "PhysicalSizeY": 3.0, "PhysicalSizeZ": 2.0}

STATED = {
    "ImageJ, micron": (imagej(spacing=2, unit="micron"), (2, 0.2, 0.25), "um"),
    "ImageJ, um": (imagej(spacing=2, unit="um"), (2, 0.2, 0.25), "um"),
    "ImageJ, escaped": (imagej(spacing=2, unit="\\u00B5m"), (2, 0.2, 0.25), "um"),
    "ImageJ, nm": (imagej(spacing=2, unit="nm"), (2, 0.2, 0.25), "nm"),
    "ImageJ, cm": (imagej(spacing=2, unit="cm"), (20, 2, 2.5), "mm"),
    "ImageJ, cm in its tag too": (imagej(resolutionunit="CENTIMETER", spacing=2, unit="cm"), (20, 2, 2.5), "mm"),
    "ImageJ, inch in its tag too": (imagej(resolutionunit="INCH", spacing=2, unit="inch"), (50.8, 5.08, 6.35), "mm"),
    "ImageJ, tag in cm": (
        imagej((40000, 50000), "CENTIMETER", spacing=2, unit="um"),
        (2, 0.2, 0.25),
        "um",
    ),
    "ImageJ, going down": (imagej(spacing=-2, unit="um"), (2, 0.2, 0.25), "um"),
    "ImageJ, own units": (imagej(spacing=2, unit="um", yunit="mm", zunit="nm"), (0.002, 200, 0.25), "um"),
    "tifffile": (plain((4, 5), spacing=2.5, unit="nm"), (2.5, 0.2, 0.25), "nm"),
    "tifffile, tag in cm": (plain((4000, 5000), "CENTIMETER", spacing=2.5, unit="um"), (2.5, 2, 2.5), "um"),
    "tifffile, default tag": (plain((1, 1), "CENTIMETER", spacing=2.5, unit="um"), (2.5, 1, 1), "um"),
    "tifffile, all three": (plain((4, 5), "CENTIMETER", spacing=[3, 2, 1], unit="um"), (3, 2, 1), "um"),
    "OME": (ome(**ALL_THREE), (2, 3, 1), "um"),
    "OME, mm": (ome(**ALL_THREE, **{f"PhysicalSize{a}Unit": "mm" for a in "XYZ"}), (2, 3, 1), "mm"),
    "OME, mixed": (ome(**ALL_THREE, PhysicalSizeZUnit="mm", PhysicalSizeYUnit="nm"), (2000, 0.003, 1), "um"),
    "OME, micro sign": (ome(**ALL_THREE, PhysicalSizeXUnit="µm"), (2, 3, 1), "um"),
    "OME, mixed with cm": (ome(**ALL_THREE, PhysicalSizeXUnit="cm"), (0.002, 0.003, 10), "mm"),
}


@pytest.mark.parametrize(("options", "spacing", "unit"), STATED.values(), ids=STATED)
def test_stated_spacing(path, options, spacing, unit):
    tifffile.imwrite(path, noise(), photometric="minisblack", **options)
    with open_volume(path) as source:
        np.testing.assert_allclose(source.info.geometry.spacing, spacing, rtol=1e-9)
        assert source.info.geometry.unit == unit
        assert source.info.notes == ()


def test_a_micro_sign_as_old_programs_write_it(path):
    tifffile.imwrite(path, noise(), **imagej(spacing=2, unit="um"))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageDescription"].overwrite(file.pages[0].description.replace("um", "µm").encode("latin1"))
    with open_volume(path) as source:
        np.testing.assert_allclose(source.info.geometry.spacing, (2, 0.2, 0.25))
        assert source.info.geometry.unit == "um"


NOT_STATED = {
    "ImageJ": (imagej(None), ""),
    "ImageJ, no unit": (imagej(spacing=2), "unit"),
    "ImageJ, pixels": (imagej(spacing=2, unit="pixel"), "unit"),
    "ImageJ, pixels of 1": (imagej((1, 1), spacing=1, unit="pixel"), ""),
    "ImageJ, no Z": (imagej(unit="um"), "Z (only Y 0.2 um, X 0.25 um)"),
    "ImageJ, no pixels": (imagej((0, 0), spacing=2, unit="um"), "Y, X (only Z 2 um)"),
    "ImageJ, nothing": (imagej(spacing=float("nan"), unit="um"), "Z (only Y 0.2 um, X 0.25 um)"),
    "ImageJ, another unit for Z": (imagej(spacing=2, unit="um", zunit="pixel"), "Z (only Y 0.2 um, X 0.25 um)"),
    "ImageJ, tag in cm alone": (imagej((40000, 50000), "CENTIMETER", spacing=2), "Z (only Y 0.0002 mm, X 0.00025 mm)"),
    "tifffile": (plain(), ""),
    "tifffile, no unit": (plain((4, 5), spacing=2), "Z (only Y 5.08 mm, X 6.35 mm)"),
    "tifffile, not across": (plain(spacing=[3, 2, "1"], unit="um"), "X (only Z 3 um, Y 2 um)"),
    "screen": (plain((72, 72), "INCH"), ""),
    "default": (plain((1, 1), "CENTIMETER"), ""),
    "tag in cm": (plain((9000, 9000), "CENTIMETER"), "Z (only Y 0.00111111 mm, X 0.00111111 mm)"),
    "tag in inches": (plain((300, 300), "INCH"), "Z (only Y 0.0846667 mm, X 0.0846667 mm)"),
    "no unit in the tag": (plain((9000, 9000), "NONE"), ""),
    "OME": (ome(), ""),
    "OME, no Z": (ome(PhysicalSizeX=1.0, PhysicalSizeY=3.0), "Z (only Y 3 um, X 1 um)"),
    "OME, pixels": (ome(**ALL_THREE, PhysicalSizeXUnit="pixel"), ""),
    "OME, pixels along Y": (ome(**ALL_THREE, PhysicalSizeYUnit="pixel"), "Y (only Z 2 um, X 1 um)"),
    "OME, zero": (ome(**{**ALL_THREE, "PhysicalSizeZ": 0.0}), "Z (only Y 3 um, X 1 um)"),
}


@pytest.mark.parametrize(("options", "missing"), NOT_STATED.values(), ids=NOT_STATED)
def test_spacing_that_is_not_stated(path, options, missing):
    tifffile.imwrite(path, noise(), photometric="minisblack", **options)
    note = f"v.tif states no spacing along {missing}, so its spacing counts as unknown"
    if missing == "unit":
        note = "v.tif states a spacing without a unit of length, so it counts as unknown (--spacing says it)"
    with open_volume(path) as source:
        assert source.info.geometry == Geometry()
        assert source.info.notes == ((note,) if missing else ())


@pytest.mark.parametrize("axes", ["ZYX", "YXZ", "XYZ", "ZXY", "YZX"])
def test_tags_of_pages_that_do_not_lie_along_y_and_x(path, axes):
    metadata = {"axes": axes, "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, noise(), photometric="minisblack", resolution=(4, 5), metadata=metadata)
    with open_volume(path) as source:
        if axes == "ZYX":
            assert source.info.geometry.unit == "um"
        else:
            assert source.info.geometry == Geometry()
            assert source.info.notes == (
                "v.tif states no spacing along Y, X (only Z 2 um), so its spacing counts as unknown",
            )


@pytest.mark.parametrize(
    "options", [imagej(unit="um"), ome(PhysicalSizeX=0.25, PhysicalSizeY=0.2)], ids=["ImageJ", "OME"]
)
def test_one_slice_needs_no_spacing_along_z(path, options):
    tifffile.imwrite(path, noise((1, 5, 6)), photometric="minisblack", **options)
    with open_volume(path) as source:
        assert source.info.geometry == Geometry.from_spacing((1, 0.2, 0.25), "um")
        assert "v.tif states no spacing along Z, of which it has one slice: taken as 1 um" in source.info.notes


def test_tags_of_colours(path):
    metadata = {"axes": "ZYXS", "spacing": 2.0, "unit": "um"}
    array = noise((2, 5, 6, 3), "uint8")
    tifffile.imwrite(path, array, photometric="rgb", resolution=(4, 5), metadata=metadata)
    with open_volume(path, rgb=True) as source:
        assert source.info.geometry == Geometry.from_spacing((2, 0.2, 0.25), "um")


@pytest.mark.parametrize("ending", [".tif", ".ome.tif"])
def test_each_series_has_its_own(tmp_path, ending):
    path = tmp_path / f"v{ending}"
    with tifffile.TiffWriter(path) as writer:
        for d, h, w in ((3, 2, 1), (6, 5, 4)):
            known = dict(zip(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), (d, h, w), strict=True))
            metadata = {"axes": "TZYX", "spacing": d, "unit": "um", "finterval": d, "TimeIncrement": d, **known}
            writer.write(noise((2, 3, 5, 6)), photometric="minisblack", metadata=metadata, resolution=(1 / w, 1 / h))
    for number, spacing in enumerate(((3, 2, 1), (6, 5, 4))):
        with open_volume(f"{path}:{number}") as source:
            np.testing.assert_allclose(source.info.geometry.spacing, spacing)
            assert source.info.time_step == spacing[0]


def test_ome_images_without_pages(tmp_path):
    path = tmp_path / "v.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        for name, size in (("a", 1.0), ("b", 2.0)):
            sizes = dict.fromkeys(("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ"), size)
            metadata = {"axes": "ZYX", "Name": name, **sizes}
            writer.write(noise((2, 5, 6)), photometric="minisblack", metadata=metadata)
    text = tifffile.tiffcomment(path)
    first = text[text.index("<TiffData") : text.index("</Pixels>")]
    tifffile.tiffcomment(path, text.replace(first, "", 1).encode())
    with open_volume(path) as source:
        assert source.info.geometry == Geometry.from_spacing((2, 2, 2), "um")
    tifffile.tiffcomment(path, text.replace(first, "", 1).replace('Name="a"', 'Name="b"').encode())
    with open_volume(path) as source:
        assert source.info.geometry == Geometry()
        assert source.info.notes == ("v.ome.tif: its OME metadata does not say which series is which",)


def test_metadata_that_cannot_be_read(tmp_path):
    path = tmp_path / "v.ome.tif"
    tifffile.imwrite(path, noise((2, 5, 6)), photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.tiffcomment(path, tifffile.tiffcomment(path).replace("</Pixels>", "").encode())
    with open_volume(path, axes="ZYX") as source:
        assert source.info.notes == ("v.ome.tif: its OME metadata cannot be read",)


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"imagej": True, "metadata": {"finterval": 2.5}}, 2.5),
        ({"imagej": True, "metadata": {"finterval": 2.5, "tunit": "sec"}}, 2.5),
        ({"imagej": True, "metadata": {"finterval": 250, "tunit": "ms"}}, 0.25),
        ({"imagej": True, "metadata": {"finterval": 3, "tunit": "min"}}, 180),
        ({"imagej": True, "metadata": {"finterval": 3, "tunit": "frames"}}, None),
        ({"imagej": True, "metadata": {"finterval": 0}}, None),
        ({"imagej": True, "metadata": {"fps": 7}}, None),
        ({"metadata": {"finterval": 2.5, "spacing": [1, 1, 1]}}, 2.5),
        ({"metadata": {"finterval": "soon"}}, None),
        ({"ome": True, "metadata": {"TimeIncrement": 2.5}}, 2.5),
        ({"ome": True, "metadata": {"TimeIncrement": 2.5, "TimeIncrementUnit": "ms"}}, 0.0025),
        ({"ome": True, "metadata": {"TimeIncrement": 2.5, "TimeIncrementUnit": "µs"}}, 2.5e-6),
        ({"ome": True, "metadata": {"TimeIncrement": 2, "TimeIncrementUnit": "h"}}, 7200),
        ({"ome": True, "metadata": {"TimeIncrement": 2, "TimeIncrementUnit": "Ms"}}, None),
        ({"ome": True, "metadata": {}}, None),
    ],
    ids=str,
)
def test_time_steps(path, options, step):
    metadata = {"axes": "TZYX", **options["metadata"]}
    tifffile.imwrite(path, noise((3, 2, 5, 6)), photometric="minisblack", **{**options, "metadata": metadata})
    with open_volume(path) as source:
        assert source.info.shape == (3, 1, 2, 5, 6)
        assert source.info.time_step == (None if step is None else pytest.approx(step))


def metamorph(path, planes, *, distances, calibration, unit, calibrated=1):
    """Make a STK file, of which tifffile writes a page and its tags, and no more."""
    tags = [(33628, "I", 2, (0, 0), True), (33629, "2I", 1, (0, 1), True)]
    tifffile.imwrite(path, planes[0], photometric="minisblack", metadata=None, extratags=tags)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, uic1, uic2 = page.dataoffsets[0], page.tags[33628].offset, page.tags[33629].offset
    content = bytearray(path.read_bytes()[:start]) + planes.tobytes()
    places = []
    for part in (
        b"".join(struct.pack("<6I", round(1000 * z), 1000, 2450000, 1000 * i, 0, 0) for i, z in enumerate(distances)),
        struct.pack("<2I", round(1000 * calibration), 1000),
        struct.pack("<I", len(unit) + 1) + unit.encode() + b"\0",
    ):
        places.append(len(content))
        content += part
    spatial, x, y, units = (3, calibrated), (4, places[1]), (5, places[1]), (6, places[2])
    struct.pack_into("<HHII", content, uic1, 33628, 4, 4, len(content))
    struct.pack_into("<HHII", content, uic2, 33629, 5, len(planes), places[0])
    path.write_bytes(content + struct.pack("<8I", *spatial, *x, *y, *units))


@pytest.mark.parametrize(
    ("options", "spacing", "notes"),
    [
        ({"distances": (1.5, 1.5, 1.5), "calibration": 0.25, "unit": "um"}, (1.5, 0.25, 0.25), 0),
        ({"distances": (1.5, 1.5, 1.5), "calibration": 0.25, "unit": "um", "calibrated": 0}, None, 0),
        ({"distances": (1.5, 1.5, 1.5), "calibration": 0.25, "unit": "pixel"}, None, 0),
        ({"distances": (1.5, 1.5, 2.5), "calibration": 0.25, "unit": "um"}, None, 1),
    ],
    ids=str,
)
def test_metamorph(path, options, spacing, notes):
    array = noise((3, 5, 6))
    metamorph(path, array, **options)
    with open_volume(path) as source:
        assert source.info.axes == "ZYX"
        assert source.info.geometry == (Geometry() if spacing is None else Geometry.from_spacing(spacing, "um"))
        assert len(source.info.notes) == notes
        np.testing.assert_array_equal(source.numpy()[0, 0], array)


def zeiss(path, array, *, compression=None, **wrong):
    """Make a LSM file of (T, Z, C, Y, X): every other page is a thumbnail, and a page holds all channels."""
    channels = array.shape[2]
    known = np.zeros((), [(name, kind) for name, kind in tifffile.TIFF.CZ_LSMINFO if name])
    known["MagicNumber"], known["StructureSize"], known["ScanType"] = 67127628, known.nbytes, 6
    for name, size in zip(("Time", "Z", "Channels", "Y", "X"), array.shape, strict=True):
        known[f"Dimension{name}"] = wrong.get(name, size)
    for axis, size in zip("ZYX", (5e-7, 2e-7, 1e-7), strict=True):
        known[f"VoxelSize{axis}"] = size
    known["TimeIntervall"] = 2.5
    options = {"photometric": "minisblack", "metadata": None, "compression": compression}
    if channels > 1:
        options["planarconfig"] = "separate"
    tags = [(34412, "B", known.nbytes, known.tobytes(), True)]
    with tifffile.TiffWriter(path) as writer:
        for page in array.reshape(-1, *array.shape[2:]):
            writer.write(page if channels > 1 else page[0], extratags=tags, **options)
            thumbnail = np.zeros((3, 4, 4), "uint8")
            writer.write(thumbnail, photometric="rgb", planarconfig="separate", subfiletype=1, metadata=None)
            tags = []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_zeiss(path, channels, compression):
    array = noise((2, 4, channels, 5, 6))
    zeiss(path, array, compression=compression)
    with open_volume(path) as source:
        assert source.info.axes == ("TZCYX" if channels > 1 else "TZYX")
        np.testing.assert_allclose(source.info.geometry.spacing, (0.5, 0.2, 0.1))
        assert source.info.geometry.unit == "um"
        assert source.info.time_step == 2.5
        assert source.info.notes == ()
        np.testing.assert_array_equal(source.numpy(), array.transpose(0, 2, 1, 3, 4))


def test_metadata_that_counts_other_pages(path):
    zeiss(path, noise((2, 4, 1, 5, 6)), Z=5)
    with pytest.raises(ReadError, match=r"v\.tif: is truncated: 10 pages expected, 8 found"):
        open_volume(path)
    zeiss(path, noise((2, 4, 1, 5, 6)), X=7)
    with pytest.raises(
        ReadError, match=r"v\.tif: its pages of shape \(5, 6\) do not make up its axes TZYX \(2, 4, 5, 7\)"
    ):
        open_volume(path)
