"""Normalised convolution, each algorithm forced, against naive sums label by label; masks that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from cases import cases, few
from command import NUCLEI, ROOT, make_nifti, noise, read, volconv
from ends import FileSink, FileSource
from tolerances import BOUND
from volconv import apply
from volconv.engines.factors import find_factors
from volconv.epilogue import NO_EPILOGUE, Epilogue
from volconv.masking import Masking
from volconv.params import Conv3dParams
from volconv.pipeline import run
from volconv.plan import make_plan
from volconv.shapes import full_output_shape

ALGORITHMS = ("direct", "channels", "separable", "winograd", "fft", "gemm")
MASK = ROOT / "tests" / "data" / "mask3d.tif"


def positive(weight):
    """Weights whose sums do not vanish whichever of them count."""
    real = abs(weight.real) + 0.25
    return (real + 0.1j * weight.imag if weight.dtype.kind == "c" else real).astype(weight.dtype)


def centres(x, case):
    """Input indices that outputs are centred on, those between two voxels rounded down, along D, H, W."""
    pads = reference.pads(case.padding, case.weight_shape[2:], case.dilation)
    found = []
    for axis in range(3):
        effective = case.dilation[axis] * (case.weight_shape[2 + axis] - 1) + 1
        count = (x.shape[2 + axis] + sum(pads[axis]) - effective) // case.stride[axis] + 1
        found.append([o * case.stride[axis] - pads[axis][0] + (effective - 1) // 2 for o in range(count)])
    return found


def at_centres(x, case):
    """What lies at the outputs' centres, padded as the volume is; zeros beyond it where that is with zeros."""
    places = [[reference.source_index(i, n, case.mode) for i in axis] for axis, n in zip(centres(x, case), x.shape[2:])]
    inside = [[o for o, i in enumerate(axis) if i is not None] for axis in places]
    kept = np.zeros((*x.shape[:2], *map(len, places)), x.dtype)
    source = [[i for i in axis if i is not None] for axis in places]
    kept[(slice(None), slice(None), *np.ix_(*inside))] = x[(slice(None), slice(None), *np.ix_(*source))]
    return kept


def normalised(x, w, b, counted, case, fill):
    """conv(m*x) / conv(m) * sum(w) + b, and how far a result may be from it."""
    parameters = case.reference_parameters
    wide = np.clongdouble if "c" in (x.dtype.kind, w.dtype.kind) else np.longdouble
    total = w.astype(wide).sum((1, 2, 3, 4)).reshape(1, -1, 1, 1, 1)
    weights = reference.conv3d(counted.astype(x.real.dtype), w, value=fill, **parameters)
    sums = reference.conv3d(np.where(counted, x, 0).astype(x.dtype), w, **parameters)
    eps = float(np.finfo(x.dtype).eps)
    magnitudes = abs(w).astype(np.longdouble).sum((1, 2, 3, 4)).reshape(1, -1, 1, 1, 1)
    with np.errstate(all="ignore"):
        values = sums / weights * total
        # The error of sums, and of weights, as the table of tolerances has it; a weight may count as whole or none.
        largest = reference.conv3d(np.where(counted, abs(x), 0), abs(w), value=0, **parameters).max(initial=1)
        tolerance = BOUND * eps * largest * abs(total / weights) + abs(values / weights) * 4 * BOUND * eps * magnitudes
    nothing = abs(weights) <= 2 * BOUND * eps * magnitudes
    values[nothing] = np.nan
    bias = 0 if b is None else b.reshape(1, -1, 1, 1, 1)
    return values + bias, tolerance + 4 * eps * abs(np.where(nothing, 0, values) + bias)


def expected(x, w, b, labels, case, outside):
    own = at_centres(labels, case)
    shape = (len(x), len(w), *own.shape[2:])
    result = np.array(np.broadcast_to(at_centres(x, case) if outside is None else outside, shape))
    result = result.astype(np.result_type(result, x, w, np.longdouble))
    tolerance = np.zeros(shape, np.longdouble)
    for label in np.unique(labels[labels != 0]):
        counted = np.broadcast_to(labels == label, x.shape)
        values, errors = normalised(x, w, b, counted, case, 0)
        here = np.broadcast_to(own == label, shape)
        result[here], tolerance[here] = values[here], errors[here]
    return result, tolerance


