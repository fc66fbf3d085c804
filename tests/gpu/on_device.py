"""Who computes, with volumes that are on the device already: volconv's algorithms, PyTorch, cupyx.scipy.ndimage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import compute_dtype
from volconv.engines.factors import find_factors
from volconv.engines.planar import planar_weight
from volconv.plan import real_problem
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from workloads import Workload

PEERS = ("PyTorch", "cupyx.ndimage")


def algorithms(workload: Workload, device: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, float], str]:
    """Volconv's algorithms that can do this, as calls that give a device array; predicted seconds; which is picked."""
    from volconv.engines.gpu.plan import choose, get_engine
    from volconv.engines.gpu.source import Source

    xp = device.xp
    x, w, bias = workload.arrays()
    params, dtype = workload.params, compute_dtype(workload.result_dtype)
    problem = real_problem(params, workload.output_shape, dtype, find_factors(params, w, dtype))
    weight = planar_weight(w) if dtype.kind == "c" else w
    bias = np.zeros(len(weight), problem.dtype) if bias is None else bias
    size = workload.output_shape[2:]
    tables = tuple(
        xp.asarray(_table(params, axis, workload.input_shape[2 + axis], edge))
        for axis, edge in enumerate(block_shape(size, problem.params))
    )
    voxels = xp.asarray(x)
    sources = [Source(volume, tables) for volume in voxels]
    choice = choose("auto", problem)

    def call(name: str) -> Callable[[], Any]:
        stream = device.stream()
        prepared = get_engine(name).prepare(device, stream, problem, weight.astype(problem.dtype), bias)
        out = device.empty((len(sources), problem.params.out_channels, *size), problem.dtype)

        def compute() -> None:
            for source, result in zip(sources, out, strict=True):
                prepared(source, result)

        def run() -> Any:
            stream.enqueue(compute)
            return out

        return run

    return {name: call(name) for name in choice.candidates}, dict(choice.candidates), choice.algorithm


def _table(params: Any, axis: int, size: int, edge: int) -> np.ndarray:
    """Where voxels of the padded block lie; with one tap an axis it has those alone that outputs see."""
    step = params.stride[axis] if params.kernel_size[axis] == 1 else 1
    index = np.arange(edge) * step - params.padding_low[axis]
    return np.where((index >= 0) & (index < size), index, -1).astype(np.int32)


def as_volconv_gives_it(workload: Workload, out: Any) -> np.ndarray:
    """The result of an algorithm as conv3d returns it."""
    result = out.get()
    if workload.result_dtype.kind == "c":  # parts are channels side by side
        result = result[:, 0::2] + 1j * result[:, 1::2]
    return result


def peers(workload: Workload) -> dict[str, Callable[[], Any]]:
    """Those that are installed, and can do this."""
    found = {}
    for name, call in (_torch(workload) | _ndimage(workload)).items():
        try:
            call()
        except (RuntimeError, NotImplementedError, TypeError) as error:  # cuDNN has no convolution of every dtype
            print(f"{name} cannot do {workload.name}: {str(error).splitlines()[0]}")
        else:
            found[name] = call
    return found


def _torch(workload: Workload) -> dict[str, Callable[[], Any]]:
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the fastest that it has
    x, w, bias = (None if array is None else torch.from_numpy(array).cuda() for array in workload.arrays())

    def call() -> Any:
        volume = x if x.dtype == w.dtype else x.to(w.dtype)
        return torch.nn.functional.conv3d(volume, w, bias, **workload.parameters)

    return {"PyTorch": call}


def _ndimage(workload: Workload) -> dict[str, Callable[[], Any]]:
    if workload.input_shape[1] != 1 or workload.weight_shape[0] != 1 or workload.parameters != {"padding": "same"}:
        return {}
    import cupy
    from cupyx.scipy import ndimage

    x, w, _ = workload.arrays()
    volume, weight = cupy.asarray(x[0, 0]), cupy.asarray(w[0, 0].conj())  # it conjugates the weights of a correlation
    if workload.gaussian:
        return {"cupyx.ndimage": lambda: ndimage.gaussian_filter(volume, 2, mode="constant", truncate=4)}
    dtype = workload.result_dtype
    return {"cupyx.ndimage": lambda: ndimage.correlate(volume, weight, output=dtype, mode="constant")}
