"""Section "probe": random workloads against PyTorch, to find those that are slow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from contenders import OURS, TORCH
from table import duration, times
from workloads import Workload

if TYPE_CHECKING:
    from layers import Layer

#: Below this many multiply-adds a call is judged by the seconds lost, above it by the ratio.
SMALL = 20e6
SMALLEST, LARGEST = 1e5, 3e9
PART_OF_SMALL = 0.2
MOST_BYTES = 1e9
LEAST_RATIO = 1.1
MOST_SECONDS_LOST = 1e-3

PERCENTILES = (0, 5, 10, 25, 50, 75, 90, 100)
BINS = (0, 0.5, 0.8, 1, 1.1, 1.5, 2, 3, 5, 10, 20, 50, math.inf)

HEADER = ["workload", "algorithm", "multiply-adds", "volconv", "PyTorch", "ratio", "difference"]
WIDTHS = [104, 12, 13, 8, 8, 6, 10]


def random_workloads(count: int) -> list[Workload]:
    """The same workloads in every run, a fifth of them small; log-uniform in multiply-adds."""
    rng = np.random.default_rng(20240229)
    workloads = []
    for _ in range(count):
        low, high = (SMALLEST, SMALL) if rng.random() < PART_OF_SMALL else (SMALL, LARGEST)
        aim = math.exp(rng.uniform(math.log(low), math.log(high)))
        while (workload := _random_workload(rng, aim)) is None or not low <= workload.multiply_adds <= high:
            pass
        workloads.append(workload)
    return workloads


def _random_workload(rng: np.random.Generator, aim: float) -> Workload | None:
    """One of about ``aim`` multiply-adds; None if these parameters allow none."""
    channels, outputs, groups = _random_channels(rng)
    kernel = [int(k) for k in rng.integers(1, 10, 3)] if rng.random() < 0.5 else [int(rng.integers(1, 10))] * 3
    stride = [int(s) for s in rng.choice([1, 2, 3], 3, p=[0.7, 0.2, 0.1])] if rng.random() < 0.4 else [1] * 3
    dilation = [int(d) for d in rng.integers(1, 5, 3)] if rng.random() < 0.3 else [1] * 3
    reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
    padding = rng.choice(["none", "same", "number"])
    if padding == "same" and max(stride) > 1:
        padding = "number"
    number = [int(rng.integers(0, r // 2 + 2)) for r in reach]
    added = {"none": [0] * 3, "same": [r / 2 for r in reach], "number": number}[padding]
    batch = int(rng.choice([1, 1, 1, 2, 4, 8]))

    voxels = aim / (batch * outputs * (channels // groups) * math.prod(kernel))
    shape = rng.uniform(0.5, 2, 3)
    output = shape * (voxels / shape.prod()) ** (1 / 3)
    size = [round((o - 1) * s + 1 + r - 2 * p) for o, s, r, p in zip(output, stride, reach, added)]
    if voxels < 8 or min(size) < 1 or any(s + 2 * p <= r for s, r, p in zip(size, reach, added)):
        return None
    parameters = {
        "stride": tuple(stride),
        "padding": {"none": 0, "same": "same", "number": tuple(number)}[padding],
        "dilation": tuple(dilation),
        "groups": groups,
    }
    workload = Workload(
        f"{channels}->{outputs} {_by_axis(kernel)} on ({batch},{channels},{','.join(map(str, size))})"
        + (f" stride {_by_axis(stride)}" if max(stride) > 1 else "")
        + (f" pad {parameters['padding'] if padding == 'same' else _by_axis(number)}" * (padding != "none"))
        + (f" dilation {_by_axis(dilation)}" if max(dilation) > 1 else "")
        + (f" groups {groups}" if groups > 1 else ""),
        (batch, channels, *size),
        (outputs, channels // groups, *kernel),
        parameters,
        bias=bool(rng.random() < 0.5),
    )
    floats = sum(math.prod(s) for s in (workload.input_shape, workload.weight_shape, workload.output_shape))
    return workload if 4 * floats <= MOST_BYTES else None


def _random_channels(rng: np.random.Generator) -> tuple[int, int, int]:
    """Input and output channels, 1 to 128 and log-uniform, and groups."""
    channels, outputs = (round(math.exp(rng.uniform(0, math.log(128)))) for _ in range(2))
    kind = rng.choice(["all", "groups", "depthwise"], p=[0.7, 0.15, 0.15])
    if kind == "depthwise":
        return channels, channels * int(rng.choice([1, 1, 1, 2])) if channels <= 64 else channels, channels
    if kind == "groups":
        groups = int(rng.choice([2, 3, 4, 8]))
        return max(channels // groups, 1) * groups, max(outputs // groups, 1) * groups, groups
    return channels, outputs, 1


def _by_axis(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"({','.join(map(str, values))})"


def cells(layer: Layer) -> list[str]:
    return [
        layer.workload.name,
        layer.algorithm,
        f"{layer.workload.multiply_adds / 1e6:,.1f}e6",
        duration(layer.seconds[OURS].median),
        duration(layer.seconds[TORCH].median),
        times(layer.speedup.ratio),
        f"{layer.difference:.2f}",
    ]


def slow(layers: list[Layer]) -> list[Layer]:
    """Workloads that are not small, and not clearly faster than PyTorch."""
    return [p for p in layers if p.workload.multiply_adds >= SMALL and p.speedup.ratio < LEAST_RATIO]


def late(layers: list[Layer]) -> list[Layer]:
    """Small workloads that lose more time than anyone would notice."""
    small = [p for p in layers if p.workload.multiply_adds < SMALL]
    return [p for p in small if p.seconds[OURS].median - p.seconds[TORCH].median >= MOST_SECONDS_LOST]


def distribution(layers: list[Layer]) -> str:
    """Percentiles and a histogram of the ratios, as text."""
    ratios = np.array([p.speedup.ratio for p in layers])
    values = np.percentile(ratios, PERCENTILES)
    lines = ["percentile  ratio", *(f"{p:10}  {times(v)}" for p, v in zip(PERCENTILES, values, strict=True)), ""]
    counts, _ = np.histogram(ratios, BINS)
    for low, high, count in zip(BINS, BINS[1:], counts):
        label = f"{low:g} to {high:g}" if high < math.inf else f"above {low:g}"
        lines.append(f"{label:>10}  {count:3} {'#' * int(count)}".rstrip())
    return "\n".join(lines)
