"""Volumes as kernels: a measured point spread function in a NIfTI or TIFF file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ShapeError
from volconv.io import open_volume
from volconv.kernels.weights.entries import WeightFile, Weights, check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_volume_file(path: str) -> WeightFile:
    """One volume: (kD, kH, kW), or a bank (C_out, kD, kH, kW) where it has several channels.

    Raises
    ------
    ReadError
        As :func:`volconv.open_volume`.
    ShapeError
        It is a series of volumes.
    """
    volume = open_volume(path)
    with ExitStack() as undo:
        undo.callback(volume.close)
        shape, dtype = volume.info.shape, volume.info.dtype
        if shape[0] != 1:
            raise ShapeError(f"{path} must be one volume to be a kernel (got {shape[0]} volumes)")
        check_size(shape, np.dtype(np.float64) if volume.info.scaling else dtype, path)
        undo.pop_all()
    axes: tuple[int, ...] = shape[2:] if shape[1] == 1 else shape[1:]

    def read(_: Weights) -> NDArray[Any]:
        values = volume.numpy().reshape(axes)
        volume.finish()
        return values

    entry = Weights("", axes, dtype.name, place=volume.info.geometry)
    return WeightFile([entry], read, {}, model=False, close=volume.close)
