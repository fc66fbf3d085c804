"""What a GPU and its bus can do at most, measured: the limits that volconv's times are held against."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

#: A sample is of as many calls as take this long together, so that neither clock nor launches are measured.
SHORTEST = 0.01
MOST_CALLS = 200

#: Bytes that are copied to find a rate.
COPIED = 1 << 30

_CHAINS = """
extern "C" __global__ void chains(float* out, float x, int count) {
    float a[16];
    for (int i = 0; i < 16; ++i) a[i] = threadIdx.x + i;
    for (int n = 0; n < count; ++n)
        for (int i = 0; i < 16; ++i) a[i] = fmaf(a[i], x, x);
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += a[i];
    if (sum == 1.2345f) out[0] = sum;
}
"""


@dataclass(frozen=True)
class Speeds:
    """Bytes a second that a copy on the device reads and writes, and of the bus; multiply-adds a second in float32.

    ``both`` is what goes each way while both ways are used.
    """

    copy: float
    up: float
    down: float
    both: float
    multiply_adds: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def told(self) -> dict[str, str]:
        return {
            "copy on the device (read + written)": f"{self.copy / 1e12:.2f} TB/s",
            "to the device, from pinned memory": f"{self.up / 1e9:.1f} GB/s",
            "from the device": f"{self.down / 1e9:.1f} GB/s",
            "both at once, each": f"{self.both / 1e9:.1f} GB/s",
            "float32 multiply-adds": f"{self.multiply_adds / 1e12:.1f} T/s",
        }


def measure() -> Speeds:
    import cupy

    a, b = cupy.zeros(COPIED, np.uint8), cupy.zeros(COPIED, np.uint8)
    hosts = [np.frombuffer(cupy.cuda.alloc_pinned_memory(COPIED), np.uint8, COPIED) for _ in range(2)]
    for host in hosts:
        host[:] = 0
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]

    def up() -> None:
        a.set(hosts[0], stream=streams[0])

    def down() -> None:
        b.get(stream=streams[1], out=hosts[1], blocking=False)

    def both() -> None:
        up()
        down()

    def copied(call: Callable[[], Any]) -> float:
        return COPIED / statistics.median(in_turn({"": call})[""])

    copy = 2 * copied(lambda: cupy.copyto(a, b))
    return Speeds(copy, copied(up), copied(down), copied(both), _multiply_adds())


def _multiply_adds() -> float:
    import cupy

    kernel = cupy.RawModule(code=_CHAINS).get_function("chains")
    out, blocks, count = cupy.zeros(1, np.float32), cupy.cuda.Device().attributes["MultiProcessorCount"] * 16, 4096
    seconds = in_turn({"": lambda: kernel((blocks,), (256,), (out, np.float32(0.5), np.int32(count)))})[""]
    return blocks * 256 * 16 * count / statistics.median(seconds)


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn (a b c a b c ...), after it has run once; until the device is idle again."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    counts = {}
    for name, call in calls.items():
        sample(call, 1)
        counts[name] = max(1, min(MOST_CALLS, round(SHORTEST / max(sample(call, 1), 1e-6))))
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(sample(call, counts[name]))
    return seconds


def sample(call: Callable[[], Any], count: int) -> float:
    """Seconds of one of so many calls."""
    import cupy

    cupy.cuda.runtime.deviceSynchronize()
    start = perf_counter()
    for _ in range(count):
        result = call()  # noqa: F841  # held, so that its memory is not given back and taken anew in between
    cupy.cuda.runtime.deviceSynchronize()
    return (perf_counter() - start) / count
