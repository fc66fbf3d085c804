"""conv3d against results of PyTorch 2.13.0 that are stored, so that this runs without it."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import volconv
from tolerances import allowed, assert_matches

FOLDER = Path(__file__).parent / "data" / "golden"

with np.load(FOLDER / "conv3d.npz", allow_pickle=False) as stored:
    RESULTS = dict(stored)
CASES = [json.loads(line) for line in RESULTS.pop("cases")]


def maker():
    spec = spec_from_file_location("make_golden", FOLDER / "make_golden.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = maker()


def name(case):
    changes = {key: value for key, value in case.items() if value != MAKER.DEFAULTS[key]}
    return ",".join(f"{key}={value}".replace(" ", "") for key, value in changes.items()) or "defaults"


@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft", "gemm"])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[name(case) for case in CASES])
def test_stored_results_of_pytorch(number, algorithm):
    case, expected = CASES[number], RESULTS[f"{number:02}"]
    x, w, b = MAKER.arrays(case, number)
    parameters = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    got = volconv.conv3d(x, w, b, **parameters, padding_mode=case["padding_mode"], algorithm=algorithm)
    assert got.dtype == expected.dtype
    batch = x if x.ndim == 5 else x[np.newaxis]
    assert_matches(got, expected, allowed(got.dtype, batch, w, b, **parameters, mode=case["padding_mode"]))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name(case) for case in CASES])
def test_stored_results_of_the_module(number):
    case, expected = CASES[number], RESULTS[f"{number:02}"]
    x, w, b = MAKER.arrays(case, number)
    parameters = {key: case[key] for key in ("stride", "padding", "dilation", "groups", "padding_mode")}
    layer = volconv.Conv3d.from_arrays(w, b, **parameters)
    assert layer(x).shape == expected.shape
    assert layer(x).tobytes() == volconv.conv3d(x, w, b, **parameters).tobytes()


def test_the_file_is_what_its_maker_describes():
    assert [MAKER.DEFAULTS | changes for changes in MAKER.CASES] == CASES
    assert len(CASES) >= 25
    assert set(RESULTS) == {f"{i:02}" for i in range(len(CASES))}
    assert (FOLDER / "conv3d.npz").stat().st_size < 300_000
    x, w, b = MAKER.arrays(CASES[0], 0)
    assert [len(np.unique(array)) for array in (x, w, b)] == [128, 128, 6]
