"""Where the voxels of an HDF5 dataset lie: attributes, axistags, dimension scales, BigDataViewer's XML."""

import json

import h5py
import numpy as np
import pytest

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io import Region, open_volume


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


def write(path, shape=(4, 5, 6), **attributes):
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros(shape, np.uint8)
        file["raw"].attrs.update(attributes)
    return f"{path}:/raw"


def opened(name, **options):
    with open_volume(name, **options) as source:
        return source.info


def axistags(order, sizes, **more):
    entries = [{"key": key, "typeFlags": 2, "resolution": sizes.get(key, 0), "description": ""} for key in order]
    return json.dumps({"axes": [{**entry, **{k: v[i] for k, v in more.items()}} for i, entry in enumerate(entries)]})


AFFINE = Geometry.from_spacing((3, 2, 1), "um", (7, 8, 9)).matrix
TAGS = axistags("zyx", {"z": 4, "y": 5, "x": 6})
UNITS = json.dumps({"z": "nm", "y": "nm", "x": "nm"})


@pytest.mark.parametrize(
    ("attributes", "spacing", "unit", "notes"),
    [
        ({}, (1, 1, 1), None, 0),
        ({"affine": AFFINE, "unit": "um"}, (3, 2, 1), "um", 0),
        ({"affine": AFFINE, "unit": np.bytes_("micron"), "element_size_um": [5, 5, 5]}, (3, 2, 1), "um", 0),
        ({"affine": AFFINE, "unit": "cm"}, (30, 20, 10), "mm", 0),
        ({"affine": AFFINE}, (3, 2, 1), None, 1),
        ({"affine": AFFINE, "unit": "pixel"}, (3, 2, 1), None, 1),
        ({"element_size_um": [0.3, 0.2, 0.1]}, (0.3, 0.2, 0.1), "um", 0),
        ({"element_size_um": [0.3, 0.2, 0.1], "axistags": TAGS, "axis_units": UNITS}, (0.3, 0.2, 0.1), "um", 0),
        ({"element_size_um": [0.3, 0.2]}, (1, 1, 1), None, 1),
        ({"element_size_um": [0.3, 0.2, 0]}, (1, 1, 1), None, 1),
        ({"element_size_um": "small"}, (1, 1, 1), None, 1),
        ({"element_size_um": [0.3, 0.2], "axistags": TAGS, "axis_units": UNITS}, (4, 5, 6), "nm", 1),
        ({"axistags": TAGS, "axis_units": UNITS}, (4, 5, 6), "nm", 0),
        ({"axistags": TAGS}, (1, 1, 1), None, 1),
        ({"axistags": TAGS, "axis_units": "{"}, (1, 1, 1), None, 1),
        ({"axistags": TAGS, "axis_units": json.dumps({"z": "nm", "y": "nm"})}, (1, 1, 1), None, 1),
        ({"axistags": axistags("zyx", {"z": 1, "y": 2, "x": 3}, unit=["mm", "um", "um"])}, (1, 0.002, 0.003), "mm", 0),
        ({"axistags": axistags("zyx", {"y": 2, "x": 3}, unit=["um", "um", "um"])}, (1, 1, 1), None, 1),
        ({"axistags": axistags("zyx", {}, unit=["um", "um", "um"])}, (1, 1, 1), None, 0),
    ],
)
def test_attributes(path, attributes, spacing, unit, notes):
    info = opened(write(path, **attributes))
    np.testing.assert_allclose(info.geometry.spacing, spacing, rtol=1e-12)
    assert info.geometry.unit == unit
    assert len(info.notes) == notes
    assert all(note.startswith(f"{path}:/raw") and "\n" not in note for note in info.notes)


def test_the_origin_of_an_affine(path):
    assert opened(write(path, affine=AFFINE, unit="um")).geometry.origin == (7, 8, 9)
    assert opened(write(path, affine=AFFINE, unit="cm")).geometry.origin == (70, 80, 90)


@pytest.mark.parametrize("affine", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4)), "none"])
def test_an_affine_that_is_none(path, affine):
    with pytest.raises(ReadError, match=r"raw: its attribute affine must be a finite 4x4 matrix"):
        opened(write(path, affine=affine))


def test_notes_say_what_was_left_aside(path):
    for attributes, text in (
        ({"affine": AFFINE}, " has an affine without a known unit"),
        ({"element_size_um": 3}, ": its element_size_um is not three positive numbers, and is left aside"),
        ({"axistags": TAGS}, ": its axistags have no unit of length (none for Z), and are left aside"),
        (
            {"axistags": TAGS, "axis_units": UNITS.replace("nm", "parsec")},
            ": its axistags have no unit of length ('parsec' for Z), and are left aside",
        ),
        (
            {"axistags": axistags("zyx", {"x": 3})},
            ": its axistags state no spacing along Z, Y, so it counts as unknown",
        ),
    ):
        name = write(path, **attributes)
        assert opened(name).notes == (name + text,)


