"""How an output is made by several processes: the tasks that are left, level by level."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from volconv.cluster.scheduler import connected, results
from volconv.cluster.tasks import Tasks, cut
from volconv.cluster.work import DASK_BYTES, Done, Finer, Inputs, Work, marked, plan_part
from volconv.config import moved
from volconv.cuts import Ends
from volconv.engines import get_engine
from volconv.engines.factors import find_factors
from volconv.errors import OutputExistsError, ParameterError, VolconvError
from volconv.io.formats import Url, as_path
from volconv.io.omezarr.unfinished import Unfinished
from volconv.making import Made
from volconv.pipeline import Outcome
from volconv.plan import make_plan
from volconv.provenance import differences, stamps
from volconv.pyramid import add_levels, level_options
from volconv.report import ClusterReport, peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from distributed import Client

    from volconv.cluster import Cluster
    from volconv.io import OpenVolume, VolumeInfo
    from volconv.job import Job
    from volconv.plan import Plan
    from volconv.region import Region


class ManyProcesses:
    """One convolution between files that several processes carry out.

    Parameters
    ----------
    cluster : Cluster
    volume : OpenVolume
    labels : OpenVolume or None
        The mask.
    job : Job
    ends : Ends
        The target is a shared image.
    options : dict
        Of :func:`volconv.job.resolve_job`, which made ``job`` of them.
    algorithm : str
    output : str
    note : str
        Of the output.

    Attributes
    ----------
    plan : Plan
        Of the first task.
    placing : None
        They compute where they are.

    Raises
    ------
    ParameterError
        The input is no file, which they could open.
    OutOfMemoryError
        A worker's memory does not do for a task.
    """

    placing = None

    def __init__(
        self,
        cluster: Cluster,
        volume: OpenVolume,
        labels: OpenVolume | None,
        job: Job,
        ends: Ends,
        options: Mapping[str, Any],
        *,
        algorithm: str,
        output: str,
        note: str,
    ) -> None:
        for end, what in ((volume, "source"), (labels, "mask")):
            if end is not None and not end.names:
                raise ParameterError(f"{what} must be a file, which workers open (got an array)")
        self._cluster, self._volume, self._job, self._ends = cluster, volume, job, ends
        self._mask = labels
        self._options, self._output, self._note = options, output, note
        self._tasks = self._cut(job, ends, algorithm)
        self.plan = self._plan_first(self._tasks, job, ends, algorithm)
        self._unfinished = Unfinished(as_path(output))
        self._begun: dict[str, Any] | None = None
        self._instead = False
        self._before: dict[str, Done] = {}
        self._client: Client | None = None
        self._halvings, self._peak, self._any_done = 0, 0, False

    def check(self) -> ClusterReport:
        """Find out what a run before this one left.

        Raises
        ------
        OutputExistsError
            It is not to be gone on with, or was another one.
        """
        unfinished = self._unfinished
        self._begun = begun = unfinished.facts()
        if begun is not None:
            at_url = isinstance(as_path(self._output), Url)
            remove = f"remove {unfinished.root}" + (f" and {self._output}" if at_url else "")
            if not self._cluster.resume:
                raise OutputExistsError(
                    f"{self._output}: a run that did not finish it left {unfinished.root}",
                    hint=f"--resume (resume=True) goes on with it; or {remove}",
                )
            note = begun.get("note")
            other = differences(note if isinstance(note, str) else None, self._note)
            if not other and begun.get("files") != self._stamps():
                other = ("its input changed since",)
            if other:
                why = f"{self._output}: the run that did not finish it was another one: {', '.join(other)}"
                raise OutputExistsError(why, hint=remove)
            told = {name: marked(mark) for name, mark in unfinished.done().items()}
            self._before = {name: done for name, done in told.items() if done is not None}
            if not all(unfinished.has_level(level) for level in {name.partition("-")[0] for name in self._before}):
                # What the marks tell of is gone: it was put in place, or removed.
                self._begun, self._before, self._instead = None, {}, True
        _, first = next(iter(self._tasks))
        cluster = self._cluster
        return ClusterReport(cluster.workers, cluster.scheduler, len(self._tasks), first.shape, len(self._before))

    def plan_level(self, job: Job, finer: VolumeInfo, coarser: VolumeInfo) -> Plan:
        """How a worker makes the first task of a level.

        Raises
        ------
        OutOfMemoryError
        """
        ends = Ends(finer, coarser)
        return self._plan_first(self._cut(job, ends, "auto"), job, ends, "auto")

    @contextmanager
    def begun(self, spools: Path) -> Iterator[None]:  # noqa: ARG002  # workers open files by themselves
        """Reach the workers, and leave word of what the run is; where it fails, that goes unless a task was done."""
        unfinished, fresh = self._unfinished, False
        try:
            with connected(self._cluster.scheduler, self._cluster.workers or 1) as self._client:
                if self._begun is None:
                    unfinished.begin({"note": self._note, "files": self._stamps()}, instead=self._instead)
                    fresh = True
                else:
                    unfinished.go_on(self._begun)
                yield
        except BaseException:
            with suppress(VolconvError):
                if fresh and not self._any_done and not unfinished.done():
                    unfinished.check()
                    unfinished.discard()
            raise

    def run(self, sink: Any, *, pyramid: bool, progress: Callable[[int, int], None] | None) -> Made:
        """Have all tasks done that are left.

        Parameters
        ----------
        sink : ZarrSink
            A shared image; neither committed nor aborted here.
        pyramid : bool
        progress : callable, optional
            Called with (bytes of output voxels done, bytes in all) as tasks of the finest level end.
        """
        started, outcome = perf_counter(), Outcome()
        volume, itemsize = self._volume, sink.info.dtype.itemsize
        voxels, total = 0, math.prod(sink.info.shape)
        source = self._inputs(volume, None if self._mask is None else self._inputs(self._mask))
        files = {key: self._there(self._options[key], "weights") for key in ("kernel", "bias")}
        work = self._work(source, {**self._options, **files}, self._job, self._ends, self.plan.algorithm, 0)
        for part, done in self._level(work, self._tasks):
            outcome.counts += done.counts
            sink.ranges.merge(done.ranges)
            voxels += math.prod(part.shape)
            if progress is not None:
                progress(voxels * itemsize, total * itemsize)
        computed = perf_counter()

        def make(job: Job, finer: OpenVolume, coarser: Any) -> None:
            ends, options = Ends(finer.info, coarser.info), level_options(job.params.stride)
            algorithm = self.plan_level(job, finer.info, coarser.info).algorithm
            source = Finer(self._there(self._output), self._unfinished.run, sink.attributes, coarser.number - 1)
            work = self._work(source, options, job, ends, algorithm, coarser.number)
            for _ in self._level(work, self._cut(job, ends, algorithm)):
                pass

        levels = add_levels(sink, make) if pyramid else 1
        self._unfinished.check()
        outcome.compute_seconds, outcome.halvings = computed - started, self._halvings
        return Made(outcome, max(self._peak, peak_memory()), levels, perf_counter() - computed)

    def _cut(self, job: Job, ends: Ends, algorithm: str) -> Tasks:
        whole = make_plan(
            job.params,
            ends.source.shape,
            job.compute_dtype,
            algorithm=algorithm,
            factors=find_factors(job.params, job.weight, job.compute_dtype),
            box=job.box,
            epilogue=job.epilogue,
            masking=job.masking,
            threads=self._cluster.threads,
        )
        return cut(ends.source, ends.target, job.params, get_engine(whole.algorithm).needs(whole.problem).grid)

    def _plan_first(self, tasks: Tasks, job: Job, ends: Ends, algorithm: str) -> Plan:
        _, first = next(iter(tasks))
        there = replace(ends, target=_with_dask(ends.target))
        return plan_part(job, there, first, algorithm, self._cluster.threads, self._cluster.memory)

    def _stamps(self) -> list[list[int]]:
        return stamps((*self._volume.names, *(self._mask.names if self._mask is not None else ())))

    def _inputs(self, volume: OpenVolume, mask: Inputs | None = None) -> Inputs:
        return Inputs(tuple(self._there(name) for name in volume.names), dict(volume.reading), mask)

    def _there(self, name: Any, place: str = "path") -> Any:
        """A name as workers find the file: those of a scheduler have working folders of their own."""
        return name if self._cluster.scheduler is None else moved(name, place, Path.cwd())

    def _work(
        self,
        source: Inputs | Finer,
        options: Mapping[str, Any],
        job: Job,
        ends: Ends,
        algorithm: str,
        number: int,
    ) -> Work:
        return Work(
            source=source,
            options=options,
            shape=ends.source.shape,
            kernel_sha256=job.kernel.sha256,
            algorithm=algorithm,
            output=self._there(self._output),
            run=self._unfinished.run,
            number=number,
            target=_with_dask(ends.target),
            threads=self._cluster.threads,
            memory=self._cluster.memory,
        )

    def _level(self, work: Work, tasks: Tasks) -> Iterator[tuple[Region, Done]]:
        """What is told of each task of a level, first of those that were done before."""
        before = self._before

        def named() -> Iterator[tuple[str, Region]]:
            return ((f"{work.number}-{number:08d}", part) for number, part in tasks)

        told = ((part, before[name]) for name, part in (named() if before else ()) if name in before)
        left = ((name, part) for name, part in named() if name not in before)
        for part, done in chain(told, results(self._client, work, left, self._output)):
            self._any_done = True
            self._halvings += done.halvings
            self._peak = max(self._peak, done.peak_memory)
            yield part, done


def _with_dask(target: VolumeInfo) -> VolumeInfo:
    """What a worker writes to, with what Dask holds there."""
    return replace(target, access=replace(target.access, held_bytes=target.access.held_bytes + DASK_BYTES))
