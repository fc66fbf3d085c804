"""Many volumes through one kernel: one after the other or several at once, whatever becomes of each."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.errors import OutOfMemoryError, ParameterError, VolconvError
from volconv.naming import check_tasks, name_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from volconv.naming import Task
    from volconv.report import ApplyReport


class Outcome(NamedTuple):
    """What became of a task: a report, an error, or neither where it was not begun, or stopped.

    Parameters
    ----------
    task : Task
        Its inputs and output.
    report : ApplyReport or None
    error : VolconvError or None
    """

    task: Task
    report: ApplyReport | None = None
    error: VolconvError | None = None

    @property
    def status(self) -> str:
        """Whether it was "done", "planned", "skipped", "failed" or "left"."""
        return self.report.status if self.report is not None else "left" if self.error is None else "failed"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: one of the ``runs`` of a report."""
        from volconv.report import failed_run, left_run

        if self.report is not None:
            return self.report.as_dict()
        inputs, output = self.task.inputs, self.task.output
        return left_run(inputs, output) if self.error is None else failed_run(inputs, output, self.error)


def apply_many(
    inputs: Sequence[str],
    output: str,
    kernel: str | ArrayLike,
    *,
    jobs: int = 1,
    fail_fast: bool = False,
    mkdir: bool = False,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Outcome]:
    """Convolve many volume files: what ``volconv apply`` does with several inputs.

    Parameters
    ----------
    inputs : sequence of str
        Paths.
    output : str
        A template for their outputs, as ``"out/{parent}/{stem}_smooth{ext}"``.
    kernel : str or array
        As in :func:`volconv.apply`.
    jobs : int
        How many are done at once; ``threads`` and ``memory`` are for all of them together, and a volume that does not
        fit into its share of memory is done alone, at the end. No bits depend on it.
    fail_fast : bool
        Begin no other after the first that fails; what is under way is finished.
    mkdir : bool
        Whether missing folders of outputs are made.
    reading : dict, optional
        Keywords of :func:`volconv.open_volume`, for every input.
    **options
        As in :func:`volconv.apply`: padding, overwrite, skip_existing, ...

    Returns
    -------
    list of Outcome
        In the order of inputs. A volume that fails stops no other: look at ``outcome.status`` and ``outcome.error``.

    Raises
    ------
    ParameterError
        Two inputs would have one output, or one's output is another's input; nothing has been done.
    WriteError
        An output's folder does not exist; nothing has been done.

    Examples
    --------
    >>> done = apply_many(["a.nii", "b.nii"], "out/{stem}_2mm{ext}", "gaussian:sigma=2mm", jobs=2)  # doctest: +SKIP
    >>> [outcome.status for outcome in done]  # doctest: +SKIP
    ['done', 'done']
    """
    tasks = name_outputs(inputs, output)
    check_tasks(tasks, mkdir=mkdir)
    done = run_tasks(tasks, kernel, jobs=jobs, fail_fast=fail_fast, reading=reading, mkdir=mkdir, **options)
    outcomes = {outcome.task: outcome for outcome in done}
    return [outcomes[task] for task in tasks]


def run_tasks(
    tasks: Sequence[Task],
    kernel: str | ArrayLike,
    *,
    jobs: int = 1,
    fail_fast: bool = False,
    reading: Mapping[str, Any] | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    progress: Callable[[Task, int, int], None] | None = None,
    **options: Any,
) -> Generator[Outcome, None, None]:
    """Outcomes of tasks, each as soon as it is known, those that were left at the end.

    Whoever stops asking, by an exception or ``close()``, stops all that is under way, and waits for it.

    Parameters
    ----------
    tasks : sequence of Task
        As :func:`volconv.naming.check_tasks` lets them pass.
    progress : callable, optional
        Called with (task, bytes of output voxels done, bytes in all), from any thread; first with 0 of 0.
    kernel, jobs, fail_fast, reading, threads, memory, **options
        As in :func:`apply_many`.
    """
    from volconv.engines.cpu.workers import thread_count
    from volconv.memory import memory_bound, share
    from volconv.params import parse_integer

    jobs = parse_integer("jobs", jobs, at_least=1)
    if jobs > 1 and not (options.get("workers") is options.get("scheduler") is None):
        raise ParameterError(
            f"jobs must be 1 with workers or a scheduler (got {jobs})", hint="they make one output after the other"
        )
    jobs = max(1, min(jobs, len(tasks)))
    waiting, stop = iter(tasks), threading.Event()
    one = partial(_outcome, kernel=kernel, reading=reading or {}, stop=stop, progress=progress)
    failed = False
    if jobs > 1:
        shares = {"threads": max(1, thread_count(threads) // jobs), "memory": share(memory_bound(memory), jobs)}
        later = []
        for outcome in _at_once(partial(one, options=options | shares), waiting, jobs, fail_fast, stop):
            if _may_fit(outcome):
                later.append(outcome.task)  # when the others have ended, there is more for it
                continue
            failed = failed or outcome.status == "failed"
            yield outcome
        stop.clear()
        waiting = chain(later, waiting)
    # In the caller's own thread, where an interruption ends it at once.
    options |= {"threads": threads, "memory": memory}
    while not (fail_fast and failed) and (task := next(waiting, None)) is not None:
        outcome = one(task, options=options)
        failed = outcome.status == "failed"
        yield outcome
    yield from map(Outcome, waiting)


def _at_once(
    one: Callable[[Task], Outcome], waiting: Iterator[Task], jobs: int, fail_fast: bool, stop: threading.Event
) -> Generator[Outcome, None, None]:
    """Outcomes of several tasks at a time, in threads: loops release the interpreter, and libraries are there once."""
    pool = ThreadPoolExecutor(jobs, "volconv-job")
    try:
        running: set[Future[Outcome]] = set()
        while True:
            running |= {pool.submit(one, task) for task in islice(waiting, jobs - len(running))}
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            outcomes = [future.result() for future in ended]
            if fail_fast and any(outcome.status == "failed" and not _may_fit(outcome) for outcome in outcomes):
                waiting = iter(())
            yield from outcomes
    finally:
        stop.set()
        pool.shutdown()


def _may_fit(outcome: Outcome) -> bool:
    """Whether a task failed for want of memory, of which it had but a share."""
    return isinstance(outcome.error, OutOfMemoryError)


class _Stopped(BaseException):
    """Ends what is under way: nothing on its way may take it for an error."""


def _outcome(
    task: Task,
    *,
    kernel: str | ArrayLike,
    reading: Mapping[str, Any],
    stop: threading.Event,
    progress: Callable[[Task, int, int], None] | None,
    options: Mapping[str, Any],
) -> Outcome:
    def advance(done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            progress(task, done, total)

    from volconv.io import open_stack, open_volume

    try:
        # Open before anything is shown: an input that is missing needs no bar.
        several = len(task.inputs) > 1
        with open_stack(task.inputs, **reading) if several else open_volume(task.inputs[0], **reading) as volume:
            advance(0, 0)
            if not (options.get("dry_run") or options.get("skip_existing")):
                volume.prefetch()
            from volconv.functional import apply  # it is loaded, as is what compiles, while a file is unpacked

            return Outcome(task, apply(volume, task.output, kernel, progress=advance, **options))
    except VolconvError as error:
        return Outcome(task, error=error)
