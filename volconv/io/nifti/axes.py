"""Which axes files have whose first three are X, Y, Z (NIfTI, MGH), and what ``--axes`` may say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volconv.errors import ParameterError
from volconv.io.axes import AXIS, parse_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The axes in the order in which nibabel shows them, fastest first: the 4th is time unless ``--axes`` says otherwise.
AXES = "XYZTC"


def file_axes(text: str | None, sizes: Sequence[int], name: str, title: str) -> str:
    """Letters of a file's axes, of "XYZTC", in nibabel's order.

    Parameters
    ----------
    text : str or None
        What ``--axes`` says; it may leave out trailing axes of size 1.
    sizes : sequence of int
        In nibabel's order.
    name : str
        Of the file, for messages.
    title : str
        Of its format, for messages.

    Raises
    ------
    ParameterError
        Axes that the file cannot have.

    Examples
    --------
    >>> file_axes(None, (4, 5, 6, 2), "a.nii", "NIfTI"), file_axes("xyzc", (4, 5, 6, 2), "a.nii", "NIfTI")
    ('XYZT', 'XYZC')
    """
    if text is None:
        return AXES[: len(sizes)]
    if all(size == 1 for size in sizes[len(text) :]):
        sizes = sizes[: len(text)]
    given = parse_axes(text, sizes, name)
    letters = "".join("TCZYX"[AXIS[letter]] for letter in given)
    if "S" in given or not letters.startswith("XYZ"[: len(letters)]):
        raise ParameterError(
            f"axes of {name} must be XYZ, then T (or N) and C (got {text!r})",
            hint=f"in {title} X, Y, Z come first: did you mean {_meant(letters)}?",
        )
    return letters


def _meant(letters: str) -> str:
    """The nearest that can be: arrays' order, slowest first, turned around."""
    rest = [letter for letter in letters if letter in "TC"]
    guess = "XYZ" + "".join(reversed(rest) if letters.endswith("X") else rest)
    return guess if len(guess) == len(letters) else AXES[: len(letters)]
