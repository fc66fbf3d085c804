"""What a worker process needs to know of a run, and how it does one task of it.

It opens source and target by itself: names and numbers come to it, and no voxel.
"""

from __future__ import annotations

import contextlib
import operator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volconv import __version__
from volconv.cuts import Ends
from volconv.engines.factors import find_factors
from volconv.epilogue import Counts
from volconv.errors import ClusterError
from volconv.io import open_stack, open_volume
from volconv.io.formats import as_path
from volconv.io.omezarr.level import SharedLevel
from volconv.io.omezarr.source import open_level
from volconv.io.omezarr.unfinished import Unfinished
from volconv.io.room import spool_folder
from volconv.io.volume import Reading
from volconv.job import resolve_job
from volconv.pipeline import run
from volconv.plan import make_plan
from volconv.report import peak_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from volconv.io import OpenVolume, VolumeInfo
    from volconv.job import Job
    from volconv.plan import Plan
    from volconv.region import Index5, Region

#: Resident for Dask, beside what every run needs (set by tests/test_cluster_dask.py).
DASK_BYTES = 48 << 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that are the source: several are its channels.

    Parameters
    ----------
    names : tuple of str
    reading : dict
        Keywords of :func:`volconv.open_volume`.
    mask : Inputs, optional
    """

    names: tuple[str, ...]
    reading: Mapping[str, Any]
    mask: Inputs | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[OpenVolume, OpenVolume | None]]:
        """The source, and the mask if there is one."""
        with contextlib.ExitStack() as files:
            labels = files.enter_context(self.mask.opened())[0] if self.mask is not None else None
            if len(self.names) > 1:
                volume = files.enter_context(open_stack(self.names, **self.reading))
            else:
                volume = files.enter_context(open_volume(self.names[0], **self.reading))
            yield volume, labels


@dataclass(frozen=True, slots=True)
class Finer:
    """A level of the output itself, complete by now, that is the source of the next.

    Parameters
    ----------
    output, run : str
        As :class:`Work` has them.
    attributes : dict
        What will make it an image.
    number : int
    """

    output: str
    run: str
    attributes: dict[str, Any]
    number: int

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[OpenVolume, None]]:
        """The level."""
        with open_level(Unfinished(as_path(self.output), self.run).image, self.attributes, self.number) as volume:
            yield volume, None


@dataclass(frozen=True, slots=True)
class Work:
    """What is done of one level of an output, whichever part of it.

    Parameters
    ----------
    source : Inputs or Finer
    options : dict
        Of :func:`volconv.job.resolve_job`.
    shape : tuple of 5 ints
        Of the source, as it was when the run was planned.
    kernel_sha256 : str
        And the digest of its kernel.
    algorithm : str
        A certain one: the same bits come of it everywhere.
    output : str
    run : str
        Its number: the next run that makes this output has another.
    number : int
        Of the level.
    target : VolumeInfo
        Of the level.
    threads : int
    memory : int
        Bytes that a worker may have resident.
    version : str
        Of volconv.
    """

    source: Inputs | Finer
    options: Mapping[str, Any]
    shape: Index5
    kernel_sha256: str
    algorithm: str
    output: str
    run: str
    number: int
    target: VolumeInfo
    threads: int
    memory: int
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker tells of a task: values that are worth a word, ranges of channels, and the most that it held."""

    counts: Counts
    ranges: list[tuple[float, float] | None]
    halvings: int
    peak_memory: int


def marked(told: Any) -> Done | None:
    """What a mark says, as JSON has it; None where that makes no sense.

    >>> marked({"counts": {}, "ranges": [None, [1, 2]], "halvings": 0, "peak_memory": 9})
    Done(counts=Counts(saturated=0, not_a_number=0, non_finite=0), ranges=[None, (1, 2)], halvings=0, peak_memory=9)
    """
    try:
        counts = Counts(**{name: operator.index(count) for name, count in told["counts"].items()})
        ranges = [None if pair is None else (pair[0] + 0, pair[1] + 0) for pair in told["ranges"]]
        return Done(counts, ranges, operator.index(told["halvings"]), operator.index(told["peak_memory"]))
    except (TypeError, ValueError, LookupError, AttributeError):
        return None


def compute(work: Work, name: str, part: Region) -> Done:
    """Do one task, and mark it as done.

    Parameters
    ----------
    work : Work
    name : str
        Of the task.
    part : Region
        Outputs.

    Raises
    ------
    ClusterError
        This worker does not see what the run was planned for, or the run is no more.
    VolconvError
    """
    if work.version != __version__:
        raise ClusterError(f"a worker has volconv {__version__} (got {work.version} here)")
    unfinished = Unfinished(as_path(work.output), work.run)
    unfinished.check()
    with work.source.opened() as (volume, labels):
        mask = None if labels is None else (labels.names[0], labels.info)
        job = resolve_job(volume.info, **work.options, source_name=" + ".join(volume.names) or "volume", mask=mask)
        if volume.info.shape != work.shape or job.kernel.sha256 != work.kernel_sha256:
            what = f"input {' + '.join(volume.names)}" if volume.info.shape != work.shape else "kernel"
            raise ClusterError(f"a worker finds another {what} than the one that the run was planned for")
        ends = Ends(volume.info, work.target, None if labels is None else labels.info)
        plan = plan_part(job, ends, part, work.algorithm, work.threads, work.memory)
        assert plan.traffic is not None  # noqa: S101  # there are files at its ends
        for end, reading in ((volume, plan.traffic.source), (labels, plan.traffic.mask)):
            if end is not None:
                end.expect(Reading(reading.in_turn, reading.cache, spool_folder(as_path(work.output))))
        sink = SharedLevel(
            unfinished.image, work.number, work.target, plan.traffic.target_cache, check=unfinished.check
        )
        outcome = run(plan, volume, sink, job.weight, job.bias, labels)
        sink.commit()
    done = Done(outcome.counts, sink.ranges.known(), outcome.halvings, peak_memory())
    unfinished.check()
    unfinished.mark(name, asdict(done))
    return done


def plan_part(job: Job, ends: Ends, part: Region, algorithm: str, threads: int, memory: int) -> Plan:
    """How a worker goes about a part of an output.

    Raises
    ------
    OutOfMemoryError, ParameterError
    """
    return make_plan(
        job.params,
        ends.source.shape,
        job.compute_dtype,
        algorithm=algorithm,
        factors=find_factors(job.params, job.weight, job.compute_dtype),
        box=job.box,
        epilogue=job.epilogue,
        masking=job.masking,
        threads=threads,
        ends=ends,
        memory=memory,
        part=part,
    )