def test_axistags_of_other_axes_than_the_options_say_nothing(path):
    name = write(path, axistags=TAGS, axis_units=UNITS)
    assert opened(name, axes="xyz").geometry == Geometry()
    assert opened(name, axes="zyx").geometry.spacing == (4, 5, 6)


def scaled(path, order, coordinates, units, attribute="units", **attributes):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw", data=np.zeros([len(coordinates[letter]) for letter in order], np.uint8))
        data.attrs.update(attributes)
        for axis, letter in enumerate(order):
            data.dims[axis].label = letter
            file[letter] = np.asarray(coordinates[letter])
            file[letter].make_scale(letter)
            if units.get(letter):
                file[letter].attrs[attribute] = units[letter]
            data.dims[axis].attach_scale(file[letter])
    return f"{path}:/raw"


EVEN = {"z": 5 + 2.0 * np.arange(4), "y": np.linspace(0, 1, 5), "x": -3 + 0.1 * np.arange(6), "t": [0.0, 0.5, 1.0]}
METRES = dict.fromkeys("zyx", "mm")


@pytest.mark.parametrize("order", ["zyx", "xyz", "tzyx"])
@pytest.mark.parametrize("attribute", ["units", "unit"])
def test_dimension_scales(path, order, attribute):
    name = scaled(path, order, EVEN, {**METRES, "t": "ms"}, attribute)
    info = opened(name)
    assert info.axes == order.upper()
    assert info.geometry.unit == "mm"
    np.testing.assert_allclose(info.geometry.spacing, (2, 0.25, 0.1), rtol=1e-12)
    np.testing.assert_allclose(info.geometry.origin, (5, 0, -3), rtol=1e-12, atol=1e-12)
    assert info.time_step == (0.0005 if "t" in order else None)
    assert not info.notes


def test_scales_in_several_units_and_backwards(path):
    name = scaled(path, "zyx", {**EVEN, "y": EVEN["y"][::-1]}, {"z": "um", "y": "mm", "x": "micrometre"})
    geometry = opened(name).geometry
    assert geometry.unit == "um"
    np.testing.assert_allclose(geometry.matrix[1], (0, -250, 0, 1000))
    np.testing.assert_allclose(geometry.spacing, (2, 250, 0.1), rtol=1e-12)


@pytest.mark.parametrize(
    ("coordinates", "units", "text"),
    [
        ({"y": [0, 1, 2, 4, 5]}, METRES, ": its dimension scale of Y is not evenly spaced, and is left aside"),
        ({"y": [0, 1, np.nan, 3, 4]}, METRES, ": its dimension scale of Y is not evenly spaced, and is left aside"),
        ({}, {"z": "mm", "x": "mm"}, ": its dimension scales have no unit of length (none for Y), and are left aside"),
        (
            {},
            dict.fromkeys("zyx", "degrees"),
            ": its dimension scales have no unit of length ('degrees' for Z), and are left aside",
        ),
        ({"z": [3.0]}, METRES, ": its dimension scales state no spacing along Z, so it counts as unknown"),
        ({"z": np.zeros(4)}, METRES, ": its dimension scales state no spacing along Z, so it counts as unknown"),
    ],
)
def test_scales_that_state_no_spacing(path, coordinates, units, text):
    name = scaled(path, "zyx", {**EVEN, **coordinates}, units)
    info = opened(name)
    assert info.geometry == Geometry()
    assert info.notes == (name + text,)


def test_attributes_go_before_scales(path):
    info = opened(scaled(path, "zyx", EVEN, METRES, element_size_um=[7, 8, 9]))
    assert info.geometry.spacing == (7, 8, 9)
    assert not info.notes


def test_dimensions_of_netcdf_without_coordinates_are_no_scales(path):
    zeros = {letter: np.zeros(len(EVEN[letter])) for letter in "zyx"}
    info = opened(scaled(path, "zyx", zeros, {}))
    assert info.geometry == Geometry()
    assert not info.notes


def test_scales_outside_the_file_are_not_read(path):
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros((4, 5, 6), np.uint8)
        for axis, size in enumerate((4, 5, 6)):
            outside = [(str(path.with_name("coordinates.bin")), 0, size * 8)]
            scale = file.create_dataset(f"s{axis}", (size,), "f8", external=outside)
            scale.make_scale()
            file["raw"].dims[axis].attach_scale(scale)
    path.with_name("coordinates.bin").write_bytes(np.arange(6.0).tobytes())
    info = opened(f"{path}:/raw")
    assert info.geometry == Geometry()
    (note,) = info.notes
    assert "its dimension scales cannot be read (/s0: keeps its voxels in another file" in note


