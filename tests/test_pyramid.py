"""Coarser levels of an image."""

from __future__ import annotations

import json

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tolerances
import volconv
from cases import few
from command import volconv as command
from reference import conv3d
from volconv.errors import OutOfMemoryError, ParameterError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, list_contents, open_volume
from volconv.io.omezarr.source import ZarrSource
from volconv.pyramid import TAPS, strides


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(name, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), **options):
    geometry = Geometry.from_spacing(spacing, "um", origin)
    with create_volume(name, shape=array.shape, dtype=array.dtype, geometry=geometry, options=options) as sink:
        sink.write(Region.whole(array.shape), array)


def levels_of(name):
    found = []
    for entry in list_contents(name):
        with open_volume(entry.name) as source:
            found.append((source.info.geometry, source.numpy()))
    return found


def weights(stride):
    w = np.array(1.0)
    for step in stride:
        w = np.multiply.outer(w, np.array(TAPS) if step == 2 else np.ones(1))
    return w[None, None]


def halved(x, stride):
    """A level by the naive reference, channel by channel."""
    pad = [(0, 0), (0, 0), *((step - 1, step - 1) for step in stride)]
    padded = np.pad(x.astype(np.float64), pad, mode="symmetric")
    parts = [conv3d(padded[:, c : c + 1], weights(stride), stride=stride) for c in range(x.shape[1])]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("options", few([{}, {"version": "0.4"}, {"shards": "8,8,8"}], {"shards": "8,8,8"}))
@pytest.mark.parametrize("dtype", ["uint8", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float32", "float64"))])
def test_levels_are_the_convolutions_that_they_are_said_to_be(dtype, options):
    x = np.random.default_rng(0).normal(100, 50, (2, 2, 9, 13, 16)).clip(0, 255).astype(dtype)
    written("in.zarr", x, (1.0, 0.5, 0.5), (3.0, 2.0, 1.0))
    volconv.convert("in.zarr", "out.zarr", options={"chunks": "4,4,4", **options}, pyramid=True)
    found = levels_of("out.zarr")
    assert [values.shape[2:] for _, values in found] == [(9, 13, 16), (9, 6, 8), (4, 3, 4)]
    np.testing.assert_array_equal(found[0][1], x)
    for (before, finer), (after, coarser), stride in zip(found, found[1:], [(1, 2, 2), (2, 2, 2)]):
        expected = halved(finer, stride)
        if dtype == "uint8":
            assert abs(coarser - expected).max() <= 0.5 + 1e-4
            assert coarser.dtype == np.uint8
        else:
            tolerances.assert_matches(
                coarser, expected, tolerances.allowed(dtype, np.array(finer[:, :1]), weights(stride))
            )
        moved = [0.5 * (step - 1) for step in stride]
        assert after.spacing == tuple(size * step for size, step in zip(before.spacing, stride))
        np.testing.assert_allclose(
            after.origin, [o + m * s for o, m, s in zip(before.origin, moved, before.spacing)], rtol=1e-12
        )


def test_a_constant_stays_and_the_highest_frequency_goes():
    flat = np.full((1, 1, 8, 8, 8), 7, "uint16")
    written("flat.zarr", flat)
    stripes = np.indices((1, 1, 8, 8, 8)).sum(0).astype("float32") % 2
    written("stripes.zarr", stripes)
    for name in ("flat", "stripes"):
        volconv.convert(f"{name}.zarr", f"{name}_out.zarr", options={"chunks": "2,2,2"}, pyramid=True)
    assert all((values == 7).all() for _, values in levels_of("flat_out.zarr"))
    inner = levels_of("stripes_out.zarr")[1][1][..., 1:-1, 1:-1, 1:-1]
    np.testing.assert_array_equal(inner, np.full_like(inner, 0.5))


sizes = st.tuples(*[st.integers(1, 3000)] * 3)
steps = st.tuples(*[st.floats(1e-3, 1e3)] * 3)


@given(sizes, steps, st.tuples(*[st.integers(1, 256)] * 3))
def test_levels_end_in_one_chunk(size, spacing, chunk):
    found = strides(size, spacing, chunk)
    for stride in found:
        assert any(length > edge for length, edge in zip(size, chunk))
        assert set(stride) <= {1, 2}
        assert any(step == 2 for step in stride)
        assert all(step == 1 or length > 1 for step, length in zip(stride, size))
        size = tuple(length // step for length, step in zip(size, stride))
        assert min(size) >= 1
    assert all(length <= edge for length, edge in zip(size, chunk))


def test_the_command_and_the_reports(capsys):
    x = np.random.default_rng(0).integers(0, 99, (1, 1, 9, 10, 11)).astype("uint8")
    written("a.zarr", x, chunks="4,4,4")
    command("apply", "a.zarr", "-k", "box:size=3", "-o", "b.zarr", "--pyramid", "--json")
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["levels"] == 2
    assert len(list_contents("b.zarr")) == 2
    command("apply", "a.zarr", "-k", "box:size=3", "-o", "b.zarr", "--skip-existing", code=4)
    assert "pyramid yes (now none)" in capsys.readouterr().err
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group("b.zarr", mode="r"))
    assert [one.path for one in image.ome_attributes.multiscales[0].datasets] == ["0", "1"]
    command("convert", "a.zarr", "c.zarr", "--pyramid")
    assert [entry.shape for entry in list_contents("c.zarr")] == [(9, 10, 11), (4, 5, 5), (2, 2, 2)]


@pytest.mark.parametrize("what", ["convert", "apply"])
def test_other_formats_have_no_levels(what, capsys):
    written("a.zarr", np.zeros((1, 1, 4, 4, 4), "uint8"))
    arguments = ["a.zarr", "b.nii"] if what == "convert" else ["a.zarr", "-k", "box:size=3", "-o", "b.nii"]
    command(what, *arguments, "--pyramid", code=2)
    assert "pyramid must go with an OME-Zarr output (got b.nii)" in capsys.readouterr().err
    with pytest.raises(ParameterError, match="pyramid must go with"):
        volconv.convert("a.zarr", "b.nii", pyramid=True)


def test_memory_for_levels_is_asked_for_before_any_work(tmp_path):
    x = np.zeros((1, 1, 8, 300, 300), "float32")
    written("a.zarr", x, chunks="8,300,300")
    least = "130M"
    with pytest.raises(OutOfMemoryError, match="memory must be at least"):
        volconv.convert("a.zarr", "b.zarr", memory=least, pyramid=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr"]


@pytest.mark.parametrize("what", ["convert", "apply"])
def test_a_level_is_unpacked_once_for_the_next(monkeypatch, what):
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 20_000)  # slabs that cut chunks
    fetch, seen = ZarrSource._fetch, {}

    def counting(self, wanted, region, out):
        for piece in wanted:
            key = self._name, piece.start
            seen[key] = seen.get(key, 0) + 1
        fetch(self, wanted, region, out)

    written("a.zarr", np.random.default_rng(0).integers(0, 9, (1, 1, 64, 64, 64)).astype("uint8"), chunks="16,16,16")
    monkeypatch.setattr(ZarrSource, "_fetch", counting)
    if what == "convert":
        volconv.convert("a.zarr", "b.zarr", pyramid=True)
    else:
        volconv.apply("a.zarr", "b.zarr", "box:size=3", padding="same", dtype="same", pyramid=True)
    levels = {name for name, _ in seen}
    assert len(levels) == 3  # the input, and two that others are made of
    assert set(seen.values()) == {1}
