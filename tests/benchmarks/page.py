"""The numbers as a page of markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import layers
import limits
import probe
import whole_process
from contenders import LARGEST_DIFFERENCE
from table import markdown
from workloads import THREADS

if TYPE_CHECKING:
    from layers import Layer
    from limits import Limit
    from whole_process import Process


@dataclass(frozen=True)
class Results:
    """What was measured, by section; a section that was left out is empty."""

    machine: dict[str, str]
    layers: list[Layer] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    probe: list[Layer] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def disagreements(self) -> list[str]:
        """Workloads whose result is not that of an exact peer."""
        wrong = [x.workload.name for x in (*self.layers, *self.probe) if not x.agrees]
        return wrong + [p.job.name for p in self.processes if not p.agrees]

    def targets(self) -> dict[str, bool]:
        """What was aimed at, and whether it was met."""
        found = {f"{x.workload.name}: {x.workload.target:g}x": x.met for x in self.layers if x.workload.target}
        found |= {f"{x.workload.name}: {x.goal} of the limit": x.met for x in self.limits if x.met is not None}
        if self.probe:
            found["probe: none slow"] = not probe.slow(self.probe)
            found["probe: no small one late"] = not probe.late(self.probe)
        for p in self.processes:
            found[f"{p.job.name}: {p.job.target:g}x"] = p.met
            found[f"{p.job.name}: memory"] = p.fits
        return found

    def summary(self) -> str:
        targets = self.targets()
        missed = [name for name, met in targets.items() if not met]
        text = f"{len(targets) - len(missed)} of {len(targets)} targets met"
        return "\n".join([f"{text}. Missed:\n" if missed else f"{text}.", *(f"- {name}" for name in missed)])


def page(results: Results, chart: str) -> str:
    """The whole page; ``chart`` is the file name of its picture."""
    parts = [_HEAD, f"![Speedups and targets]({chart})\n"]
    parts.append(f"{results.summary()}\n")
    parts += ["## Machine\n", markdown(["", ""], [list(fact) for fact in results.machine.items()])]
    if results.layers:
        parts += ["## Arrays, in one process\n", _LAYERS, markdown(layers.HEADER, [x.cells() for x in results.layers])]
    if results.limits:
        parts += ["## Limits\n", _LIMITS, markdown(limits.HEADER, [x.cells() for x in results.limits])]
    if results.probe:
        parts += ["## Random workloads\n", *_probe(results.probe)]
    if results.processes:
        rows = [row for p in results.processes for row in p.rows()]
        parts += ["## Whole processes\n", _PROCESSES, markdown(whole_process.HEADER, rows)]
    return "\n".join(parts)


def _probe(measured: list[Layer]) -> list[str]:
    parts = [
        f"{len(measured)} workloads drawn by a seeded generator: 1 to 128 channels, kernels of 1 to 9 voxels an axis,\n"
        "strides, dilations, groups, depthwise, some with a bias; "
        f"{probe.SMALLEST:.0e} to {probe.LARGEST:.0e} multiply-adds.\nThe ratio is PyTorch's time over volconv's.\n",
        f"```\n{probe.distribution(measured)}\n```\n",
    ]
    for title, found in (
        (f"Below {probe.LEAST_RATIO:g}x, of those with {probe.SMALL:.0e} multiply-adds and more", probe.slow(measured)),
        (f"At least {probe.MOST_SECONDS_LOST * 1e3:g} ms slower, of those with fewer", probe.late(measured)),
    ):
        parts.append(f"{title}: {len(found) or 'none'}.\n")
        if found:
            parts.append(markdown(probe.HEADER, [probe.cells(x) for x in found]))
    return parts


_HEAD = """\
# Benchmarks

Written by `python tests/benchmarks/run.py --write` (after `pip install '.[bench]'`), which takes some minutes.
A target is a ratio of times taken in turn on one machine; on yours it may be met or missed elsewhere, so run it there.
"""

_LAYERS = f"""\
`volconv.conv3d` and its peers with {THREADS} threads each, in turn (a b c a b c ...), after a first call of each
that is not counted (volconv compiles then). A call of less than 50 ms is made twice in a row, and the second one
counts: after the rest between contenders, clocks and caches take some milliseconds to be as they are in a loop over
volumes. Times are medians and include the output's allocation, not the input's. The ratio is the peer's time over
volconv's, with the quartiles of single rounds. Bold rows matter most. Numbers are float32 unless the row says
otherwise; PyTorch's time for integers includes `.float()`.

The difference is the largest from any exact peer, in units of `eps * max(|weight| ⋆ |input|)`: volconv's own error is
at most 16, and a difference above {LARGEST_DIFFERENCE:.0f} fails the run. Approximations are off by some part
of the largest value, away from the edges.
"""

_LIMITS = """\
What memory and arithmetic of this machine allow, measured in turn with volconv: a copy of the input into a fresh
array, and a product of two 2048 x 2048 float32 matrices. Multiply-adds are those of the direct sum, whatever the
algorithm.
"""

_PROCESSES = f"""\
`volconv apply` and scripts (`tests/benchmarks/peers/`) as processes with {THREADS} threads, in turn, from file to file,
on 256^3 voxels of float32 noise. Seconds are medians, with the fastest in parentheses; memory is the most that any run
held. Ratios are the peer's time over volconv's; in volconv's own row that of the fastest peer, which the target is for.
"""
