"""Conv3d on 3-D volumes: NumPy arrays, NIfTI, HDF5 and TIFF, with the semantics of ``torch.nn.Conv3d``.

Names load on first use, so that ``import volconv`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volconv.batch import apply_many
    from volconv.conversion import convert
    from volconv.difference import diff
    from volconv.errors import (
        BackendError,
        ClusterError,
        ConfigError,
        DtypeError,
        OutOfMemoryError,
        OutputExistsError,
        ParameterError,
        ReadError,
        ShapeError,
        VolconvError,
        WriteError,
    )
    from volconv.functional import apply, conv3d
    from volconv.geometry import Geometry
    from volconv.io import create_volume, open_stack, open_volume
    from volconv.module import Conv3d
    from volconv.shapes import output_shape

__version__ = "0.1.0"

_HOMES = {
    "Conv3d": "module",
    "BackendError": "errors",
    "ClusterError": "errors",
    "ConfigError": "errors",
    "DtypeError": "errors",
    "Geometry": "geometry",
    "OutOfMemoryError": "errors",
    "OutputExistsError": "errors",
    "ParameterError": "errors",
    "ReadError": "errors",
    "ShapeError": "errors",
    "VolconvError": "errors",
    "WriteError": "errors",
    "apply": "functional",
    "apply_many": "batch",
    "conv3d": "functional",
    "convert": "conversion",
    "create_volume": "io",
    "diff": "difference",
    "open_stack": "io",
    "open_volume": "io",
    "output_shape": "shapes",
}

__all__ = [
    "BackendError",
    "ClusterError",
    "ConfigError",
    "Conv3d",
    "DtypeError",
    "Geometry",
    "OutOfMemoryError",
    "OutputExistsError",
    "ParameterError",
    "ReadError",
    "ShapeError",
    "VolconvError",
    "WriteError",
    "__version__",
    "apply",
    "apply_many",
    "conv3d",
    "convert",
    "create_volume",
    "diff",
    "open_stack",
    "open_volume",
    "output_shape",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
