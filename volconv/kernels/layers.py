"""Which entry of a file of weights a key means, and whether it could be a Conv3d's."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from volconv.errors import ReadError, ShapeError
from volconv.kernels.weights import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.kernels.weights import WeightFile, Weights

#: How many entries a message lists.
_LISTED = 10

#: Names of dtypes that hold numbers.
_NUMERIC = re.compile(r"(bool|u?int|float|bfloat|complex)\d*")

_TRANSPOSED = re.compile(r"transpos|deconv", re.IGNORECASE)

# torch.nn.utils.weight_norm, spectral_norm and parametrize keep parts that a weight is computed from.
_PART = re.compile(r"(?:^|[./])(?:weight_(?:g|v|orig)|parametrizations[./].+[./]original\d*)$")

#: Network layers by the axes of their weights.
_LAYERS = {2: "a Linear layer's", 3: "a Conv1d's", 4: "a Conv2d's"}


def chosen(file: WeightFile, path: str, key: str | None, name: str, axes: Sequence[int]) -> Layer:
    """The layer, or the entry without a bias, that a key names; without a key, the only one that fits.

    Parameters
    ----------
    file : WeightFile
    path : str
    key : str or None
        A layer's name ("encoder.0"), or an entry's ("encoder.0.weight").
    name : {"kernel", "bias"}
    axes : sequence of ints
        Numbers of axes that the array may have.

    Raises
    ------
    ReadError
        There is no such key, or it names what cannot be a Conv3d's, or several fit and none is named.
    ShapeError
        It names an array of another number of axes.
    """
    lone = file.entries[0] if len(file.entries) == 1 and not file.entries[0].key else None
    if lone is not None and key is not None:
        raise ReadError(f"{path} must be given without a key, it holds one array (got key {key!r})")
    layer = Layer(lone) if lone is not None else _named(file, key, name) if key is not None else None
    if layer is None:
        layer = _only(file, path, key, name, axes)
    entry = layer.weight
    what = f"{path}:{entry.key}" if entry.key else path
    if entry.shape is None or not _NUMERIC.fullmatch(entry.dtype):
        return layer  # reading it tells why not
    why = refusal(file, layer) if name == "kernel" else None
    if why is not None and entry.shape:
        raise ReadError(f"{what} {entry.shape} {why}, and no Conv3d's kernel")
    if len(entry.shape) not in axes:
        raise rank_error(name, entry, what, axes)
    if name == "kernel" and file.model and len(entry.shape) in _LAYERS and entry.role == "weight":
        raise ShapeError(
            f"{what} must have 5 axes to be a Conv3d's kernel (got shape {entry.shape}, "
            f"which is {_LAYERS[len(entry.shape)]} weight)"
        )
    return layer


def rank_error(name: str, entry: Weights, what: str, axes: Sequence[int]) -> ShapeError:
    """Tell of an array that is of no use for its shape or dtype."""
    rule = f"{', '.join(map(str, axes[:-1]))} or {axes[-1]} axes" if len(axes) > 1 else f"{axes[0]} axis"
    return ShapeError(f"{name} must be a numeric array of {rule} (got shape {entry.shape} of {entry.dtype} in {what})")


def refusal(file: WeightFile, layer: Layer) -> str | None:
    """Why a weight cannot be a Conv3d's kernel, whatever its shape; None where it may be one."""
    entry = layer.weight
    if entry.refusal is not None:
        return entry.refusal
    if _TRANSPOSED.search(entry.key):
        return "is the weight of a transposed convolution by its name"
    if _PART.search(entry.key):
        return "is a part that a weight is computed from"
    mate = file.layers.get(entry.layer or "")
    bias = layer.bias or (mate.bias if mate is not None and mate.weight.key == entry.key else None)
    if entry.layout == "oidhw" and bias is not None and entry.shape and len(entry.shape) == 5 and bias.shape:
        outs, ins = entry.shape[:2]
        if ins and bias.shape[0] != outs and bias.shape[0] % ins == 0:
            return f"is the weight of a transposed convolution by its bias of {bias.shape[0]}"
    return None


def candidates(file: WeightFile, name: str, axes: Sequence[int]) -> dict[str, Layer]:
    """What could be meant, by the names that stand for it."""
    by_weight = {layer.weight.key: (label, layer) for label, layer in reversed(list(file.layers.items()))}
    found = {}
    for entry in file.entries:
        if entry.shape is None or len(entry.shape) not in axes or not _NUMERIC.fullmatch(entry.dtype):
            continue
        if entry.key.lstrip("/").startswith(("optim", "_optim")):
            continue  # a checkpoint's: of the shapes of what they are for
        label, layer = by_weight.get(entry.key, ("", Layer(entry))) if name == "kernel" else ("", Layer(entry))
        if name == "kernel" and (
            refusal(file, layer) or (file.model and entry.role == "weight" and len(entry.shape) in _LAYERS)
        ):
            continue
        found[label or entry.key] = layer
    return found


def _named(file: WeightFile, key: str, name: str) -> Layer | None:
    """What a key names: an entry, or a layer."""
    plain = key.lstrip("/")
    for entry in file.entries:
        if plain and entry.key.lstrip("/") == plain:
            return Layer(entry)
    layer = file.layers.get(plain) if plain else None
    if layer is not None and name == "bias":
        return None if layer.bias is None else Layer(layer.bias)
    if layer is None and file.find is not None:
        entry_found = file.find(key)
        return None if entry_found is None else Layer(entry_found)
    return layer


def _only(file: WeightFile, path: str, key: str | None, name: str, axes: Sequence[int]) -> Layer:
    """The only one that fits, where no key is given."""
    found = candidates(file, name, axes)
    if key is None and len(found) == 1:
        return next(iter(found.values()))
    if key is None and len(file.entries) == 1:
        return Layer(file.entries[0])  # whoever looks at it tells what is wrong with it
    listing = [f"{_short(label)} {layer.weight.shape}" for label, layer in found.items()]
    if listing:
        more = len(listing) - _LISTED
        holds = f"it holds {', '.join(listing[:_LISTED])}" + (f", and {more} more" if more > 0 else "")
    else:
        fitting = "of 1 axis" if name == "bias" else "that could be a Conv3d's kernel"
        shown = [f"{_short(entry.key)} {entry.shape or entry.dtype}" for entry in file.entries[:3]]
        more = len(file.entries) - len(shown)
        rest = f": {', '.join(shown)}" + (f", and {more} more" if more > 0 else "") if shown else ""
        holds = f"it holds {len(file.entries)} arrays, none {fitting}{rest}" if shown else "it holds no arrays"
    if key is None:
        example = next(iter(found), "KEY")
        raise ReadError(
            f"{name} must say which array of {path} to read ({holds})",
            hint=f"as in {path}:{example}" if found else None,
        )
    raise ReadError(
        f"{path} has no {'layer or array' if name == 'kernel' else 'array'} {key!r} ({holds})", hint=_close(key, found)
    )


def _short(label: str) -> str:
    """A name that a file gives, for lists."""
    return label if len(label) <= 60 else f"...{label[-57:]}"


def _close(key: str, found: dict[str, Layer]) -> str | None:
    """A name that may have been meant: one that has the key in it, or is spelled much like it."""
    plain = key.strip("./")
    inside = [label for label in found if plain and plain in label]
    close = inside or difflib.get_close_matches(key, list(found)[:1000], n=1)
    return f"did you mean {close[0]}?" if close else None
