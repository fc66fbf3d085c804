"""Which way a volume's axes run in a body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nibabel.orientations import aff2axcodes

if TYPE_CHECKING:
    from volconv.geometry import Geometry


def orientation(geometry: Geometry) -> str:
    """Letters of the directions in which x, y, z of a file grow (W, H, D), for a world of NIfTI's kind.

    Right, Left; Anterior, Posterior; Superior, Inferior: each axis by the direction that it is closest to, "?" where
    a flat affine leaves it none.

    Examples
    --------
    >>> from volconv.geometry import Geometry
    >>> orientation(Geometry()), orientation(Geometry(((-2, 0, 0, 90), (0, 0, 3, 0), (0, 2, 0, 0), (0, 0, 0, 1)), "mm"))
    ('RAS', 'LSA')
    """
    letters = aff2axcodes(geometry.matrix)  # type: ignore[no-untyped-call]  # nibabel types only some of its functions
    return "".join(letter or "?" for letter in letters)
