"""What an algorithm is to the rest of volconv, and where to get one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5


@dataclass(frozen=True, slots=True)
class Needs:
    """What an algorithm asks of the blocks that it is given.

    Parameters
    ----------
    grid : tuple of 3 ints
        Output blocks start at multiples of this (D, H, W), counted from output 0: the grid its bits depend on.
    block_bytes : int
        Size of a padded block that it works best on.
    """

    grid: Triple
    block_bytes: int


class Prepared(Protocol):
    """An algorithm with its weights, ready to compute blocks; called from several threads at once."""

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """Valid convolution of one block.

        Parameters
        ----------
        block : (G*C_in/groups, D, H, W) array
            Padded input of G neighbouring groups, C-contiguous, in the compute dtype.
        out : (G*C_out/groups, d, h, w) array
            Receives the result; any strides.
        first_group : int
            Which group the block starts with.
        """
        ...


class Engine(Protocol):
    """One algorithm. Everything it says depends on parameters, shapes and dtype alone."""

    name: str

    def supports(self, params: Conv3dParams, dtype: np.dtype[Any]) -> str | None:
        """None where it can do this; otherwise why not."""
        ...

    def cost(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> float:
        """Predicted seconds on one thread of the machine that the constants were measured on."""
        ...

    def needs(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> Needs:
        """See :class:`Needs`."""
        ...

    def prepare(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5) -> Prepared:
        """Do once all that depends on the weights alone (compilation too).

        Parameters
        ----------
        weight : (C_out, C_in/groups, kD, kH, kW) array
            In the compute dtype, which is real: complex convolutions are made real by :mod:`volconv.engines.planar`.
        bias : (C_out,) array
            In the compute dtype.
        """
        ...

    def session(self) -> AbstractContextManager[None]:
        """What must be held while blocks are computed: a BLAS limit, a device."""
        ...


def get_engine(name: str) -> Engine:
    """The algorithm of this name.

    Raises
    ------
    ParameterError
        There is none.
    """
    from volconv.engines.cpu import plan

    return plan.get(name)
