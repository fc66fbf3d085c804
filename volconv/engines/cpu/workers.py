"""Threads: work items shared out among a few, with BLAS kept to one thread inside each."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")


def thread_count(threads: int | None) -> int:
    """How many threads a run takes: those asked for, or one for each core that this process may use.

    Raises
    ------
    ParameterError
        Fewer than one.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ParameterError(f"threads must be at least 1 (got {threads})")
    return threads


class Workers:
    """A pool for the length of one run.

    Threads draw items from one iterator, so a slow one holds up nobody; the first exception ends the run.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="volconv") if threads > 1 else None

    def run(self, work: Callable[[Iterator[Item]], None], items: Iterable[Item]) -> None:
        """Call ``work(items)`` in every thread, the caller's included; between them they see each item once."""
        shared = _SharedIterator(items)
        others = [self._pool.submit(shared.drain, work) for _ in range(self.threads - 1)] if self._pool else []
        try:
            shared.drain(work)
        finally:
            errors = [future.exception() for future in others]
        for error in errors:
            if error is not None:
                raise error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()


class _SharedIterator:
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._items)

    def drain(self, work: Callable[[Iterator[Any]], None]) -> None:
        try:
            work(self)
        except BaseException:
            self._stopped = True
            raise


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
