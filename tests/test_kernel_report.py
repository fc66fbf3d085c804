"""Facts of kernels, by what they are known to be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from command import make_nifti, noise
from volconv.errors import ParameterError, ReadError, ShapeError
from volconv.kernel_report import ChannelReport, like_volume, report_kernel
from volconv.kernels import load_kernel

SPACING = ((3.0, 1.0, 0.5), "mm")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(array, name="k.npy"):
    np.save(name, array)
    return name


def test_a_product():
    found = report_kernel("sobel:axis=x")
    assert (found.kernel, found.shape, found.dtype) == ("sobel:axis=x", (3, 3, 3), "float64")
    assert found.channels == (ChannelReport(0.0, math.sqrt(2 * 36), (1, 1, 1), 1, ("even", "even", "odd")),)
    assert (found.volume, found.volume_shape, found.volume_dtype) == (None, (1, 1, 256, 256, 256), "float32")
    assert (found.spacing, found.unit) == (None, None)
    assert found.algorithm in found.predicted_seconds


@pytest.mark.parametrize(
    ("spec", "products", "ranks"),
    [
        ("gaussian:sigma=2", 1, (1, 1, 1)),
        ("unsharp:sigma=2", 2, (2, 2, 2)),
        ("log:sigma=2", 3, (2, 2, 2)),
        ("gabor:sigma=3,wavelength=6,direction=0/1/1", 2, (1, 2, 2)),
        ("ball:radius=3", None, (4, 4, 4)),
        ("box:size=1/2/3", 1, (1, 1, 1)),
    ],
)
def test_ranks_and_products(spec, products, ranks):
    (channel,) = report_kernel(spec).channels
    assert (channel.products, channel.ranks) == (products, ranks)


def test_a_bank():
    found = report_kernel("hessian")
    kinds = ["eee", "ooe", "oeo", "eee", "eoo", "eee"]
    assert [tuple(kind[0] for kind in channel.symmetry) for channel in found.channels] == list(map(tuple, kinds))
    assert {channel.products for channel in found.channels} == {1}


def test_weights_of_a_layer():
    rng = np.random.default_rng(0)
    layer = rng.standard_normal((4, 2, 3, 5, 7)).astype(np.float32)
    found = report_kernel(saved(layer), channel=3)
    assert found.volume_shape == (1, 2, 256, 256, 256)
    assert len(found.channels) == 4
    for channel, values in zip(found.channels, layer):
        assert channel.sum == pytest.approx(values.sum(dtype=float), rel=1e-12)
        assert channel.norm == pytest.approx(np.sqrt((values.astype(float) ** 2).sum()), rel=1e-12)
        assert (channel.ranks, channel.products, channel.symmetry) == (None, None, ("none",) * 3)
    assert found.slices[0].values == tuple(map(tuple, layer[3, 0, 1].tolist()))


def test_complex_and_integer_weights():
    values = np.array([[[1, 2 + 2j, 1]]], np.complex64)
    (channel,) = report_kernel(saved(values)).channels
    assert (channel.sum, channel.norm, channel.ranks) == (4 + 2j, pytest.approx(math.sqrt(10)), None)
    assert channel.symmetry == ("even", "even", "even")
    assert report_kernel("k.npy").as_dict()["channels"][0]["sum"] == [4.0, 2.0]
    found = report_kernel(saved(np.array([[[-1, 0, 1]]], np.int8), "i.npy"))
    assert (found.dtype, found.channels[0].symmetry) == ("int8", ("even", "even", "odd"))
    assert found.slices[0].values == ((-1, 0, 1),)


def test_weights_that_are_nothing():
    (channel,) = report_kernel(saved(np.zeros((3, 3, 3)))).channels
    assert (channel.sum, channel.norm, channel.ranks, channel.products) == (0, 0, (0, 0, 0), 1)
    assert channel.symmetry == ("even",) * 3
    (channel,) = report_kernel(saved(np.full((3, 3, 3), np.nan))).channels
    assert channel.ranks is None
    assert channel.symmetry == ("none",) * 3


def test_middle_slices():
    values = np.arange(4 * 9 * 3.0).reshape(4, 9, 3)
    across_d, across_h, across_w = report_kernel(saved(values)).slices
    assert (across_d.across, across_d.axes, across_d.first) == ("D", ("H", "W"), (-3, -1))
    np.testing.assert_array_equal(across_d.values, values[2, 1:8])
    assert (across_h.across, across_h.axes, across_h.first) == ("H", ("D", "W"), (-2, -1))
    np.testing.assert_array_equal(across_h.values, values[:, 4])
    assert (across_w.across, across_w.axes, across_w.first) == ("W", ("D", "H"), (-2, -3))
    np.testing.assert_array_equal(across_w.values, values[:, 1:8, 1])


def test_the_volume_decides():
    path = make_nifti("v.nii", noise((20, 30, 40), "int16"), np.diag([0.5, 1, 3, 1]))
    found = report_kernel("gaussian:sigma=3mm", path)
    assert (found.volume, found.volume_shape, found.volume_dtype) == ("v.nii", (1, 1, 20, 30, 40), "int16")
    assert (found.spacing, found.unit, found.shape) == ((3, 1, 0.5), "mm", (9, 25, 49))
    assert report_kernel("gaussian:sigma=3mm", path, ((1.0, 1.0, 1.0), "mm")).shape == (25, 25, 25)
    assert report_kernel("gaussian:sigma=3mm", spacing=SPACING).shape == (9, 25, 49)
    assert like_volume() is None
    assert json.loads(json.dumps(found.as_dict()))["schema_version"] == 1


def test_the_weights_shown_are_those_applied():
    weights = load_kernel("gaussian:sigma=2mm", like_volume(spacing=SPACING).geometry).weight
    (channel,) = report_kernel("gaussian:sigma=2mm", spacing=SPACING).channels
    assert channel.norm == pytest.approx(np.linalg.norm(weights))


def test_errors():
    with pytest.raises(ParameterError, match="sigma=1mm needs a spacing, and the command states none; state it"):
        report_kernel("gaussian:sigma=1mm")
    with pytest.raises(ParameterError, match=r"channel must be 0 to 2 with this kernel \(got 3\)"):
        report_kernel("sobel", channel=3)
    with pytest.raises(ParameterError, match=r"channel must be 0 with this kernel \(got -1\)"):
        report_kernel("box:size=3", channel=-1)
    with pytest.raises(ParameterError, match=r"spacing must have a unit where no volume states one \(got none\)"):
        report_kernel("box:size=3mm", spacing=((1.0, 1.0, 1.0), None))
    with pytest.raises(ReadError, match=r"gone\.npy"):
        report_kernel("gone.npy")
    make_nifti("t.nii", noise((3, 2, 4, 5, 6)))
    with pytest.raises(ShapeError, match="input must have one channel with a kernel bank"):
        report_kernel("sobel", "t.nii")
