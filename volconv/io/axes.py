"""Letters of axes, and how a file's axes become (N, C, D, H, W)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.region import Index5

#: Letter -> axis of (N, C, D, H, W): microscopy's names and Conv3d's own; S are samples of a colour.
AXIS = {"T": 0, "N": 0, "C": 1, "S": 1, "Z": 2, "D": 2, "Y": 3, "H": 3, "X": 4, "W": 4}

#: For messages.
LETTERS = "T (or N), C, Z, Y, X"


class Arrangement(NamedTuple):
    """How an array of a file is a volume.

    ``shape``: (N, C, D, H, W). ``order``: all five axes in the order in which the file holds them, slowest first;
    those that it lacks, of size 1, come first of all.
    """

    shape: Index5
    order: Index5


def arrange(axes: str, sizes: Sequence[int]) -> Arrangement:
    """Arrange an array whose axes, slowest first, have these letters (each axis once, see :func:`parse_axes`).

    Examples
    --------
    >>> arrange("ZCYX", (7, 2, 5, 6))
    Arrangement(shape=(1, 2, 7, 5, 6), order=(0, 2, 1, 3, 4))
    """
    used = [AXIS[letter] for letter in axes]
    shape = [1, 1, 1, 1, 1]
    for axis, size in zip(used, sizes, strict=True):
        shape[axis] = int(size)
    n, c, d, h, w = shape
    a, b, e, f, g = [axis for axis in range(5) if axis not in used] + used
    return Arrangement((n, c, d, h, w), (a, b, e, f, g))


def parse_axes(text: str, sizes: Sequence[int], name: str) -> str:
    """Check what ``--axes`` says of an array of these sizes; upper case.

    Raises
    ------
    ParameterError
        An unknown letter, one axis twice, or another number of axes than the file has.
    """
    axes = text.upper()
    unknown = [letter for letter in axes if letter not in AXIS]
    twice = len({AXIS[letter] for letter in axes if letter in AXIS}) < len(axes) - len(unknown)
    if unknown or twice or len(axes) != len(sizes):
        raise ParameterError(
            f"axes must name each of the {len(sizes)} axes of {name}, shape {tuple(sizes)}, once (got {text!r})",
            hint=f"letters are {LETTERS}, in the file's own order",
        )
    return axes
