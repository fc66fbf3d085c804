"""Everything that only a GPU can tell, in a few minutes: tests, limits, times against peers, compute-sanitizer.

``python tests/gpu/run.py`` after ``pip install '.[test,cuda13]'`` (or ``cuda12``), and PyTorch for CUDA as a peer.
Exits with 1 if a test fails, a result is wrong, or the sanitizer finds something; with 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import numpy as np
import on_device
import speeds
from table import duration, markdown, times, verdict
from workloads import LAYERS, Workload

import volconv
from volconv.doctor import examine

if TYPE_CHECKING:
    from speeds import Speeds

SECTIONS = ("tests", "limits", "table", "bus", "sanitizer")

#: In units of eps * max(|weight| * |input|): twice the error bound, as both sides may err.
LARGEST_DIFFERENCE = 32

#: Names of workloads -> the least share of the limit that is aimed at.
SHARES = {"1->1 3^3 same 256^3": 0.7, "1->1 5^3 same 256^3": 0.7, "1->1 7^3 same 256^3": 0.5}

#: And against peers: never slower than ndimage, so many times as fast at 5^3; this much of cuDNN's time at most.
FASTER = {"1->1 5^3 same 256^3": 5.0}
OF_CUDNN, MOST_CHANNELS = 1.3, 64

#: The least share of the rate at which the bus copies both ways.
OF_BUS = 0.8

HEADER = ["workload", "algorithm", "volconv", "limit", "share", "PyTorch", "cupyx.ndimage", "others", "difference", ""]


@dataclass(frozen=True)
class Row:
    """What was measured of a workload on the device; seconds by algorithm or peer."""

    name: str
    algorithm: str
    seconds: dict[str, float]
    predicted: dict[str, float]
    limit: float
    bound_by: str
    difference: float
    missed: list[str]

    def cells(self) -> list[str]:
        ours = self.seconds[self.algorithm]
        ratios = [
            f"{duration(self.seconds[p])} ({times(self.seconds[p] / ours)})" if p in self.seconds else ""
            for p in on_device.PEERS
        ]
        others = [f"{n} {duration(s)}" for n, s in self.seconds.items() if n not in (self.algorithm, *on_device.PEERS)]
        return [
            self.name,
            self.algorithm,
            duration(ours),
            f"{self.bound_by} {duration(self.limit)}",
            f"{self.limit / ours:.0%}",
            *ratios,
            "; ".join(others),
            f"{self.difference:.2f}",
            verdict(False) + " " + ", ".join(self.missed) if self.missed else "",
        ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; repeatable")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads with this in their name")
    parser.add_argument("--slow", action="store_true", help="volumes of more than 2^31 voxels too")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write gpu.md and gpu.json there")
    return parser.parse_args()


def main() -> None:
    options = parse()
    sections, start = options.section or SECTIONS, perf_counter()
    machine = examine()
    if not machine.gpu.usable:
        print(f"no GPU: {machine.gpu.reason}; {machine.gpu.remedy}", file=sys.stderr)
        sys.exit(2)
    facts = {"GPU": f"{machine.gpu.devices[0].name}, {'.'.join(map(str, machine.gpu.devices[0].compute_capability))}"}
    facts |= {"driver": f"{machine.gpu.driver}, for CUDA up to {machine.gpu.driver_cuda}", "CPU": str(machine.cpu)}
    versions = machine.versions | machine.gpu.versions | _torch_version()
    facts |= {"libraries": ", ".join(f"{name} {version}" for name, version in versions.items())}
    facts |= {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    failed, rows, measured, buses = [], [], None, []
    if "tests" in sections:
        failed += _tests(options.slow)
    if {"limits", "table", "bus"} & set(sections):
        measured = speeds.measure()
        facts |= measured.told()
    for fact, value in facts.items():
        print(f"{fact}: {value}", flush=True)
    chosen = [workload for workload in LAYERS if options.only in workload.name]
    if "table" in sections:
        for workload in chosen:
            rows.append(_row(workload, measured))
            print("  ".join(rows[-1].cells()), flush=True)
        failed += [f"a wrong result: {row.name}" for row in rows if not row.difference <= LARGEST_DIFFERENCE]
    if "bus" in sections:
        for workload in _for_the_bus():
            buses.append(_end_to_end(workload, measured))
            print("  ".join(buses[-1]), flush=True)
    if "sanitizer" in sections:
        failed += _sanitizer()
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "gpu.md").write_text(_page(facts, rows, buses), encoding="utf-8")
        document = {"facts": facts, "speeds": measured and measured.as_dict(), "rows": [asdict(row) for row in rows]}
        (options.write / "gpu.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    print("\n".join([f"failed: {line}" for line in failed] or ["all is well"]))
    print(f"{perf_counter() - start:.0f} s")
    sys.exit(1 if failed else 0)


def _row(workload: Workload, limits: Speeds) -> Row:
    """Time all that can do a workload, and compare their results with the CPU's."""
    from volconv.engines.gpu.cupy_device import CupyDevice

    free = examine().gpu.devices[0].free_bytes or 0
    device = CupyDevice(int(0.6 * free))
    ours, predicted, picked = on_device.algorithms(workload, device)
    x, w, bias = workload.arrays()
    expected = volconv.conv3d(x if x.dtype.kind not in "iu" else x.astype(w.dtype), w, bias, **workload.parameters)
    scale = float(volconv.conv3d(abs(x.astype(w.dtype)), abs(w), bias, **workload.parameters).max())
    unit = float(np.finfo(expected.dtype).eps) * scale
    differences = [
        abs(on_device.as_volconv_gives_it(workload, call()) - expected).max() / unit
        for call in _synchronous(ours).values()
    ]
    seconds = {
        name: statistics.median(s) for name, s in speeds.in_turn(ours | on_device.peers(workload), rounds=5).items()
    }
    device.free()
    moved = (x.nbytes + expected.nbytes) / limits.copy
    rate = limits.multiply_adds if workload.result_dtype.itemsize // (1 + (x.dtype.kind == "c")) == 4 else None
    computed = 0.0 if rate is None or picked in ("fft", "separable") else workload.multiply_adds / rate
    limit, bound_by = max((moved, "copy"), (computed, "multiply-adds"))
    missed = _missed(workload, seconds, picked, limit)
    return Row(workload.name, picked, seconds, predicted, limit, bound_by, float(np.max(differences)), missed)


