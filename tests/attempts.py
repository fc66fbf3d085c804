"""A process that opens what it is told to, with little memory, and says what came of it: run by the tests of damage.

Each line that it reads is a kind of file ("volume", "kernel", "config") and a path, with a tab between; each that it
writes is "read", "refused" with the error's line, or "bug" with a traceback as JSON.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import traceback
import warnings
from pathlib import Path

import h5py  # noqa: F401  # the library, loaded before memory is counted
import numpy as np
import onnx  # noqa: F401

from volconv.config import load_config
from volconv.conversion import convert
from volconv.describe import describe
from volconv.errors import ConfigError, OutOfMemoryError, ReadError, VolconvError
from volconv.io import Region, list_contents, open_volume
from volconv.kernels.files import list_weights, load_layer

#: Bytes that this process may take beyond what it has once everything is loaded.
ROOM = 1 << 30

#: Volumes that announce more are read at their corners only.
WHOLE = 16 << 20


def volume(path):
    """All that a command does with an input, but for computing."""
    describe(path)
    for entry in list_contents(path):
        str(entry)
    with open_volume(path) as opened:
        info = opened.info
        assert all(size >= 1 for size in info.shape), info
        assert math.prod(info.geometry.spacing) > 0, info
        assert np.isfinite(info.geometry.affine).all(), info
        if math.prod(info.shape) * info.dtype.itemsize <= WHOLE:
            with np.errstate(all="ignore"):  # numbers may be anything
                values = opened.numpy()
            assert values.shape == info.shape
            # What the header says goes on into outputs, of its own format too.
            for output in ("o.nii", "o.h5", "o.ome.tif"):
                convert(opened, output, overwrite=True)
        else:
            opened.read(Region((0,) * 5, (1,) * 5))
            opened.read(Region(tuple(size - 1 for size in info.shape), info.shape))


def kernel(path):
    """Every array that could be one."""
    entries = [entry for entry in list_weights(path) if len(entry.shape or ()) in (3, 4, 5)]
    loaded = []
    for entry in entries:
        try:
            loaded.append(load_layer(f"{path}:{entry.key}" if entry.key else path))
        except VolconvError as error:
            wrong = error
    if not entries:
        loaded.append(load_layer(path))
    elif not loaded:
        raise wrong


def attempt(kind, path):
    """What came of it: one line."""
    try:
        {"volume": volume, "kernel": kernel, "config": load_config}[kind](path)
    except OutOfMemoryError as error:
        if "unpacked, and" in str(error):  # what stands for zeros may be of any size
            return f"refused {error}"
        return f"bug {json.dumps(f'needs memory: {error}')}"
    except VolconvError as error:
        line, expected = str(error), {"volume": ReadError, "kernel": VolconvError, "config": ConfigError}[kind]
        if len(line.splitlines()) != 1 or len(line) > 2000 or not line.isprintable():
            return f"bug {json.dumps(f'no line: {line!r}')}"
        # Also what fits, in itself, but is no volume.
        return f"refused {'' if isinstance(error, expected) else type(error).__name__ + ' '}{line}"
    except BaseException:  # noqa: BLE001  # that is what is asked
        return f"bug {json.dumps(traceback.format_exc())}"
    return "read"


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    warnings.simplefilter("error")
    for name in sys.argv[1:]:  # something of each kind, so that all is loaded before memory is counted
        attempt("volume", name)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
    say("ready")
    for line in sys.stdin:
        say(attempt(*line.rstrip("\n").split("\t")))


if __name__ == "__main__":
    main()
