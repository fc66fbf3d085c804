"""Who computes: volconv, PyTorch, SciPy and SimpleITK, each with its inputs made beforehand."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import SimpleITK
import torch
from workloads import THREADS

import volconv

if TYPE_CHECKING:
    from collections.abc import Callable

    from workloads import Workload

OURS = "volconv"
TORCH = "PyTorch"

#: Largest difference from an exact peer, in units of eps * max(|weight| * |input| + |bias|): twice the error bound.
LARGEST_DIFFERENCE = 32


@dataclass(frozen=True)
class Contender:
    """A call that gives a result of its own kind, and how that becomes an array.

    ``judge``: the workload's target is against this one (against the fastest, if they are several).
    """

    name: str
    call: Callable[[], Any]
    array: Callable[[Any], np.ndarray] = np.asarray
    judge: bool = False
    exact: bool = True


def prepare_peers() -> None:
    """Let PyTorch and SimpleITK use as many threads as volconv is given, and nothing but compute."""
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(THREADS)


def contenders(workload: Workload, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> list[Contender]:
    """Volconv, and all that can do the same; SciPy and SimpleITK for one channel only."""

    def ours(volume: np.ndarray) -> np.ndarray:
        return volconv.conv3d(volume, w, bias, threads=THREADS, **workload.parameters)

    found = [Contender(OURS, lambda: ours(x))]
    integers = x.dtype.kind in "iu"
    if integers:
        as_float = x.astype(np.float32)
        found.append(Contender("volconv of float32", lambda: ours(as_float), judge=True))
    if workload.gaussian:
        found += _gaussians(x)
        return found
    found.append(_torch(workload, x, w, bias, judge=not integers))
    if workload.input_shape[1] == workload.weight_shape[0] == 1 and workload.parameters == {"padding": "same"}:
        found += _scipy(x[0, 0], w[0, 0])
    return found


def _torch(workload: Workload, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, judge: bool) -> Contender:
    volume, weight = torch.from_numpy(x), torch.from_numpy(w)
    offset = None if bias is None else torch.from_numpy(bias)

    def call() -> torch.Tensor:
        same_dtype = volume if volume.dtype == weight.dtype else volume.float()
        return torch.nn.functional.conv3d(same_dtype, weight, offset, **workload.parameters)

    return Contender(TORCH, call, lambda result: result.numpy(), judge)


def _scipy(x: np.ndarray, w: np.ndarray) -> list[Contender]:
    if len(w) <= 5:
        # SciPy conjugates the weights of a correlation, Conv3d does not.
        weight, dtype = w.conj(), np.result_type(x, w)
        return [Contender("SciPy correlate", lambda: scipy.ndimage.correlate(x, weight, output=dtype, mode="constant"))]
    if len(w) < 11:
        return []
    flipped = np.ascontiguousarray(w[::-1, ::-1, ::-1])

    def by_fft(function: Callable[..., np.ndarray]) -> np.ndarray:
        with scipy.fft.set_workers(THREADS):
            return function(x, flipped, mode="same")

    return [
        Contender("SciPy fftconvolve", lambda: by_fft(scipy.signal.fftconvolve)),
        Contender("SciPy oaconvolve", lambda: by_fft(scipy.signal.oaconvolve)),
    ]


def _gaussians(x: np.ndarray) -> list[Contender]:
    volume = x[0, 0]
    image = SimpleITK.GetImageFromArray(volume)
    array = SimpleITK.GetArrayFromImage  # a copy: a view does not keep its image alive
    return [
        Contender(
            "SciPy gaussian_filter",
            lambda: scipy.ndimage.gaussian_filter(volume, 2, mode="constant", truncate=4),
            judge=True,
        ),
        Contender(
            "SimpleITK SmoothingRecursiveGaussian",
            lambda: SimpleITK.SmoothingRecursiveGaussian(image, 2.0),
            array,
            judge=True,
            exact=False,
        ),
        Contender("SimpleITK DiscreteGaussian", lambda: SimpleITK.DiscreteGaussian(image, 4.0), array, exact=False),
    ]


def magnitude(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, parameters: dict[str, Any]) -> float:
    """``max(|weight| * |input| + |bias|)``, which errors are measured by."""
    volume, weight = np.abs(x.astype(w.dtype)), np.abs(w)
    offset = None if bias is None else np.abs(bias)
    return float(volconv.conv3d(volume, weight, offset, threads=THREADS, **parameters).max())


def difference(ours: np.ndarray, theirs: np.ndarray, scale: float) -> float:
    """Largest difference in units of ``eps * scale``."""
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max()) / (float(np.finfo(ours.dtype).eps) * scale)


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far an approximation is off, as a part of the largest value; not near the edges, which it pads otherwise."""
    inside = (slice(24, -24),) * 3
    ours = ours.reshape(theirs.shape)[inside]
    return float(np.abs(ours - theirs[inside]).max() / np.abs(ours).max())