def filtered(x, w, b, labels, masking, case, algorithm, tiny, epilogue=NO_EPILOGUE):
    params = Conv3dParams.parse(w.shape, **case.parameters)
    size = full_output_shape(x.shape, params)[2:]
    cut = {"block_box": tuple(-(-n // 3) for n in size), "item_bytes": 1} if tiny else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volconv.engines.factors.LEAST_TAPS", 1)
        factors = find_factors(params, w, x.dtype)
    if algorithm == "separable" and factors is None:
        return None
    plan = make_plan(
        params,
        x.shape,
        x.dtype,
        algorithm=algorithm,
        factors=factors,
        masking=masking,
        epilogue=epilogue,
        threads=1 + tiny,
        **cut,
    )
    out = np.full(plan.output_shape, 77, epilogue.dtype(x.dtype))
    run(plan, FileSource(x), FileSink(out), w, b, None if labels is None else FileSource(labels))
    return out


def assert_close(got, values, tolerance):
    assert got.shape == values.shape
    assert np.array_equal(np.isnan(got), np.isnan(values))
    known = ~np.isnan(values)
    assert (abs(got[known] - values[known]) <= tolerance[known]).all()


@pytest.mark.parametrize("algorithm", few(ALGORITHMS, "direct", "fft"))
@settings(max_examples=8, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64", "complex64"]), series=st.booleans())
def test_each_label_by_itself(algorithm, data, dtype, series):
    case = data.draw(cases(algorithm))
    x, w, b = case.arrays(dtype)
    w = positive(w)
    rng = np.random.default_rng(case.seed)
    labels = rng.choice([0, 0, 1, 2, 700], (len(x) if series else 1, 1, *x.shape[2:])).astype("int16")
    labels[:, :, : x.shape[2] // 2] = 1
    outside = None if x.shape[1] in (1, len(w)) else -3.5
    got = filtered(x, w, b, labels, Masking(True, False, outside), case, algorithm, tiny=True)
    if got is None:
        return
    values, tolerance = expected(x, w, b, labels, case, outside)
    assert_close(got, values, tolerance)
    whole = filtered(x, w, b, labels, Masking(True, False, outside), case, algorithm, tiny=False)
    assert got.tobytes() == whole.tobytes()


@pytest.mark.parametrize("algorithm", few(ALGORITHMS, "direct", "fft"))
@settings(max_examples=8, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64", "complex64"]), share=st.sampled_from([0, 0.2, 0.9]))
def test_nan_left_out(algorithm, data, dtype, share):
    case = data.draw(cases(algorithm))
    x, w, b = case.arrays(dtype)
    w = positive(w)
    holes = np.random.default_rng(case.seed).random(x.shape) < share
    holes[:, :, :, : x.shape[3] // 2] = False
    x[holes] = np.nan
    got = filtered(x, w, b, None, Masking(False, True), case, algorithm, tiny=True)
    if got is None:
        return
    # What pads a volume with zeros counts, as it does without NaN.
    values, tolerance = normalised(x, w, b, ~holes, case, fill=1)
    assert_close(got, values, tolerance)
    whole = filtered(x, w, b, None, Masking(False, True), case, algorithm, tiny=False)
    assert got.tobytes() == whole.tobytes()


def case_of(x, w, **parameters):
    """A case that hypothesis did not draw."""
    from cases import Case

    given = {"stride": (1, 1, 1), "padding": (1, 1, 1), "dilation": (1, 1, 1), "groups": 1, "mode": "zeros"}
    return Case(x.shape, w.shape, **(given | parameters), bias=False, seed=0)


@pytest.mark.parametrize("algorithm", ["direct", "separable", "winograd", "gemm"])
def test_where_all_counts_bits_are_those_without_a_mask(algorithm):
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 1, 20, 20, 20)).astype("f4"), np.full((1, 1, 3, 3, 3), 1 / 27, "f4")
    case = case_of(x, w, padding=(0, 0, 0))
    plain = filtered(x, w, None, None, None, case, algorithm, tiny=False)
    labels = np.ones((1, 1, 20, 20, 20), "u1")
    labels[..., 12:] = 0
    masked = filtered(x, w, None, labels, Masking(True), case, algorithm, tiny=False)
    inside = (..., slice(0, 10))
    assert masked[inside].tobytes() == plain[inside].tobytes()
    assert not np.array_equal(masked[..., 10], plain[..., 10])
    x[..., 15:] = np.nan
    ignored = filtered(x, w, None, None, Masking(False, True), case, algorithm, tiny=False)
    assert ignored[..., :13].tobytes() == plain[..., :13].tobytes()


@pytest.mark.parametrize("algorithm", ["direct", "separable", "winograd", "fft", "gemm"])
def test_padding_counts_where_nan_is_left_out(algorithm):
    """Tiles of a whole axis must not take it for nothing."""
    rng = np.random.default_rng(3)
    x, w = rng.random((1, 1, 23, 23, 23)).astype("f4"), np.full((1, 1, 3, 3, 3), 1 / 27, "f4")
    x[0, 0, 3, 4, 5] = np.nan
    case = case_of(x, w)
    got = filtered(x, w, None, None, Masking(False, True), case, algorithm, tiny=False)
    assert_close(got, *normalised(x, w, None, ~np.isnan(x), case, fill=1))


def test_a_mask_keeps_what_it_hides_from_leaking():
    x, w = np.ones((1, 1, 9, 9, 9), "f4"), np.full((1, 1, 3, 3, 3), 1 / 27, "f4")
    labels = np.ones((1, 1, 9, 9, 9), "u1")
    labels[0, 0, 4] = 0
    x[0, 0, 4] = np.inf
    got = filtered(x, w, None, labels, Masking(True, False, 0), case_of(x, w), "direct", tiny=False)
    assert np.allclose(np.delete(got, 4, axis=2), 1)
    assert not got[0, 0, 4].any()


def test_the_epilogue_comes_before_what_is_outside():
    x = noise((1, 1, 6, 6, 6))
    w = np.stack([np.full((1, 3, 3, 3), 1 / 27), np.full((1, 3, 3, 3), -2 / 27)]).astype("f4")
    labels = np.zeros((1, 1, 6, 6, 6), "u1")
    labels[..., :3] = 1
    both = filtered(x, w, None, labels, Masking(True, False, 0), case_of(x, w), "direct", tiny=False)
    got = filtered(
        x, w, None, labels, Masking(True), case_of(x, w), "direct", tiny=True, epilogue=Epilogue("abs", "max")
    )
    assert np.array_equal(got[..., :3], abs(both[..., :3]).max(1, keepdims=True))
    assert np.array_equal(got[..., 3:], x[..., 3:])


# The command, on files.


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_nuclei_label_by_label():
    volconv("apply", NUCLEI, "-k", "box:size=3", "--padding", 1, "--mask", MASK, "-o", "out.tif", "--dtype", "float64")
    x, labels = (read(path).astype("f8") for path in (NUCLEI, MASK))
    around, of = (np.pad(a, [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)]) for a in (x, labels))
    total, count = np.zeros(x.shape), np.zeros(x.shape)
    for z, y, w in np.ndindex(3, 3, 3):
        seen = (..., *(slice(a, a + n) for a, n in zip((z, y, w), x.shape[2:])))
        same = of[seen] == labels
        total, count = total + same * around[seen], count + same
    assert np.allclose(read("out.tif"), np.where(labels > 0, total / count, x), rtol=1e-5)
    assert len(np.unique(labels)) > 10


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".h5"])
def test_bits_do_not_depend_on_memory(suffix, monkeypatch):
    make_nifti("in.nii", noise((40, 60, 50)))
    labels = (noise((40, 60, 50), "uint8", 1) // 60).astype("u1")
    make_nifti("mask.nii.gz", labels)
    whole = apply("in.nii", f"a{suffix}", "box:size=3", padding=1, mask="mask.nii.gz")
    assert len(whole.plan.blocks) == 1
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 300_000)
    parts = apply("in.nii", f"b{suffix}", "box:size=3", padding=1, mask="mask.nii.gz")
    assert len(parts.plan.blocks) > 3
    assert parts.plan.traffic.mask.in_turn
    assert Path(f"a{suffix}").read_bytes() == Path(f"b{suffix}").read_bytes()


def test_a_mask_that_goes_with_every_volume_of_a_series():
    x = noise((3, 1, 5, 6, 7))
    make_nifti("in.nii", x[:, 0])
    labels = (noise((5, 6, 7), "uint8", 1) > 80).astype("u1")
    make_nifti("mask.nii.gz", labels)
    volconv(
        "apply", "in.nii", "-k", "box:size=3", "--padding", 1, "--mask", "mask.nii.gz", "--outside", 0, "-o", "o.nii"
    )
    for n in range(3):
        volconv(
            "apply", "in.nii", "--time", n, "-k", "box:size=3", "--padding", 1, "--mask", "mask.nii.gz",
            "--outside", 0, "-o", f"{n}.nii",
        )  # fmt: skip
        assert np.array_equal(read("o.nii")[n], read(f"{n}.nii")[0])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--mask", "small.nii"], 5, "mask must have the volume's size, 1 channel, and 1 volume or as many (got "
         "1,1,4,5,6 in small.nii for 1,1,9,10,11 in in.nii, as N,C,D,H,W)"),
        (["--mask", "moved.nii"], 5, "mask must lie where the volume does (got affine [1 0 0 2; 0 1 0 0; 0 0 1 0] mm "
         "in moved.nii for affine [1 0 0 0; 0 1 0 0; 0 0 1 0] mm in in.nii)"),
        (["--mask", "half.nii"], 3, "mask must hold whole numbers, 0 outside and a label inside (got 0.5)"),
        (["--mask", "complex.nii"], 5, "mask must hold whole numbers, 0 outside and a label inside (got complex64 in "
         "complex.nii)"),
        (["--mask", "no.nii"], 3, "no.nii"),
        (["--mask", "mask.nii", "-k", "sobel:axis=x"], 5, "kernel must have a sum other than 0 where only some voxels "
         "count (got sum 0 in output channel 0)"),
        (["--nan", "ignore", "-k", "laplacian"], 5, "kernel must have a sum other than 0 where only some voxels count"),
        (["--nan", "drop"], 2, "nan must be one of spread, ignore (got 'drop')"),
        (["--outside", "0"], 2, "outside goes with mask (got outside=0.0 and no mask)"),
        (["--mask", "mask.nii", "--outside", "none"], 2, "must be a number (got 'none')"),
        (["--mask", "mask.nii", "--outside", "1j"], 5, "outside must be a number that float32 can hold (got 1j)"),
    ],
)  # fmt: skip
def test_errors(options, code, message, capfd):
    x = noise((9, 10, 11))
    make_nifti("in.nii", x)
    make_nifti("mask.nii", (x > 50).astype("u1"))
    make_nifti("half.nii", np.full(x.shape, 0.5, "f4"))
    make_nifti("complex.nii", x.astype("c8"))
    make_nifti("small.nii", noise((4, 5, 6)))
    moved = np.eye(4)
    moved[0, 3] = 2
    make_nifti("moved.nii", noise((9, 10, 11)), moved)
    kernel = [] if "-k" in options else ["-k", "box:size=3"]
    volconv("apply", "in.nii", *kernel, "--padding", 1, *options, "-o", "out.nii", code=code)
    assert message in " ".join(capfd.readouterr().err.split())
    assert not Path("out.nii").exists()


