"""What every reader of weights gives: a list of what a file holds, and the numbers of one entry."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

#: A kernel takes no more; 2048 channels to as many, 3 taps a side in double precision, are 0.9 GB.
MOST_BYTES = 1 << 30

#: Entries of one file; the largest models have some ten thousand.
MOST_ENTRIES = 100_000

# The last part of a key tells what it is; TensorFlow adds the number of an output.
_ROLE = re.compile(r"(?:(.*)[./|_])?(weight|kernel|bias)(?::0)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Weights:
    """One entry of a file of weights.

    Parameters
    ----------
    key : str
    shape : tuple of ints or None
        None for what is no tensor.
    dtype : str
        As NumPy calls it, or the file where NumPy has none; of what is no tensor, what it is.
    layer : str or None
        Layer that it belongs to: for a key ``LAYER.weight``, what is before the dot.
    role : {"weight", "bias", None}
        What it is to its layer.
    layout : {"oidhw", "dhwio", None}
        Order of the axes of weights, where the file's kind settles it.
    refusal : str or None
        Why it cannot be a Conv3d's kernel, where that is known.
    """

    key: str
    shape: tuple[int, ...] | None
    dtype: str
    layer: str | None = None
    role: str | None = None
    layout: str | None = None
    refusal: str | None = None
    place: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight and what belongs to it; ``attributes`` are parameters of :class:`volconv.Conv3d` by name."""

    weight: Weights
    bias: Weights | None = None
    attributes: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class WeightFile:
    """An open file of weights.

    Parameters
    ----------
    entries : sequence of Weights
        In the file's order.
    read : callable
        From an entry to its numbers, in any byte order and strides.
    layers : dict of str to Layer
        Names that stand for a weight and its bias together.
    model : bool
        Whether it holds the layers of a network, so that a weight of 4 axes is a Conv2d's and no bank of kernels.
    find : callable or None
        From a key that is not listed to its entry, or None.
    close : callable or None
        Lets go of what a library holds.
    """

    entries: Sequence[Weights]
    read: Callable[[Weights], NDArray[Any]]
    layers: Mapping[str, Layer]
    model: bool = True
    find: Callable[[str], Weights | None] | None = None
    close: Callable[[], None] | None = None


def role_of(key: str) -> tuple[str | None, str | None]:
    """Layer and role that a key tells of; None twice where it tells of none.

    Examples
    --------
    >>> role_of("encoder.0.weight"), role_of("conv3d|kernel"), role_of("bias"), role_of("psf")
    (('encoder.0', 'weight'), ('conv3d', 'weight'), ('', 'bias'), (None, None))
    """
    match = _ROLE.fullmatch(key)
    if match is None:
        return None, None
    return match[1] or "", "bias" if match[2] == "bias" else "weight"


def layers_of(entries: Iterable[Weights]) -> dict[str, Layer]:
    """Weights and biases that belong together, by their layers' names; a name that has two weights is none."""
    weights: dict[str, Weights | None] = {}
    biases: dict[str, Weights] = {}
    for entry in entries:
        if entry.layer is None:
            continue
        if entry.role == "bias":
            biases[entry.layer] = entry
        elif entry.role == "weight":
            weights[entry.layer] = None if entry.layer in weights else entry
    return {name: Layer(weight, biases.get(name)) for name, weight in weights.items() if weight is not None}


def check_size(shape: Sequence[int], dtype: np.dtype[Any], what: str) -> None:
    """Refuse an array that no kernel can be, before there is memory for it.

    Raises
    ------
    ReadError
    """
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= size <= MOST_BYTES or any(n < 0 for n in shape):
        raise ReadError(f"{what} must take at most {MOST_BYTES >> 30} GB (got shape {tuple(shape)}, {size} bytes)")


def check_count(count: int, path: str) -> None:
    """Refuse a file that holds more than any model does.

    Raises
    ------
    ReadError
    """
    if count > MOST_ENTRIES:
        raise ReadError(f"{path} must hold at most {MOST_ENTRIES} arrays (got {count})")


def from_bits(bits: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values of a dtype that NumPy has not.

    Parameters
    ----------
    bits : ndarray
        uint16 for bfloat16, which is the upper half of a float32; pairs of float16 along the last axis for complex32.
    dtype : {"bfloat16", "complex32"}

    Examples
    --------
    >>> import numpy as np
    >>> from_bits(np.array([0x3F80, 0xC000], np.uint16), "bfloat16")
    array([ 1., -2.], dtype=float32)
    """
    import numpy as np

    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(bits.astype(np.float32)).view(np.complex64)[..., 0]


def holds_objects(what: str) -> ReadError:
    """Tell of what would have to be executed."""
    return ReadError(
        f"{what} holds Python objects, which volconv never loads", hint="save the numbers as a plain NumPy array"
    )
