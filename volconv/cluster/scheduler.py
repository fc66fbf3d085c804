"""How tasks are handed to Dask's workers, and what becomes of each. The only file that knows Dask."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from itertools import islice
from pkgutil import resolve_name
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from volconv import __version__
from volconv.cluster.work import Done, compute
from volconv.errors import ClusterError, OutOfMemoryError, VolconvError
from volconv.memory import share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Future, as_completed

    from volconv.cluster.work import Work
    from volconv.region import Region

INSTALL = "pip install 'volconv[distributed]'"

#: How often a task is begun anew that failed. One whose worker died is besides, as often as Dask's configuration says.
RETRIES = 2

#: Tasks for each thread of a worker that the scheduler knows of at a time, and the least of all: it never holds more.
AHEAD, LEAST_AHEAD = 4, 64

#: How much of the memory that a worker is given it may hold: beyond that Dask lets it wait, and then ends it.
OF_A_LIMIT = 0.7

#: Seconds until a scheduler that does not answer is taken for missing.
PATIENCE = 10

#: Seconds without a worker after which a run is given up: at its begin and of processes of this machine, each of which
#: ended as it began; and in the middle of a run on a cluster, which may be a small one, or short of machines.
WORKERS_PATIENCE, CLUSTERS_PATIENCE = 60, 600

#: Seconds from one look at results to the next, and at workers.
_LOOK, _LOOK_AT_WORKERS = 0.02, 2.0


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
            try:
                with dask.config.set({"distributed.nanny.pre-spawn-environ": {"MALLOC_ARENA_MAX": 2}}):
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
            yield opened.enter_context(Client(opened.enter_context(cluster), set_as_default=False))
            return
        _check_scheduler(scheduler)
        client = opened.enter_context(Client(scheduler, timeout=PATIENCE, set_as_default=False))
        _check_workers(client, scheduler)
        yield client


def _check_scheduler(address: str) -> None:
    """Make sure that a scheduler answers: a client would wait for ever for something else that listens there.

    Raises
    ------
    ClusterError
    """
    from distributed import Security
    from distributed.core import rpc
    from distributed.utils import LoopRunner

    async def ask() -> Any:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as there:
            return await there.identity()

    try:
        told = LoopRunner(asynchronous=False).run_sync(ask, callback_timeout=PATIENCE)
        kind = told.get("type") if isinstance(told, dict) else None
        why = "" if kind == "Scheduler" else f"it is a {kind}"
    except Exception as error:  # noqa: BLE001  # of any kind, as what listens there may be anything
        why = _one_line(error)
    if why:
        tls = "; tls:// needs Dask's own configuration of TLS here, too" if address.startswith("tls:") else ""
        raise ClusterError(
            f"no scheduler answers at {address} ({why})",
            hint=f"start one with 'dask scheduler', or pass --workers N (workers=) for processes of this machine{tls}",
        )


def _check_workers(client: Client, address: str) -> None:
    """Make sure that there are workers, and have what a task needs before they get any: they would die of it.

    Raises
    ------
    ClusterError
    """
    try:
        client.wait_for_workers(1, timeout=WORKERS_PATIENCE)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {address} has no workers, {WORKERS_PATIENCE} s long",
            hint=f"start some with 'dask worker {address}'",
        ) from error
    # What is asked must itself need no volconv there.
    found = client.run(resolve_name, "volconv:__version__", on_error="return")
    try:
        found[address] = client.run_on_scheduler(resolve_name, "volconv:__version__")
    except ImportError as error:
        found[address] = error
    except ValueError:  # it may be closed to questions
        pass
    for where, version in found.items():
        if version != __version__:
            what = f"it has {version}" if isinstance(version, str) else _one_line(version)
            raise ClusterError(
                f"{where} must have volconv {__version__} ({what})",
                hint="scheduler and workers need the same as is here",
            )


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
        for future, told in _as_they_end(ended, client, level):
            _, part = running.pop(future.key)
            # Not asked of the future: its worker may be dead by now, and the task waiting for another one.
            with _told(f"{level}: block {_place(part)}"):
                if not isinstance(told, Done):
                    raise told[1] if isinstance(told, tuple) else told
            yield part, told
            with _told(level):
                hand_out()
    finally:
        # Without a scheduler there is nobody to ask.
        with contextlib.suppress(Exception):
            client.cancel([future for future, _ in running.values()], force=True)


def _as_they_end(ended: as_completed, client: Client, level: str) -> Iterator[tuple[Future, Any]]:
    """Tasks that ended and what they told, as long as there are workers.

    Raises
    ------
    ClusterError
    """
    patience = WORKERS_PATIENCE if client.cluster is not None else CLUSTERS_PATIENCE
    looked = seen = monotonic()
    while not ended.is_empty():
        if ended.has_ready():
            yield from ended.next_batch(block=False)
            looked = seen = monotonic()
            continue
        sleep(_LOOK)
        if monotonic() - looked < _LOOK_AT_WORKERS:
            continue
        with _told(level):
            there = client.nthreads()
        looked = monotonic()
        if there:
            seen = looked
        elif looked - seen > patience:
            raise ClusterError(
                f"{level}: no worker was there for {patience} s",
                hint="where each ends as it begins, for want of memory: fewer --workers (workers=); --resume goes on",
            )


def _on_worker(name: str, part: Region, work: Work) -> Done:
    """Do a task with this thread's share of a worker's memory."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    bound = work.memory if not limit else min(work.memory, int(limit * OF_A_LIMIT))
    told: VolconvError
    try:
        return compute(replace(work, memory=share(bound, worker.state.nthreads)), name, part)
    except VolconvError as error:
        told = type(error)(error.message, hint=error.hint)
    except MemoryError:
        told = OutOfMemoryError("a worker has no memory left", hint="pass less --memory (memory=)")
    except Exception as error:  # noqa: BLE001  # whatever it is, it comes with its place
        told = ClusterError(_one_line(error))
    raise told  # alone: of what it came from not all can be sent


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Say where an error comes from, and put Dask's own into words."""
    from distributed import CancelledError, KilledWorker

    try:
        yield
    except VolconvError as error:
        raise type(error)(f"{place}: {error.message}", hint=error.hint) from error
    except KilledWorker as error:
        raise ClusterError(
            f"{place}: its workers died, the last of {error.allowed_failures + 1} on {error.last_worker.address}",
            hint="their logs may tell why; for want of memory, pass less --memory (memory=)",
        ) from error
    except (CancelledError, OSError) as error:
        raise ClusterError(f"{place}: the scheduler, or its connection, is lost", hint="--resume goes on") from error
    except Exception as error:
        raise ClusterError(f"{place}: {_one_line(error)}", hint="--resume goes on") from error


def _one_line(error: Any) -> str:
    """What an error is, and says, in few words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].removesuffix(": ")


def _place(part: Region) -> str:
    """Where outputs lie, in words.

    >>> from volconv.region import Region
    >>> _place(Region((0, 0, 0, 64, 0), (1, 1, 32, 128, 512)))
    'z 0:32, y 64:128, x 0:512'
    """
    spans: list[Any] = list(zip("tczyx", part.start, part.stop, strict=True))
    shown = spans[2:] if part.stop[0] == 1 else [spans[0], *spans[2:]]
    return ", ".join(f"{axis} {start}:{stop}" for axis, start, stop in shown)
