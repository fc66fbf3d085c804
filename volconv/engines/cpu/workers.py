"""Threads: work items shared out among a few, with BLAS kept to one thread inside each."""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from volconv.errors import ParameterError
from volconv.params import parse_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")

#: More is a slip of the finger.
MOST_THREADS = 1024


def thread_count(threads: int | None) -> int:
    """How many threads a run takes: those asked for, or one for each core that this process may use.

    Raises
    ------
    ParameterError
        Not an integer of at least one.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = parse_integer("threads", threads, at_least=1)
    if count > MOST_THREADS:
        raise ParameterError(f"threads must be at most {MOST_THREADS} (got {count})")
    return count


#: Pools that no run uses, by their number of threads: to start threads takes longer than many a small convolution.
_idle: defaultdict[int, list[ThreadPoolExecutor]] = defaultdict(list)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a child has none of the threads


class Workers:
    """A pool for the length of one run.

    Each thread begins with a stretch of neighbouring items of its own, so that two seldom touch the same memory (fresh
    memory above all: both would clear the same page), and then helps the others. The first exception ends the run.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        if threads > 1:
            idle = _idle[threads - 1]
            self._pool = idle.pop() if idle else ThreadPoolExecutor(threads - 1, thread_name_prefix="volconv")

    def run(self, work: Callable[[Iterator[Item]], None], items: Iterable[Item]) -> None:
        """Call ``work(items)`` in every thread, the caller's included; between them they see each item once."""
        waiting = list(items)
        threads = max(1, min(self.threads, len(waiting)))
        shares = _Shares(waiting, threads)
        others = [self._pool.submit(shares.drain, k, work) for k in range(1, threads)] if self._pool else []
        try:
            shares.drain(0, work)
        finally:
            errors = [future.exception() for future in others]
        for error in errors:
            if error is not None:
                raise error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            _idle[self.threads - 1].append(self._pool)


class _Shares:
    """Items split into stretches, one for each thread; ``deque`` operations need no lock."""

    def __init__(self, items: list[Any], threads: int) -> None:
        bounds = [len(items) * k // threads for k in range(threads + 1)]
        self._stretches = [deque(items[a:b]) for a, b in pairwise(bounds)]
        self._stopped = False

    def drain(self, thread: int, work: Callable[[Iterator[Any]], None]) -> None:
        try:
            work(self._items(thread))
        except BaseException:
            self._stopped = True
            raise

    def _items(self, thread: int) -> Iterator[Any]:
        own = self._stretches[thread]
        while not self._stopped:
            try:
                yield own.popleft() if own else max(self._stretches, key=len).pop()
            except IndexError:
                # Another thread was faster; only when nothing is left anywhere is this one done.
                if not any(self._stretches):
                    return


@cache
def _blas_controller() -> Any:
    """Found once: looking for BLAS libraries takes a millisecond, and NumPy's is loaded by now."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread a caller while any run is under way in this process.

    The limit is the process's, not a thread's: the first run in sets it and the last one out lifts it.
    """
    global _blas_users, _blas_limit  # BLAS has one setting for the process, and so has this
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = _blas_controller().limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()
                _blas_limit = None
