"""Section "layers": named workloads against PyTorch, SciPy and SimpleITK in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from contenders import LARGEST_DIFFERENCE, OURS, contenders, deviation, difference, magnitude
from table import duration, off, times, verdict
from timing import in_turn, speedup

from volconv.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from timing import Speedup, Times
    from workloads import Workload

    from volconv.plan import Plan

HEADER = ["workload", "algorithm", "volconv", "against", "ratio (quartiles)", "target", "", "difference", "others"]
WIDTHS = [51, 10, 8, 58, 22, 6, 6, 10, 0]


@dataclass(frozen=True)
class Layer:
    """What was measured of a workload.

    ``difference`` is the largest from any exact peer; ``deviations`` are those of approximations, by peer.
    """

    workload: Workload
    algorithm: str
    seconds: dict[str, Times]
    judge: str
    speedup: Speedup
    difference: float
    deviations: dict[str, float]

    @property
    def met(self) -> bool:
        return self.workload.target is None or self.speedup.ratio >= self.workload.target

    @property
    def agrees(self) -> bool:
        return self.difference <= LARGEST_DIFFERENCE  # False for NaN, too

    def cells(self) -> list[str]:
        name = self.workload.name
        others = [self._told(peer) for peer in self.seconds if peer not in (OURS, self.judge)]
        return [
            f"**{name}**" if self.workload.headline else name,
            self.algorithm,
            duration(self.seconds[OURS].median),
            self._told(self.judge),
            f"{times(self.speedup.ratio)} ({times(self.speedup.low)} to {times(self.speedup.high)})",
            f"{self.workload.target:g}x" if self.workload.target else "",
            verdict(self.met) if self.workload.target else "",
            f"{self.difference:.2f}",
            "; ".join(others),
        ]

    def _told(self, peer: str) -> str:
        text = f"{peer} {duration(self.seconds[peer].median)}"
        return f"{text} ({off(self.deviations[peer])})" if peer in self.deviations else text


def with_algorithm(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, str]:
    """The result of a call of ``volconv.conv3d``, and the algorithm of the plan that it made."""
    plans = []

    def watched(*arguments: Any, **options: Any) -> Plan:
        plans.append(make_plan(*arguments, **options))
        return plans[-1]

    with patch("volconv.backends.make_plan", watched):
        result = call()
    return result, plans[-1].algorithm


def measure(workload: Workload, least: int, budget: float) -> Layer:
    """Time a workload and compare the results; the first call of each contender counts for the latter only."""
    x, w, bias = workload.arrays()
    found = contenders(workload, x, w, bias)
    ours, *peers = found
    result, algorithm = with_algorithm(ours.call)
    scale = magnitude(x, w, bias, workload.parameters)
    differences, deviations = [], {}
    for peer in peers:
        theirs = peer.array(peer.call())
        if peer.exact:
            differences.append(difference(result, theirs, scale))
        else:
            deviations[peer.name] = deviation(result, theirs)
        del theirs
    del result
    seconds = in_turn({c.name: c.call for c in found}, least, budget)
    judge = min((c.name for c in peers if c.judge), key=lambda name: seconds[name].median)
    return Layer(
        workload,
        algorithm,
        seconds,
        judge,
        speedup(seconds[OURS], seconds[judge]),
        float(np.max(differences)),  # NaN if one is
        deviations,
    )
