"""How an output is made by this process; :mod:`volconv.cluster` has how several make one."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.backends import open_device, place
from volconv.engines.factors import find_factors
from volconv.io.volume import Reading
from volconv.memory import parse_memory
from volconv.pipeline import run
from volconv.pyramid import add_levels, make_level, plan_level
from volconv.report import DeviceReport, peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from volconv.cuts import Ends
    from volconv.io import NewVolume, OpenVolume, VolumeInfo
    from volconv.job import Job
    from volconv.pipeline import Outcome
    from volconv.plan import Plan
    from volconv.traffic import FileReading


class Made(NamedTuple):
    """What was made: see :class:`volconv.report.ApplyReport`; ``level_seconds`` went by for coarser levels."""

    outcome: Outcome
    peak_memory: int
    levels: int = 1
    level_seconds: float = 0.0
    device: DeviceReport | None = None


class OneProcess:
    """One convolution between files that this process carries out.

    Parameters
    ----------
    volume : OpenVolume
    labels : OpenVolume or None
        The mask.
    job : Job
    ends : Ends
    algorithm, backend, gpu_memory, allow_tf32, threads, memory
        As in :func:`volconv.apply`.

    Attributes
    ----------
    plan : Plan
    placing : str or None
        Why it is computed elsewhere than was wanted.

    Raises
    ------
    BackendError, ParameterError, OutOfMemoryError
    """

    def __init__(
        self,
        volume: OpenVolume,
        labels: OpenVolume | None,
        job: Job,
        ends: Ends,
        *,
        algorithm: str,
        backend: str,
        gpu_memory: str | int | None,
        allow_tf32: bool,
        threads: int | None,
        memory: str | int | None,
    ) -> None:
        self._volume, self._labels, self._job = volume, labels, job
        self._allow_tf32 = allow_tf32
        self._bounds: dict[str, Any] = {"threads": threads, "memory": memory}
        self._placed = place(
            backend,
            gpu_memory,
            params=job.params,
            input_shape=volume.info.shape,
            compute_dtype=job.compute_dtype,
            algorithm=algorithm,
            factors=find_factors(job.params, job.weight, job.compute_dtype),
            box=job.box,
            epilogue=job.epilogue,
            masking=job.masking,
            threads=threads,
            ends=ends,
            memory=None if memory is None else parse_memory(memory),
        )
        self.plan: Plan = self._placed.plan
        self.placing = self._placed.note

    def check(self) -> None:
        """Nothing is left of runs before this one."""

    def plan_level(self, job: Job, finer: VolumeInfo, coarser: VolumeInfo) -> Plan:
        """See :func:`volconv.pyramid.plan_level`."""
        return plan_level(job, finer, coarser, **self._bounds)

    @contextmanager
    def begun(self, spools: Path) -> Iterator[None]:
        """Prepare the files that are read; temporary ones lie in a folder."""
        for end, reading in self._read_ends():
            end.expect(Reading(reading.in_turn, reading.cache, spools))
        yield

    def run(self, sink: NewVolume, *, pyramid: bool, progress: Callable[[int, int], None] | None) -> Made:
        """Fill a sink, which is neither committed nor aborted."""
        device = open_device(self.plan, allow_tf32=self._allow_tf32)
        outcome = run(
            self.plan,
            self._volume,
            sink,
            self._job.weight,
            self._job.bias,
            self._labels,
            progress,
            device,
            self._placed.fallback,
        )
        computed = perf_counter()
        if pyramid:  # of which memory is counted anew
            for end, reading in self._read_ends():
                if reading.cache:
                    end.expect(Reading())
        levels = add_levels(sink, partial(make_level, **self._bounds)) if pyramid else 1
        told = None if device is None else DeviceReport(device.name, outcome.device_seconds, outcome.fell_back)
        return Made(outcome, peak_memory(), levels, perf_counter() - computed, told)

    def _read_ends(self) -> Iterator[tuple[OpenVolume, FileReading]]:
        """The files that are read, and how."""
        traffic = self.plan.traffic
        assert traffic is not None  # noqa: S101  # there are files at its ends
        yield self._volume, traffic.source
        if self._labels is not None:
            yield self._labels, traffic.mask
