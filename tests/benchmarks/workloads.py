"""What is computed: shapes, parameters, dtypes, and how much faster volconv is meant to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volconv.geometry import Geometry
from volconv.kernels import load_kernel
from volconv.params import Conv3dParams
from volconv.shapes import full_output_shape, multiply_adds

THREADS = 2
GAUSSIAN = "gaussian:sigma=2"


@dataclass(frozen=True)
class Workload:
    """One convolution of arrays.

    ``target`` is the least wanted ratio of a peer's time to volconv's: PyTorch's, or what ``contenders`` says for a
    Gaussian and for integers. ``headline`` marks the rows that matter most.
    """

    name: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    headline: bool = False
    dtype: str = "float32"
    gaussian: bool = False
    bias: bool = False

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Input, weight and bias; the same in every run."""
        rng = np.random.default_rng(0)
        x = random_array(rng, self.input_shape, self.dtype)
        w = gaussian_weight() if self.gaussian else random_array(rng, self.weight_shape, self.result_dtype)
        return x, w, random_array(rng, self.weight_shape[:1], self.result_dtype) if self.bias else None

    @property
    def result_dtype(self) -> np.dtype:
        """That of weights and results: float32 for small integers."""
        return np.result_type(self.dtype, np.float32)

    @property
    def params(self) -> Conv3dParams:
        return Conv3dParams.parse(self.weight_shape, **self.parameters)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return full_output_shape(self.input_shape, self.params)

    @property
    def multiply_adds(self) -> int:
        """Those of the direct sum, whatever the algorithm."""
        return multiply_adds(self.output_shape, self.params)


def gaussian_weight() -> np.ndarray:
    """The dense kernel of ``-k gaussian:sigma=2``, 17 voxels wide."""
    return load_kernel(GAUSSIAN, Geometry()).weight.astype(np.float32)[None, None]


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    if dtype.kind == "c":
        parts = [random_array(rng, shape, np.empty(0, dtype).real.dtype) for _ in range(2)]
        return (parts[0] + 1j * parts[1]).astype(dtype)
    return rng.standard_normal(shape, dtype)


def _one_channel(name: str, size: int, kernel: int, target: float, **more: Any) -> Workload:
    return Workload(
        f"1->1 {name} same {size}^3",
        (1, 1, size, size, size),
        (1, 1, kernel, kernel, kernel),
        {"padding": "same"},
        target,
        **more,
    )


_MODULE_INPUT = (20, 16, 10, 50, 100)

LAYERS = [
    _one_channel("3^3", 256, 3, 40, headline=True),
    _one_channel("5^3", 256, 5, 30),
    _one_channel("7^3", 256, 7, 25),
    _one_channel("11^3", 192, 11, 20),
    _one_channel("31^3", 128, 31, 100),
    _one_channel("gaussian sigma 2 (17^3)", 256, 17, 8, headline=True, gaussian=True),
    Workload("1->8 3^3 pad 1 128^3", (1, 1, 128, 128, 128), (8, 1, 3, 3, 3), {"padding": 1}, 12),
    Workload("1->32 3^3 pad 1 128^3", (1, 1, 128, 128, 128), (32, 1, 3, 3, 3), {"padding": 1}, 10),
    Workload("16->33 3^3 stride 2, 20 of 10x50x100", _MODULE_INPUT, (33, 16, 3, 3, 3), {"stride": 2}, 2),
    Workload(
        "16->33 (3,5,2) stride (2,1,1) pad (4,2,0), the same",
        _MODULE_INPUT,
        (33, 16, 3, 5, 2),
        {"stride": (2, 1, 1), "padding": (4, 2, 0)},
        2,
        headline=True,
    ),
    Workload("32->32 3^3 pad 1 64^3", (1, 32, 64, 64, 64), (32, 32, 3, 3, 3), {"padding": 1}, 1.6, headline=True),
    Workload(
        "32->32 3^3 dilation 4 pad 4 64^3",
        (1, 32, 64, 64, 64),
        (32, 32, 3, 3, 3),
        {"dilation": 4, "padding": 4},
        1.5,
    ),
    Workload("64->64 3^3 pad 1 48^3", (1, 64, 48, 48, 48), (64, 64, 3, 3, 3), {"padding": 1}, 1.3),
    Workload("128->128 3^3 pad 1 32^3", (1, 128, 32, 32, 32), (128, 128, 3, 3, 3), {"padding": 1}, 1.15),
    Workload("64->64 1^3 64^3", (1, 64, 64, 64, 64), (64, 64, 1, 1, 1), {}, 4),
    Workload("depthwise 32 3^3 pad 1 96^3", (1, 32, 96, 96, 96), (32, 1, 3, 3, 3), {"padding": 1, "groups": 32}, 12),
    Workload("32->32 groups 4 3^3 pad 1 96^3", (1, 32, 96, 96, 96), (32, 8, 3, 3, 3), {"padding": 1, "groups": 4}, 2),
    Workload(
        "5->5 3^3 dilation 8 pad 8 128^3",
        (1, 5, 128, 128, 128),
        (5, 5, 3, 3, 3),
        {"dilation": 8, "padding": 8},
        4,
    ),
    _one_channel("3^3 of uint8", 256, 3, 1, dtype="uint8"),
    _one_channel("3^3 of int16", 256, 3, 1, dtype="int16"),
    _one_channel("3^3 of float64", 192, 3, 15, dtype="float64"),
    _one_channel("3^3 of complex64", 192, 3, 15, dtype="complex64"),
]
