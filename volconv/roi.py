"""Which outputs a region of interest asks for: those whose centres lie in it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from volconv.errors import ParameterError, ShapeError
from volconv.geometry import MILLIMETRES
from volconv.params import AXES

if TYPE_CHECKING:
    from volconv.geometry import Geometry
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_AXIS = re.compile(rf"\s*({_NUMBER})?\s*:\s*({_NUMBER})?\s*")
_ROI = re.compile(r"(.*?)\s*(mm|um|µm|μm|nm|m)?\s*")

#: Ends of a region that are closer to half an index than this are meant to be there: lengths are seldom exact.
_CLOSE = 1e-6


class Roi(NamedTuple):
    """A box of the input: for each of D, H, W where it begins and ends, None being the volume's own end.

    Without a ``unit``, whole voxels, the last one not included. With one, distances from the centre of the first voxel.
    """

    intervals: tuple[tuple[float | None, float | None], ...]
    unit: str | None


class Box(NamedTuple):
    """Outputs that are computed: the first one along D, H, W, and how many."""

    origin: Triple
    size: Triple


def parse_roi(text: str) -> Roi:
    """A region as it is written: ``z0:z1,y0:y1,x0:x1``, with a unit behind it where these are no voxels.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> parse_roi("10:20,:,5:")
    Roi(intervals=((10.0, 20.0), (None, None), (5.0, None)), unit=None)
    >>> parse_roi("0:40.5,0:60,0:60mm").unit
    'mm'
    """
    matched = _ROI.fullmatch(text) if isinstance(text, str) else None
    axes = [_AXIS.fullmatch(part) for part in matched[1].split(",")] if matched else []
    if matched is None or len(axes) != 3 or not all(axes):
        raise ParameterError(
            f"roi must be z0:z1,y0:y1,x0:x1, in voxels or with a unit ({', '.join(MILLIMETRES)}) at its end "
            f"(got {text!r})",
            hint="an end that is left out is the volume's, as in 10:20,:,5: or 0:40,0:60,0:60mm",
        )
    unit = "um" if matched[2] in ("µm", "μm") else matched[2]
    intervals = tuple((None if a[1] is None else float(a[1]), None if a[2] is None else float(a[2])) for a in axes if a)
    ends = [end for interval in intervals for end in interval if end is not None]
    if unit is None and not all(end >= 0 and end.is_integer() for end in ends):
        raise ParameterError(
            f"roi must count whole voxels from 0 (got {text!r})", hint="or give lengths with their unit: 0:40.5,:,:mm"
        )
    if not all(map(math.isfinite, ends)) or not all(a < b for a, b in intervals if a is not None and b is not None):
        raise ParameterError(f"roi must end behind its begin on every axis (got {text!r})")
    return Roi(intervals, unit)


def outputs_in(roi: Roi, output_shape: Index5, params: Conv3dParams, geometry: Geometry, source_name: str) -> Box:
    """The outputs whose centres lie in a region.

    Output ``o`` is centred on input index ``o*stride - pad_low + dilation*(kernel - 1)/2``. In voxels, ``a:b`` is what
    voxels ``a`` to ``b - 1`` cover: ``a - 1/2 <= index < b - 1/2``. In lengths it is ``a <= index*spacing < b``.

    Parameters
    ----------
    roi : Roi
    output_shape : tuple of 5 ints
        Of the whole convolution.
    params : Conv3dParams
    geometry : Geometry
        Of the input.
    source_name : str
        What errors call the input.

    Raises
    ------
    ParameterError
        Lengths, and the input states no spacing.
    ShapeError
        No output is centred in the region.

    Examples
    --------
    >>> from volconv.geometry import Geometry
    >>> from volconv.params import Conv3dParams
    >>> half = Conv3dParams.parse((1, 1, 2, 2, 2), stride=2)
    >>> outputs_in(parse_roi("4:9,:,:4"), (1, 1, 8, 8, 8), half, Geometry(), "volume")
    Box(origin=(2, 0, 0), size=(2, 8, 2))
    """
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    if roi.unit is not None:
        known = geometry.spacing_in(roi.unit)
        if known is None or not all(s > 0 for s in known):
            raise ParameterError(
                f"roi in {roi.unit} needs a spacing, and {source_name} states none",
                hint="state it (--spacing 1,0.5,0.5um), or count voxels",
            )
        spacing = known
    origin, size = [], []
    for axis, (low, high) in enumerate(roi.intervals):
        stride, count = params.stride[axis], output_shape[2 + axis]
        first = params.dilation[axis] * (params.kernel_size[axis] - 1) / 2 - params.padding_low[axis]
        ends = [0, count]
        for i, end in enumerate((low, high)):
            if end is not None:
                index = end / spacing[axis] if roi.unit else end - 0.5
                doubled = round(2 * index)
                index = doubled / 2 if abs(2 * index - doubled) <= _CLOSE else index
                ends[i] = max(0, min(count, math.ceil((index - first) / stride)))
        if ends[0] >= ends[1]:
            unit = roi.unit or ""
            centres = [f"{(first + o * stride) * spacing[axis]:g}{unit}" for o in (0, max(0, count - 1))]
            asked = ":".join("" if end is None else f"{end:g}" for end in (low, high))
            raise ShapeError(
                f"roi must hold an output's centre (got {AXES[axis]} {asked}{unit}, and {source_name}'s outputs have "
                f"theirs from {centres[0]} to {centres[1]}, {stride * spacing[axis]:g}{unit} apart)"
            )
        origin.append(ends[0])
        size.append(ends[1] - ends[0])
    return Box((origin[0], origin[1], origin[2]), (size[0], size[1], size[2]))
