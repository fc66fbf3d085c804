"""Weights of ONNX models: initialisers, and Conv nodes with their attributes.

Attributes: https://onnx.ai/onnx/operators/onnx__Conv.html
"""

from __future__ import annotations

import math
import os
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError
from volconv.kernels.weights.entries import (
    Layer,
    WeightFile,
    Weights,
    check_count,
    check_size,
    from_bits,
    layers_of,
    role_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: TensorProto.DataType -> name, and where numbers are that are no raw bytes (NumPy's dtype of that field).
_DTYPES = {
    1: ("float32", "float_data", "float32"),
    2: ("uint8", "int32_data", "int32"),
    3: ("int8", "int32_data", "int32"),
    4: ("uint16", "int32_data", "int32"),
    5: ("int16", "int32_data", "int32"),
    6: ("int32", "int32_data", "int32"),
    7: ("int64", "int64_data", "int64"),
    9: ("bool", "int32_data", "int32"),
    10: ("float16", "int32_data", "int32"),
    11: ("float64", "double_data", "float64"),
    12: ("uint32", "uint64_data", "uint64"),
    13: ("uint64", "uint64_data", "uint64"),
    14: ("complex64", "float_data", "float32"),
    15: ("complex128", "double_data", "float64"),
    16: ("bfloat16", "int32_data", "int32"),
}

#: What protobuf itself can hold.
_MOST_BYTES = (1 << 31) - 1

_TRANSPOSED = "is the weight of a transposed convolution"


def open_onnx(file: IO[bytes], path: str) -> WeightFile:
    """The initialisers of a model; its Conv nodes are layers, with the parameters that they state.

    Raises
    ------
    ReadError
        The onnx library is missing, or it is no model.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ReadError(f"{path} needs the onnx library to be read", hint="install volconv[onnx]") from error
    size = os.fstat(file.fileno()).st_size
    if size > _MOST_BYTES:
        raise ReadError(f"{path} must take less than 2 GB to be an ONNX model (got {size} bytes)")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file.read())
    except DecodeError as error:
        raise ReadError(f"{path} is no ONNX model, or a damaged one") from error
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for value in (a.t for a in node.attribute if a.name == "value" and a.HasField("t")):
                tensors[node.output[0]] = value
    if not graph.node and not tensors:
        raise ReadError(f"{path} is no ONNX model, or an empty one")
    check_count(len(tensors) + len(graph.node), path)
    transposed = {node.input[1] for node in graph.node if node.op_type == "ConvTranspose" and len(node.input) > 1}
    entries = {name: _entry(name, tensor, name in transposed) for name, tensor in tensors.items()}
    return WeightFile(list(entries.values()), lambda entry: _values(entry, path), _layers(graph, entries))


def _entry(name: str, tensor: Any, transposed: bool) -> Weights:
    layer, role = role_of(name)
    dtype = _DTYPES.get(tensor.data_type, (f"type {tensor.data_type}",))[0]
    refusal = _TRANSPOSED if transposed else None
    return Weights(name, tuple(tensor.dims), dtype, layer, role, "oidhw", refusal, place=tensor)


def _layers(graph: Any, entries: dict[str, Weights]) -> dict[str, Layer]:
    """Convolutions by their nodes' names, and by their weights' names where one node alone has a weight."""
    nodes: dict[str, Layer] = {}
    users: dict[str, list[Layer]] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 2 or node.input[1] not in entries:
            continue
        bias = entries.get(node.input[2]) if len(node.input) > 2 else None
        layer = Layer(entries[node.input[1]], bias, _attributes(node))
        nodes[node.name or (node.output[0] if node.output else node.input[1])] = layer
        users.setdefault(layer.weight.key, []).append(layer)
    named = layers_of(entries.values())
    for name, layer in named.items():
        used = users.get(layer.weight.key, [])
        if len(used) == 1:
            named[name] = used[0]
    return named | nodes


def _attributes(node: Any) -> dict[str, Any]:
    """Parameters of a Conv3d that a node states, by their names there; "padding" may be words that say why not."""
    given = {a.name: a for a in node.attribute}
    found: dict[str, Any] = {}
    for name, key in (("strides", "stride"), ("dilations", "dilation")):
        if name in given:
            found[key] = list(given[name].ints)
    if "group" in given:
        found["groups"] = given["group"].i
    auto = given["auto_pad"].s.decode("utf-8", "replace") if "auto_pad" in given else "NOTSET"
    if auto not in ("NOTSET", ""):
        found["auto_pad"] = auto
    elif "pads" in given:
        found["pads"] = list(given["pads"].ints)
    return found


def _values(entry: Weights, path: str) -> NDArray[Any]:
    tensor, what = entry.place, f"{path}:{entry.key}"
    if tensor.data_location == 1:
        raise ReadError(
            f"{what} keeps its numbers in another file, and other files are not followed",
            hint="save the model as one file: onnx.save(onnx.load(FILE), NEW)",
        )
    if tensor.data_type not in _DTYPES:
        raise ReadError(f"{what} must be of a dtype that is read (got ONNX's {entry.dtype})")
    name, field, kind = _DTYPES[tensor.data_type]
    stored = np.dtype("uint16" if name == "bfloat16" else name)
    shape = entry.shape or ()
    check_size(shape, stored, what)
    raw, numbers = tensor.HasField("raw_data"), getattr(tensor, field)
    count = len(tensor.raw_data) / stored.itemsize if raw else len(numbers) / (2 if stored.kind == "c" else 1)
    if count != math.prod(shape):
        raise ReadError(f"{what} is damaged: it has {count:g} numbers, and its shape is {shape}")
    if raw:
        values = np.frombuffer(tensor.raw_data, stored.newbyteorder("<")).reshape(shape)
    elif name in ("float16", "bfloat16"):  # their bits, each as an integer
        values = np.array(numbers, kind).astype(np.uint16).view(stored).reshape(shape)
    else:
        array = np.array(numbers, kind)
        values = (array.view(stored) if stored.kind == "c" else array.astype(stored)).reshape(shape)
    return from_bits(values, name) if name == "bfloat16" else values
