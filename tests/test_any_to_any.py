"""Every format into every other, by the table of what each can hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from command import volconv
from volconv.errors import WriteError
from volconv.geometry import grids_agree
from volconv.io import create_volume, open_volume, output_format
from volconv.io.axes import AXIS

SPACING = (2.5, 0.75, 0.5)
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag(SPACING[::-1]), [10, -20, 30]
)
STEP = 1.5

SOURCES = ("nii", "nii.gz", "hdr", "mgz", "h5", "tif", "ome.tif", "slices", "zarr")
TARGETS = ("nii", "nii.gz", "h5", "tif", "ome.tif", "slices/", "zarr")
VOLUMES = {
    "one volume": ((1, 1, 4, 5, 6), "uint16"),
    "over time": ((3, 1, 4, 5, 6), "float32"),
    "with channels": ((1, 2, 4, 5, 6), "uint8"),
    "with both": ((3, 2, 4, 5, 6), "int16"),
}


def make(name, shape, dtype):
    """A file by the format's own library; its values as (N, C, D, H, W)."""
    x = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    n, c = shape[:2]
    if name in ("nii", "nii.gz", "hdr"):
        values = x.transpose(4, 3, 2, 0, 1)
        values = values[..., 0] if c == 1 else values
        kind = nibabel.Nifti1Pair if name == "hdr" else nibabel.Nifti1Image
        image = kind(values[..., 0] if n == c == 1 else values, OBLIQUE, dtype=dtype)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((*SPACING[::-1], STEP, 1.0)[: image.ndim])
        image.to_filename(f"in.{name}")
    elif name == "mgz":
        image = nibabel.MGHImage(x.transpose(4, 3, 2, 0, 1)[..., 0], OBLIQUE)
        image.header.set_zooms((*SPACING[::-1], STEP * 1000)[: image.ndim])
        image.to_filename("in.mgz")
    elif name == "h5":
        with h5py.File("in.h5", "w") as file:
            data = file.create_dataset("raw", data=x)
            data.attrs.update({"affine": OBLIQUE, "unit": "mm", "time_step": STEP})
    elif name == "tif":
        tifffile.imwrite(
            "in.tif",
            x.transpose(0, 2, 1, 3, 4),
            imagej=dtype != "int16",
            photometric="minisblack",
            resolution=(1 / SPACING[2], 1 / SPACING[1]),
            metadata={"axes": "TZCYX", "spacing": SPACING[0], "unit": "um", "finterval": STEP},
        )
    elif name == "ome.tif":
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", SPACING, strict=True)}
        known = {"axes": "TCZYX", **sizes, "TimeIncrement": STEP, "TimeIncrementUnit": "s"}
        tifffile.imwrite("in.ome.tif", x, ome=True, photometric="minisblack", metadata=known)
    elif name == "zarr":
        axes = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}]
        axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
        moves = [{"type": "scale", "scale": [STEP * 1000, 1, *SPACING]}]
        moves += [{"type": "translation", "translation": [0, 0, 10, -20, 30]}]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": moves}]}
        facts = {"ome": {"version": "0.5", "multiscales": [image]}}
        zarr.create_group("in.zarr", attributes=facts).create_array("0", data=x, chunks=(1, 1, 3, 3, 4))
    return x


def by_its_library(path):
    """Values of a file as (N, C, D, H, W), without volconv."""
    if path.endswith("/"):
        return np.stack([tifffile.imread(file) for file in sorted(Path(path).iterdir())])[None, None]
    if ".nii" in path:
        values = np.asarray(nibabel.load(path).dataobj)
        return values.reshape(values.shape + (1,) * (5 - values.ndim)).transpose(3, 4, 2, 1, 0)
    if path.endswith(".h5"):
        with h5py.File(path) as file:
            (data,) = file.values()
            axes, values = data.attrs["axes"], data[()]
    elif path.endswith(".zarr"):
        group = zarr.open_group(path, mode="r")
        axes, values = "".join(group["0"].metadata.dimension_names).upper(), group["0"][...]
    else:
        with tifffile.TiffFile(path) as file:
            axes, values = file.series[0].axes, file.series[0].asarray()
    places = [AXIS[letter] for letter in axes]
    values = values.transpose(np.argsort(places))
    return values.reshape([values.shape[sorted(places).index(axis)] if axis in places else 1 for axis in range(5)])


def holds(name, shape, dtype):
    """Whether a source of this kind can be made of a volume."""
    if name == "slices":
        return shape[:2] == (1, 1)
    return name != "mgz" or (shape[1] == 1 and dtype == "float32")


