"""How OME-Zarr images are written: layout, metadata, channels, versions, and the notes on them."""

from __future__ import annotations

import json
from pathlib import Path

import numcodecs
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr

from command import volconv
from volconv import apply, convert
from volconv.errors import ParameterError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, open_volume
from volconv.io.omezarr.level import LevelArray

GEOMETRY = Geometry.from_spacing((2.0, 0.5, 0.25), "um", (10.0, 20.0, 30.0))
CHANNELS = [
    {"label": "DAPI", "color": "0000FF", "active": True, "window": {"min": 0, "max": 255, "start": 10, "end": 90}},
    {"label": "GFP", "color": "00ff00", "active": False, "window": {"min": 0, "max": 255, "start": 5, "end": 70}},
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(shape, dtype="uint16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def written(name, array, geometry=GEOMETRY, **how):
    with create_volume(name, shape=array.shape, dtype=array.dtype, geometry=geometry, **how) as sink:
        sink.write(Region.whole(array.shape), array)
    return sink.info


def attributes(name):
    found = zarr.open_group(name, mode="r").attrs.asdict()
    return found.get("ome", found)


def with_channels(name, channels=CHANNELS, **options):
    """An image of two channels, as other programs write it."""
    array = noise((1, 2, 3, 8, 9), "uint8")
    written(name, array, options=options)
    group = zarr.open_group(name, mode="r+")
    if options.get("version") == "0.4":
        group.update_attributes({"omero": {"channels": channels}})
    else:
        group.update_attributes({"ome": {**group.attrs["ome"], "omero": {"channels": channels}}})
    return array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(1, 1, 3, 4, 5), (1, 2, 3, 4, 5), (2, 1, 3, 4, 5), (2, 2, 1, 4, 5)])
def test_other_programs_find_a_valid_image(version, shape):
    array = noise(shape)
    info = written("a.zarr", array, options={"version": version})
    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    image = models.Image.from_zarr(zarr.open_group("a.zarr", mode="r"))
    (found,) = (image.attributes if version == "0.4" else image.ome_attributes).multiscales
    assert "".join(axis.name for axis in found.axes).upper() == info.axes
    assert [axis.unit for axis in found.axes][-3:] == ["micrometer"] * 3
    first, second = found.datasets[0].coordinateTransformations
    assert first.scale == [1.0] * (len(info.axes) - 3) + [2.0, 0.5, 0.25]
    assert second.translation == [0.0] * (len(info.axes) - 3) + [10.0, 20.0, 30.0]
    data = zarr.open_array("a.zarr/0", mode="r")
    assert data.metadata.zarr_format == (2 if version == "0.4" else 3)
    np.testing.assert_array_equal(data[...].reshape(shape), array)


