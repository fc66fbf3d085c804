"""Make conv3d.npz: what PyTorch 2.13.0 computes for some convolutions, so that tests need no PyTorch.

Run by hand, with torch==2.13.0 (CPU) installed, from anywhere::

    python tests/data/golden/make_golden.py

The inputs are not stored. They are small integers from a linear congruential generator that is written out below
(no library's random numbers, which may change between versions), divided by 8 or 16: exact in every dtype. Each case
is a line of JSON in ``cases``, and PyTorch's result, computed in double precision and rounded to the case's dtype, is
under ``00``, ``01``, ...

The file's bytes do not depend on when or where it is made.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np

TORCH = "2.13.0"

#: Defaults of a case; one names only what differs. Triples are D, H, W.
DEFAULTS = {
    "input": [2, 4, 5, 6, 7],
    "weight": [6, 4, 3, 3, 3],
    "stride": [1, 1, 1],
    "padding": [0, 0, 0],
    "dilation": [1, 1, 1],
    "groups": 1,
    "padding_mode": "zeros",
    "bias": True,
    "dtype": "float32",
}

CASES = [
    {},
    {"bias": False},
    {"stride": [2, 2, 2]},
    {"stride": [2, 1, 3], "padding": [1, 0, 2]},
    {"weight": [3, 4, 3, 5, 2], "stride": [2, 1, 1], "padding": [4, 2, 0]},
    {"dilation": [2, 1, 3]},
    {"dilation": [1, 2, 2], "padding": [0, 3, 1], "stride": [1, 2, 1]},
    {"weight": [6, 2, 3, 3, 3], "groups": 2},
    {"weight": [8, 1, 2, 3, 2], "groups": 4, "padding": [1, 1, 1]},
    {"padding": "valid"},
    {"padding": "same"},
    {"padding": "same", "weight": [6, 4, 2, 4, 3]},
    {"padding": "same", "weight": [6, 4, 2, 2, 4], "dilation": [1, 3, 1]},
    {"padding": "same", "weight": [6, 4, 4, 2, 3], "padding_mode": "reflect"},
    {"padding": "same", "weight": [6, 4, 2, 3, 4], "padding_mode": "circular", "dilation": [3, 1, 1]},
    {"padding": "same", "weight": [6, 4, 4, 4, 4], "padding_mode": "replicate"},
    {"padding": [2, 3, 1], "padding_mode": "reflect"},
    {"padding": [2, 3, 4], "padding_mode": "replicate", "stride": [2, 2, 1]},
    {"padding": [5, 6, 7], "padding_mode": "circular", "stride": [3, 2, 3]},
    {"padding": [4, 5, 6], "padding_mode": "reflect", "stride": [3, 3, 3], "weight": [2, 2, 1, 2, 3], "groups": 2},
    {"input": [4, 5, 6, 7], "padding": [1, 1, 1]},
    {"input": [0, 4, 5, 6, 7]},
    {"input": [1, 1, 1, 1, 1], "weight": [1, 1, 1, 1, 1]},
    {"input": [1, 40, 3, 4, 5], "weight": [5, 40, 3, 3, 3], "padding": [1, 1, 1]},
    {"dtype": "float64"},
    {"dtype": "float64", "padding": "same", "weight": [6, 2, 4, 3, 2], "groups": 2, "padding_mode": "circular"},
    {"dtype": "complex64"},
    {"dtype": "complex64", "stride": [1, 2, 2], "padding": [2, 1, 2], "padding_mode": "reflect", "bias": False},
    {"dtype": "complex128", "weight": [4, 2, 2, 3, 2], "groups": 2, "dilation": [2, 1, 2], "padding": "same"},
]


def integers(shape, seed):
    """Integers from -64 to 63, from the top bits of Knuth's MMIX generator."""
    state, found = seed, []
    for _ in range(int(np.prod(shape))):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        found.append((state >> 57) - 64)
    return np.array(found, np.int64).reshape(shape)


def arrays(case, number):
    """Input, weight and bias (or None) of a case."""

    def values(shape, seed, denominator):
        real = integers(shape, 1000 * number + seed) / denominator
        if case["dtype"].startswith("complex"):
            return (real + 1j * integers(shape, 1000 * number + seed + 1) / denominator).astype(case["dtype"])
        return real.astype(case["dtype"])

    bias = values(case["weight"][:1], 4, 8) if case["bias"] else None
    return values(case["input"], 0, 8), values(case["weight"], 2, 16), bias


def main():
    """Write conv3d.npz beside this file."""
    import torch

    if torch.__version__.split("+")[0] != TORCH:
        raise SystemExit(f"these are PyTorch {TORCH}'s values (got {torch.__version__})")
    results = {}
    cases = [DEFAULTS | changes for changes in CASES]
    for number, case in enumerate(cases):
        x, w, b = arrays(case, number)
        wide = torch.complex128 if x.dtype.kind == "c" else torch.float64
        layer = torch.nn.Conv3d(
            w.shape[1] * case["groups"],
            w.shape[0],
            w.shape[2:],
            stride=case["stride"],
            padding=case["padding"] if isinstance(case["padding"], str) else tuple(case["padding"]),
            dilation=case["dilation"],
            groups=case["groups"],
            bias=b is not None,
            padding_mode=case["padding_mode"],
            dtype=wide,
        )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w))
            if b is not None:
                layer.bias.copy_(torch.from_numpy(b))
            results[f"{number:02}"] = layer(torch.from_numpy(x).to(wide)).numpy().astype(x.dtype)
    results["cases"] = np.array([json.dumps(case) for case in cases])

    with zipfile.ZipFile(Path(__file__).with_name("conv3d.npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in results.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # no time of making
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content.getvalue())


if __name__ == "__main__":
    main()
