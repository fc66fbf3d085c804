"""Why a GPU cannot be used, and what helps: without CuPy, with CuPy and no driver, and with all that breaks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

import volconv
from fakecupy import make_cupy
from volconv.engines.gpu import probe as module
from volconv.engines.gpu.probe import DRIVERS, Gpu, probe

REAL_RELEASE = module._driver_release  # before the fixture below replaces it

BOTH_WAYS = "'volconv[cuda13]' (driver 580 or later) or 'volconv[cuda12]' (driver 525 or later)"


@pytest.fixture(autouse=True)
def _as_if_nothing_was_there(tmp_path, monkeypatch):
    """No CuPy but what lies in the test's own folder, and no driver."""
    listed = metadata.distributions
    monkeypatch.setattr("importlib.metadata.distributions", lambda: listed(path=[str(tmp_path)]))
    monkeypatch.setattr(module, "_driver_cuda", lambda: None)
    monkeypatch.setattr(module, "_driver_release", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield
    forget()


def forget():
    probe.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
        del sys.modules[name]


def without_cupy(monkeypatch):
    monkeypatch.setattr(module, "_is_installed", lambda: False)


# --- CuPy is not there


@pytest.mark.parametrize(
    ("driver", "remedy"),
    [
        (None, f"where there is an NVIDIA GPU, pip install {BOTH_WAYS}"),
        (13010, "pip install 'volconv[cuda13]'"),
        (14000, "pip install 'volconv[cuda13]'"),
        (12040, "pip install 'volconv[cuda12]'"),
        (11080, "install NVIDIA's driver 525 or later, then pip install 'volconv[cuda12]'"),
    ],
)
def test_not_installed(monkeypatch, driver, remedy):
    without_cupy(monkeypatch)
    monkeypatch.setattr(module, "_driver_cuda", lambda: driver)
    found = probe()
    assert (found.usable, found.reason, found.remedy) == (False, "CuPy is not installed", remedy)
    assert found.driver_cuda == (driver and f"{driver // 1000}.{driver % 1000 // 10}")


def test_an_empty_folder_is_no_cupy(tmp_path):
    (tmp_path / "cupy" / "cuda").mkdir(parents=True)
    if any((Path(folder) / "cupy" / "__init__.py").exists() for folder in sys.path):
        pytest.skip("CuPy is installed here, and an empty folder hides nothing")
    assert probe().reason == "CuPy is not installed"


def test_without_cupy_no_library_is_loaded():
    program = (
        "import sys\nfrom volconv.engines.gpu import probe\nprobe._is_installed = lambda: False\n"
        "probe.probe()\nprint(sorted({'numpy', 'cupy', 'importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_is_asked_once(monkeypatch):
    without_cupy(monkeypatch)
    first = probe()
    monkeypatch.setattr(module, "_is_installed", lambda: 1 / 0)
    assert probe() is first


def test_extras_and_drivers_are_those_of_the_package():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for cuda in DRIVERS:
        assert f'cuda{cuda} = ["cupy-cuda{cuda}x[ctk]>=14.0.1,!=14.1.0"]' in text


# --- CuPy is there


def test_all_is_well(tmp_path):
    make_cupy(tmp_path, count=2)
    found = probe()
    assert (found.usable, found.reason, found.remedy) == (True, None, None)
    assert found.versions == {"cupy-cuda13x": "14.2.0"}
    assert (found.driver_cuda, found.runtime) == ("13.0", "13.2")
    first, second = found.devices
    assert first == Gpu(0, "Fake GPU", (9, 0), 80 << 30, 70 << 30)
    assert second == Gpu(1, "Fake GPU", (9, 0), 80 << 30, None)
    assert json.loads(json.dumps(found.as_dict()))["devices"][1]["index"] == 1


ANEW = "pip install -U 'volconv[cuda13]'"
NEWER = "install NVIDIA's driver 580 or later"
CUDA = "CUDARuntimeError"


@pytest.mark.parametrize(
    ("settings", "reason", "remedy"),
    [
        (
            {"on_import": "ImportError('lib.so: no\\nsuch file')"},
            "CuPy cannot be imported: ImportError: lib.so: no such file",
            ANEW,
        ),
        ({"on_import": "RuntimeError()"}, "CuPy cannot be imported: RuntimeError", ANEW),
        ({"driver": 0}, "there is no NVIDIA driver", f"{NEWER} (a container needs --gpus all)"),
        (
            {"driver": 12040},
            "the NVIDIA driver is too old: it runs CUDA 12.4, and CuPy here needs CUDA 13",
            f"{NEWER}, or pip uninstall -y cupy-cuda13x && pip install -U 'volconv[cuda12]'",
        ),
        (
            {"driver": 11040},
            "the NVIDIA driver is too old: it runs CUDA 11.4, and CuPy here needs CUDA 13",
            NEWER,
        ),
        (
            {"count": 0},
            "the NVIDIA driver finds no GPU",
            "see what nvidia-smi says (a container needs --gpus all)",
        ),
        (
            {"count": f"{CUDA}('cudaErrorNoDevice: no CUDA-capable device is detected')"},
            "the NVIDIA driver finds no GPU",
            "see what nvidia-smi says (a container needs --gpus all)",
        ),
        (
            {"count": f"{CUDA}('cudaErrorSystemDriverMismatch: unsupported driver')"},
            "the NVIDIA driver fails: CUDARuntimeError: cudaErrorSystemDriverMismatch: unsupported driver",
            "see what nvidia-smi says",
        ),
        (
            {"compile": "DynamicLibNotFoundError('Failure finding \"libnvrtc.so.13\": No such file: libnvrtc.so.13')"},
            "NVRTC, CUDA's compiler, is not found",
            ANEW,
        ),
        (
            {"compile": "RuntimeError('Failed to find CUDA headers. Please install CUDA toolkit headers')"},
            "CUDA's headers are not found",
            ANEW,
        ),
        (
            {"compile": "CompileException('a.cu(2): catastrophic error: cannot open source file \"cuda_fp16.h\"')"},
            "CUDA's headers are not found",
            ANEW,
        ),
        (
            {"compile": 'CompileException("nvrtc: error: invalid value for --gpu-architecture (-arch)")'},
            "a kernel cannot be compiled: CompileException: nvrtc: error: invalid value for --gpu-architecture (-arch)",
            ANEW,
        ),
        (
            {"launch": f"{CUDA}('cudaErrorDevicesUnavailable: busy')"},
            "a kernel cannot be run: CUDARuntimeError: cudaErrorDevicesUnavailable: busy",
            "see who holds the GPU: nvidia-smi",
        ),
        ({"factor": 3}, "a kernel gives wrong results", "see what the driver has logged: dmesg | grep NVRM"),
        ({"runtime": "ValueError('one\\n two')"}, "CuPy fails: ValueError: one two", ANEW),
        ({"runtime": "ValueError('\\x1b' + 'x' * 999)"}, "CuPy fails: ValueError: \\x1b" + "x" * 287 + "...", ANEW),
    ],
)
def test_each_reason(tmp_path, settings, reason, remedy):
    make_cupy(tmp_path, **settings)
    found = probe()
    assert (found.usable, found.reason, found.remedy) == (False, reason, remedy)
    assert found.versions == {"cupy-cuda13x": "14.2.0"}


@pytest.mark.parametrize("value", ["", "-1", "7"])
def test_hidden(tmp_path, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    make_cupy(tmp_path, count=0)
    found = probe()
    assert found.reason == f"no GPU is visible with CUDA_VISIBLE_DEVICES={value!r}"
    assert found.remedy == "unset CUDA_VISIBLE_DEVICES"


def test_the_environment_is_not_blamed_for_a_driver_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    make_cupy(tmp_path, count="CUDARuntimeError('cudaErrorUnknown: unknown error')")
    assert probe().reason == "the NVIDIA driver fails: CUDARuntimeError: cudaErrorUnknown: unknown error"


@pytest.mark.parametrize(
    ("packages", "driver", "reason", "remedy"),
    [
        (
            {"cupy-cuda13x": "14.2.0", "cupy-cuda12x": "14.2.0"},
            12080,
            "several packages bring CuPy, and one breaks the other: cupy-cuda12x, cupy-cuda13x",
            "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install -U 'volconv[cuda12]'",
        ),
        (
            {"cupy": "14.2.0", "cupy-cuda12x": "14.2.0"},
            None,
            "several packages bring CuPy, and one breaks the other: cupy, cupy-cuda12x",
            "pip uninstall -y cupy cupy-cuda12x && pip install -U 'volconv[cuda13]'",
        ),
        ({"cupy-cuda13x": "14.1.0"}, None, "and not 14.1.0 (got cupy-cuda13x 14.1.0)", ANEW),
        ({"cupy-cuda13x": "14.0.0"}, 13000, "volconv needs CuPy 14.0.1 or later", ANEW),
        ({"cupy-cuda12x": "13.6.0"}, None, "(got cupy-cuda12x 13.6.0)", "pip install -U 'volconv[cuda12]'"),
        ({"cupy": "13.6.0"}, 13000, "(got cupy 13.6.0)", "pip uninstall -y cupy && pip install -U 'volconv[cuda13]'"),
        (
            {"cupy-cuda11x": "13.6.0"},
            11080,
            "(got cupy-cuda11x 13.6.0)",
            "pip uninstall -y cupy-cuda11x && pip install -U 'volconv[cuda12]'",
        ),
        (
            {"cupy-rocm-7-0": "14.2.0"},
            None,
            "cupy-rocm-7-0 is for AMD's GPUs, and volconv needs CUDA",
            "pip uninstall -y cupy-rocm-7-0 && pip install -U 'volconv[cuda13]'",
        ),
    ],
)
def test_packages_that_will_not_do_are_not_even_imported(tmp_path, monkeypatch, packages, driver, reason, remedy):
    monkeypatch.setattr(module, "_driver_cuda", lambda: driver)
    make_cupy(tmp_path, packages, on_import="AssertionError('imported')")
    found = probe()
    assert reason in found.reason
    assert found.remedy == remedy
    assert found.versions == packages


@pytest.mark.parametrize("packages", [{}, {"cupy": "14.2.0"}])
def test_cupy_from_elsewhere_is_for_the_cuda_that_it_was_built_with(tmp_path, packages):
    make_cupy(tmp_path, packages, runtime=12060, driver=12020)
    assert probe().usable
    forget()
    (tmp_path / "cupy" / "__init__.py").unlink()
    (tmp_path / "cupy").rename(tmp_path / "old")
    make_cupy(tmp_path, {}, runtime=13000, driver=12020)
    assert "too old" in probe().reason


def test_a_package_without_a_name_is_passed_over(tmp_path):
    with contextlib.suppress(ImportError):
        import importlib_metadata  # noqa: F401  # Dask may bring it: from then on it finds packages, too
    make_cupy(tmp_path)
    (tmp_path / "broken-1.0.dist-info").mkdir()
    assert probe().usable


def test_warnings_of_its_import_are_not_passed_on(tmp_path):
    make_cupy(tmp_path)
    file = tmp_path / "cupy" / "__init__.py"
    file.write_text(f"import warnings\nwarnings.warn('look here')\n{file.read_text()}")
    assert probe().usable  # here warnings are errors


def test_the_release_of_the_driver(tmp_path):
    (tmp_path / "version").write_text("580.65.06\n")
    assert REAL_RELEASE(tmp_path / "version") == "580.65.06"
    assert REAL_RELEASE(tmp_path / "gone") is None


# --- CuPy as it is


@pytest.mark.slow
def test_cupy_itself_without_a_driver(tmp_path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver here")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = subprocess.run(
        [python, "-m", "pip", "install", "-q", "cupy-cuda13x!=14.1.0,>=14.0.1"], capture_output=True, text=True
    )
    if pip.returncode:
        pytest.skip(f"CuPy cannot be installed: {pip.stderr.strip().splitlines()[-1]}")
    program = (
        "import sys, json\n"
        f"sys.path.append({str(Path(volconv.__file__).parents[1])!r})\n"
        "from volconv.engines.gpu.probe import probe\n"
        "print(json.dumps(probe().as_dict()))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["reason"] == "there is no NVIDIA driver"
    assert found["remedy"] == "install NVIDIA's driver 580 or later (a container needs --gpus all)"
    assert list(found["versions"]) == ["cupy-cuda13x"]
    assert found["runtime"].startswith("13.")
    assert found["devices"] == []
