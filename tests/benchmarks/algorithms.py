"""What the constants of engines/cpu say, measured: python tests/benchmarks/algorithms.py

One thread. Times ``Prepared`` on blocks in cache, over channels and kernel sizes, for each algorithm; the rates printed
are those that ``direct.SECONDS_*`` and ``gemm.SECONDS_*`` should give.
"""

from __future__ import annotations

import os

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import itertools
from time import thread_time

import numpy as np

from volconv.engines import get_engine
from volconv.params import Conv3dParams
from volconv.plan import make_plan
from volconv.shapes import block_shape, multiply_adds

SIZE = (96, 96, 96)


def rate(algorithm: str, channels: int, outputs: int, kernel: int) -> tuple[float, float]:
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
        for _ in range(max(3, int(1e9 / macs))):
            start = thread_time()
            prepared(block, out, 0)
            times.append(thread_time() - start)
    predicted = multiply_adds(plan.output_shape, params) / engine.cost(params, plan.output_shape, dtype)
    return macs / float(np.median(times)), predicted


def main() -> None:
    print("multiply-adds a second, 1e9: measured (predicted)")
    print("C_in C_out kernel    direct             gemm")
    for channels, outputs, kernel in itertools.product((1, 4, 16, 32), (1, 2, 4, 8, 16, 32), (1, 3, 5)):
        cells = []
        for algorithm in ("direct", "gemm"):
            measured, predicted = rate(algorithm, channels, outputs, kernel)
            cells.append(f"{measured / 1e9:6.1f} ({predicted / 1e9:5.1f})   ")
        print(f"{channels:4} {outputs:5} {kernel:6}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
