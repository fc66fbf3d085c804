"""Weights: kernels from files, and kernels that have a name.

All of them are meant for cross-correlation, as Conv3d applies them; nothing here flips a kernel.
"""

from __future__ import annotations

from volconv.kernels.files import is_file_spec, list_weights, split_file_spec
from volconv.kernels.layout import LAYOUTS, arranged
from volconv.kernels.named import NAMES, NamedKernel, named_kernels
from volconv.kernels.spec import Kernel, expand, load_bias, load_kernel
from volconv.kernels.weights import Weights

__all__ = [
    "LAYOUTS",
    "NAMES",
    "Kernel",
    "NamedKernel",
    "Weights",
    "arranged",
    "expand",
    "is_file_spec",
    "list_weights",
    "load_bias",
    "load_kernel",
    "named_kernels",
    "split_file_spec",
]
