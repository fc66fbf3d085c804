"""Section "limits": how near volconv comes to what memory and arithmetic allow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl
from contenders import OURS
from table import duration, times, verdict
from timing import in_turn
from workloads import LAYERS, THREADS, Workload

import volconv

if TYPE_CHECKING:
    from collections.abc import Callable

GEMM_SIZE = 2048
#: volconv's time for 1->1 3^3, as a multiple of the time of a copy of its input.
MOST_COPIES = 2.0
#: Multiply-adds a second of rows with 32 channels and more, as a part of SGEMM's.
LEAST_OF_GEMM = 0.6

HEADER = ["workload", "volconv", "limit", "", "goal", ""]
WIDTHS = [51, 8, 32, 20, 15, 6]


@dataclass(frozen=True)
class Limit:
    """One workload beside its limit: ``value`` against ``goal``, or no goal."""

    workload: Workload
    seconds: float
    against: str
    value: float
    met: bool | None
    shown: str
    goal: str

    def cells(self) -> list[str]:
        met = "" if self.met is None else verdict(self.met)
        return [self.workload.name, duration(self.seconds), self.against, self.shown, self.goal, met]


def bound_by_memory() -> Workload:
    return LAYERS[0]


def bound_by_arithmetic() -> list[Workload]:
    """Rows with at least 32 input and output channels that are all combined."""
    return [w for w in LAYERS if w.weight_shape[0] >= 32 and w.weight_shape[1] >= 32]


def measure(workload: Workload, least: int, budget: float) -> list[Limit]:
    """A workload beside copying its input, or beside SGEMM."""
    x, w, _ = workload.arrays()

    def ours() -> np.ndarray:
        return volconv.conv3d(x, w, threads=THREADS, **workload.parameters)

    if workload == bound_by_memory():
        return _beside_copies(workload, ours, x, least, budget)
    return [_beside_gemm(workload, ours, least, budget)]


def _beside_copies(
    workload: Workload, ours: Callable[[], Any], x: np.ndarray, least: int, budget: float
) -> list[Limit]:
    with ThreadPoolExecutor(THREADS) as pool:

        def copy_in_parts() -> np.ndarray:
            copy = np.empty_like(x)
            parts = zip(np.array_split(copy.ravel(), THREADS), np.array_split(x.ravel(), THREADS), strict=True)
            list(pool.map(lambda pair: np.copyto(*pair), parts))
            return copy

        calls = {OURS: ours, "np.copy": lambda: np.copy(x), f"a copy by {THREADS} threads": copy_in_parts}
        seconds = in_turn(_warm(calls), least, budget)
    limits = []
    for name in list(calls)[1:]:
        ratio = seconds[OURS].median / seconds[name].median
        judged = name == "np.copy"
        limits.append(
            Limit(
                workload,
                seconds[OURS].median,
                f"{name} {duration(seconds[name].median)}",
                ratio,
                ratio <= MOST_COPIES if judged else None,
                f"{times(ratio)} the time",
                f"<= {MOST_COPIES:g}x" if judged else "",
            )
        )
    return limits


def _beside_gemm(workload: Workload, ours: Callable[[], Any], least: int, budget: float) -> Limit:
    a, b = (np.random.default_rng(i).standard_normal((GEMM_SIZE, GEMM_SIZE), np.float32) for i in range(2))

    libraries = threadpoolctl.ThreadpoolController()

    def multiply() -> np.ndarray:
        with libraries.limit(limits=THREADS, user_api="blas"):
            return a @ b

    seconds = in_turn(_warm({OURS: ours, "SGEMM": multiply}), least, budget)
    rate = workload.multiply_adds / seconds[OURS].median
    gemm = GEMM_SIZE**3 / seconds["SGEMM"].median
    by_memory = workload.weight_shape[2:] == (1, 1, 1)
    return Limit(
        workload,
        seconds[OURS].median,
        f"SGEMM {gemm / 1e9:.0f}e9 multiply-adds/s",
        rate / gemm,
        None if by_memory else rate / gemm > LEAST_OF_GEMM,
        f"{rate / 1e9:.0f}e9/s, {rate / gemm:.0%} of it",
        "bound by memory" if by_memory else f"> {LEAST_OF_GEMM:.0%}",
    )


def _warm(calls: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    for call in calls.values():
        call()
    return calls
