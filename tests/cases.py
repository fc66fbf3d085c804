"""Convolutions drawn at random: all parameters at once, every one valid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st

MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
DTYPES = ("float16", "float32", "float64", "complex64", "complex128", "int16", "uint8")


def few(parameters, *kept):
    """Parameters of a test, of which all but a few are left to the slow tests."""

    def slow(one):
        return pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow)

    return [one if one in kept else slow(one) for one in parameters]


@dataclass(frozen=True)
class Case:
    """Shapes and parameters of one convolution, and the seed of its values."""

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, int, int]
    padding: tuple[int, int, int] | str
    dilation: tuple[int, int, int]
    groups: int
    mode: str
    bias: bool
    seed: int
    product: bool = False

    def arrays(self, dtype):
        """Input, weight and bias."""
        rng = np.random.default_rng(self.seed)
        x, w, b = (values(rng, shape, dtype) for shape in (self.input_shape, self.weight_shape, self.weight_shape[:1]))
        if self.product:  # of three 1-D kernels
            w = (w[:, :, :, :1, :1] * w[:, :, :1, :, :1] * w[:, :, :1, :1, :]).astype(dtype)
        return x, w, b if self.bias else None

    @property
    def parameters(self):
        """Keywords of ``volconv.conv3d``."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.mode,
        }

    @property
    def reference_parameters(self):
        """Keywords of ``reference.conv3d``."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "mode": self.mode,
        }


def values(rng, shape, dtype):
    """Random values of a dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -(2**20)), min(info.max, 2**20), shape, endpoint=True).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def draw_case(integer, choice, flag, algorithm="direct"):
    """A case for an algorithm, from a source of choices: ``integer(low, high)``, ``choice(options)``, ``flag()``."""
    kernel = tuple(integer(1, 4) for _ in range(3))
    if algorithm == "winograd":
        kernel = (*choice([(3, 3), (3, 1), (1, 3)]), kernel[2])
    if algorithm == "separable":
        kernel = choice([(kernel[0], 2, 3), (3, kernel[1], 2), (2, 3, kernel[2])])
    dilation = tuple(integer(1, 3) for _ in range(3))
    stride = tuple(1 if algorithm == "winograd" else integer(1, 3) for _ in range(3))
    mode = choice(MODES)
    groups = integer(1, 3)
    per_in, per_out = 1 if algorithm == "separable" else integer(1, 4), integer(1 + (algorithm == "channels"), 12)
    padding = choice(["numbers", "numbers", "numbers", "valid", "same"])
    effective = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    if padding == "same":
        stride = (1, 1, 1)
        widest = [e // 2 for e in effective]
        sizes = [integer(w + 1, w + 9) for w in widest]
    elif padding == "valid":
        sizes = [integer(e, e + 8) for e in effective]
    else:
        sizes = [integer(1, 12) for _ in range(3)]
        limits = [6 if mode in ("zeros", "replicate") else s - 1 if mode == "reflect" else s for s in sizes]
        padding = tuple(integer(0, limit) for limit in limits)
        sizes = [max(s, e - 2 * p) for s, e, p in zip(sizes, effective, padding)]
    return Case(
        input_shape=(integer(1, 2), groups * per_in, *sizes),
        weight_shape=(groups * per_out, per_in, *kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        mode=mode,
        bias=flag(),
        seed=integer(0, 2**32 - 1),
        product=algorithm == "separable",
    )


@st.composite
def cases(draw, algorithm="direct"):
    """Cases as a hypothesis strategy, which shrinks to the simplest one that fails."""
    return draw_case(
        lambda low, high: draw(st.integers(low, high)),
        lambda options: draw(st.sampled_from(options)),
        lambda: draw(st.booleans()),
        algorithm,
    )


def random_case(rng, algorithm="direct"):
    """A case from a NumPy generator, where thousands are wanted quickly."""
    return draw_case(
        lambda low, high: int(rng.integers(low, high, endpoint=True)),
        lambda options: options[rng.integers(len(options))],
        lambda: bool(rng.integers(2)),
        algorithm,
    )
