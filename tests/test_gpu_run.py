"""The way over a GPU, on a device that the host stands in for: values, seams, missing waits, memory that ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import volconv
from cases import cases, few
from command import make_nifti, names, noise, read
from command import volconv as command
from gpu_host import build
from gpu_host.delayed import DelayedDevice
from tolerances import allowed, assert_matches
from volconv import backends
from volconv.engines.gpu.plan import ALGORITHMS
from volconv.engines.gpu.probe import Gpu, Probe
from volconv.errors import BackendError, OutOfMemoryError, ParameterError

pytestmark = pytest.mark.skipif(bool(build.missing()), reason=build.missing())

USABLE = Probe(True, devices=(Gpu(0, "host", (9, 0), 1 << 30, 1 << 30),))
KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch):
    """A GPU that can be used, which the host stands in for; those that were opened."""
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backends, "_probe", lambda: USABLE)
    monkeypatch.setattr("volconv.engines.factors.LEAST_TAPS", 1)

    def open_device(plan, *, allow_tf32):
        assert not allow_tf32  # as it is by default
        if plan.device_memory is not None:
            opened.append(DelayedDevice())
        return opened[-1] if plan.device_memory is not None else None

    for module in ("functional", "making"):
        monkeypatch.setattr(f"volconv.{module}.open_device", open_device)
    return opened


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks for a small volume."""
    monkeypatch.setattr("volconv.device_budget.BLOCK_BYTES", 30_000)


