"""What the tuned constants of engines/cpu stand on.

``python tests/benchmarks/algorithms.py`` times each algorithm on one thread over channels and kernel sizes, beside the
rate that its cost model predicts: from it come ``SECONDS_*``, and whether ``plan`` picks the faster one.

``python tests/benchmarks/algorithms.py direct_kernels.ROWS 300 600 1000`` times a few workloads on two threads with
each value of one constant in turn, each in a process and with a compilation cache of its own: from it come
``direct.BLOCK_BYTES``, ``direct_kernels.RUN``, ``ROWS`` and ``DEPTH``, ``gemm.COLUMNS`` and ``PANEL_BYTES``.
"""

from __future__ import annotations

import os

# Some machines pin OpenBLAS to an old type of CPU.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import itertools
import subprocess
import sys
import tempfile
from importlib import import_module
from time import perf_counter, thread_time

import numpy as np

import volconv
from volconv.engines import get_engine
from volconv.params import Conv3dParams
from volconv.plan import make_plan
from volconv.shapes import block_shape, multiply_adds

SIZE = (96, 96, 96)
ROUNDS = 5

#: For the constants: name, input shape, weight shape, parameters.
WORKLOADS = [
    ("1->1 3^3", (1, 1, 256, 256, 256), (1, 1, 3, 3, 3), {"padding": 1}),
    ("1->1 5^3", (1, 1, 192, 192, 192), (1, 1, 5, 5, 5), {"padding": 2}),
    ("1->8 3^3", (1, 1, 128, 128, 128), (8, 1, 3, 3, 3), {"padding": 1}),
    ("depthwise 32 3^3", (1, 32, 96, 96, 96), (32, 1, 3, 3, 3), {"padding": 1, "groups": 32}),
    ("16->33 (3,5,2)", (20, 16, 10, 50, 100), (33, 16, 3, 5, 2), {"stride": (2, 1, 1), "padding": (4, 2, 0)}),
    ("32->32 3^3", (1, 32, 64, 64, 64), (32, 32, 3, 3, 3), {"padding": 1}),
]


def rates(algorithm: str, channels: int, outputs: int, kernel: int) -> tuple[float, float]:
    """Multiply-adds a second that one work item reaches, and those that the cost model predicts."""
    params = Conv3dParams.parse((outputs, channels, kernel, kernel, kernel))
    shape = (1, channels, *(s + kernel - 1 for s in SIZE))
    dtype = np.dtype(np.float32)
    plan = make_plan(params, shape, dtype, algorithm=algorithm, threads=1)
    engine = get_engine(algorithm)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(params.weight_shape, dtype=np.float32)
    prepared = engine.prepare(params, weight, np.zeros(outputs, np.float32), plan.output_shape)
    block = rng.standard_normal((channels, *block_shape(plan.item_box, params)), dtype=np.float32)
    out = np.empty((outputs, *plan.item_box), np.float32)
    macs = multiply_adds((1, *out.shape), params)
    with engine.session():
        prepared(block, out, 0)
        times = []
        for _ in range(max(3, int(5e8 / macs))):
            start = thread_time()
            prepared(block, out, 0)
            times.append(thread_time() - start)
    predicted = multiply_adds(plan.output_shape, params) / engine.cost(params, plan.output_shape, dtype)
    return macs / float(np.median(times)), predicted


def compare_algorithms() -> None:
    print("1e9 multiply-adds a second, measured (predicted); * where the planner picks the slower by more than 20%")
    print("C_in C_out kernel            direct              gemm")
    for channels, outputs, kernel in itertools.product((1, 4, 16, 32), (1, 2, 4, 8, 16, 32), (1, 3, 5)):
        measured, predicted = zip(*(rates(a, channels, outputs, kernel) for a in ("direct", "gemm")), strict=True)
        picked = int(np.argmax(predicted))
        wrong = "*" if measured[picked] < max(measured) / 1.2 else ""
        cells = "   ".join(f"{m / 1e9:6.1f} ({p / 1e9:5.1f})" for m, p in zip(measured, predicted, strict=True))
        print(f"{channels:4} {outputs:5} {kernel:6}    {cells} {wrong}", flush=True)


def time_workloads(constant: str, value: str) -> None:
    """Print the seconds of each workload with a constant changed; runs in a process of its own."""
    module, attribute = constant.split(".")
    home = import_module(f"volconv.engines.cpu.{module}")
    if not hasattr(home, attribute):
        sys.exit(f"{constant} is no constant of engines/cpu")
    setattr(home, attribute, int(value))
    rng = np.random.default_rng(0)
    for _, input_shape, weight_shape, parameters in WORKLOADS:
        x, w = (rng.standard_normal(s, dtype=np.float32) for s in (input_shape, weight_shape))
        times = []
        for _ in range(ROUNDS + 1):
            start = perf_counter()
            volconv.conv3d(x, w, threads=2, **parameters)
            times.append(perf_counter() - start)
        print(np.median(times[1:]))


def vary(constant: str, values: list[str]) -> None:
    print(f"{constant:28}" + "".join(f"{name:>18}" for name, *_ in WORKLOADS) + "   (ms)")
    for value in values:
        with tempfile.TemporaryDirectory() as cache:
            output = subprocess.run(
                [sys.executable, __file__, "--trial", constant, value],
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        print(f"{value:28}" + "".join(f"{float(seconds) * 1e3:18.1f}" for seconds in output.split()), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            compare_algorithms()
        case ["--trial", constant, value]:
            time_workloads(constant, value)
        case [constant, *values]:
            vary(constant, values)
