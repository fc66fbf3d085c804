"""OME-Zarr images: what their metadata mean, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from command import volconv
from volconv.errors import OutOfMemoryError, ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io import Region, list_contents, open_volume
from volconv.io.omezarr.pieces import pieces
from volconv.io.volume import Reading

AXES = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def scale(*numbers):
    return {"type": "scale", "scale": list(numbers)}


def moved(*numbers):
    return {"type": "translation", "translation": list(numbers)}


def image(axes=AXES, transforms=None, levels=1, **more):
    transforms = transforms or [scale(*[1.0] * len(axes))]
    datasets = [{"path": str(number), "coordinateTransformations": transforms} for number in range(levels)]
    return {"axes": axes, "datasets": datasets, **more}


def make(name="a.zarr", multiscale=None, array=None, version=3, levels=1, attributes=None, **how):
    """An image by zarr-python; levels after the first are cut out of it."""
    array = noise((2, 3, 4, 5)) if array is None else array
    multiscale = image(levels=levels) if multiscale is None else multiscale
    facts = {"ome": {"version": "0.5", "multiscales": [multiscale]}} if version == 3 else {"multiscales": [multiscale]}
    facts = {**facts, **(attributes or {})}
    group = zarr.create_group(name, attributes=facts, zarr_format=version)
    for number in range(levels):
        part = array[..., : array.shape[-1] - number]
        group.create_array(str(number), data=part, **{"chunks": part.shape, **how})
    return array


def noise(shape, dtype="uint16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def change(name, edit):
    """Change the JSON of a file."""
    facts = json.loads(Path(name).read_text())
    edit(facts)
    Path(name).write_text(json.dumps(facts))


def refused(name, match, **how):
    with pytest.raises(ReadError, match=match) as caught, open_volume(name, **how) as source:
        source.numpy()
    assert caught.value.message.startswith(name.partition(":")[0])
    assert "\n" not in str(caught.value)


# --- axes, units, scale and translation


@pytest.mark.parametrize("version", [2, 3])
def test_scales_and_translations_of_both_places_are_taken_together(version):
    transforms = [scale(1, 2.0, 0.5, 0.25), moved(0, 10.0, 20.0, 30.0)]
    above = [scale(1, 3.0, 2.0, 2.0), moved(0, 1.0, 2.0, 3.0)]
    array = make(multiscale=image(transforms=transforms, coordinateTransformations=above), version=version)
    with open_volume("a.zarr") as source:
        np.testing.assert_array_equal(source.numpy()[0], array)
        assert source.info.geometry == Geometry.from_spacing((6.0, 1.0, 0.5), "um", (31.0, 42.0, 63.0))
        assert source.info.axes == "CZYX"


@pytest.mark.parametrize(
    ("names", "types", "shape", "expected"),
    [
        ("yx", ["space"] * 2, (4, 5), (1, 1, 1, 4, 5)),
        ("zyx", ["space"] * 3, (3, 4, 5), (1, 1, 3, 4, 5)),
        ("xyz", ["space"] * 3, (5, 4, 3), (1, 1, 3, 4, 5)),
        ("abd", ["space"] * 3, (3, 4, 5), (1, 1, 3, 4, 5)),
        ("tyx", ["time", "space", "space"], (2, 4, 5), (2, 1, 1, 4, 5)),
        ("tczyx", ["time", "channel", "space", "space", "space"], (2, 6, 3, 4, 5), (2, 6, 3, 4, 5)),
    ],
)
def test_axes(names, types, shape, expected):
    axes = [{"name": name, "type": kind} for name, kind in zip(names, types)]
    array = make(multiscale=image(axes), array=noise(shape))
    with open_volume("a.zarr") as source:
        assert source.info.shape == expected
        assert source.info.geometry.unit is None
        values = source.numpy()
    turned = array.transpose() if names == "xyz" else array
    np.testing.assert_array_equal(values, turned.reshape(expected))
    (entry,) = list_contents("a.zarr")
    assert (entry.name, entry.shape) == ("a.zarr:0", shape)


def test_axes_option_counts_more():
    array = make(multiscale=image(AXES[1:], [scale(2, 3, 4)]), array=noise((3, 4, 5)))
    with open_volume("a.zarr", axes="cyx") as source:
        assert source.info.shape == (1, 3, 1, 4, 5)
        assert source.info.geometry.spacing == (1, 3, 4)
        np.testing.assert_array_equal(source.numpy()[0, :, 0], array)
    with pytest.raises(ParameterError, match=r"axes must name each of the 3 axes of a\.zarr"):
        open_volume("a.zarr", axes="zcyx")
    with pytest.raises(ParameterError, match=r"rgb must be used with files of colour pixels \(got a\.zarr"):
        open_volume("a.zarr", rgb=True)


def test_a_custom_axis_needs_a_name_of_ours():
    axes = [{"name": "angle", "type": "angle"}, *AXES[1:]]
    make(multiscale=image(axes))
    refused("a.zarr", r"its axis 'angle' is of type 'angle', and none of T .*")
    assert list_contents("a.zarr")[0].axes == ""
    with open_volume("a.zarr", axes="TZYX") as source:
        assert source.info.shape == (2, 1, 3, 4, 5)


@pytest.mark.parametrize(
    ("units", "expected", "unit"),
    [
        (["nanometer"] * 3, (2.0, 3.0, 4.0), "nm"),
        (["angstrom"] * 3, (0.2, 0.3, 0.4), "nm"),
        (["millimeter", "micrometer", "micrometer"], (2000.0, 3.0, 4.0), "um"),
        (["parsec"] * 3, (2.0, 3.0, 4.0), None),
        ([None, "micrometer", "micrometer"], (2.0, 3.0, 4.0), None),
        ([None] * 3, (2.0, 3.0, 4.0), None),
    ],
)
def test_units(units, expected, unit):
    axes = [{"name": name, "type": "space"} | ({"unit": one} if one else {}) for name, one in zip("zyx", units)]
    make(multiscale=image(axes, [scale(2, 3, 4)]), array=noise((3, 4, 5)))
    with open_volume("a.zarr") as source:
        np.testing.assert_allclose(source.info.geometry.spacing, expected)
        assert source.info.geometry.unit == unit
        assert len(source.info.notes) == (unit is None and any(units))
    with open_volume("a.zarr", spacing=((1.0, 1.0, 1.0), "um")) as source:
        assert source.info.notes == ()


@pytest.mark.parametrize(("unit", "step"), [("second", 3.0), ("minute", 180.0), ("millisecond", 0.003), (None, None)])
def test_time(unit, step):
    axes = [{"name": "t", "type": "time"} | ({"unit": unit} if unit else {}), *AXES[1:]]
    make(multiscale=image(axes, [scale(3, 1, 1, 1)]))
    with open_volume("a.zarr") as source:
        assert source.info.time_step == (None if step is None else pytest.approx(step))


def test_levels(capsys):
    array = make(levels=3)
    for number in range(3):
        with open_volume(f"a.zarr:{number}") as source:
            np.testing.assert_array_equal(source.numpy()[0], array[..., : 5 - number])
    assert [entry.shape for entry in list_contents("a.zarr")] == [(2, 3, 4, 5), (2, 3, 4, 4), (2, 3, 4, 3)]
    refused("a.zarr:3", r"a\.zarr: has the levels 0 to 2 \(got 3\)")
    volconv("info", "a.zarr")
    out = capsys.readouterr().out
    assert "NGFF 0.5" in out
    assert "a.zarr:2  2,3,4,3  uint16  CZYX" in out


def test_an_image_inside_another_group():
    zarr.create_group("a.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    array = make("a.zarr/0")
    with open_volume("a.zarr/0") as source:
        np.testing.assert_array_equal(source.numpy()[0], array)
    with open_volume("a.zarr/0:0") as source:
        assert source.info.shape == (1, 2, 3, 4, 5)
    with pytest.raises(ReadError, match="is no OME-Zarr image") as caught:
        open_volume("a.zarr")
    assert caught.value.hint == "name one of the images in it, as in a.zarr/0"


# --- reading


spans = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted)


@given(st.lists(spans, min_size=5, max_size=5), st.tuples(*[st.integers(1, 5)] * 5))
def test_chunks_cover_a_region_once(ends, chunk):
    region = Region(tuple(low - 1 for low, _ in ends), tuple(high for _, high in ends))
    seen = np.zeros((9,) * 5, int)
    for piece in pieces(region, chunk, (9,) * 5):
        assert all(start % edge == 0 for start, edge in zip(piece.start, chunk))
        seen[(piece & region).slices] += 1
    assert (seen[region.slices] == 1).all()
    assert seen.sum() == seen[region.slices].size


@pytest.mark.parametrize("cache", [0, 100, 1 << 20])
def test_chunks_that_are_cut_are_unpacked_once(cache, monkeypatch):
    array = make(array=noise((2, 9, 9, 9)), chunks=(1, 4, 4, 4))
    with open_volume("a.zarr") as source:
        source.expect(Reading(cache_bytes=cache))
        asked = []
        getitem = zarr.AsyncArray.getitem
        monkeypatch.setattr(zarr.AsyncArray, "getitem", lambda *args: asked.append(args) or getitem(*args))
        for start in range(0, 9, 3):
            region = Region((0, 0, start, 0, 0), (1, 2, start + 3, 9, 9))
            np.testing.assert_array_equal(source.read(region)[0], array[:, start : start + 3])
    assert len(asked) == {0: 90, 100: 90, 1 << 20: 54}[cache]


def test_bool_is_uint8():
    array = make(array=noise((2, 3, 4, 5)) > 100)
    with open_volume("a.zarr") as source:
        assert source.info.dtype == np.uint8
        np.testing.assert_array_equal(source.numpy()[0], array)


# --- what is refused


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda m: m.pop("axes"), "malformed: multiscales.axes: Field required"),
        (lambda m: m.update(axes=[]), "malformed: multiscales.axes: "),
        (lambda m: m.update(axes=AXES[:1] * 4), "malformed: multiscales.axes: "),
        (lambda m: m.update(axes="zyx"), "malformed: multiscales.axes: "),
        (lambda m: m.update(datasets=[]), "malformed: multiscales.datasets: "),
        (lambda m: m["datasets"][0].pop("path"), "malformed: multiscales.datasets.0.path: Field required"),
        (lambda m: m["datasets"][0].update(path="9"), "its level 0 is missing (there is no array '9')"),
        (lambda m: m["datasets"][0].update(path="../b"), "its level 0 cannot be read"),
        (lambda m: m["datasets"][0].update(coordinateTransformations=[]), "malformed: multiscales.datasets"),
        (lambda m: m["datasets"][0].update(coordinateTransformations=[scale(1, 2)]), "malformed: multiscales"),
        (lambda m: m["datasets"][0].update(coordinateTransformations=[scale(1, "a", 1, 1)]), "malformed: "),
        (lambda m: m["datasets"][0].update(coordinateTransformations=[scale(1, 0, 1, 1)]), "its spacing must be"),
        (lambda m: m["datasets"][0].update(coordinateTransformations=[scale(1, float("nan"), 1, 1)]), "be finite"),
        (
            lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "scale", "path": "s"}]),
            "a scale that lies in an array of its own is not read",
        ),
        (lambda m: m.update(version="0.3"), "NGFF version must be 0.4 or 0.5 (got 0.3)"),
    ],
)
def test_malformed_metadata(version, edit, match):
    multiscale = image()
    multiscale = json.loads(json.dumps(multiscale))
    edit(multiscale)
    if version == 3 and "version" in multiscale:
        make(multiscale=multiscale, attributes={"ome": {"version": "0.3", "multiscales": [multiscale]}})
    else:
        make(multiscale=multiscale, version=version)
    with pytest.raises(ReadError) as caught:
        open_volume("a.zarr")
    assert caught.value.message.startswith("a.zarr")
    assert match in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({}, "is no OME-Zarr image (it has no multiscales metadata)"),
        ({"ome": 1}, "is no OME-Zarr image"),
        ({"ome": {"multiscales": 3}}, "multiscales must be a list of objects (got 3)"),
        ({"ome": {"multiscales": []}}, "multiscales must be a list of objects (got [])"),
        ({"ome": {"multiscales": [None]}}, "multiscales must be a list of objects (got [None])"),
    ],
)
def test_groups_that_are_no_images(facts, match):
    zarr.create_group("a.zarr", attributes=facts)
    with pytest.raises(ReadError) as caught:
        open_volume("a.zarr")
    assert match in caught.value.message


def test_what_is_no_group(capsys):
    Path("a.zarr").mkdir()
    refused("a.zarr", r"is no OME-Zarr image \(there is no Zarr group\)")
    volconv("info", "a.zarr", code=3)
    assert capsys.readouterr().err == "volconv: error: a.zarr: is no OME-Zarr image (there is no Zarr group)\n"
    zarr.create_array("b.zarr", data=noise((3, 4)))
    refused("b.zarr", r"is no OME-Zarr image \(it is a Zarr array alone\)")
    Path("c.zarr").write_bytes(b"PK")
    refused("c.zarr", r"is a file, and an OME-Zarr image is a folder")
    refused("d.zarr", r"no such file")
    for name, content in (("e", "{"), ("f", "[" * 100_000), ("g", "[]"), ("h", '{"zarr_format": 9}'), ("i", "")):
        Path(f"{name}.zarr").mkdir()
        Path(f"{name}.zarr/zarr.json").write_text(content)
        refused(f"{name}.zarr", r"(cannot be read|no OME-Zarr)")


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_arrays_are_one_line(version):
    make(version=version)
    meta = f"a.zarr/0/{'.zarray' if version == 2 else 'zarr.json'}"
    whole = Path(meta).read_bytes()
    for content in (b"", b"{}", whole[: len(whole) // 2], whole.replace(b"uint16", b"uint17").replace(b"<u2", b"<u9")):
        Path(meta).write_bytes(content)
        refused("a.zarr", r"a\.zarr")
    for key, value in (("shape", [2, 3, -4, 5]), ("shape", [2, 3, 4]), ("shape", "big"), ("shape", [0, 3, 4, 5])):
        Path(meta).write_bytes(whole)
        change(meta, lambda facts, key=key, value=value: facts.update({key: value}))
        refused("a.zarr", r"a\.zarr")


@pytest.mark.parametrize("compressors", [None, "auto"])
def test_damaged_chunks_are_one_line(compressors):
    make(compressors=compressors)
    chunk = Path("a.zarr/0/c/0/0/0/0")
    whole = chunk.read_bytes()
    for content in (b"", b"junk", whole[:-9], b"\xff" * len(whole)):
        chunk.write_bytes(content)
        if content != b"\xff" * len(whole) or compressors:
            refused("a.zarr", r"a\.zarr: cannot be read: ")
    chunk.unlink()
    with open_volume("a.zarr") as source:  # as the format has it
        assert not source.numpy().any()


def test_no_codec_runs_code(monkeypatch):
    """A chunk may say that it is pickled."""
    make(version=2)
    monkeypatch.setattr("pickle.loads", lambda *_: pytest.fail("unpickled"))
    pickled = {"id": "pickle", "protocol": 5}
    for filters, compressor in (([pickled], None), (None, pickled), ([{"id": "shuffle"}, pickled], None)):
        change("a.zarr/0/.zarray", lambda facts, f=filters, c=compressor: facts.update(filters=f, compressor=c))
        refused("a.zarr", r"a\.zarr: ")  # some releases of zarr-python refuse it, too
    change("a.zarr/0/.zarray", lambda facts: facts.update(filters=None, compressor={"id": "base64"}))
    refused("a.zarr", r"a\.zarr: is packed by a codec that is not read \(got 'base64'\)")


@pytest.mark.parametrize("dtype", ["S3", "M8[s]", "O"])
def test_dtypes_that_are_no_voxels(dtype):
    make(version=2)
    codes = {"S3": "|S3", "M8[s]": "<M8[s]", "O": "|O"}
    change("a.zarr/0/.zarray", lambda facts: facts.update(dtype=codes[dtype], fill_value=None))
    refused("a.zarr", r"a\.zarr")


def test_sizes_are_checked_before_memory():
    make()
    for shape, chunk, error, match in (
        ([1 << 40] * 4, [1] * 4, ReadError, "is larger than any volume can be"),
        ([1 << 14] * 4, [1 << 14] * 4, OutOfMemoryError, "a chunk takes"),
    ):
        change(
            "a.zarr/0/zarr.json",
            lambda facts, shape=shape, chunk=chunk: facts.update(
                shape=shape, chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}}
            ),
        )
        with pytest.raises(error, match=match):
            open_volume("a.zarr")


def test_the_first_of_several_images_is_told():
    one = image(transforms=[scale(1, 2, 2, 2), moved(0, 2, 2, 2)])
    make(multiscale=one, attributes={"ome": {"version": "0.5", "multiscales": [one, one]}})
    with open_volume("a.zarr") as source:
        assert source.info.geometry == Geometry.from_spacing((2, 2, 2), "um", (2, 2, 2))
        assert source.info.notes == ("a.zarr: the first of 2 multiscales is taken",)