CASES = [
    pytest.param(
        source,
        target,
        volume,
        id=f"{source} to {target}, {volume}",
        marks=[pytest.mark.slow] if volume in ("over time", "with channels") else [],
    )
    for source, target, volume in itertools.product(SOURCES, TARGETS, VOLUMES)
    if holds(source, *VOLUMES[volume])
]


@pytest.mark.parametrize(("source", "target", "volume"), CASES)
def test_any_format_into_any_other(tmp_path, monkeypatch, capsys, source, target, volume):
    monkeypatch.chdir(tmp_path)
    shape, dtype = VOLUMES[volume]
    if source == "slices":
        x = make("tif", shape, dtype)
        volconv("convert", "in.tif", "in/", "-q")
        name = "in"
    else:
        x, name = make(source, shape, dtype), f"in.{source}"
    output = "out/" if target == "slices/" else f"out.{target}"
    form = output_format(output)
    if form.name == "slices" and shape[:2] != (1, 1):
        volconv("convert", name, output, code=1)
        assert "one channel of one volume" in capsys.readouterr().err
        return
    volconv("convert", name, output)
    err = capsys.readouterr().err
    got = by_its_library(output)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)
    with open_volume(name) as before, open_volume(output) as after:
        assert after.info.shape == before.info.shape == shape
        np.testing.assert_allclose(
            before.info.geometry.spacing_in("mm") or (), after.info.geometry.spacing_in("mm") or ()
        )
        assert before.info.geometry.unit is not None
        if form.geometry == "affine" or (form.name == "zarr" and before.info.geometry.is_axis_aligned):
            assert grids_agree(before.info.geometry, after.info.geometry, shape[2:])
            assert "dropped" not in err
        elif not before.info.geometry.is_axis_aligned:
            assert f"{form.title} holds no orientation, only spacing: dropped affine [" in err
            np.testing.assert_allclose(before.info.geometry.spacing, SPACING, rtol=1e-5)
        if shape[0] > 1:
            assert before.info.time_step == pytest.approx(STEP)
            assert after.info.time_step == pytest.approx(STEP)
        np.testing.assert_array_equal(after.numpy(), x)


@pytest.mark.parametrize("target", ["nii", "h5", "tif", "ome.tif", "zarr"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16"])
def test_dtypes_that_a_target_lacks_are_widened_and_told(tmp_path, monkeypatch, capsys, target, dtype):
    monkeypatch.chdir(tmp_path)
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with h5py.File("in.h5", "w") as file:
        file["raw"] = x
    form = output_format(f"out.{target}")
    if dtype in ("int64", "uint64") and form.name == "ome":  # no float holds them all
        volconv("convert", "in.h5", f"out.{target}", code=1)
        assert f"OME-TIFF cannot hold dtype {dtype}" in capsys.readouterr().err
        return
    volconv("convert", "in.h5", f"out.{target}", "-f")
    err = capsys.readouterr().err
    got = by_its_library(f"out.{target}")
    np.testing.assert_array_equal(got[0, 0], x)
    if dtype in form.dtypes:
        assert got.dtype == dtype
    else:
        assert got.dtype == np.float32
        assert f"{form.title} holds no {dtype}, written as float32" in err


def test_a_slope_becomes_real_values_where_there_is_no_place_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    stored = nibabel.Nifti1Image(np.asarray(image.dataobj), np.eye(4), image.header)
    stored.to_filename("in.nii")
    with nibabel.openers.ImageOpener("in.nii", "r+b") as file:  # nibabel works out a slope of its own; this one is ours
        file.seek(112)
        file.write(np.array([0.5, 10], "<f4").tobytes())
    with open_volume("in.nii") as volume:
        real, before = volume.numpy(), volume.info
    assert (before.scaling.slope, before.scaling.intercept) == (0.5, 10)
    volconv("convert", "in.nii", "same.nii")
    with open_volume("same.nii") as volume:
        assert (volume.info.dtype, volume.info.scaling) == (before.dtype, before.scaling)
        np.testing.assert_array_equal(volume.numpy(), real)
    for target in ("out.h5", "out.tif"):
        volconv("convert", "in.nii", target)
        with open_volume(target) as volume:
            assert volume.info.dtype == np.float32
            np.testing.assert_array_equal(volume.numpy(), real)
    with pytest.raises(WriteError, match="has no place for a slope and intercept; write real values, or NIfTI"):
        create_volume("no.tif", shape=(1, 1, 1, 1, 1), dtype="int16", scaling=before.scaling)
