"""NIfTI files made by nibabel, changed by the byte, and copied by volconv."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from volconv.io import Region, create_volume, open_volume

ROOT = Path(__file__).parents[1]
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([-0.5, 0.75, 2.5]), [10, -20, 30]
)


def write(path, array, **changes):
    """Write an (x, y, z...) array through nibabel with header fields changed."""
    image = changes.pop("kind", nibabel.Nifti1Image)(array, OBLIQUE, dtype=array.dtype)
    for name, value in changes.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def patch(path, offset, data):
    """Overwrite bytes of a file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def number(value, kind):
    """Bytes of a number, or of several, as in ``number(0.5, "<f4")``."""
    return np.array(value, kind).tobytes()


def copy(source_path, path, *, opened=None, **options):
    """Copy a volume through volconv; the result is nibabel's."""
    with open_volume(source_path, **(opened or {})) as source:
        stored = source.read(Region.whole(source.info.shape))
        options = {"like": source.info, "shape": source.info.shape, "dtype": source.info.dtype, **options}
        with create_volume(path, **options) as sink:
            if sink.info.shape == source.info.shape:
                sink.write(Region.whole(source.info.shape), stored.astype(sink.info.dtype))
    return nibabel.load(path)


def new(path, shape, dtype="uint8", **options):
    """Create a file of zeros through volconv; the sink's info."""
    with create_volume(path, shape=shape, dtype=dtype, **options) as sink:
        return sink.info
