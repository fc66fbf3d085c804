"""The compiled loops of the fft algorithm as functions to call, and how much room they need.

What they do is in :mod:`volconv.engines.cpu.fft_kernels`, which is loaded only to compile them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from volconv.engines.cpu.fft_tiles import CHAIN, ELEMENT
from volconv.engines.cpu.memory import LINE
from volconv.engines.cpu.native import Argument, Array, native

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Spectra of kernels that are made at a time: a share of L2 (set by tests/benchmarks/algorithms.py).
MADE_BYTES = 1 << 18


@cache
def compiled_enter(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The forward transform along D of one channel, compiled for one dtype.

    It takes

    like : array of the dtype
    data, plane, row : addresses and bytes
        Where voxels lie; lines are read to the end of their last vector.
    shape : tuple of 3 ints
        Voxels (D, H, W).
    passes, twists : arrays
        Of the axis.
    buffer, zeros : addresses
        For one line of elements; of a line of zeros.
    spectrum, depth_gap : address and bytes
        Where elements go, in the order (frequency along D, H, W); those of neighbouring frequencies lie so far apart.
    """
    return _native("enter", dtype, "aiii3PRiiii")


@cache
def compiled_middle(dtype: np.dtype[Any]) -> Callable[..., None]:
    """What lies between the transforms along D: those along H and W, products, and back; compiled for one dtype.

    Spectra of kernels are made where they are used: it takes no more time than to fetch them from memory.

    It takes

    like : array of the dtype
    half, size : int and (H, W)
        Frequencies.
    source, shape, gaps : address, (C_in, H, W), bytes between channels and between frequencies along D
        What came from D.
    kernel, kernel_shape, kernel_gaps : address, (H, W), bytes
        The same of kernels, of which there are C_out*C_in.
    target, target_shape, step : address, (C_out, H, W), int
        What goes back to D: along H, only every so many rows; gaps are those of the source, which it may overwrite.
    row_passes, column_passes : arrays
    work, together : address, int
        Of :func:`work_elements` elements, for so many channels' kernels at a time.
    """
    return _native("middle", dtype, "ai2i32i22i3iPPii")


@cache
def compiled_leave(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The inverse transform along D of one channel, compiled for one dtype.

    It takes

    like : array of one value of the dtype
        The bias.
    spectrum, depth_gap : address and bytes
    shape, step : tuple of 3 ints and int
        Outputs (D, H, W); along D, every so many.
    passes, twists : arrays
        Of the axis; twists have the factor that the whole transform is to be multiplied by.
    buffer : address
    out, plane, row : address and bytes
        Where outputs go.
    """
    return _native("leave", dtype, "aii3iPRiiii")


def _native(name: str, dtype: np.dtype[Any], kinds: str) -> Callable[..., None]:
    """Arguments are of these kinds: a(rray), i(nteger), 2 or 3 integers, P(asses), R(eal pairs)."""

    def function() -> Callable[..., None]:
        from volconv.engines.cpu import fft_kernels

        made: Callable[..., None] = getattr(fft_kernels, f"{name}_function")()
        return made

    found: dict[str, Argument] = {
        "a": Array(dtype, 1),
        "i": 1,
        "2": 2,
        "3": 3,
        "P": Array(np.dtype(np.int64), 2),
        "R": Array(dtype, 2),
    }
    sources = "fft_kernels", "fft_vectors", "fft_tiles", "memory", "emitter", "simd"
    return native(f"fft-{name}-{dtype.name}", [found[kind] for kind in kinds], function, *sources)


def work_elements(channels: int, together: int, size: tuple[int, int], itemsize: int) -> int:
    """Elements of room that :func:`compiled_middle` needs."""
    planes = (3 if channels > CHAIN else 1) + 1 + channels + together
    return size[0] + planes * plane_elements(size, itemsize)


def kernels_together(channels: int, size: tuple[int, int], itemsize: int) -> int:
    """How many channels' kernels are transformed at a time: a divisor of :data:`CHAIN`, planes that stay in L2."""
    together = CHAIN
    while together > 1 and (
        together // 2 >= channels or together * plane_elements(size, itemsize) * ELEMENT > MADE_BYTES
    ):
        together //= 2
    return together


def plane_elements(size: tuple[int, int], itemsize: int) -> int:
    """Elements of a plane (H, W) of frequencies."""
    lanes = LINE // itemsize
    return size[0] // lanes * -(-size[1] // lanes) * lanes
