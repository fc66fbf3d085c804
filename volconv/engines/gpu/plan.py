"""Which algorithm a convolution takes on a GPU, and what an algorithm is there."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from volconv.engines.choice import Choice, known, pick
from volconv.engines.gpu.direct import Direct
from volconv.engines.gpu.fft import Fft
from volconv.engines.gpu.gemm import Gemm
from volconv.engines.gpu.separable import Separable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Needs, Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.source import Source
    from volconv.params import Triple


class Prepared(Protocol):
    """An algorithm with its weights, bound to a device and a stream."""

    def __call__(self, source: Source, out: Array) -> None:
        """Valid convolution of one block of one volume, of all channels.

        Parameters
        ----------
        source : Source
            The padded block (C_in, D, H, W).
        out : (C_out, d, h, w) device array
            In the compute dtype, C order.
        """
        ...


class DeviceEngine(Protocol):
    """One algorithm. Everything it says depends on the problem alone; see :class:`volconv.engines.Engine`."""

    name: str

    def supports(self, problem: Problem) -> str | None:
        """None where it can do this; otherwise why not."""
        ...

    def cost(self, problem: Problem) -> float:
        """Predicted seconds on a nominal GPU, without copies."""
        ...

    def needs(self, problem: Problem) -> Needs:
        """See :class:`volconv.engines.Needs`."""
        ...

    def workspace(self, problem: Problem, box: Triple) -> int:
        """Bytes on the device for a box of outputs, beside voxels and outputs."""
        ...

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """Do once all that depends on the weights alone: copy them, transform them.

        Parameters
        ----------
        device : Device
        stream : Stream
            That all blocks are computed in.
        problem : Problem
        weight : (C_out, C_in/groups, kD, kH, kW) array
        bias : (C_out,) array
        """
        ...


_ENGINES: dict[str, DeviceEngine] = {engine.name: engine for engine in (Direct(), Separable(), Fft(), Gemm())}

#: What ``algorithm=`` may say.
ALGORITHMS = ("auto", *_ENGINES)


def get_engine(name: str) -> DeviceEngine:
    """The algorithm of this name.

    Raises
    ------
    ParameterError
        There is none.
    """
    return _ENGINES[known(_ENGINES, name, " on a GPU")]


@lru_cache(maxsize=256)
def choose(algorithm: str, problem: Problem) -> Choice:
    """Pick the cheapest algorithm that can do this, or check the one asked for.

    Raises
    ------
    ParameterError
        No such algorithm, or it cannot do this.
    """
    return pick(_ENGINES, algorithm, problem, " on a GPU")
