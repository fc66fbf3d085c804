"""--weight-layout: told by the file's kind or by the volume, and otherwise asked for."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from cases import few
from command import volconv as run
from niftifiles import new
from reference import conv3d as direct_sum
from tolerances import allowed, assert_matches
from volconv import apply, create_volume, open_volume
from volconv.errors import ParameterError, ShapeError
from volconv.io import Region
from volconv.kernels import arranged


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("shape", "channels", "groups", "out_channels", "expected"),
    [
        ((8, 1, 3, 3, 3), 1, None, None, "oidhw"),
        ((3, 3, 3, 1, 8), 1, None, None, "dhwio"),
        ((3, 3, 3, 8, 8), 8, None, None, "dhwio"),
        ((3, 3, 3, 3, 8), 3, None, 8, "dhwio"),  # the bias decides
        ((3, 3, 3, 3, 8), 3, None, 3, "oidhw"),
        ((4, 2, 3, 3, 3), 4, 2, None, "oidhw"),
        ((3, 3, 3, 2, 4), 4, 2, None, "dhwio"),
        ((3, 2, 3, 2, 4), 4, 2, None, "dhwio"),  # 3 output channels are no two groups
        ((8, 2, 3, 3, 3), 5, None, None, "oidhw"),  # fits in neither: an error follows
        ((1, 1, 1, 1, 1), 1, None, None, "oidhw"),  # one and the same in both
    ],
)
def test_the_only_order_that_fits(shape, channels, groups, out_channels, expected):
    weight = noise(*shape)
    got, layout = arranged(weight, None, None, channels, groups, out_channels)
    assert layout == expected
    np.testing.assert_array_equal(got, weight if expected == "oidhw" else np.moveaxis(weight, (4, 3), (0, 1)))


@pytest.mark.parametrize(
    ("shape", "channels", "groups"), [((3, 3, 3, 3, 3), 3, None), ((8, 1, 3, 1, 3), 1, None), ((4, 2, 1, 2, 2), 4, 2)]
)
def test_two_orders_that_fit_are_asked_about(shape, channels, groups):
    with pytest.raises(ParameterError) as caught:
        arranged(noise(*shape), None, None, channels, groups, None, None, "w.npy")
    assert f"weight_layout must be given: {shape} in w.npy fits the volume as" in caught.value.message
    for layout in ("oidhw", "dhwio"):
        assert arranged(noise(*shape), layout, None, channels, groups)[1] == layout
        assert arranged(noise(*shape), None, layout, channels, groups)[1] == layout


def test_what_is_said_goes_before_what_the_file_says():
    assert arranged(noise(3, 3, 3, 1, 8), "oidhw", "dhwio", 1, None)[1] == "oidhw"


def test_layouts_of_nothing():
    with pytest.raises(ParameterError, match=r"weight_layout must be one of oidhw, dhwio \(got 'ndhwc'\)"):
        arranged(noise(3, 3, 3, 1, 8), "ndhwc", None, 1, None)
    for weight in (noise(3, 3, 3), noise(2, 3, 3, 3)):
        with pytest.raises(ParameterError, match=r"weight_layout is for kernels of 5 axes \(got shape \("):
            arranged(weight, "dhwio", None, 1, None)
        assert arranged(weight, None, None, 1, None)[1] is None


def volume(channels):
    x = noise(1, channels, 6, 7, 8)
    with create_volume("x.h5", shape=x.shape, dtype="float32", overwrite=True) as sink:
        sink.write(Region.whole(x.shape), x)
    return x


def filtered(kernel, **options):
    report = apply("x.h5", "y.h5", kernel, overwrite=True, **options)
    with open_volume("y.h5") as y:
        return y.numpy(), report


@pytest.mark.parametrize("groups", few([None, 2], 2))
def test_both_orders_give_the_same_volume(groups):
    x, w = volume(4), noise(6, 4 // (groups or 1), 3, 2, 1)
    other = np.ascontiguousarray(w.transpose(2, 3, 4, 1, 0))
    np.savez("w.npz", pytorch=w, tensorflow=other)
    expected = direct_sum(x, w, groups=groups or 1)
    tolerance = allowed("float32", x, w, groups=groups or 1)
    for kernel, options in (
        ("w.npz:pytorch", {}),
        ("w.npz:tensorflow", {}),
        ("w.npz:tensorflow", {"weight_layout": "dhwio"}),
        (other, {"weight_layout": "dhwio"}),
        (w, {}),
    ):
        got, report = filtered(kernel, groups=groups, **options)
        assert_matches(got, expected, tolerance)
        told = any("is taken as (kD, kH, kW, C_in, C_out)" in note for note in report.notes)
        assert told == (kernel == "w.npz:tensorflow" and not options if isinstance(kernel, str) else False)


def test_arrays_in_python_and_configs_are_pytorchs():
    volume(1)
    with pytest.raises(ShapeError, match="input must have as many channels as the weights expect"):
        filtered(noise(2, 2, 2, 1, 4))


def test_safetensors_of_flax_are_as_the_volume_tells():
    x = volume(2)
    w = noise(3, 3, 3, 2, 5)
    save_file({"conv.kernel": w, "conv.bias": noise(5)}, "flax.safetensors")
    got, report = filtered("flax.safetensors:conv")
    assert report.job.weight_layout == "dhwio"
    expected = w.transpose(4, 3, 0, 1, 2)
    assert_matches(got, direct_sum(x, expected, noise(5)), allowed("float32", x, expected, noise(5)))


def test_volumes_in_time_that_may_be_channels_are_no_reason_to_turn_weights():
    new("brats.nii", (4, 1, 5, 6, 7), "float32")
    np.save("w.npy", noise(2, 4, 1, 1, 1))
    with pytest.raises(ShapeError, match="its volumes in time may be channels: --axes XYZC"):
        apply("brats.nii", "o.nii", "w.npy")


def test_the_command(capsys):
    volume(3)
    np.save("w.npy", noise(3, 3, 3, 3, 3))
    line = ["apply", "x.h5", "-k", "w.npy"]
    run(*line, "-o", "a.h5", code=2)
    assert "weight_layout must be given: (3, 3, 3, 3, 3) in w.npy fits the volume as" in capsys.readouterr().err
    for layout in ("oidhw", "dhwio"):
        run(*line, "-o", f"{layout}.h5", "--weight-layout", layout)
    with open_volume("oidhw.h5") as one, open_volume("dhwio.h5") as other:
        assert not np.array_equal(one.numpy(), other.numpy())
    run(*line, "-o", "oidhw.h5", "--weight-layout", "oidhw", "--skip-existing")
    assert "skipped, was made in the same way" in capsys.readouterr().err
    run(*line, "-o", "oidhw.h5", "--weight-layout", "dhwio", "--skip-existing", code=4)
    assert "weight layout oidhw (now dhwio)" in capsys.readouterr().err
    run("shape", "x.h5", "--kernel-size", "3", "--weight-layout", "dhwio", code=2)
    assert "--weight-layout goes with --kernel" in capsys.readouterr().err
