"""What the tuned constants of engines/cpu stand on.

``python tests/benchmarks/algorithms.py`` times each algorithm on one thread over channels and kernel sizes, beside what
its cost model predicts: from it come ``SECONDS_*``, and whether ``plan`` picks the fastest.

``python tests/benchmarks/algorithms.py winograd.DOMAIN_BYTES 1000000 4000000`` times a few workloads on two threads
with each value of one constant in turn, each in a process and with a compilation cache of its own: from it come
``direct.BLOCK_BYTES``, ``channels.BLOCK_BYTES`` and ``WEIGHT_BYTES``, ``winograd.BLOCK_BYTES`` and ``DOMAIN_BYTES``,
``separable.BLOCK_BYTES`` and ``STRETCH``, ``gemm.COLUMNS`` and ``PANEL_BYTES``.
"""

from __future__ import annotations

import os

# Some machines pin OpenBLAS to an old type of CPU.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import subprocess
import sys
import tempfile
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

import volconv
from volconv.engines.cpu.plan import ALGORITHMS
from volconv.errors import ParameterError
from volconv.params import Conv3dParams
from volconv.plan import make_plan

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


#: For the cost models: input shape, weight shape, parameters.
CASES = [
    *[((1, 1, 96, 96, 96), (1, 1, k, k, k), {"padding": "same"}) for k in (1, 3, 5, 7, 11, 15)],
    *[((1, 1, 64, 64, 64), (o, 1, 3, 3, 3), {"padding": 1}) for o in (2, 4, 8, 32)],
    *[((1, c, 40, 40, 40), (c, c, 3, 3, 3), {"padding": 1}) for c in (2, 4, 8, 16, 32, 64)],
    *[((1, c, 40, 40, 40), (c, c, 1, 1, 1), {}) for c in (4, 16, 64, 128)],
    *[((1, 16, 40, 40, 40), (16, 16, 3, 3, 3), {"padding": d, "dilation": d}) for d in (2, 4)],
    *[((1, 16, 40, 40, 40), (o, 16, 3, 3, 3), {"stride": 2}) for o in (16, 33)],
    *[((1, 32, 12, 12, 12), (32, 32, 3, 3, 3), {"padding": 1}), ((1, 64, 6, 6, 6), (64, 64, 3, 3, 3), {"padding": 1})],
    *[((1, 16, 48, 48, 48), (16, 1, k, k, k), {"padding": "same", "groups": 16}) for k in (3, 5)],
    *[((1, 8, 32, 32, 32), (8, 8, k, k, k), {"padding": "same"}) for k in (5, 7, 9)],
    *[((2, 20, 18, 17, w), (40, 20, 5, 5, 5), {"stride": (1, 1, s)}) for w, s in ((9, 1), (20, 1), (33, 2))],
    *[((1, 16, 1, 200, 200), (16, 16, 1, 3, 3), {"padding": (0, 1, 1)})],
    *[((1, 1, s, s, s), (1, 1, 3, 3, 3), {"padding": 1}) for s in (8, 16, 32, 64)],
]


def seconds(
    algorithm: str, case: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
) -> tuple[float, float] | None:
    """Seconds on one thread, measured and predicted; None where the algorithm cannot do it."""
    input_shape, weight_shape, parameters = case
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in (input_shape, weight_shape))
    try:
        plan = make_plan(Conv3dParams.parse(weight_shape, **parameters), input_shape, x.dtype, algorithm=algorithm)
    except ParameterError:
        return None
    if plan.candidates[algorithm] > 3:
        return None
    times = []
    volconv.conv3d(x, w, algorithm=algorithm, threads=1, **parameters)
    while len(times) < 3 or (sum(times) < 0.05 and len(times) < 50):
        start = perf_counter()
        volconv.conv3d(x, w, algorithm=algorithm, threads=1, **parameters)
        times.append(perf_counter() - start)
    return min(times), plan.candidates[algorithm]


def compare_algorithms() -> None:
    names = [name for name in ALGORITHMS if name not in ("auto", "separable")]
    print("ms on one thread, measured (predicted); * where the planner picks one that is slower by more than 20%")
    print(f"{'case':44}" + "".join(f"{name:>20}" for name in names))
    for case in CASES:
        found = {name: result for name in names if (result := seconds(name, case))}
        picked = min(found, key=lambda name: found[name][1])
        best = min(measured for measured, _ in found.values())
        wrong = f"* {picked}" if found[picked][0] > 1.2 * best else ""
        cells = "".join(
            f"{found[n][0] * 1e3:9.2f} ({found[n][1] * 1e3:7.2f})" + " " if n in found else " " * 20 for n in names
        )
        what = f"{case[0][1]}->{case[1][0]} {case[1][2:]} on {case[0][2:]} " + " ".join(
            f"{k[0]}{v}" for k, v in case[2].items() if k != "padding"
        )
        print(f"{what:44}{cells}{wrong}", flush=True)


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
