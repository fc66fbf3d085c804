"""What algorithms say that they hold, beside what they do: NumPy tells tracemalloc of every array."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from volconv.engines import Problem, get_engine, prepare, prepared_bytes, workspace
from volconv.engines.cpu.memory import with_slack
from volconv.engines.cpu.plan import ALGORITHMS
from volconv.engines.factors import find_factors
from volconv.params import Conv3dParams
from volconv.shapes import block_shape, full_output_shape
from volconv.tiling import item_shape

#: Objects of Python's, and small arrays.
SMALL = 3 << 19

CASES = [
    ((1, 1, 3, 3, 3), (40, 130, 140), {}),
    ((1, 1, 3, 1, 3), (40, 100, 130), {"padding": "same"}),
    ((32, 32, 3, 3, 3), (12, 40, 50), {}),
    ((8, 8, 3, 3, 3), (32, 96, 96), {"stride": 2}),
    ((8, 8, 3, 3, 3), (22, 60, 60), {"dilation": 2}),
    ((10, 1, 5, 5, 5), (32, 60, 96), {"groups": 5}),
    ((64, 64, 3, 3, 3), (4, 14, 14), {}),
    ((1, 1, 11, 11, 11), (44, 60, 70), {"padding": "same"}),
    ((4, 4, 7, 7, 7), (28, 60, 60), {"stride": (1, 2, 2)}),
]


@pytest.mark.parametrize(
    "values",
    ["finite", pytest.param("NaN", marks=pytest.mark.slow), pytest.param("infinity and NaN", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(("weight_shape", "size", "parameters"), CASES)
@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_workspace(algorithm, weight_shape, size, parameters, values):
    params = Conv3dParams.parse(weight_shape, **parameters)
    weight = np.random.default_rng(0).standard_normal(weight_shape, dtype=np.float32)
    if algorithm == "separable":
        weight = weight[:, :, :, :1, :1] * weight[:, :, :1, :, :1] * weight[:, :, :1, :1, :]
    shape = full_output_shape((1, params.in_channels, *size), params)
    problem = Problem(params, shape, weight.dtype, find_factors(params, weight, weight.dtype))
    engine = get_engine(algorithm)
    if engine.supports(problem) is not None:
        return
    needs = engine.needs(problem)
    groups, box = item_shape(shape, params, needs.grid, 4, needs.block_bytes, 2)
    for _ in range(2):  # loops are loaded, or compiled, by the first
        tracemalloc.start()
        prepared = prepare(algorithm, problem, weight, np.zeros(params.out_channels, np.float32))
        _, most_prepared = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    block = with_slack((groups * params.in_channels // params.groups, *block_shape(box, params)), weight.dtype)
    out = np.empty((groups * params.out_channels // params.groups, *box), np.float32)
    block[...] = 1
    if values != "finite":
        block[0, 0, 0, 0] = np.nan
        block[-1, -1, -1, -1] = np.inf if values == "infinity and NaN" else np.nan
    tracemalloc.start()
    with np.errstate(all="ignore"):
        prepared(block, out, 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    told = prepared_bytes(algorithm, problem) + workspace(algorithm, problem, groups, box)
    assert most_prepared <= prepared_bytes(algorithm, problem) + SMALL
    assert most_prepared + most <= told + SMALL
    if values == "finite":  # nor is much more told, which would cost threads
        assert engine.workspace(problem, groups, box) <= 1.5 * most + 2 * SMALL
