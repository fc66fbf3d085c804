"""How fast is volconv? Times it against PyTorch, SciPy, SimpleITK and the machine's limits.

``python tests/benchmarks/run.py`` after ``pip install '.[bench]'``; it takes some minutes. Exits with 1 if a result
differs from an exact peer's.
"""

from __future__ import annotations

import os

# Some machines pin OpenBLAS to an old type of CPU; that would slow down some contenders only.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import layers
import limits
import probe
import whole_process
from chart import draw
from contenders import prepare_peers
from machine import OtherLoad, describe
from page import Results, page
from table import line
from workloads import LAYERS

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = ("layers", "limits", "probe", "whole-process")


#: Numbers are only worth keeping if other processes took less than this part of the CPU time.
QUIET = 0.03


@dataclass(frozen=True)
class Effort:
    """How often to measure: rounds at least and seconds a workload; how many random ones; rounds of processes."""

    rounds: int
    seconds: float
    probes: int
    probe_rounds: int
    probe_seconds: float
    processes: int


FULL = Effort(rounds=5, seconds=5.0, probes=100, probe_rounds=3, probe_seconds=0.7, processes=5)
QUICK = Effort(rounds=3, seconds=0.5, probes=20, probe_rounds=3, probe_seconds=0.2, processes=2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer random workloads: only a look")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; repeatable")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads with this in their name")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=DOCS, metavar="FOLDER", help="write benchmarks.md and .png (into docs)"
    )
    options = parser.parse_args()
    if options.write == DOCS and (options.quick or options.section or options.only):
        parser.error("docs hold the whole run: name another FOLDER for a part of it")
    return options


def main() -> None:
    options = parse()
    sections = options.section or SECTIONS
    effort = QUICK if options.quick else FULL
    prepare_peers()
    start, others = perf_counter(), OtherLoad()
    results = Results(describe())
    for fact, value in results.machine.items():
        print(f"{fact}: {value}")

    if "layers" in sections:
        title("layers", layers.HEADER, layers.WIDTHS)
        for workload in LAYERS:
            if options.only in workload.name:
                results.layers.append(layers.measure(workload, effort.rounds, effort.seconds))
                show(results.layers[-1].cells(), layers.WIDTHS)
    if "limits" in sections:
        title("limits", limits.HEADER, limits.WIDTHS)
        for workload in (limits.bound_by_memory(), *limits.bound_by_arithmetic()):
            if options.only in workload.name:
                measured = limits.measure(workload, effort.rounds, effort.seconds / 2)
                results.limits.extend(measured)
                for limit in measured:
                    show(limit.cells(), limits.WIDTHS)
    if "probe" in sections:
        title("probe", probe.HEADER, probe.WIDTHS)
        for workload in probe.random_workloads(effort.probes):
            if options.only in workload.name:
                results.probe.append(layers.measure(workload, effort.probe_rounds, effort.probe_seconds))
                show(probe.cells(results.probe[-1]), probe.WIDTHS)
        if results.probe:
            print(f"\n{probe.distribution(results.probe)}")
    if "whole-process" in sections:
        title("whole process", whole_process.HEADER, whole_process.WIDTHS)
        with tempfile.TemporaryDirectory() as folder:
            whole_process.prepare(Path(folder))
            for job in whole_process.JOBS:
                if options.only in job.name:
                    results.processes.append(whole_process.measure(job, Path(folder), effort.processes))
                    for row in results.processes[-1].rows():
                        show(row, whole_process.WIDTHS)

    if (part := others.part()) is not None:
        results.machine["other processes"] = f"{part:.1%} of the CPU time during the run"
        quiet = "" if part < QUIET else ": too much for numbers to keep, and PyTorch suffers most"
        print(f"\nothers took {part:.1%} of the CPU time{quiet}")
    print(f"\n{results.summary()}\n{perf_counter() - start:.0f} s")
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        draw(results, options.write / "benchmarks.png")
        (options.write / "benchmarks.md").write_text(page(results, "benchmarks.png"), encoding="utf-8")
    if wrong := results.disagreements():
        sys.exit(f"results differ from an exact peer's: {'; '.join(wrong)}")


def title(section: str, header: list[str], widths: list[int]) -> None:
    print(f"\n== {section}")
    show(header, widths)


def show(cells: list[str], widths: list[int]) -> None:
    print(line(cells, widths), flush=True)


if __name__ == "__main__":
    main()