def test_chunks_shards_and_compression():
    array = noise((1, 1, 9, 9, 9))
    for options, chunks, shards, names in (
        ({}, (9, 9, 9), None, ["bytes", "zstd"]),
        ({"chunks": "4,5,6"}, (4, 5, 6), None, ["bytes", "zstd"]),
        ({"compression": "none"}, (9, 9, 9), None, ["bytes"]),
        ({"compression": "blosc", "level": "9"}, (9, 9, 9), None, ["bytes", "blosc"]),
        ({"compression": "gzip", "level": "1"}, (9, 9, 9), None, ["bytes", "gzip"]),
        ({"chunks": "2,2,2", "shards": "4,8,8"}, (2, 2, 2), (4, 8, 8), ["sharding_indexed"]),
        ({"shards": "12,12,12"}, (12, 12, 12), (12, 12, 12), ["sharding_indexed"]),
    ):
        name = f"v{'_'.join(options.values()).replace(',', '')}.zarr"
        info = written(name, array, options=options)
        data = zarr.open_array(f"{name}/0", mode="r")
        assert (data.chunks, data.shards) == (chunks, shards)
        assert [codec["name"] for codec in data.metadata.to_dict()["codecs"]] == names
        assert info.access.chunk[2:] == (shards or chunks)
        np.testing.assert_array_equal(data[...], array[0, 0])
        convert(name, "again.zarr")  # what the input has stays
        again = zarr.open_array("again.zarr/0", mode="r")
        assert (again.chunks, again.shards) == (chunks, shards)
        assert again.metadata.to_dict()["codecs"] == data.metadata.to_dict()["codecs"]
        Path("again.zarr").rename(f"copy_{name}")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"chunks": "4,4"}, r"chunks must be three positive integers D,H,W \(got '4,4'\)"),
        ({"chunks": "0,4,4"}, r"chunks must be three positive integers"),
        ({"chunks": "none"}, r"chunks must be three positive integers"),
        ({"shards": "a"}, r"shards must be three positive integers D,H,W, or none \(got 'a'\)"),
        ({"chunks": "2,2,2", "shards": "3,4,4"}, r"must be multiples of chunks \(got shards=3,4,4, chunks=2,2,2\)"),
        ({"shards": "4,4,4", "version": "0.4"}, r"shards must be left out with version=0\.4"),
        ({"compression": "zstt"}, r"must be one of none, zstd, gzip, blosc \(got 'zstt'\); did you mean zstd"),
        ({"level": "0"}, r"level must be an integer from 1 to 9 \(got '0'\)"),
        ({"level": "3", "compression": "none"}, r"level must go with a compression \(got level=3\)"),
        ({"version": "0.6"}, r"version must be 0\.5 or 0\.4 \(got '0\.6'\)"),
        ({"shards": "2048,2048,2048"}, r"chunks and shards must take less than 2 GB each \(got 17179869184 bytes\)"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(options, match):
    with pytest.raises(ParameterError, match=match):
        written("a.zarr", noise((1, 1, 3, 4, 5)), options=options)
    assert list(Path().iterdir()) == []


def test_a_level_is_no_output():
    with pytest.raises(ParameterError, match=r"output must be an image, and not one level of it \(got a\.zarr:1\)"):
        create_volume("a.zarr:1", shape=(1, 1, 2, 2, 2), dtype="uint8")


def test_zeros_keep_their_sign_and_nan_its_bits():
    array = np.zeros((1, 1, 4, 4, 4), "<u4")
    array[0, 0, 0] = 0x80000000
    array[0, 0, 1] = 0x7FC12345
    for options in ({}, {"version": "0.4"}, {"chunks": "1,2,2", "shards": "2,4,4"}):
        name = f"{len(options)}.zarr"
        written(name, array.view("<f4"), options=options)
        with open_volume(name) as source:
            np.testing.assert_array_equal(source.numpy().view("<u4"), array)


def test_oblique_volumes_lose_their_orientation_and_say_so(capsys):
    turned = Geometry.from_matrix(np.array([[0, 0, 2, 1], [-3, 0, 0, 2], [0, 4, 0, 3], [0, 0, 0, 1.0]]), "mm")
    written("a.h5", noise((1, 1, 3, 4, 5)), turned)
    volconv("convert", "a.h5", "a.zarr")
    assert "OME-Zarr holds no orientation, only spacing: dropped affine [" in capsys.readouterr().err
    with open_volume("a.zarr") as source:
        assert source.info.geometry == Geometry.from_spacing((2.0, 4.0, 3.0), "mm")


def test_stride_and_padding_move_the_translation():
    written("a.zarr", noise((1, 1, 8, 9, 10)))
    apply("a.zarr", "b.zarr", "box:size=3", stride=(1, 2, 3), padding=(0, 1, 1))
    with open_volume("b.zarr") as source:
        # Output o is centred on input o*stride - padding + (3 - 1)/2.
        expected = Geometry.from_spacing((2.0, 1.0, 0.75), "um", (10.0 + 1 * 2.0, 20.0, 30.0))
        assert source.info.geometry == expected


# --- channels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_are_kept_by_a_copy(version):
    with_channels("a.zarr")
    convert("a.zarr", "b.zarr", options={"version": version})
    assert attributes("b.zarr")["omero"]["channels"] == CHANNELS
    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    models.Image.from_zarr(zarr.open_group("b.zarr", mode="r"))


def test_channels_of_a_result_get_the_range_of_its_values():
    array = with_channels("a.zarr", version="0.4")
    apply("a.zarr", "b.zarr", "box:size=1", dtype="same")
    for found, said, values in zip(attributes("b.zarr")["omero"]["channels"], CHANNELS, array[0]):
        assert (found["label"], found["color"], found["active"]) == (said["label"], said["color"], said["active"])
        low, high = int(values.min()), int(values.max())
        assert found["window"] == {"min": low, "max": high, "start": low, "end": high}


def test_channels_are_left_out_where_there_are_others(capsys):
    with_channels("a.zarr")
    volconv("convert", "a.zarr", "b.zarr", "--channel", "1")
    assert "b.zarr: names and colours of 2 channels are left out" in capsys.readouterr().err
    assert "omero" not in attributes("b.zarr")


def test_malformed_channels_are_no_reason_to_fail():
    bad = [{"label": 3, "color": "blue", "window": {"min": "a"}, "more": {}}, {"color": "00FF00"}]
    array = with_channels("a.zarr", bad)
    convert("a.zarr", "b.zarr")
    first, second = attributes("b.zarr")["omero"]["channels"]
    low, high = int(array[0, 0].min()), int(array[0, 0].max())
    assert first == {"color": "FFFFFF", "window": {"min": low, "max": high, "start": low, "end": high}}
    assert second["color"] == "00FF00"
    for omero in (3, {"channels": 3}, {"channels": [3]}, {}):
        group = zarr.open_group("a.zarr", mode="r+")
        group.update_attributes({"ome": {**group.attrs["ome"], "omero": omero}})
        with open_volume("a.zarr") as source:
            assert source.info.header.channels == ()


# --- the command


def test_an_unknown_compression_is_replaced_and_told(capsys):
    group = zarr.create_group("a.zarr", attributes={"multiscales": attributes_of_one()}, zarr_format=2)
    group.create_array("0", data=noise((3, 4, 5)), compressors=numcodecs.LZMA())
    volconv("convert", "a.zarr", "b.zarr")
    assert "b.zarr: lzma is not written, so its voxels are packed by zstd" in capsys.readouterr().err


def attributes_of_one():
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    places = [{"type": "scale", "scale": [1, 1, 1]}]
    return [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": places}]}]


def test_every_command_takes_it(capsys):
    written("a.zarr", noise((1, 1, 9, 9, 9), "uint8"))
    volconv("shape", "a.zarr/", "-k", "box:size=3")
    volconv("apply", "a.zarr/", "-k", "gaussian:sigma=1", "--padding", "same", "-o", "{stem}_smooth{ext}")
    volconv("apply", "a.zarr", "-k", "gaussian:sigma=1", "--padding", "same", "-o", "b.nii")
    capsys.readouterr()
    volconv("diff", "a_smooth.zarr", "b.nii")
    with open_volume("a_smooth.zarr") as one, open_volume("b.nii") as other:
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    volconv("apply", "a.zarr", "-k", "gaussian:sigma=1", "--padding", "same", "-o", "a_smooth.zarr", "--skip-existing")
    assert "skipped" in capsys.readouterr().err
    volconv("apply", "a.zarr", "-k", "box:size=3", "-o", "a_smooth.zarr", "--skip-existing", code=4)
    assert "remove it, or name a new one" in capsys.readouterr().err
    volconv("apply", "a.zarr", "-k", "box:size=3", "-o", "a_smooth.zarr", "-f", code=4)
    assert "a non-empty folder is never replaced" in capsys.readouterr().err
    volconv("info", "a_smooth.zarr", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["format_version"], found["compression"]) == ("zarr", "NGFF 0.5", "zstd")
    assert found["file_bytes"] == sum(
        file.stat().st_size for file in Path("a_smooth.zarr").rglob("*") if file.is_file()
    )


def test_a_folder_that_takes_no_files():
    with pytest.raises(WriteError, match="the output's folder does not exist"):
        written("b/a.zarr", noise((1, 1, 3, 4, 5)))
    written("b/a.zarr", noise((1, 1, 3, 4, 5)), mkdir=True)


@pytest.mark.parametrize(
    ("room", "stored"),
    # Nothing: each piece for each slab that cuts it; room for one: others come between; for a layer of them: once.
    [(0, {1, 2}), (64, {1, 2}), (12 * 64, {1})],
)
@pytest.mark.parametrize("options", [{"chunks": "4,4,4"}, {"chunks": "2,2,2", "shards": "4,4,4"}])
def test_pieces_are_kept_until_they_are_complete(monkeypatch, room, stored, options):
    array, times = noise((1, 1, 14, 9, 16), "uint8"), {}
    store = LevelArray._store

    def counting(self, parts):
        for part, values in parts:
            assert part.shape == values.shape
            piece = tuple(start // 4 for start in part.start[2:])
            times[piece] = times.get(piece, 0) + 1
        store(self, parts)

    monkeypatch.setattr(LevelArray, "_store", counting)
    with create_volume("a.zarr", shape=array.shape, dtype="uint8", options=options, cache_bytes=room) as sink:
        for z in range(0, 14, 3):
            slab = Region((0, 0, z, 0, 0), (1, 1, min(z + 3, 14), 9, 16))
            sink.write(slab, array[slab.slices])
            assert sum(kept.values.nbytes for kept in sink._levels[0][0]._kept.values()) <= room
    assert set(times.values()) == stored
    assert len(times) == 4 * 3 * 4
    with open_volume("a.zarr") as image:
        np.testing.assert_array_equal(image.numpy(), array)


def test_what_was_never_completed_is_stored_too():
    array = noise((1, 2, 8, 8, 8), "uint8")
    region = Region((0, 0, 1, 1, 1), (1, 2, 7, 8, 6))
    how = {"shape": array.shape, "dtype": "uint8", "options": {"chunks": "4,4,4"}, "cache_bytes": 1 << 20}
    with create_volume("a.zarr", **how) as sink:
        sink.write(region, array[region.slices])
    expected = np.zeros_like(array)
    expected[region.slices] = array[region.slices]
    with open_volume("a.zarr") as image:
        np.testing.assert_array_equal(image.numpy(), expected)
