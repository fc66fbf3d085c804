"""``volconv doctor``: what it tells people and scripts, with a GPU and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import numba
import numpy
import pytest

import volconv as library
from command import volconv
from volconv.doctor import ENVIRONMENT, FIELDS, examine
from volconv.engines.cpu import native
from volconv.engines.gpu.probe import Gpu, Probe

NONE = Probe(False, "CuPy is not installed", "pip install 'volconv[cuda13]'")
ONE = Probe(
    True,
    versions={"cupy-cuda13x": "14.2.0"},
    driver="580.65.06",
    driver_cuda="13.0",
    runtime="13.2",
    devices=(
        Gpu(0, "NVIDIA H100 80GB HBM3", (9, 0), 85_000_000_000, 84_000_000_000),
        Gpu(1, "NVIDIA T4", (7, 5), 16_000_000_000),
    ),
)


@pytest.fixture
def printed(capsys, monkeypatch):
    """What a call prints to stdout, on a machine with these GPUs; nothing goes to stderr."""

    def call(*arguments, gpu=NONE):
        monkeypatch.setattr("volconv.doctor.probe", lambda: gpu)
        volconv("doctor", *arguments)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def pairs_of(text):
    """Names and values; further lines of a value are joined by a bar."""
    found = {}
    name = None
    for line in text.splitlines():
        assert len(line) <= 80 or os.sep in line, line  # a path is never broken
        if line[0] != " ":
            name, _, value = line.partition("  ")
            found[name] = value.strip()
        else:
            found[name] += f" | {line.strip()}"
    return found


def test_facts_for_people(printed, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    found = pairs_of(printed())
    assert list(found) == ["volconv", "python", "libraries", "extras", "cpu", "threads", "memory", "compiled", "gpu"]
    assert found["volconv"] == library.__version__
    assert found["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    for package in (numpy, numba):
        assert f"{package.__name__} {package.__version__}" in found["libraries"].replace(" | ", " ")
    for name in ("nibabel", "h5py", "tifffile", "isal"):
        assert f"{name} {metadata.version(name)}" in found["libraries"].replace(" | ", " ")
    assert found["threads"] == f"{len(os.sched_getaffinity(0))} (--threads)"
    assert found["gpu"] == "not usable: CuPy is not installed | pip install 'volconv[cuda13]'"


def test_facts_of_a_gpu(printed):
    assert pairs_of(printed(gpu=ONE))["gpu"] == (
        "driver 580.65.06, for CUDA up to 13.0 | cupy-cuda13x 14.2.0, CUDA 13.2"
        " | 0: NVIDIA H100 80GB HBM3, 9.0, 85 GB, 84 GB free | 1: NVIDIA T4, 7.5, 16 GB"
    )


def test_a_gpu_that_cannot_be_used_is_shown_too(printed):
    broken = Probe(False, "a kernel gives wrong results", "see", driver_cuda="12.4", devices=ONE.devices[1:])
    assert pairs_of(printed(gpu=broken))["gpu"] == (
        "not usable: a kernel gives wrong results | see | driver, for CUDA up to 12.4 | 1: NVIDIA T4, 7.5, 16 GB"
    )


def test_json(printed):
    text = printed("--json", gpu=ONE)
    assert text.count("\n") == 1
    found = json.loads(text)
    assert tuple(found) == FIELDS
    assert found["schema_version"] == 1
    assert list(found["versions"])[:2] == ["volconv", "python"]
    assert found["gpu"]["usable"] is True
    assert found["gpu"]["devices"][0] == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "compute_capability": [9, 0],
        "total_bytes": 85_000_000_000,
        "free_bytes": 84_000_000_000,
    }
    assert json.loads(printed("--json"))["gpu"]["reason"] == "CuPy is not installed"


def test_the_help_names_every_key(capsys):
    volconv("doctor", "--help")
    text = capsys.readouterr().out
    for name in FIELDS:
        assert f"\n    {name} " in text, name
    for name in (*Probe.__dataclass_fields__, *Gpu.__dataclass_fields__):
        assert name in text.split("\n    gpu ")[1], name


def test_a_field(printed, capsys):
    assert printed("--field", "threads") == f"{examine().threads}\n"
    assert printed("--field", "schema_version", "--json") == "1\n"
    assert json.loads(printed("--field", "gpu"))["usable"] is False
    assert set(json.loads(printed("--field", "extras"))) >= {"tiff", "hdf5", "cuda12", "cuda13"}
    volconv("doctor", "--field", "thread", code=2)
    assert "got 'thread'); did you mean threads?" in capsys.readouterr().err


def test_extras_that_are_there_and_those_that_are_not(printed, monkeypatch):
    there = {"imagecodecs": "2026.1.1"}
    real = metadata.version

    def version(name):
        if name in ("imagecodecs", "hdf5plugin", "cupy-cuda12x", "cupy-cuda13x"):
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]
        return real(name)

    monkeypatch.setattr("volconv.doctor.metadata.version", version)
    lines = [line.split() for line in pairs_of(printed())["extras"].split(" | ")]
    assert ["tiff", "imagecodecs", "2026.1.1"] in lines
    assert ["hdf5", "pip", "install", "'volconv[hdf5]'"] in lines
    assert not any("cuda" in line[0] for line in lines)  # what to install for a GPU stands beside the GPU
    there["cupy-cuda13x"] = "14.2.0"
    lines = pairs_of(printed())["extras"].split(" | ")
    assert [line.split() for line in lines if "cuda" in line] == [["cuda13", "cupy-cuda13x", "14.2.0"]]


def test_a_library_that_is_missing(printed, monkeypatch):
    real = metadata.version

    def version(name):
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("volconv.doctor.metadata.version", version)
    assert pairs_of(printed())["missing"] == "numba: pip install -U volconv"
    assert json.loads(printed("--json"))["versions"]["numba"] is None


def test_variables_that_matter_and_no_others(printed, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOLCONV_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("VOLCONV_PASSWORD", "hunter2")
    assert json.loads(printed("--field", "environment")) == {"VOLCONV_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}
    assert pairs_of(printed())["environment"] == "VOLCONV_THREADS=3 | CUDA_VISIBLE_DEVICES="
    assert "hunter2" not in printed("--json") + printed()


def test_where_compiled_loops_are_kept(printed, monkeypatch, tmp_path):
    folder = tmp_path / "cache" / "loops"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    assert pairs_of(printed())["compiled"] == f"{folder} | 0 loops"
    assert not folder.exists()  # to ask makes none
    folder.mkdir(parents=True)
    (folder / "direct.o").touch()
    assert pairs_of(printed())["compiled"] == f"{folder} | 1 loop"
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "loops"))
    assert native.code_folder() is None
    assert pairs_of(printed())["compiled"] == "nowhere to write: each run compiles them anew"
    assert json.loads(printed("--json"))["compiled"] is None


def test_the_command_itself_without_a_gpu():
    done = subprocess.run(
        [sys.executable, "-c", "from volconv_cli.main import main; main(['doctor'])"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not usable: " in done.stdout
