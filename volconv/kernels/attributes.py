"""Parameters that a file states of its own: an ONNX node's strides and pads, a volume's spacing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.errors import ParameterError
from volconv.geometry import Geometry

if TYPE_CHECKING:
    from volconv.kernels.files import LoadedLayer

#: How far spacings may differ, as a part, before they are told of.
_NEARLY = 1e-3


def stated_parameters(layer: LoadedLayer, geometry: Geometry) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a file says of stride, padding, dilation and groups, and what to know about its weights.

    Parameters
    ----------
    layer : LoadedLayer
    geometry : Geometry
        Of the volume that the kernel is for.

    Returns
    -------
    parameters : dict
        Of :class:`volconv.Conv3d`. "padding" is an error where what the file says is no padding of a Conv3d.
    notes : tuple of str
    """
    if isinstance(layer.place, Geometry):
        return {}, _spacing_note(layer, geometry)
    attributes = dict(layer.attributes)
    kernel = layer.weight.shape[2:]
    pads, auto = attributes.pop("pads", None), attributes.pop("auto_pad", None)
    if auto is not None or pads is not None:
        ones = [1] * len(kernel)
        spans = [d * (k - 1) for d, k in zip(attributes.get("dilation", ones), kernel, strict=False)]
        strides = attributes.get("stride", ones)
        attributes["padding"] = _padding(pads, auto, spans, strides, layer.name)
    return attributes, ()


def _padding(pads: list[int] | None, auto: str | None, spans: list[int], strides: list[int], name: str) -> Any:
    """What ``pads`` or ``auto_pad`` is as a padding, or the error that it is none.

    ONNX: "pads format should be [x1_begin, x2_begin, ..., x1_end, x2_end, ...]"; SAME_UPPER adds the odd voxel at the
    end, as "same" does, SAME_LOWER at the beginning.
    """
    even = all(span % 2 == 0 for span in spans)
    if auto == "VALID":
        return 0
    if auto is not None:
        if set(strides) == {1} and (auto == "SAME_UPPER" or (auto == "SAME_LOWER" and even)):
            return "same"
        return _no_padding(f"auto_pad {auto} with stride {_joined(strides)}", name)
    pads = pads or []
    low, high = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    if low == high and all(pad >= 0 for pad in low):
        return low
    if set(strides) == {1} and low == [s // 2 for s in spans] and high == [s - s // 2 for s in spans]:
        return "same"
    return _no_padding(f"pads {_joined(low)} before and {_joined(high)} after", name)


def _no_padding(what: str, name: str) -> ParameterError:
    return ParameterError(
        f"padding must be given: {name} has {what}, and a Conv3d pads both sides of an axis alike",
        hint="give --padding (padding=) in its place",
    )


def _joined(values: list[int]) -> str:
    return ",".join(map(str, values))


def _spacing_note(layer: LoadedLayer, geometry: Geometry) -> tuple[str, ...]:
    """Tell where a kernel's voxels are of another size than the volume's: nothing is resampled."""
    mine: Geometry = layer.place
    here = None if mine.unit is None else geometry.spacing_in(mine.unit)
    if here is None or all(abs(a - b) <= _NEARLY * b for a, b in zip(mine.spacing, here, strict=True)):
        return ()
    sizes = ["x".join(f"{step:.4g}" for step in spacing) for spacing in (mine.spacing, here)]
    told = f"voxels in {layer.name} are {sizes[0]} {mine.unit}, those of the volume {sizes[1]} {mine.unit}"
    return (f"{told}: the kernel is applied voxel by voxel",)