@pytest.mark.parametrize(
    ("attributes", "step", "notes"),
    [
        ({"time_step": 1.5}, 1.5, 0),
        ({"time_step": [2]}, 2, 0),
        ({"time_step": -1.0}, None, 1),
        ({"time_step": "often"}, None, 1),
        ({"axistags": axistags("tzyx", {"t": 20}, unit=["ms", "", "", ""])}, 0.02, 0),
        ({"axistags": axistags("tzyx", {"t": 20}), "axis_units": '{"t": "sec"}'}, 20, 0),
        ({"axistags": axistags("tzyx", {"t": 2}, unit=["min", "", "", ""])}, 120, 0),
        ({"axistags": axistags("tzyx", {"t": 20}, unit=["frames", "", "", ""])}, None, 0),
    ],
)
def test_time_step(path, attributes, step, notes):
    info = opened(write(path, (2, 4, 5, 6), **attributes))
    assert info.time_step == step
    assert len(info.notes) == notes
    assert all(
        note.endswith("its time_step is not a positive number of seconds, and is left aside") for note in info.notes
    )


XML = """<?xml version="1.0" encoding="UTF-8"?>
<SpimData version="0.2">
  <BasePath type="relative">.</BasePath>
  <SequenceDescription>
    <ImageLoader format="bdv.hdf5"><hdf5 type="relative">v.h5</hdf5></ImageLoader>
    <ViewSetups>
      <ViewSetup><id>0</id><size>6 5 4</size><voxelSize><unit>{unit}</unit><size>{size}</size></voxelSize></ViewSetup>
      <ViewSetup><id>1</id><voxelSize><unit>nm</unit><size>7 8 9</size></voxelSize></ViewSetup>
    </ViewSetups>
  </SequenceDescription>
</SpimData>
"""


def pyramid(path, *keys, dtype="<i2", resolutions=((1, 1, 1), (2, 2, 1))):
    """A file as BigDataViewer writes it; values pass the bound of int16."""
    values = np.arange(120, dtype=np.uint16).reshape(4, 5, 6) * 500
    with h5py.File(path, "w") as file:
        for key in keys:
            file.create_dataset(key, data=values.view(np.int16).astype(dtype), chunks=(2, 5, 6), compression="gzip")
        for setup in ("s00", "s01"):
            if resolutions is not None:
                file[f"{setup}/resolutions"] = np.array(resolutions, np.float64)
            file[f"{setup}/subdivisions"] = np.array([[6, 5, 2]] * 2, np.int32)
    return values


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_bigdataviewer_keeps_uint16_as_int16(path, dtype):
    values = pyramid(path, "t00000/s00/0/cells", dtype=dtype)
    assert values.max() > 2**15
    with open_volume(path) as source:
        assert source.info.dtype == np.uint16
        assert source.info.geometry == Geometry()
        assert source.info.notes == (
            f"{path}:/t00000/s00/0/cells: BigDataViewer keeps uint16 as int16, so values are taken as uint16",
        )
        np.testing.assert_array_equal(source.numpy()[0, 0], values)
        np.testing.assert_array_equal(source.read(Region((0, 0, 1, 2, 3), (1, 1, 3, 5, 6)))[0, 0], values[1:3, 2:, 3:])


@pytest.mark.parametrize(
    ("key", "dtype"), [("t00000/s00/0/cells", "u1"), ("x/t00000/s00/0/cells", "i2"), ("raw", "i2")]
)
def test_other_datasets_stay_as_they_are(path, key, dtype):
    with h5py.File(path, "w") as file:
        file[key] = np.full((2, 3, 4), -1 if dtype == "i2" else 1, dtype)
    with open_volume(path) as source:
        assert source.info.dtype == np.dtype(dtype)
        assert source.numpy().min() == (-1 if dtype == "i2" else 1)
        assert not source.info.notes


def test_bigdataviewers_levels_are_listed(path):
    pyramid(path, "t00000/s00/0/cells", "t00000/s00/1/cells")
    with pytest.raises(
        ReadError, match=r"holds 2 datasets .*/t00000/s00/0/cells \(4, 5, 6\), /t00000/s00/1/cells"
    ) as caught:
        open_volume(path)
    assert caught.value.hint == "name one, as in v.h5:/t00000/s00/0/cells"