def test_what_cannot_be_kept(capfd):
    make_nifti("in.nii", noise((3, 2, 9, 10, 11))[0])
    make_nifti("mask.nii", np.ones((9, 10, 11), "u1"))
    np.save("bank.npy", np.ones((3, 2, 3, 3, 3), "f4"))
    options = ["--axes", "XYZC", "-k", "bank.npy", "--padding", 1, "--mask", "mask.nii"]
    volconv("apply", "in.nii", *options, "-o", "out.nii", code=5)
    assert "outside must be a number where the output has other channels than the volume (got 'keep', and 2 channels " \
        "become 3)" in " ".join(capfd.readouterr().err.split())  # fmt: skip
    volconv("apply", "in.nii", *options, "--outside", "-1", "-o", "out.nii")
    make_nifti("complex.nii", noise((9, 10, 11)).astype("c8"))
    options = ["-k", "box:size=3", "--padding", 1, "--activation", "abs", "--mask", "mask.nii"]
    volconv("apply", "complex.nii", *options, "-o", "out2.nii", code=5)
    assert "outside must be a number where a complex volume becomes real (got 'keep')" in capfd.readouterr().err
    volconv("apply", "complex.nii", *options, "--outside", 0, "-o", "out2.nii")
    assert read("out2.nii").dtype == np.float32


def test_the_report_and_the_note_tell(capfd):
    make_nifti("in.nii", noise((9, 10, 11)))
    make_nifti("mask.nii", (noise((9, 10, 11), seed=2) > 50).astype("u1"))
    options = ["apply", "in.nii", "-k", "box:size=3", "--padding", 1, "-o", "out.nii", "--mask", "mask.nii"]
    volconv(*options, "--outside", -1, "--json")
    run_ = json.loads(capfd.readouterr().out)["runs"][0]
    assert (run_["mask"], run_["outside"], run_["nan"]) == ("mask.nii", -1, "spread")
    volconv(*options, "--outside", -1, "--skip-existing")
    assert "skipped" in capfd.readouterr().err
    volconv(*options, "--skip-existing", code=4)
    assert "outside -1.0 (now none)" in " ".join(capfd.readouterr().err.split())
    make_nifti("mask.nii", np.ones((9, 10, 11), "u1"))
    volconv(*options, "--outside", -1, "--skip-existing", code=4)
    assert "is not skipped: mask 1342 bytes" in " ".join(capfd.readouterr().err.split())
