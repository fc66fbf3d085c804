"""Units of length as files spell them."""

from __future__ import annotations

_SPELLINGS = {
    "m": ("m", 1.0),
    "meter": ("m", 1.0),
    "metre": ("m", 1.0),
    "cm": ("mm", 10.0),
    "centimeter": ("mm", 10.0),
    "inch": ("mm", 25.4),
    "in": ("mm", 25.4),
    "mm": ("mm", 1.0),
    "millimeter": ("mm", 1.0),
    "millimetre": ("mm", 1.0),
    "um": ("um", 1.0),
    "micron": ("um", 1.0),
    "microns": ("um", 1.0),
    "micrometer": ("um", 1.0),
    "micrometre": ("um", 1.0),
    "\u00b5m": ("um", 1.0),  # micro sign
    "\u03bcm": ("um", 1.0),  # Greek mu
    "\\u00b5m": ("um", 1.0),  # as ImageJ escapes it
    "nm": ("nm", 1.0),
    "nanometer": ("nm", 1.0),
    "nanometre": ("nm", 1.0),
    "\u00e5": ("nm", 0.1),
    "angstrom": ("nm", 0.1),
}


def normal_unit(text: str) -> tuple[str, float] | None:
    """One of volconv's units and the factor that leads to it; None where the text names no unit of length.

    Examples
    --------
    >>> normal_unit("micron"), normal_unit("cm"), normal_unit("pixel")
    (('um', 1.0), ('mm', 10.0), None)
    """
    return _SPELLINGS.get(text.strip().strip("\0").lower())
