"""Section "whole-process": ``volconv apply`` against scripts of what people use, from file to file."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from contenders import LARGEST_DIFFERENCE, OURS, deviation, difference, magnitude
from table import duration, megabytes, off, times, verdict
from workloads import GAUSSIAN, THREADS, gaussian_weight

HERE = Path(__file__).parent
SIZE = 256
MOST_MEMORY = 256e6

HEADER = ["what", "contender", "seconds (fastest)", "peak memory", "ratio", "target", "", "difference"]
WIDTHS = [26, 18, 18, 26, 6, 6, 6, 0]


@dataclass(frozen=True)
class Job:
    """One thing to do to a file. ``target``: how many times faster than the fastest peer volconv is meant to be."""

    name: str
    suffix: str
    dense: bool
    target: float


JOBS = [
    Job("gaussian sigma 2, .nii", ".nii", dense=False, target=1.3),
    Job("gaussian sigma 2, .nii.gz", ".nii.gz", dense=False, target=2),
    Job("dense 5^3, .nii", ".nii", dense=True, target=2),
]


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, and the most memory that it held."""

    seconds: float
    peak: float


@dataclass(frozen=True)
class Process:
    """What was measured of a job: the runs of each contender.

    ``difference`` is the largest from any exact peer; ``deviations`` are those of approximations, by peer.
    """

    job: Job
    runs: dict[str, list[Run]]
    difference: float
    deviations: dict[str, float]

    def seconds(self, name: str) -> float:
        return statistics.median(run.seconds for run in self.runs[name])

    def peak(self, name: str) -> float:
        return max(run.peak for run in self.runs[name])

    @property
    def judge(self) -> str:
        return min((name for name in self.runs if name != OURS), key=self.seconds)

    @property
    def ratio(self) -> float:
        return self.seconds(self.judge) / self.seconds(OURS)

    @property
    def met(self) -> bool:
        return self.ratio >= self.job.target

    @property
    def fits(self) -> bool:
        return self.peak(OURS) < MOST_MEMORY

    @property
    def agrees(self) -> bool:
        return self.difference <= LARGEST_DIFFERENCE

    def rows(self) -> list[list[str]]:
        """One a contender; volconv's, the first, has the target."""
        rows = []
        for name, runs in self.runs.items():
            ours = name == OURS
            told = off(self.deviations[name]) if name in self.deviations else ""
            peak = megabytes(self.peak(name))
            rows.append(
                [
                    self.job.name,
                    name,
                    f"{duration(self.seconds(name))} ({duration(min(run.seconds for run in runs))})",
                    f"{peak} (< {megabytes(MOST_MEMORY)}: {verdict(self.fits)})" if ours else peak,
                    times(self.ratio if ours else self.seconds(name) / self.seconds(OURS)),
                    f"{self.job.target:g}x" if ours else "",
                    verdict(self.met) if ours else "",
                    f"{self.difference:.2f}" if ours else told,
                ]
            )
        return rows


def commands(job: Job, source: Path, target: Path, kernel: Path) -> dict[str, list[str]]:
    """Each contender's command line."""
    volconv = Path(sys.executable).with_name("volconv")
    ours = [str(volconv), "apply", str(source), "-o", str(target), "--padding", "same", "--threads", str(THREADS), "-q"]

    def script(name: str, *arguments: Path) -> list[str]:
        return [sys.executable, str(HERE / "peers" / name), str(source), str(target), *map(str, arguments)]

    if job.dense:
        return {
            OURS: [*ours, "-k", str(kernel)],
            "nibabel, PyTorch": script("torch_dense.py", kernel),
            "nibabel, SciPy": script("scipy_dense.py", kernel),
        }
    found = {
        OURS: [*ours, "-k", GAUSSIAN],
        "SimpleITK": script("simpleitk_gaussian.py"),
        "nibabel, SciPy": script("scipy_gaussian.py"),
    }
    if mrfilter := shutil.which("mrfilter"):
        options = ["-stdev", "2", "-extent", "17", "-nthreads", str(THREADS), "-quiet"]
        found["MRtrix3 mrfilter"] = [mrfilter, str(source), "smooth", str(target), *options]
    return found


def prepare(folder: Path) -> None:
    """The files that all work on: noise, packed and not, and a kernel."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((SIZE, SIZE, SIZE), np.float32)
    image = nibabel.Nifti1Image(noise.T, np.eye(4))
    for suffix in (".nii", ".nii.gz"):
        nibabel.save(image, folder / f"noise{suffix}")
    np.save(folder / "kernel.npy", rng.standard_normal((5, 5, 5), np.float32))


def measure(job: Job, folder: Path, rounds: int) -> Process:
    """Run all in turn; the first run of each is not counted, but its output is compared."""
    source, kernel = folder / f"noise{job.suffix}", folder / "kernel.npy"
    targets = {name: folder / f"out_{i}{job.suffix}" for i, name in enumerate(commands(job, source, source, kernel))}
    lines = {name: commands(job, source, target, kernel)[name] for name, target in targets.items()}
    for name, line in lines.items():
        _run(line, targets[name])
    differences, deviations = _compare(job, source, kernel, targets)
    runs: dict[str, list[Run]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            runs[name].append(_run(line, targets[name]))
    for target in targets.values():
        target.unlink()
    return Process(job, runs, float(np.max(differences)), deviations)


def _run(command: list[str], target: Path) -> Run:
    target.unlink(missing_ok=True)
    measuring = [sys.executable, "-S", "-E", str(HERE / "measure.py"), *command]
    output = subprocess.run(measuring, stdout=subprocess.PIPE, check=True).stdout
    result = json.loads(output.splitlines()[-1])
    if result["code"] or not target.exists():
        sys.exit(f"failed with exit code {result['code']}: {' '.join(command)}")
    return Run(result["seconds"], result["peak"])


def _compare(job: Job, source: Path, kernel: Path, targets: dict[str, Path]) -> tuple[list[float], dict[str, float]]:
    """Differences of exact peers in units of ``eps * max(|weight| * |input|)``; deviations of the others."""
    x = _load(source)[None, None]
    w = np.load(kernel)[None, None] if job.dense else gaussian_weight()
    scale = magnitude(x, w, None, {"padding": "same"})
    ours = _load(targets[OURS])
    differences, deviations = [], {}
    for name, target in targets.items():
        if name in ("nibabel, SciPy", "nibabel, PyTorch"):
            differences.append(difference(ours, _load(target), scale))
        elif name != OURS:
            deviations[name] = deviation(ours, _load(target))
    return differences, deviations


def _load(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T