def _synchronous(calls: dict[str, Any]) -> dict[str, Any]:
    """The same calls, which return when their work is done."""
    import cupy

    def waiting(call: Any) -> Any:
        def run() -> Any:
            result = call()
            cupy.cuda.runtime.deviceSynchronize()
            return result

        return run

    return {name: waiting(call) for name, call in calls.items()}


def _missed(workload: Workload, seconds: dict[str, float], picked: str, limit: float) -> list[str]:
    """Which of the aims a workload misses."""
    ours, missed = seconds[picked], []
    share = SHARES.get(workload.name, 0)
    if limit / ours < share:
        missed.append(f"{share:.0%} of the limit")
    ndimage = seconds.get("cupyx.ndimage", float("inf"))
    if ndimage / ours < FASTER.get(workload.name, 1.0):
        missed.append(f"{times(FASTER.get(workload.name, 1.0))} of ndimage")
    several = 1 < max(workload.input_shape[1], workload.weight_shape[0]) <= MOST_CHANNELS
    if several and ours > OF_CUDNN * seconds.get("PyTorch", float("inf")):
        missed.append(f"{OF_CUDNN} of cuDNN's time")
    fastest = min(s for name, s in seconds.items() if name not in on_device.PEERS)
    if ours > 1.2 * fastest:
        missed.append("the fastest of its own")
    return missed


def _for_the_bus() -> list[Workload]:
    """Volumes that are large enough for several blocks under way."""
    same = {"padding": "same"}
    return [
        Workload("1->1 3^3 768^3 float32", (1, 1, 768, 768, 768), (1, 1, 3, 3, 3), same),
        Workload("1->1 5^3 768^3 float32", (1, 1, 768, 768, 768), (1, 1, 5, 5, 5), same),
    ]


def _end_to_end(workload: Workload, limits: Speeds) -> list[str]:
    """From an array of the host to another."""
    x, w, _ = workload.arrays()
    out = np.empty(workload.output_shape, workload.result_dtype)
    seconds = speeds.in_turn(
        {"": lambda: volconv.conv3d(x, w, backend="cupy", out=out, **workload.parameters)}, rounds=3
    )[""]
    limit, ours = max(x.nbytes, out.nbytes) / limits.both, statistics.median(seconds)
    return [workload.name, duration(ours), duration(limit), f"{limit / ours:.0%}", verdict(limit / ours >= OF_BUS)]


def _tests(slow: bool) -> list[str]:
    marks = "gpu" if slow else "gpu and not slow"
    code = subprocess.run([_pytest(), "-q", "-m", marks, HERE], check=False).returncode
    return [f"tests (pytest ended with {code})"] if code else []


def _sanitizer() -> list[str]:
    """Look for reads and writes out of bounds, and for races, in a part of the tests: it is some 50 times slower."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print("compute-sanitizer is not installed: left out")
        return []
    failed = []
    for tool in ("memcheck", "racecheck"):
        tests = [_pytest(), "-q", "-m", "gpu", "-k", "naive and float32", HERE]
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *tests]
        code = subprocess.run(command, check=False).returncode
        failed += [f"compute-sanitizer --tool {tool} (ended with {code})"] if code else []
    return failed


def _pytest() -> str:
    """The one of this environment: it tests the installed package."""
    return str(Path(sys.executable).with_name("pytest"))


def _torch_version() -> dict[str, str]:
    try:
        import torch
    except ImportError:
        return {}
    return {"torch": torch.__version__}


def _page(facts: dict[str, str], rows: list[Row], buses: list[list[str]]) -> str:
    parts = ["## Measured\n", markdown(["", ""], [list(fact) for fact in facts.items()])]
    if rows:
        parts += [
            "Volumes that are on the device already; times are medians.\n",
            markdown(HEADER, [r.cells() for r in rows]),
        ]
    if buses:
        head = ["workload", "volconv", "bus, both ways at once", "share", ""]
        parts += ["From an array of the host to another.\n", markdown(head, buses)]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
