"""--kernel and --bias, as arrays for Conv3d."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from volconv.errors import ParameterError, ReadError, ShapeError
from volconv.geometry import Geometry
from volconv.kernels import Kernel, expand, load_bias, load_kernel
from volconv.kernels.files import KINDS
from volconv.params import Conv3dParams

BRAIN = Geometry.from_spacing((3.0, 1.0, 0.5))


def test_a_name_or_a_file(tmp_path):
    named = load_kernel("gaussian:sigma=1.5mm", BRAIN)
    assert (named.name, named.weight.shape) == ("gaussian:sigma=1.5mm", (5, 13, 25))
    spec = str(tmp_path / "k.npy")
    np.save(spec, np.ones((3, 3, 3), np.int16))
    loaded = load_kernel(spec, Geometry())
    assert (loaded.name, loaded.weight.dtype) == (spec, np.int16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.name = "other"
    assert Kernel(loaded.weight, "k") != Kernel(loaded.weight, "k")  # by identity: arrays have no one truth value


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 3, 3, 3), (4, 2, 3, 3, 3)])
def test_kernels_have_3_4_or_5_axes(tmp_path, shape):
    np.save(tmp_path / "k.npy", np.ones(shape))
    assert load_kernel(str(tmp_path / "k.npy"), BRAIN).weight.shape == shape


@pytest.mark.parametrize("shape", [(), (3,), (3, 3), (1, 1, 1, 3, 3, 3)])
def test_other_ranks_are_refused(tmp_path, shape):
    np.save(tmp_path / "k.npy", np.ones(shape))
    with pytest.raises(ShapeError, match=r"kernel must be a numeric array of 3, 4 or 5 axes \(got shape"):
        load_kernel(str(tmp_path / "k.npy"), BRAIN)


def test_an_empty_kernel_is_refused(tmp_path):
    np.save(tmp_path / "k.npy", np.ones((3, 0, 3)))
    with pytest.raises(ShapeError, match=r"kernel must have no axis of size 0 \(got shape \(3, 0, 3\)"):
        load_kernel(str(tmp_path / "k.npy"), BRAIN)


def test_the_volume_is_named_where_its_spacing_is_missing():
    with pytest.raises(
        ParameterError, match=r"sigma=1\.5mm needs a spacing, and a\.tif states none; state it \(--spacing"
    ):
        load_kernel("gaussian:sigma=1.5mm", Geometry(), "a.tif")


@pytest.mark.parametrize("spec", ["k.mat", "k.mat:w"])
def test_a_file_of_another_kind_is_told_apart_from_an_unknown_name(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="kernel must be a file"):
        load_kernel(spec, BRAIN)
    (tmp_path / "k.mat").touch()
    with pytest.raises(ReadError, match=r"k\.mat is of no kind that weights are read from \(\.npy, "):
        load_kernel(spec, BRAIN)


def test_a_file_without_a_suffix_does_not_take_a_names_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("k.npy", np.ones((3, 3, 3)))
    for name in ("sobel", "psf"):
        (tmp_path / "k.npy").rename(tmp_path / name)
        assert load_kernel(f"./{name}", BRAIN).weight.shape == (3, 3, 3)
        (tmp_path / name).rename(tmp_path / "k.npy")
    (tmp_path / "k.npy").rename(tmp_path / "sobel")
    (tmp_path / "psf").touch()
    assert load_kernel("sobel", BRAIN).weight.shape == (3, 3, 3, 3)
    with pytest.raises(ParameterError, match=r"there is a file of this name: write \./psf to mean it"):
        load_kernel("psf", BRAIN)


@pytest.mark.parametrize("spec", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_could_have_is_an_unknown_name(spec):
    with pytest.raises(ParameterError, match="kernel must be a file"):
        load_kernel(spec, BRAIN)


# --- bias


@pytest.mark.parametrize(
    ("spec", "value", "dtype"),
    [
        ("0.5", 0.5, np.float64),
        (" -3 ", -3, np.int64),
        ("+1e-3", 1e-3, np.float64),
        (".5", 0.5, np.float64),
        ("1+2j", 1 + 2j, np.complex128),
        ("-2J", -2j, np.complex128),
        ("99999999999999999999", 1e20, np.float64),
    ],
)
def test_a_number_is_the_bias_of_every_channel(spec, value, dtype):
    bias = load_bias(spec, 3)
    assert bias.dtype == dtype
    assert bias.tolist() == [value] * 3


def test_a_bias_file(tmp_path):
    np.savez(tmp_path / "w.npz", weight=np.ones((2, 1, 3, 3, 3)), bias=np.array([1, 2], ">f4"))
    bias = load_bias(f"{tmp_path / 'w.npz'}:bias", 2)
    assert bias.tolist() == [1, 2]
    assert bias.dtype == np.dtype("=f4")


@pytest.mark.parametrize("spec", ["abc", "", "nan", "inf", "1e999", "1+infj", "1_0", "1 2", "e", "0.5mm", "--1"])
def test_other_texts_are_no_bias(spec):
    with pytest.raises(ParameterError) as caught:
        load_bias(spec, 2)
    assert caught.value.message == (f"bias must be a finite number or a file ({KINDS}) (got {spec!r})")


def test_bias_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("b.npy", np.ones(3))
    np.save("square.npy", np.ones((3, 3)))
    np.save("point.npy", np.float64(1))
    (tmp_path / "b.txt").touch()
    with pytest.raises(ShapeError, match=r"\(got 3 values in b\.npy, out_channels=4\)"):
        load_bias("b.npy", 4)
    for name in ("square.npy", "point.npy"):
        with pytest.raises(ShapeError, match=r"bias must be a numeric array of 1 axis \(got shape \("):
            load_bias(name, 3)
    with pytest.raises(ReadError, match=r"cannot read bias from gone\.npy: No such file"):
        load_bias("gone.npy", 3)
    with pytest.raises(ReadError, match=r"b\.txt is of no kind that weights are read from"):
        load_bias("b.txt", 3)
    (tmp_path / "0.5").touch()
    assert load_bias("0.5", 1).tolist() == [0.5]  # a number, whatever there is


# --- expand


def test_a_bare_kernel_is_depthwise():
    kernel = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    for groups in (None, 6):
        weight, result_groups = expand(kernel, 6, groups)
        assert (weight.shape, weight.dtype, result_groups) == ((6, 1, 3, 4, 5), np.float32, 6)
        assert all(np.array_equal(weight[c, 0], kernel) for c in range(6))
        assert Conv3dParams.parse(weight.shape, groups=result_groups).in_channels == 6


def test_a_bank_is_for_one_channel():
    bank = np.arange(2 * 27.0).reshape(2, 3, 3, 3)
    for groups in (None, 1):
        weight, result_groups = expand(bank, 1, groups)
        assert (weight.shape, result_groups) == ((2, 1, 3, 3, 3), 1)
        np.testing.assert_array_equal(weight[:, 0], bank)


def test_a_full_kernel_stays_as_it_is():
    full = np.ones((4, 2, 3, 3, 3))
    assert expand(full, 2, None) == (full, 1)
    assert expand(full, 4, 2) == (full, 2)


@pytest.mark.parametrize(
    ("shape", "channels", "groups", "error", "message"),
    [
        ((3, 3, 3), 4, 1, ParameterError, "(got groups=1, in_channels=4); leave groups out"),
        ((3, 3, 3), 4, 2, ParameterError, "groups must be in_channels with a kernel of 3 axes"),
        ((2, 3, 3, 3), 4, None, ShapeError, "(got in_channels=4, kernel shape (2, 3, 3, 3)); give 5 axes (C_out,"),
        ((2, 3, 3, 3), 1, 2, ParameterError, "groups must be 1 with a kernel bank of 4 axes (got groups=2)"),
        ((3, 3), 1, None, ShapeError, "kernel must have 3, 4 or 5 axes (got shape (3, 3))"),
    ],
)
def test_expand_errors(shape, channels, groups, error, message):
    with pytest.raises(error) as caught:
        expand(np.ones(shape), channels, groups)
    assert message in str(caught.value)
