"""How the plan of ``volconv apply`` is told, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volconv.memory import in_words
from volconv_cli.text import counted, facts, numbers, size

if TYPE_CHECKING:
    from volconv.report import ApplyReport

#: Column of the values.
_START = 13


def plan_lines(report: ApplyReport) -> list[str]:
    """All that is decided before a voxel is read, for people."""
    plan, params, kernel = report.plan, report.job.params, report.job.kernel.spec or "of numbers"
    memory, traffic = plan.memory, plan.traffic
    assert memory is not None  # noqa: S101  # it is between files
    assert traffic is not None  # noqa: S101
    read = f"{size(traffic.read_bytes)} of {report.source.dtype.name} ({report.source.format})"
    read += f", {traffic.halo:.1%} of it as halos" if traffic.halo else ", nothing twice"
    spools = [
        f"{size(count)} for the {what}"
        for count, what in (
            (traffic.source.spool, "input"),
            (traffic.mask.spool, "mask"),
            (traffic.target_spool, "output"),
        )
        if count
    ]
    blocks = str(len(plan.blocks))
    if len(plan.blocks) > 1:
        blocks += f" of {numbers(plan.blocks[0].shape[2:])} outputs (D,H,W)"
        blocks += ", two held at a time" if plan.copies > 1 else ", one held at a time"
    parts = ("libraries", "weights", "threads", "files", "blocks")
    of = ", ".join(f"{name} {in_words(getattr(memory, name))}" for name in parts if getattr(memory, name) >= 1 << 19)
    pairs = [
        (
            "kernel",
            f"{kernel}: {numbers(params.kernel_size)}, stride {numbers(params.stride)}, dilation "
            f"{numbers(params.dilation)}, groups {params.groups}",
        ),
        (
            "padding",
            f"{numbers(params.padding_low)} before and {numbers(params.padding_high)} after, {params.padding_mode}",
        ),
        *_cluster(report),
        ("reads", read),
        ("writes", f"{size(traffic.written_bytes)} of {report.target.dtype.name} ({report.target.format})"),
        ("blocks", blocks),
        ("memory", f"{in_words(memory.peak)} at most, of {in_words(memory.bound)} ({of})"),
        *_device_memory(report),
        ("temporary", f"{' and '.join(spools)}, in {report.spool_folder}" if spools else "no files"),
        ("time", f"about {traffic.seconds:.2g} s"),
        ("computes", _computed(report)),
        ("predicted", _candidates(report)),
    ]
    return _indented(pairs)


def run_lines(report: ApplyReport) -> list[str]:
    """What is worth telling of a run."""
    assert report.seconds is not None  # noqa: S101  # it was run
    seconds, memory = report.seconds, report.plan.memory
    assert memory is not None  # noqa: S101  # it was between files
    pairs = [
        *_cluster(report),
        ("computed", _computed(report) + f", in {counted(len(report.plan.blocks), 'block')}"),
        ("predicted", _candidates(report)),
        (
            "waited",
            f"{seconds.read:.2f} s for reading, {seconds.compute:.2f} s for computing, "
            f"{seconds.write:.2f} s for writing",
        ),
    ]
    if report.device is not None and report.device.seconds is not None:
        spent = report.device.seconds
        pairs.append(
            (
                "gpu",
                f"{spent.upload:.2f} s for copies there, {spent.compute:.2f} s for kernels, {spent.download:.2f} s "
                "for copies back, at the same time",
            )
        )
    if report.peak_memory is not None:
        pairs.append(("memory", f"{in_words(report.peak_memory)} at most, of {in_words(memory.bound)}"))
    return _indented(pairs)


def _cluster(report: ApplyReport) -> list[tuple[str, str]]:
    cluster = report.cluster
    if cluster is None:
        return []
    whose = f"of {cluster.scheduler}" if cluster.workers is None else f"on {counted(cluster.workers, 'worker')}"
    of = f"{counted(cluster.tasks, 'task')} {whose}; what follows is of the first,"
    before = f"; {cluster.resumed} done before" if cluster.resumed else ""
    return [("tasks", f"{of} {numbers(cluster.task_shape[2:])} outputs (D,H,W){before}")]


def _device_memory(report: ApplyReport) -> list[tuple[str, str]]:
    held = report.plan.device_memory
    if held is None:
        return []
    of = ", ".join(f"{name} {in_words(getattr(held, name))}" for name in ("weights", "blocks", "workspace"))
    return [("gpu", f"{in_words(held.peak)} at most, of {in_words(held.bound)} of the GPU's memory ({of})")]


def _computed(report: ApplyReport) -> str:
    plan = report.plan
    where = counted(plan.threads, "thread")
    if plan.backend == "cupy":
        where = "a GPU" if report.device is None else report.device.name
    return f"{plan.compute_dtype.name} by {plan.algorithm} on {where}"


def _candidates(report: ApplyReport) -> str:
    predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in report.plan.candidates.items())
    return f"{'on a GPU' if report.plan.backend == 'cupy' else 'on one thread'}: {predicted}"


def _indented(pairs: list[tuple[str, str]]) -> list[str]:
    return facts([(f"  {name}", value) for name, value in pairs], _START)