def can(algorithm, x, w, **parameters):
    """Whether an algorithm does this on a GPU."""
    try:
        volconv.conv3d(x[:0], w, backend="cupy", algorithm=algorithm, **parameters)
    except ParameterError:
        return False
    return True


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "auto"])
@settings(max_examples=12, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64", "complex64", "float16"]))
def test_agrees_with_naive_sums(algorithm, data, dtype):
    case = data.draw(cases("separable" if algorithm == "separable" else "direct"))
    x, w, b = case.arrays(dtype)
    if not can(algorithm, x, w, **case.parameters):
        return
    got = volconv.conv3d(x, w, b, backend="cupy", algorithm=algorithm, threads=2, **case.parameters)
    assert got.dtype == np.dtype(dtype)
    expected = reference.conv3d(x, w, b, **case.reference_parameters)
    assert_matches(got, expected, allowed(got.dtype, x, w, b, **case.reference_parameters))


@pytest.mark.parametrize("algorithm", few(["direct", "gemm", "separable", "fft"], "direct", "fft"))
@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, pytest.param({"stride": 2, "padding_mode": "circular", "padding": 1}, marks=pytest.mark.slow)],
)
def test_bits_do_not_depend_on_blocks(algorithm, options, monkeypatch):
    monkeypatch.setattr("volconv.engines.gpu.gemm.COLUMNS", 500)
    monkeypatch.setattr("volconv.engines.gpu.fft.EDGES", (16,))
    x = noise((1, 3, 40, 41, 43), seed=3)
    w = np.ones((3, 1, 3, 3, 3), "f4") / 27
    options = options | {"groups": 3, "algorithm": algorithm, "backend": "cupy"}
    whole = volconv.conv3d(x, w, **options)
    monkeypatch.setattr("volconv.device_budget.BLOCK_BYTES", 50_000)
    parts = volconv.conv3d(x, w, threads=1, **options)
    assert parts.tobytes() == whole.tobytes()
    expected = volconv.conv3d(
        x,
        w,
        backend="numpy",
        **{k: v for k, v in options.items() if k in ("padding", "stride", "padding_mode", "groups")},
    )
    assert np.allclose(whole, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("algorithm", ["direct", "gemm", "separable", "fft"])
@pytest.mark.parametrize("values", [[np.nan], [np.inf], [np.nan, np.inf, -np.inf], [1e38]])
def test_what_is_not_finite_spreads_as_in_the_direct_sum(algorithm, values):
    x = noise((1, 1, 12, 13, 14))
    for i, value in enumerate(values):
        x[0, 0, 3 * i + 2, 4, 3 * i + 3] = value
    w = np.full((1, 1, 3, 3, 3), 4.0, "f4")
    expected = volconv.conv3d(x, w, padding=1, backend="numpy", algorithm="direct")
    got = volconv.conv3d(x, w, padding=1, backend="cupy", algorithm=algorithm)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert np.array_equal(np.isinf(got), np.isinf(expected))
    finite = np.isfinite(expected)
    assert np.allclose(got[finite], expected[finite], rtol=1e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".h5", ".tif"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.usefixtures("small_blocks")
def test_files(suffix, dtype):
    make_nifti("in.nii", noise((30, 31, 33), dtype))
    options = {"padding": 1, "algorithm": "direct", "dtype": "same"}
    on_cpu = volconv.apply("in.nii", f"a{suffix}", 50 * KERNEL, backend="numpy", **options)
    on_gpu = volconv.apply("in.nii", f"b{suffix}", 50 * KERNEL, backend="cupy", **options)
    assert len(on_gpu.plan.blocks) > 3
    assert (on_gpu.plan.backend, on_cpu.plan.backend) == ("cupy", "numpy")
    assert on_gpu.counts == on_cpu.counts
    if dtype != "float32":
        assert on_cpu.counts.saturated > 0
        assert np.array_equal(read(f"a{suffix}"), read(f"b{suffix}"))
    else:
        assert np.allclose(read(f"a{suffix}"), read(f"b{suffix}"), rtol=1e-5, atol=1e-2)


@pytest.mark.usefixtures("small_blocks")
def test_the_epilogue_and_a_region():
    make_nifti("in.nii", noise((30, 31, 33)))
    options = {"padding": 1, "roi": "3:28,2:,:31", "reduce": "norm", "activation": "abs"}
    volconv.apply("in.nii", "a.nii", "sobel", backend="numpy", **options)
    told = []
    volconv.apply("in.nii", "b.nii", "sobel", backend="cupy", progress=lambda *done: told.append(done), **options)
    assert np.allclose(read("a.nii"), read("b.nii"), rtol=1e-5, atol=1e-3)
    assert told[-1] == (read("b.nii").nbytes,) * 2


@pytest.mark.usefixtures("small_blocks")
def test_a_complex_volume():
    x = (noise((30, 31, 33)) + 1j * noise((30, 31, 33), seed=1)).astype("c8")
    make_nifti("in.nii", x)
    for backend in ("numpy", "cupy"):
        volconv.apply("in.nii", f"{backend}.nii", KERNEL, padding=1, backend=backend)
    assert np.allclose(read("numpy.nii"), read("cupy.nii"), rtol=1e-5, atol=1e-3)


def test_tf32_is_for_those_who_ask(monkeypatch, capfd):
    asked = []
    for module in ("functional", "making"):
        monkeypatch.setattr(f"volconv.{module}.open_device", lambda plan, *, allow_tf32: asked.append(allow_tf32))  # noqa: ARG005
    make_nifti("in.nii", noise((9, 10, 11)))
    line = ["apply", "in.nii", "-k", "box:size=3", "-o", "out.nii"]
    command(*line, "--allow-tf32")
    command(*line, "--skip-existing", code=4)
    assert "allow tf32 yes (now none)" in " ".join(capfd.readouterr().err.split())
    volconv.conv3d(noise((1, 5, 5, 5)), noise((1, 1, 3, 3, 3)))
    assert asked == [True, False]


# Memory that ends.


def failing(monkeypatch, fails):
    """Devices whose memory ends as said."""
    opened = []

    def open_device(plan, **_):
        if plan.device_memory is None:
            return None
        opened.append(DelayedDevice(fails))
        return opened[-1]

    for module in ("functional", "making"):
        monkeypatch.setattr(f"volconv.{module}.open_device", open_device)
    return opened


@pytest.mark.parametrize("first", [1, 2, 3, 5, 8, 12, 19])
@pytest.mark.usefixtures("small_blocks")
def test_memory_that_ends_once_halves_the_blocks(first, monkeypatch):
    make_nifti("in.nii", noise((30, 31, 33)))
    options = {"padding": 1, "algorithm": "direct", "backend": "cupy"}
    whole = volconv.apply("in.nii", "a.nii", KERNEL, **options)
    opened = failing(monkeypatch, lambda number, size: number == first)  # noqa: ARG005
    halved = volconv.apply("in.nii", "b.nii", KERNEL, **options)
    assert halved.halvings == 1
    assert opened[0].freed
    assert any("memory ran out once" in note for note in halved.notes)
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()
    assert halved.counts == whole.counts


@pytest.mark.usefixtures("small_blocks")
def test_blocks_are_halved_until_they_fit(monkeypatch):
    make_nifti("in.nii", noise((30, 31, 33)))
    options = {"padding": 1, "algorithm": "direct", "backend": "cupy"}
    volconv.apply("in.nii", "a.nii", KERNEL, **options)
    failing(monkeypatch, lambda number, size: size > 20_000)  # noqa: ARG005
    assert volconv.apply("in.nii", "b.nii", KERNEL, **options).halvings >= 2
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()


@pytest.mark.usefixtures("small_blocks")
def test_no_memory_at_all(monkeypatch):
    make_nifti("in.nii", noise((30, 31, 33)))
    failing(monkeypatch, lambda number, size: True)  # noqa: ARG005
    with pytest.raises(OutOfMemoryError, match=r"^in\.nii: needs more memory than there is"):
        volconv.apply("in.nii", "b.nii", KERNEL, padding=1, backend="cupy")
    assert names(".") == ["in.nii"]


@pytest.mark.usefixtures("small_blocks")
def test_the_cpu_does_what_is_left_where_anything_would_do(monkeypatch):
    make_nifti("in.nii", noise((30, 31, 33)))
    volconv.apply("in.nii", "a.nii", KERNEL, padding=1, backend="numpy", algorithm="direct")
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    monkeypatch.setattr(backends, "START", -1)
    failing(monkeypatch, lambda number, size: number > 12)  # noqa: ARG005
    report = volconv.apply("in.nii", "b.nii", KERNEL, padding=1)
    assert report.device.fell_back
    assert "the GPU's memory did not do for the smallest blocks: the CPU did what was left" in report.notes
    assert np.allclose(read("a.nii"), read("b.nii"), rtol=1e-5, atol=1e-3)


def test_a_bound_that_nothing_fits_into():
    make_nifti("in.nii", noise((30, 31, 33)))
    with pytest.raises(
        OutOfMemoryError, match=r"gpu_memory must be at least 1M for this volume and kernel \(got 1M\)"
    ) as e:
        volconv.apply("in.nii", "b.nii", KERNEL, padding=1, backend="cupy", gpu_memory=1000)
    assert e.value.hint == "pass --gpu-memory 1M (gpu_memory=), or --backend numpy (backend=)"
    with pytest.raises(OutOfMemoryError, match=r"memory must be at least .* for this volume and kernel on a GPU"):
        volconv.apply("in.nii", "b.nii", KERNEL, padding=1, backend="cupy", memory="256M")


@pytest.mark.parametrize("bound", [200_000, 400_000, 1_000_000, "1G"])
def test_blocks_keep_to_the_bound_on_the_devices_memory(bound):
    make_nifti("in.nii", noise((30, 31, 33)))
    plan = volconv.apply("in.nii", "b.nii", KERNEL, padding=1, backend="cupy", gpu_memory=bound).plan
    assert plan.device_memory.peak <= plan.device_memory.bound
    assert (len(plan.blocks) > 1) == (bound != "1G")


# Which backend.


def test_a_gpu_that_cannot_be_used(monkeypatch, capfd):
    broken = Probe(False, "CuPy is not installed", "pip install 'volconv[cuda13]'")
    monkeypatch.setattr(backends, "_probe", lambda: broken)
    make_nifti("in.nii", noise((9, 10, 11)))
    with pytest.raises(BackendError) as error:
        volconv.conv3d(noise((1, 5, 5, 5)), noise((1, 1, 3, 3, 3)), backend="cupy")
    assert error.value.message == "backend 'cupy' cannot be used: CuPy is not installed"
    assert error.value.hint == "pip install 'volconv[cuda13]'"
    command("apply", "in.nii", "-k", "box:size=3", "-o", "out.nii", "--backend", "cupy", code=1)
    assert "backend 'cupy' cannot be used: CuPy is not installed" in capfd.readouterr().err
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    monkeypatch.setattr(backends, "START", -1)
    command("apply", "in.nii", "-k", "box:size=3", "-o", "out.nii")
    said = " ".join(capfd.readouterr().err.split())
    assert "note: computed on the CPU: CuPy is not installed; 'volconv doctor' tells what helps" in said


def test_auto_asks_for_no_gpu_where_it_could_not_win(monkeypatch):
    def asked():
        raise AssertionError("nobody needs to know")

    monkeypatch.setattr(backends, "_probe", asked)
    x, w = noise((1, 9, 10, 11)), noise((1, 1, 3, 3, 3))
    volconv.conv3d(x, w)  # CuPy is not there
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    volconv.conv3d(x, w)  # the job is small
    volconv.conv3d(x, w, backend="numpy")
    volconv.conv3d(x.astype("i4"), w.astype("i4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, "backend must be one of auto, numpy, cupy (got 'cuda')"),
        ({"backend": "cupy", "algorithm": "winograd"},
         "algorithm must be one of auto, direct, separable, fft, gemm on a GPU (got 'winograd')"),
        ({"backend": "cupy", "gpu_memory": "lots"},
         "gpu_memory must be a size such as 512M or 1.5G, or a number of bytes (got 'lots')"),
    ],
)  # fmt: skip
def test_errors(options, message):
    with pytest.raises(ParameterError) as error:
        volconv.conv3d(noise((1, 5, 5, 5)), noise((1, 1, 3, 3, 3)), **options)
    assert error.value.message == message


def test_integers_stay_on_the_cpu(monkeypatch):
    x, w = noise((1, 5, 5, 5), "int32"), noise((1, 1, 3, 3, 3), "int32")
    with pytest.raises(ParameterError, match="needs a floating-point dtype on a GPU"):
        volconv.conv3d(x, w, backend="cupy", algorithm="direct")
    with pytest.raises(
        ParameterError, match=r"^no algorithm on a GPU can do this: direct needs a floating-point dtype"
    ):
        volconv.conv3d(x, w, backend="cupy")
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    monkeypatch.setattr(backends, "START", -1)
    assert volconv.conv3d(x, w).dtype == np.int64


def test_masks_stay_on_the_cpu(capfd):
    make_nifti("in.nii", noise((9, 10, 11)))
    command("apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "--nan", "ignore", "--backend", "cupy", code=2)
    assert "backend must be numpy where only some voxels count (got 'cupy' with mask or nan)" in capfd.readouterr().err


@pytest.mark.usefixtures("small_blocks")
def test_the_plan_and_the_report_tell(capfd):
    make_nifti("in.nii", noise((30, 31, 33)))
    line = ["apply", "in.nii", "-k", "box:size=3", "--padding", 1, "-o", "out.nii", "--backend", "cupy"]
    command(*line, "-n")
    said = " ".join(capfd.readouterr().out.split())
    assert "float32 by direct on a GPU" in said
    assert "of the GPU's memory" in said
    command(*line, "--json", "-v")
    out, err = capfd.readouterr()
    (run,) = json.loads(out)["runs"]
    assert (run["backend"], run["device"]["name"], run["device"]["fell_back"]) == ("cupy", "host", False)
    assert set(run["device"]["seconds"]) == {"upload", "compute", "download"}
    assert run["plan"]["gpu_memory"]["blocks"] > 0
    assert "on host" in " ".join(err.split())
