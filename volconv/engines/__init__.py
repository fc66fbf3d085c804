"""What an algorithm is to the rest of volconv, and where to get one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from volconv.shapes import block_shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from volconv.engines.factors import Factors
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5


#: Called, if set, when loops are about to be compiled, which takes a second or more; else silence.
on_compilation: Callable[[], None] | None = None

#: Memory that may be read, whatever it holds, behind the end of a block: vectors of data reach a little too far.
SLACK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Problem:
    """All that an algorithm may look at to say what it can do, at what cost, and how.

    Parameters
    ----------
    params : Conv3dParams
        Of a real convolution: complex ones are made real by :mod:`volconv.engines.planar`.
    output_shape : tuple of 5 ints
        Of the whole volume, (N, C_out, D, H, W).
    dtype : numpy.dtype
        Compute dtype, which is real.
    factors : Factors, optional
        What the weights are a product of, if they are.
    """

    params: Conv3dParams
    output_shape: Index5
    dtype: np.dtype[Any]
    factors: Factors | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What an algorithm asks of the blocks that it is given.

    Parameters
    ----------
    grid : tuple of 3 ints
        Output blocks start at multiples of this (D, H, W), counted from output 0: the grid its bits depend on.
    block_bytes : int
        Size of a padded block that it works best on.
    prepared_bytes : int
        Most memory that it takes to prepare the weights, and what it keeps of them.
    """

    grid: Triple
    block_bytes: int
    prepared_bytes: int


class Prepared(Protocol):
    """An algorithm with its weights, ready to compute blocks; called from several threads at once."""

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """Valid convolution of one block.

        Parameters
        ----------
        block : (G*C_in/groups, D, H, W) array
            Padded input of G neighbouring groups, in the compute dtype; side by side along W, and in C order with
            room between lines at most. :data:`SLACK_BYTES` of memory follow it.
        out : (G*C_out/groups, d, h, w) array
            Receives the result; any strides.
        first_group : int
            Which group the block starts with.
        """
        ...


class Engine(Protocol):
    """One algorithm. Everything it says depends on the problem alone."""

    name: str
    #: Whether NaN and infinity spread as in the direct sum; where not, they are kept from it.
    exact_spread: bool
    #: Whether it runs compiled loops: then those that read blocks are worth loading, too.
    compiled: bool

    def supports(self, problem: Problem) -> str | None:
        """None where it can do this; otherwise why not."""
        ...

    def cost(self, problem: Problem) -> float:
        """Predicted seconds on one thread of the machine that the constants were measured on."""
        ...

    def needs(self, problem: Problem) -> Needs:
        """See :class:`Needs`."""
        ...

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:
        """Bytes that a thread holds, beside a padded block and its outputs, for so many groups and a box of outputs."""
        ...

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> Prepared:
        """Do once all that depends on the weights alone (compilation too).

        Parameters
        ----------
        problem : Problem
        weight : (C_out, C_in/groups, kD, kH, kW) array
            In the compute dtype.
        bias : (C_out,) array
            In the compute dtype.
        """
        ...

    def session(self) -> AbstractContextManager[None]:
        """What must be held while blocks are computed: a BLAS limit, a device."""
        ...


def prepare(name: str, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> Prepared:
    """An algorithm ready to compute blocks, whatever values they hold: see :meth:`Engine.prepare`."""
    engine = get_engine(name)
    prepared = engine.prepare(problem, weight, bias)
    if engine.exact_spread:
        return prepared
    from volconv.engines.cpu.nonfinite import Guarded

    return Guarded(prepared, problem, weight, bias)


def weight_bytes(problem: Problem) -> int:
    """Bytes of the weights."""
    return math.prod(problem.params.weight_shape) * problem.dtype.itemsize


def item_voxels(problem: Problem, groups: int, box: Triple) -> tuple[int, int]:
    """Voxels of the padded block, and of the outputs, of so many groups and a box of outputs."""
    params = problem.params
    per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
    return groups * per_in * math.prod(block_shape(box, params)), groups * per_out * math.prod(box)


def workspace(name: str, problem: Problem, groups: int, box: Triple) -> int:
    """Bytes that a thread holds for a work item whatever values it has: see :meth:`Engine.workspace`."""
    engine = get_engine(name)
    held = engine.workspace(problem, groups, box)
    if engine.exact_spread:
        return held
    from volconv.engines.cpu.nonfinite import guard_bytes

    return held + guard_bytes(problem, groups, box)


def prepared_bytes(name: str, problem: Problem) -> int:
    """Most bytes that weights take whatever values they meet: see :class:`Needs`."""
    engine = get_engine(name)
    held = engine.needs(problem).prepared_bytes
    return held if engine.exact_spread else held + get_engine("direct").needs(problem).prepared_bytes


def get_engine(name: str) -> Engine:
    """The algorithm of this name.

    Raises
    ------
    ParameterError
        There is none.
    """
    from volconv.engines.cpu import plan

    return plan.get(name)
