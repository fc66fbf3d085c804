"""How one block of a convolution is computed on a GPU: copied there, computed, and copied back, several under way."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.convolution import Reads
from volconv.device_budget import IN_FLIGHT
from volconv.dtypes import convert
from volconv.engines.gpu.plan import get_engine
from volconv.engines.gpu.source import Source as DeviceSource
from volconv.engines.planar import planar_bias, planar_weight
from volconv.epilogue import NO_EPILOGUE, NONE_LOST, Counts
from volconv.padding import FILL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volconv.convolution import Stored
    from volconv.engines.cpu.workers import Workers
    from volconv.engines.gpu.device import Device
    from volconv.engines.gpu.plan import Prepared
    from volconv.io.volume import Scaling, Sink, Source
    from volconv.padding import Run
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.region import Region

#: A copy between pageable and pinned memory is shared out among threads in parts of so many bytes.
PART_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class DeviceSeconds:
    """What a GPU spent on copies to it, on kernels, and on copies from it; some at the same time."""

    upload: float = 0.0
    compute: float = 0.0
    download: float = 0.0

    def __add__(self, other: DeviceSeconds) -> DeviceSeconds:
        return DeviceSeconds(self.upload + other.upload, self.compute + other.compute, self.download + other.download)


class DeviceConvolution(Reads):
    """A plan bound to its ends, weights and a GPU; what :class:`volconv.convolution.Convolution` is on the CPU."""

    ahead = IN_FLIGHT - 1
    seconds: DeviceSeconds

    def __init__(
        self,
        plan: Plan,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        source: Source,
        sink: Sink,
        device: Device,
    ) -> None:
        super().__init__(plan, (source,), sink)
        self._device, self._engine = device, get_engine(plan.algorithm)
        weight = convert("weight", weight, plan.compute_dtype)
        bias = convert("bias", np.zeros(plan.params.out_channels) if bias is None else bias, plan.compute_dtype)
        self._parts = 2 if plan.is_complex else 1
        if plan.is_complex:
            weight, bias = planar_weight(weight), planar_bias(bias)
        self._up, self._compute, self._down = (device.stream() for _ in range(3))
        self._prepared: Prepared | None = None

        def prepare() -> None:
            self._prepared = self._engine.prepare(device, self._compute, plan.problem, weight, bias)

        self._compute.enqueue(prepare)
        self._flights: list[_Flight] = []
        self._next = 0
        self.seconds = DeviceSeconds()

    @contextmanager
    def session(self) -> Iterator[None]:
        """No memory is let go of, however it ends, while something is under way that uses it."""
        try:
            yield
        finally:
            self._synchronize()

    @property
    def grid(self) -> Triple:
        """What blocks start at multiples of."""
        return self._engine.needs(self.plan.problem).grid

    def drop_memory(self) -> None:
        """Let go of all that is held for blocks, once nothing is under way any more."""
        self._synchronize()
        self._flights, self._next = [], 0
        self._device.free()

    def submit(
        self,
        workers: Workers,
        block: Region,
        stored: Stored,
        result: NDArray[Any],
        advance: Callable[[int], None] | None,
    ) -> Callable[[], Counts]:
        """Send one I/O block on its way; what is returned waits for it, and fills ``result``."""
        if len(self._flights) < IN_FLIGHT:
            self._flights.append(_Flight(self._device))
        flight = self._flights[self._next % len(self._flights)]
        self._next += 1
        inside = flight.host("in", stored.values.shape, stored.values.dtype)
        outside = flight.host("out", result.shape, result.dtype)
        voxels = flight.device("in", inside.shape, inside.dtype)
        stores = flight.device("out", outside.shape, outside.dtype)
        losses = flight.device("losses", (3,), np.dtype(np.int64))
        lost = flight.host("losses", (3,), np.dtype(np.int64))
        _copy(workers, stored.values, inside)
        marks = [self._up.record()]
        self._device.upload(self._up, inside, voxels)
        marks.append(self._up.record())
        self._compute.wait(marks[-1])
        marks.append(self._compute.record())
        tables = [
            _table(self._span(stored, axis, start, start + size))
            for axis, (start, size) in enumerate(
                zip(
                    (a + o for a, o in zip(block.start[2:], self.plan.origin, strict=True)),
                    block.shape[2:],
                    strict=True,
                )
            )
        ]

        def computed() -> None:
            # Casts may overflow to infinity, and what is not finite be computed with, as in NumPy, and without a word.
            with np.errstate(all="ignore"):
                self._computed(voxels, tables, block, stores, losses)

        self._compute.enqueue(computed)
        marks.append(self._compute.record())
        self._down.wait(marks[-1])
        marks.append(self._down.record())
        self._device.download(self._down, stores, outside)
        self._device.download(self._down, losses, lost)
        marks.append(self._down.record())

        def collect() -> Counts:
            marks[-1].synchronize()
            up, compute, down = (self._device.elapsed(*marks[i : i + 2]) for i in (0, 2, 4))
            self.seconds = self.seconds + DeviceSeconds(up, compute, down)
            _copy(workers, outside, result)
            if advance is not None:
                advance(result.size)
            counts = Counts(*map(int, lost))
            return counts if not self.sink.info.access.in_memory and counts != NONE_LOST else NONE_LOST

        return collect

    def _synchronize(self) -> None:
        """Wait until nothing is under way any more."""
        for stream in (self._up, self._compute, self._down):
            with suppress(MemoryError):
                stream.synchronize()

    def _computed(self, voxels: Any, tables: list[NDArray[np.int32]], block: Region, stores: Any, losses: Any) -> None:
        """All that is done on the device, in its order."""
        device, plan, info = self._device, self.plan, self.sink.info
        xp, scaling = device.xp, self.read_ends[0].info.scaling
        assert self._prepared is not None  # noqa: S101  # it came before
        placed = tuple(xp.asarray(table) for table in tables)
        losses[...] = 0
        for n in range(block.shape[0]):
            source = DeviceSource(
                voxels[n],
                (placed[0], placed[1], placed[2]),
                plan.params.padding_value,
                None if scaling is None else (scaling.slope, scaling.intercept),
            )
            channels, size = plan.problem.params.out_channels, block.shape[2:]
            values = device.empty((channels, *size), plan.problem.dtype)
            self._prepared(source, values)
            if self._parts == 2:
                parts, values = values, device.empty((channels // 2, *size), plan.compute_dtype)
                values.real, values.imag = parts[0::2], parts[1::2]
            if plan.epilogue != NO_EPILOGUE:
                values = plan.epilogue(values)
            _store(xp, values, stores[n], losses, info.scaling)


class _Flight:
    """Memory for one block that is under way: pinned, and on the device; kept, and grown where it is too small."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._rooms: dict[tuple[str, str], Any] = {}

    def host(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Pinned memory as an array."""
        values: NDArray[Any] = self._room("host", name, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
        return values

    def device(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory of the device as an array."""
        return self._room("device", name, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def _room(self, side: str, name: str, nbytes: int) -> Any:
        held = self._rooms.get((side, name))
        if held is None or held.size < nbytes:
            self._rooms.pop((side, name), None)
            del held  # before there is more
            held = self._device.pinned(nbytes) if side == "host" else self._device.empty((nbytes,), np.dtype(np.uint8))
            self._rooms[side, name] = held
        return held[:nbytes]


def _store(xp: Any, values: Any, target: Any, losses: Any, scaling: Scaling | None) -> None:
    """What :func:`volconv.epilogue.store` does, without waiting for a count: they are added to an array of three."""
    if scaling is not None:
        values = (values - scaling.intercept) / scaling.slope
    if target.dtype.kind not in "iu":
        target[...] = values
        losses[2] += target.size - xp.isfinite(target).sum()
        return
    limits = np.iinfo(target.dtype)
    values = xp.rint(values)
    nan, low, high = xp.isnan(values), values < limits.min, values >= float(limits.max + 1)
    target[...] = xp.where(nan | low | high, 0, values).astype(target.dtype)
    target[...] = xp.where(low, target.dtype.type(limits.min), xp.where(high, target.dtype.type(limits.max), target))
    losses[0] += low.sum() + high.sum()
    losses[1] += nan.sum()


def _copy(workers: Workers, source: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy an array (N, C, D, H, W) on all threads."""
    planes = max(1, PART_BYTES * target.shape[2] // max(1, target[0, 0].nbytes)) if target.size else 1
    parts = [
        (n, c, slice(z, z + planes))
        for n, c in np.ndindex(*target.shape[:2])
        for z in range(0, target.shape[2], planes)
    ]

    def work(shares: Any) -> None:
        for part in shares:
            target[part] = source[part]

    workers.run(work, parts)


def _table(span: tuple[list[Run], int]) -> NDArray[np.int32]:
    """For each index of a padded axis, where it lies in what was read; -1 for what has a value of its own."""
    runs, size = span
    table = np.full(size, -1, np.int32)
    for target, length, first, step in runs:
        if first != FILL:
            table[target : target + length] = first + step * np.arange(length)
    return table
