"""How tasks are handed to Dask's workers, and what becomes of each. The only file that knows Dask."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from volconv.cluster.work import compute
from volconv.errors import ClusterError, VolconvError
from volconv.memory import share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Future

    from volconv.cluster.work import Done, Work
    from volconv.region import Region

INSTALL = "pip install 'volconv[distributed]'"

#: How often a task is begun anew that failed. One whose worker died is besides, as often as Dask's configuration says.
RETRIES = 2

#: Tasks for each thread of a worker that the scheduler knows of at a time, and the least of all: it never holds more.
AHEAD, LEAST_AHEAD = 4, 64

#: How much of the memory that a worker is given it may hold: beyond that Dask lets it wait, and then ends it.
OF_A_LIMIT = 0.7

#: Seconds until a scheduler is taken for missing; and all processes of this machine, each of which ended as it began.
PATIENCE, WORKERS_PATIENCE = 10, 60


def check_installed() -> None:
    """Refuse to go on without Dask.

    Raises
    ------
    ClusterError
    """
    try:
        import cryptography  # noqa: F401  # what local workers and their scheduler tell each other is nobody else's
        import distributed  # noqa: F401
    except ImportError as missing:
        raise ClusterError(f"workers need packages that are not installed ({missing})", hint=INSTALL) from missing


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of a scheduler, or of so many worker processes of this one, which end with it.

    Raises
    ------
    ClusterError
    """
    check_installed()
    import dask
    from distributed import Client, LocalCluster, Security
    from distributed.utils import silence_logging_cmgr

    with contextlib.ExitStack() as opened:
        # What went wrong is told once, by an error.
        opened.enter_context(silence_logging_cmgr(logging.CRITICAL + 1))
        if scheduler is None:
            # Threads and memory are volconv's own, so that Dask's settings for both are left out: its allocator would
            # clear the same pages again and again. But of what each of many threads freed the allocator would keep
            # a heap. Nobody else on this machine has the certificate, and any port does.
            local = {
                "distributed.nanny.pre-spawn-environ": {"MALLOC_ARENA_MAX": 2},
                "distributed.scheduler.no-workers-timeout": f"{WORKERS_PATIENCE}s",
            }
            try:
                with dask.config.set(local):
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        memory_limit=0,
                        dashboard_address=None,
                        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                        silence_logs=logging.CRITICAL,
                        security=Security.temporary(),
                    )
            except (OSError, RuntimeError) as error:
                raise ClusterError(
                    "worker processes do not start on this machine",
                    hint="pass fewer --workers; a Python script calls volconv under if __name__ == '__main__':",
                ) from error
            scheduler = opened.enter_context(cluster)
        try:
            client = opened.enter_context(Client(scheduler, timeout=PATIENCE, set_as_default=False))
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no scheduler answers at {scheduler} ({' '.join(str(error).split())[:120]})",
                hint="start one with 'dask scheduler', or pass --workers N (workers=) for processes of this machine",
            ) from error
        yield client


def results(
    client: Client, work: Work, tasks: Iterator[tuple[str, Region]], output: str
) -> Iterator[tuple[Region, Done]]:
    """What becomes of tasks, in the order in which they end; the first that fails for good ends all.

    Parameters
    ----------
    client : Client
    work : Work
    tasks : iterator of (name, Region)
    output : str
        For messages.

    Raises
    ------
    VolconvError
        As the task's, with its place.
    """
    from distributed import as_completed

    level = f"{output}:{work.number}" if work.number else output
    running: dict[Any, tuple[Future, Region]] = {}
    ended = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def hand_out() -> None:
        """See to it that workers have something to do, and that scheduler and client have little: not one by one."""
        if len(running) > LEAST_AHEAD // 2 and len(running) > AHEAD // 2 * sum(client.nthreads().values()):
            return
        more = max(LEAST_AHEAD, AHEAD * sum(client.nthreads().values())) - len(running)
        if not (batch := list(islice(tasks, more))):
            return
        futures = client.map(_on_worker, *zip(*batch, strict=True), work=work, pure=False, retries=RETRIES)
        running.update((future.key, (future, part)) for future, (_, part) in zip(futures, batch, strict=True))
        ended.update(futures)

    try:
        with _told(level):
            hand_out()
        for future, told in ended:
            _, part = running.pop(future.key)
            with _told(f"{level}: block {_place(part)}"):
                done = told if future.status == "finished" else future.result()
            yield part, done
            with _told(level):
                hand_out()
    finally:
        # Without a scheduler there is nobody to ask.
        with contextlib.suppress(Exception):
            client.cancel([future for future, _ in running.values()], force=True)


def _on_worker(name: str, part: Region, work: Work) -> Done:
    """Do a task with this thread's share of a worker's memory."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    bound = work.memory if not limit else min(work.memory, int(limit * OF_A_LIMIT))
    return compute(replace(work, memory=share(bound, worker.state.nthreads)), name, part)


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Say where an error comes from, and put Dask's own into words."""
    from distributed import CancelledError, KilledWorker
    from distributed.scheduler import NoWorkerError

    try:
        yield
    except VolconvError as error:
        raise type(error)(f"{place}: {error.message}", hint=error.hint) from error
    except KilledWorker as error:
        raise ClusterError(
            f"{place}: its workers died, the last of {error.allowed_failures + 1} on {error.last_worker.address}",
            hint="their logs may tell why; for want of memory, pass less --memory (memory=)",
        ) from error
    except NoWorkerError as error:
        raise ClusterError(
            f"{place}: no worker was there for {error.timeout:g} s",
            hint="where each ends as it begins, for want of memory: fewer --workers (workers=); --resume goes on",
        ) from error
    except (CancelledError, OSError) as error:
        raise ClusterError(f"{place}: the scheduler, or its connection, is lost", hint="--resume goes on") from error
    except ImportError as error:
        raise ClusterError(f"{place}: a worker lacks a package ({error})", hint="install the same there") from error


def _place(part: Region) -> str:
    """Where outputs lie, in words.

    >>> from volconv.region import Region
    >>> _place(Region((0, 0, 0, 64, 0), (1, 1, 32, 128, 512)))
    'z 0:32, y 64:128, x 0:512'
    """
    spans: list[Any] = list(zip("tczyx", part.start, part.stop, strict=True))
    shown = spans[2:] if part.stop[0] == 1 else [spans[0], *spans[2:]]
    return ", ".join(f"{axis} {start}:{stop}" for axis, start, stop in shown)
