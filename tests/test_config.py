"""Configuration files, and the presets that ship with the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from volconv.config import KEYS, dump_config, load_config
from volconv.errors import ConfigError
from volconv.geometry import Geometry
from volconv.kernels import load_kernel

PRESETS = Path(__file__).parents[1] / "configs"


def config(folder, text):
    path = folder / "conf.toml"
    path.write_text(text)
    return load_config(path)


def test_every_key(tmp_path):
    options = config(
        tmp_path,
        """
        kernel = "box:size=3"
        bias = 0.5
        stride = [2, 1, 1]
        padding = "valid"
        padding-mode = "zeros"
        padding-value = -1000
        dilation = 2
        groups = 1
        weight-layout = "dhwio"
        flip-kernel = true
        roi = "1:9,:,:"
        activation = "relu"
        reduce = "norm"
        mask = "m.h5:/labels"
        outside = 0
        nan = "ignore"
        dtype = "same"
        compute-dtype = "float64"
        algorithm = "direct"
        backend = "numpy"
        gpu-memory = "2G"
        allow-tf32 = true
        threads = 4
        memory = "512M"
        output = "out/{stem}/"
        axes = "XYZC"
        spacing = "1,0.5,0.5um"
        time = "0:10"
        channel = 2
        rgb = true
        stack = true
        co = {compression = "zlib", tile = [256, 256], level = 4, shuffle = true, predictor = false}
        report = "r.json"
        json = true
        dry-run = true
        overwrite = true
        skip-existing = true
        mkdir = true
        pyramid = true
        jobs = 2
        workers = 2
        scheduler = "tcp://host:8786"
        resume = true
        fail-fast = true
        quiet = true
        verbose = false
        """,
    )
    assert options == {
        "kernel": "box:size=3",
        "bias": "0.5",
        "stride": "2,1,1",
        "padding": "valid",
        "padding-mode": "zeros",
        "padding-value": "-1000",
        "dilation": "2",
        "groups": "1",
        "weight-layout": "dhwio",
        "flip-kernel": True,
        "roi": "1:9,:,:",
        "activation": "relu",
        "reduce": "norm",
        "mask": f"{tmp_path}/m.h5:/labels",
        "outside": "0",
        "nan": "ignore",
        "dtype": "same",
        "compute-dtype": "float64",
        "algorithm": "direct",
        "backend": "numpy",
        "gpu-memory": "2G",
        "allow-tf32": True,
        "threads": "4",
        "memory": "512M",
        "workers": "2",
        "scheduler": "tcp://host:8786",
        "resume": True,
        "output": f"{tmp_path}/out/{{stem}}/",
        "axes": "XYZC",
        "spacing": "1,0.5,0.5um",
        "time": "0:10",
        "channel": "2",
        "rgb": True,
        "stack": True,
        "co": ["compression=zlib", "tile=256,256", "level=4", "shuffle=yes", "predictor=no"],
        "report": f"{tmp_path}/r.json",
        "json": True,
        "dry-run": True,
        "overwrite": True,
        "skip-existing": True,
        "mkdir": True,
        "pyramid": True,
        "jobs": "2",
        "fail-fast": True,
        "quiet": True,
        "verbose": False,
    }
    assert set(options) == set(KEYS)
    assert options["flip-kernel"] is True


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("stride = [3]", "stride", "3"),
        ("dilation = [1, 2, 3]", "dilation", "1,2,3"),
        ('padding = "same"', "padding", "same"),
        ("padding = 1", "padding", "1"),
        ("padding = [0, 1, 1]", "padding", "0,1,1"),
        ('bias = "1+2j"', "bias", "1+2j"),
        ("bias = 2", "bias", "2"),
        ('padding-value = "1e3"', "padding-value", "1e3"),
        ("padding-value = 1e-3", "padding-value", "0.001"),
        ("flip-kernel = false", "flip-kernel", False),
    ],
)
def test_values_are_what_the_command_line_would_take(tmp_path, line, option, value):
    assert config(tmp_path, line) == {option: value}


def test_kernels_and_biases_of_numbers(tmp_path):
    options = config(tmp_path, "kernel = [[[-1, 0, 1]], [[0.5, 0, 2]]]\nbias = [1, 2]")
    np.testing.assert_array_equal(options["kernel"], [[[-1, 0, 1]], [[0.5, 0, 2]]])
    assert options["bias"].tolist() == [1, 2]


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    text = """
        kernel = [[[1.5, 2.0, 3.0]]]
        bias = "w.npz:b"
        stride = [2, 1, 1]
        padding = "same"
        padding-value = "-1000"
        groups = 3
        flip-kernel = true
        output = "out/"
        time = "0:10"
        channel = 2
        co = {compression = "zlib", tile = "256,256"}
        """
    first = config(tmp_path, text)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    written = dump_config(first)
    again = config(tmp_path / "deep", written)
    np.testing.assert_array_equal(again.pop("kernel"), first.pop("kernel"))
    assert again == first
    assert '\npadding = "same"\n' in written
    assert f'bias = "{tmp_path}/w.npz:b"' in written
    assert f'output = "{tmp_path}/out/"' in written


def test_an_empty_file_says_nothing(tmp_path):
    assert config(tmp_path, "# nothing") == {}


def test_files_are_relative_to_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    np.save(tmp_path / "k.npy", np.ones((1, 2, 3)))
    (tmp_path / "conf" / "a.toml").write_text('kernel = "../k.npy"\nbias = "w.npz:b"')
    monkeypatch.chdir(tmp_path)
    options = load_config("conf/a.toml")
    assert options == {"kernel": str(Path("conf/../k.npy")), "bias": str(Path("conf/w.npz")) + ":b"}
    assert load_kernel(options["kernel"], Geometry()).weight.shape == (1, 2, 3)
    (tmp_path / "conf" / "url.toml").write_text('output = "s3://bucket/{stem}.zarr"\nmask = "s3://bucket/m.zarr:1"')
    assert load_config("conf/url.toml") == {"output": "s3://bucket/{stem}.zarr", "mask": "s3://bucket/m.zarr:1"}
    (tmp_path / "b.toml").write_text(f'kernel = "{tmp_path}/k.npy"')
    assert load_config("b.toml") == {"kernel": f"{tmp_path}/k.npy"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("strde = 2", "key must be one of kernel, bias, stride,"),
        ("strde = 2", "(got 'strde'); did you mean stride?"),
        ("padding_mode = 'zeros'", "(got 'padding_mode'); did you mean padding-mode?"),
        ("[apply]\nstride = 2", "(got 'apply')"),
        ("config = 'x.toml'", "(got 'config')"),
        ('stride = "a"', "stride must be an integer or a list of 1 or 3 integers (D, H, W) (got 'a')"),
        ('stride = "same"', "stride must be an integer"),
        ("stride = 1.0", "stride must be an integer or a list of 1 or 3 integers (D, H, W) (got 1.0)"),
        ("stride = true", "(got true)"),
        ("stride = []", "(got [])"),
        ("stride = [1, 2]", "(got [1, 2])"),
        ("stride = [1, 2, 3, 4]", "(got [1, 2, 3, 4])"),
        ("stride = [1, 2, 'x']", "(got [1, 2, 'x'])"),
        ("stride = [[1], 2, 3]", "(got [[1], 2, 3])"),
        ("dilation = [1, 1, false]", "dilation must be an integer or a list"),
        ('padding = "full"', 'integers (D, H, W), "same" or "valid" (got \'full\')'),
        ("kernel = 3", "kernel must be a string, or nested lists of numbers (3 to 5 axes of equal rows) (got 3)"),
        ("bias = true", "bias must be a number, a string or a list of numbers (got true)"),
        ("bias = [[1, 2]]", "bias must be a number, a string or a list of numbers (got [[1, 2]])"),
        ("bias = ['a']", "(got ['a'])"),
        ("kernel = [1, 2]", "(got [1, 2])"),
        ("kernel = [[[1, 2], [3]]]", "(got [[[1, 2], [3]]])"),
        ("kernel = [[[true]]]", "(got [[[True]]])"),
        ("kernel = [[[]]]", "(got [[[]]])"),
        ("co = 'zlib'", "co must be a table, as in {compression = \"zlib\"} (got 'zlib')"),
        ("co = {tile = [1, [2]]}", "co must be a table"),
        ("spacing = 1.0", 'spacing must be a string, as in "1,0.5,0.5um" (got 1.0)'),
        ("time = 1.5", 'time must be an integer or a string, as in "0:10" (got 1.5)'),
        ("padding-value = false", "padding-value must be a number or a string (got false)"),
        ("padding-mode = 0", "padding-mode must be a string (got 0)"),
        ("dtype = 32", "dtype must be a string (got 32)"),
        ("compute-dtype = 32", "compute-dtype must be a string"),
        ("algorithm = {name = 'fft'}", "algorithm must be a string"),
        ("groups = '2'", "groups must be an integer (got '2')"),
        ("groups = true", "groups must be an integer (got true)"),
        ("threads = 1.5", "threads must be an integer (got 1.5)"),
        ("flip-kernel = 1", "flip-kernel must be true or false (got 1)"),
        ("flip-kernel = 'yes'", "flip-kernel must be true or false (got 'yes')"),
        ("dtype = 1979-05-27", "dtype must be a string"),
        (f"stride = {[1] * 99}", "1, 1, 1,...)"),
        ("padding = same", "conf.toml is no valid TOML: "),
        ("stride = 1\nstride = 2", "conf.toml is no valid TOML: "),
        ("stride = " + "9" * 5000, "conf.toml is no valid TOML: "),
    ],
)
def test_errors(tmp_path, line, message):
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, line)
    assert message in str(caught.value)
    assert str(tmp_path / "conf.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.toml: No such file or directory"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes("dtype = 'é'".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml must be UTF-8 text \(got byte 0xe9\)"):
        load_config(str(tmp_path / "latin.toml"))


# --- presets


def test_files_of_a_preset_are_there():
    unet = load_config(PRESETS / "unet_layer1.toml")
    layer = load_kernel(unet["kernel"], Geometry())
    assert layer.weight.shape == (3, 3, 3, 1, 8)
    assert layer.bias.shape == (8,)
