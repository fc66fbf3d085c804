"""Who computes: several processes, of this machine or of a Dask cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from volconv.cluster.scheduler import check_installed
from volconv.cluster.work import DASK_BYTES
from volconv.engines.cpu.workers import thread_count
from volconv.errors import ParameterError
from volconv.memory import LIBRARIES, default_memory, parse_memory
from volconv.params import parse_integer

#: What Dask takes for an address.
_ADDRESS = re.compile(r"((tcp|tls)://)?[^/\s]+:\d{1,5}")


def parse_cluster(
    scheduler: str | None,
    workers: int | None,
    *,
    resume: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    memory: str | int | None = None,
) -> Cluster | None:
    """Who computes: several processes, or None where this one does.

    Raises
    ------
    ParameterError
        What is asked for does not go together.
    ClusterError
        Dask is not installed.
    """
    if scheduler is None and workers is None:
        if resume:
            raise ParameterError(
                "resume must go with workers or a scheduler (got neither)", hint="a run of one process leaves nothing"
            )
        return None
    if scheduler is not None and workers is not None:
        raise ParameterError(f"give either workers or a scheduler (got workers={workers}, scheduler={scheduler!r})")
    if scheduler is not None and not _ADDRESS.fullmatch(scheduler):
        raise ParameterError(f"scheduler must be an address such as tcp://host:8786 (got {scheduler!r})")
    if backend == "cupy":
        raise ParameterError("backend must be numpy with workers or a scheduler (got 'cupy')", hint="leave it out")
    check_installed()
    count = 1 if workers is None else parse_integer("workers", workers, at_least=1)
    if threads is None:  # of a cluster's workers, each thread takes a task of its own
        threads = 1 if workers is None else max(1, thread_count(None) // count)
    bound = max(LIBRARIES + DASK_BYTES, default_memory() // count) if memory is None else parse_memory(memory)
    return Cluster(scheduler, None if scheduler else count, resume, threads, bound)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Several processes that compute one output.

    Parameters
    ----------
    scheduler : str or None
        Address of Dask's.
    workers : int or None
        Processes of this machine.
    resume : bool
        Whether to go on with a run that is not finished, if there is one.
    threads, memory : int
        Of each process.
    """

    scheduler: str | None
    workers: int | None
    resume: bool
    threads: int
    memory: int
