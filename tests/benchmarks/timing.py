"""Times of several contenders, taken in turn in one process."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from time import perf_counter, process_time, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: A sample calls again and again for at least this long; shorter ones would measure the clock.
SHORTEST = 0.005
#: Calls shorter than this are made once more before they are timed: after a rest, clocks and caches take some
#: milliseconds to be as they are in a loop over volumes, which longer calls do not feel.
SHORT = 0.05
#: With rounds longer than this, SLOW_ROUNDS are enough.
SLOW = 5.0
SLOW_ROUNDS = 3
MOST_ROUNDS = 30


@dataclass(frozen=True)
class Times:
    """Seconds of one contender, one number a round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True)
class Speedup:
    """How many times faster one contender is: by medians, and the quartiles of single rounds."""

    ratio: float
    low: float
    high: float


def in_turn(calls: dict[str, Callable[[], Any]], least: int, budget: float) -> dict[str, Times]:
    """Call all in turn (a b c a b c ...), at least ``least`` times and until ``budget`` seconds are spent.

    They must have been called before: nothing here is a warm-up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    start = perf_counter()
    rounds = 0
    while rounds < least or (perf_counter() - start < budget and rounds < MOST_ROUNDS):
        for name, call in calls.items():
            rest()
            if not seconds[name] or seconds[name][-1] < SHORT:
                call()
            seconds[name].append(sample(call))
        rounds += 1
        if rounds == 1 and perf_counter() - start > SLOW:
            least = min(least, SLOW_ROUNDS)
    return {name: Times(values) for name, values in seconds.items()}


def sample(call: Callable[[], Any]) -> float:
    """Seconds of one call. The last result is freed after the clock has stopped."""
    count = 0
    start = perf_counter()
    while True:
        result = call()  # noqa: F841  # held, so that freeing it takes no measured time
        count += 1
        elapsed = perf_counter() - start
        if elapsed >= SHORTEST:
            return elapsed / count


def rest() -> None:
    """Wait until the process is idle: threads of OpenMP and OpenBLAS spin for up to 0.1 s after a call."""
    for _ in range(100):
        before = process_time()
        sleep(0.004)
        if process_time() - before < 0.001:
            return


def speedup(ours: Times, theirs: Times) -> Speedup:
    rounds = [t / o for o, t in zip(ours.seconds, theirs.seconds, strict=True)]
    low, _, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Speedup(theirs.median / ours.median, low, high)