def test_bigdataviewers_xml(path):
    pyramid(path, "t00000/s00/0/cells", "t00003/s00/1/cells", "t00000/s01/0/cells")
    path.with_suffix(".xml").write_text(XML.format(unit="micron", size="0.5 0.25 2.0"))
    full = opened(f"{path}:/t00000/s00/0/cells").geometry
    assert full == Geometry.from_spacing((2, 0.25, 0.5), "um")
    # A voxel of level 1 is the mean of two along x and y: it lies between their centres.
    half = opened(f"{path}:/t00003/s00/1/cells").geometry
    assert half == Geometry.from_spacing((2, 0.5, 1), "um", (0, 0.125, 0.25))
    assert opened(f"{path}:/t00000/s01/0/cells").geometry == Geometry.from_spacing((9, 8, 7), "nm")


def test_the_dataset_itself_goes_before_the_xml(path):
    pyramid(path, "t00000/s00/0/cells")
    path.with_suffix(".xml").write_text(XML.format(unit="um", size="1 1 1"))
    with h5py.File(path, "a") as file:
        for axis, size in enumerate((4, 5, 6)):
            scale = file.create_dataset(f"scale{axis}", data=np.arange(size) * 7.0)
            scale.attrs["units"] = "mm"
            file["t00000/s00/0/cells"].dims[axis].attach_scale(scale)
    assert opened(path).geometry == Geometry.from_spacing((7, 7, 7), "mm")
    with h5py.File(path, "a") as file:
        file["t00000/s00/0/cells"].attrs["element_size_um"] = [3.0, 2.0, 1.0]
    assert opened(path).geometry == Geometry.from_spacing((3, 2, 1), "um")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (XML.format(unit="um", size="1 1"), "its setup 0 has no voxelSize of three positive numbers"),
        (XML.format(unit="um", size="1 1 0"), "its setup 0 has no voxelSize of three positive numbers"),
        (XML.format(unit="um", size="1 1 nan"), "its setup 0 has no voxelSize of three positive numbers"),
        (XML.format(unit="um", size="1 1 wide"), "could not convert string to float"),
        (XML.format(unit="px", size="1 1 1"), "v.xml has no unit of length ('px'), and is left aside"),
        (XML.replace("<id>0</id>", "<id>9</id>"), "it has no setup 0"),
        ("<SpimData>", "v.xml is left aside: no element found"),
        ("", "v.xml is left aside: no element found"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "it is no plain XML without a document type"),
        (XML.encode("utf-16"), "it is no plain XML without a document type"),
    ],
)
def test_an_xml_that_says_nothing(path, content, message):
    pyramid(path, "t00000/s00/0/cells")
    path.with_suffix(".xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    info = opened(path)
    assert info.geometry == Geometry()
    assert message in info.notes[0]
    assert "\n" not in info.notes[0]


@pytest.mark.parametrize("resolutions", [None, ((1, 1, 1),), (1, 1, 1), ((1, 1, 1), (2, 2, 0)), ((1, 1), (2, 2))])
def test_levels_of_unknown_size(path, resolutions):
    pyramid(path, "t00000/s00/0/cells", "t00000/s00/1/cells", resolutions=resolutions)
    path.with_suffix(".xml").write_text(XML.format(unit="um", size="1 2 3"))
    assert opened(f"{path}:/t00000/s00/0/cells").geometry.spacing == (3, 2, 1)
    info = opened(f"{path}:/t00000/s00/1/cells")
    assert info.geometry == Geometry()
    assert (
        "v.xml is left aside: the size of level 1 is not known, as /s00/resolutions does not tell it" in info.notes[0]
    )


@pytest.mark.parametrize("way", ["link", "external", "virtual"])
def test_factors_are_not_looked_for_outside_the_file(path, way):
    pyramid(path, "t00000/s00/1/cells", resolutions=None)
    path.with_suffix(".xml").write_text(XML.format(unit="um", size="1 2 3"))
    outside = np.array([[1, 1, 1], [2, 2, 2]], np.float64)
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["resolutions"] = outside
    path.with_name("other.bin").write_bytes(outside.tobytes())
    with h5py.File(path, "a") as file:
        if way == "link":
            file["s00/resolutions"] = h5py.ExternalLink("other.h5", "/resolutions")
        elif way == "external":
            where = [(str(path.with_name("other.bin")), 0, outside.nbytes)]
            file.create_dataset("s00/resolutions", outside.shape, outside.dtype, external=where)
        else:
            layout = h5py.VirtualLayout(outside.shape, outside.dtype)
            layout[:] = h5py.VirtualSource("other.h5", "resolutions", outside.shape)
            file.create_virtual_dataset("s00/resolutions", layout)
    info = opened(path)
    assert info.geometry == Geometry()
    assert "the size of level 1 is not known" in info.notes[0]
