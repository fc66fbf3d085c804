"""Weights: kernels from files, and kernels that have a name.

All of them are meant for cross-correlation, as Conv3d applies them; nothing here flips a kernel.
"""

from __future__ import annotations

from volconv.kernels.files import is_file_spec, split_file_spec
from volconv.kernels.named import NAMES, NamedKernel, named_kernels
from volconv.kernels.spec import Kernel, expand, load_bias, load_kernel

__all__ = [
    "NAMES",
    "Kernel",
    "NamedKernel",
    "expand",
    "is_file_spec",
    "load_bias",
    "load_kernel",
    "named_kernels",
    "split_file_spec",
]
