"""conv3d against torch.nn.functional.conv3d, in turn in one process: python tests/benchmarks/conv3d.py

Prints medians, their ratio, and the largest difference in units of the error bound's
``eps * max(|weight| ⋆ |input|)``. Both use 2 threads. Needs ``pip install '.[bench]'``.
"""

from __future__ import annotations

import os

# Some machines pin OpenBLAS to an old type of CPU; that would slow down one contender only.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import resource
import statistics
import sys
from time import perf_counter

import numpy as np
import torch

import volconv

THREADS = 2
REPEATS = 7

#: name, input shape, weight shape, parameters
WORKLOADS = [
    ("1->1, 3^3 same, 256^3", (1, 1, 256, 256, 256), (1, 1, 3, 3, 3), {"padding": "same"}),
    (
        "16->33, the module's example",
        (20, 16, 10, 50, 100),
        (33, 16, 3, 5, 2),
        {"stride": (2, 1, 1), "padding": (4, 2, 0)},
    ),
    ("1->1, 5^3 same, 256^3", (1, 1, 256, 256, 256), (1, 1, 5, 5, 5), {"padding": "same"}),
    ("1->8, 3^3, 128^3", (1, 1, 128, 128, 128), (8, 1, 3, 3, 3), {"padding": 1}),
    ("16->33, 3^3 stride 2", (20, 16, 10, 50, 100), (33, 16, 3, 3, 3), {"stride": 2}),
    ("32->32, 3^3, 64^3", (1, 32, 64, 64, 64), (32, 32, 3, 3, 3), {"padding": 1}),
    ("64->64, 1^3, 64^3", (1, 64, 64, 64, 64), (64, 64, 1, 1, 1), {}),
    ("depthwise 32, 3^3, 96^3", (1, 32, 96, 96, 96), (32, 1, 3, 3, 3), {"padding": 1, "groups": 32}),
]


def seconds(function, *arguments, **parameters) -> float:
    start = perf_counter()
    function(*arguments, **parameters)
    return perf_counter() - start


def main() -> None:
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    print(f"numpy {np.__version__}, torch {torch.__version__}, {THREADS} threads, medians of {REPEATS}")
    for name, input_shape, weight_shape, parameters in WORKLOADS[: 2 if "--short" in sys.argv else None]:
        x = rng.standard_normal(input_shape, dtype=np.float32)
        w = rng.standard_normal(weight_shape, dtype=np.float32)
        b = rng.standard_normal(weight_shape[0], dtype=np.float32)
        tx, tw, tb = (torch.from_numpy(a) for a in (x, w, b))
        ours = volconv.conv3d(x, w, b, threads=THREADS, **parameters)
        theirs = torch.nn.functional.conv3d(tx, tw, tb, **parameters).numpy()
        magnitude = torch.nn.functional.conv3d(tx.abs(), tw.abs(), tb.abs(), **parameters).numpy().max()
        difference = np.abs(ours - theirs).max() / magnitude / np.finfo(np.float32).eps
        mine, peers = [], []
        for _ in range(REPEATS):
            mine.append(seconds(volconv.conv3d, x, w, b, threads=THREADS, **parameters))
            peers.append(seconds(torch.nn.functional.conv3d, tx, tw, tb, **parameters))
        a, t = statistics.median(mine), statistics.median(peers)
        print(
            f"{name:30} volconv {a * 1e3:7.1f} ms   torch {t * 1e3:7.1f} ms   {t / a:5.1f}x   "
            f"difference {difference:.2f}",
            flush=True,
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
