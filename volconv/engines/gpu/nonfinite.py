"""NaN and infinity in algorithms that would smear them, on a GPU: as :mod:`volconv.engines.cpu.nonfinite` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.engines.cpu.nonfinite import windows_with_any
from volconv.engines.gpu.direct import Direct
from volconv.engines.gpu.kernels import gather
from volconv.engines.gpu.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared


class Guarded:
    """An algorithm with values that are not finite kept from it: see :class:`volconv.engines.gpu.plan.Prepared`."""

    def __init__(
        self,
        device: Device,
        stream: Stream,
        problem: Problem,
        inner: Prepared,
        weight: NDArray[Any],
        bias: NDArray[Any],
    ) -> None:
        self._device, self._stream, self._problem, self._inner = device, stream, problem, inner
        self._direct = Direct().prepare(device, stream, problem, weight, bias)

    def __call__(self, source: Source, out: Array) -> None:
        """See :meth:`volconv.engines.gpu.plan.Prepared.__call__`."""
        xp = self._device.xp
        self._inner(source, out)
        if bool(xp.isfinite(out).all()):  # then so was all that it saw
            return
        block = self._device.empty((source.channels, *source.size), self._problem.dtype)
        gather(self._device, self._stream, source, block)
        nan, infinite = xp.isnan(block), xp.isinf(block)
        block[nan | infinite] = 0
        self._inner(Source(block), out)
        seen = self._reached(nan)
        other = (self._reached(infinite) | ~xp.isfinite(out)) & ~seen
        out[seen] = xp.nan
        if bool(other.any()):
            exact = self._device.empty(out.shape, out.dtype)
            self._direct(source, exact)
            xp.copyto(out, exact, where=other)

    def _reached(self, marked: Array) -> Array:
        """Which of the outputs have a marked voxel in their window, zero taps included."""
        params = self._problem.params
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        of_groups = marked.reshape(params.groups, per_in, *marked.shape[1:]).any(axis=1)
        return self._device.xp.repeat(windows_with_any(of_groups, params, self._device.xp), per_out, axis=0)
