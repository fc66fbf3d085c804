"""Volumes as one page that opens without a network: voxels, viewer and script are all in it."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import __version__
from volconv.errors import printable
from volconv.functional import apply
from volconv.geometry import MILLIMETRES, Geometry
from volconv.io import open_stack
from volconv.io.combine import Selected
from volconv.view.scene import basename, size_in_words, unit_in_words
from volconv.view.slices import TILTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from volconv.io import OpenVolume
    from volconv.params import Triple
    from volconv.view.scene import Scene
    from volconv.view.slices import Slices

#: Voxels of a volume in a page; larger ones are made smaller.
MOST_VOXELS = 1 << 24

#: Integers that browsers' viewers take as they are; all else is float32.
_AS_STORED = ("int8", "uint8", "int16", "uint16")

#: A difference's colours, at these shares of its scale of 255.
_COLOURS = {
    "I": [0, 64, 128, 192, 255],
    "R": [179, 47, 0, 224, 255],
    "G": [236, 127, 0, 72, 224],
    "B": [255, 224, 0, 47, 163],
    "A": [255] * 5,
}

#: What is encoded at a time: whole groups of three bytes.
_PIECE = 3 << 18


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A volume as the page has it: its file, the step at which voxels were taken, and its affine in the viewer."""

    path: Path
    step: Triple
    matrix: NDArray[np.float64]


def write_html(
    scene: Scene, volumes: Sequence[OpenVolume], file: BinaryIO, folder: Path, *, memory: str | int | None = None
) -> None:
    """Write a page of volumes, and of the difference of two on one grid.

    Parameters
    ----------
    scene : Scene
        Gathered from ``volumes``; the page opens with its place and window.
    volumes : sequence of OpenVolume
        Each at its first time and channel. Those of more than 2**24 voxels are made smaller by a convolution with a
        box of as many voxels as its stride, and the page says so.
    file : binary file
    folder : Path
        For files that the page is made of; they are left there.
    memory : str or int, optional
        As :func:`volconv.apply`'s.
    """
    unit = scene.volumes[0].geometry.unit
    embedded = [
        _embed(volume, one, unit, folder / f"{number}.nii.gz", memory)
        for number, (volume, one) in enumerate(zip(volumes, scene.volumes, strict=True))
    ]
    shown = [_described(one, part, scene.window, unit) for one, part in zip(scene.volumes, embedded, strict=True)]
    parts = [part.path for part in embedded]
    if scene.difference is not None:
        parts.append(_subtract(parts, folder / "difference.nii.gz", memory))
        limit = scene.largest or 1.0
        told = _described(scene.volumes[1], embedded[1], (-limit, limit), unit)
        shown.append(told | {"name": "difference", "told": ["second - first, black is none"], "is_difference": True})
    page = {"unit": unit_in_words(unit), "shown": shown, "difference_colours": _COLOURS}
    title = " and ".join(basename(one.name) for one in scene.volumes)
    _write(file, title, scene.as_dict() | {"page": page, "notes": [*scene.notes, *_notes(scene)]}, parts)


def _notes(scene: Scene) -> list[str]:
    """What is to be known of a page alone."""
    notes = []
    if not all(one.oriented for one in scene.volumes):
        notes.append("no directions in a body are known: x runs to the right, y and z downwards")
    tilt = max(one.tilt for one in scene.volumes)
    if tilt >= TILTED:
        notes.append(f"axes are oblique by up to {tilt:.0f} degrees: slices here are along the axes of the world")
    if not all(np.isfinite(plane.values).all() for one in scene.volumes for plane in one.planes):
        notes.append("voxels that are NaN are drawn black")
    return notes


def smaller(shape: Triple, spacing: tuple[float, float, float]) -> Triple:
    """The least steps along D, H, W that leave few enough voxels, and these as nearly cubes as they can be.

    Examples
    --------
    >>> smaller((189, 233, 197), (1, 1, 1)), smaller((30, 4096, 4096), (5, 1, 1))
    ((1, 1, 1), (2, 5, 5))
    """
    step = [1, 1, 1]
    while math.prod(max(1, size // s) for size, s in zip(shape, step, strict=True)) > MOST_VOXELS:
        free = [axis for axis in range(3) if shape[axis] // step[axis] > 1]
        step[min(free, key=lambda axis: (step[axis] * spacing[axis], step[axis]))] += 1
    d, h, w = step
    return d, h, w


def _embed(volume: OpenVolume, one: Slices, unit: str | None, path: Path, memory: str | int | None) -> _Embedded:
    """Write a volume as the viewer takes it, in the unit of the first one, smaller where it must be."""
    stored, step = volume.info, smaller(one.shape, one.geometry.spacing)
    matrix = one.geometry.matrix
    if unit is not None and one.geometry.unit is not None:
        matrix[:3] *= MILLIMETRES[one.geometry.unit] / MILLIMETRES[unit]
    if not one.oriented:
        matrix[1:3] *= -1  # the viewer's y and z run upwards, and these are to run downwards
    chosen = Selected(volume, 0, 0, one.name)
    chosen.info = replace(chosen.info, geometry=Geometry.from_matrix(matrix, "mm"))  # the viewer knows no other unit
    kept = stored.dtype.name in _AS_STORED and stored.scaling is None and step == (1, 1, 1)
    apply(
        chosen,
        path,
        np.full(step, 1 / math.prod(step)),
        stride=step,
        activation="abs" if stored.dtype.kind == "c" else None,
        dtype="same" if kept else "float32",
        memory=memory,
    )
    return _Embedded(path, step, matrix)


def _subtract(paths: Sequence[Path], destination: Path, memory: str | int | None) -> Path:
    """The second of two volumes minus the first: a convolution of two channels with one voxel."""
    with open_stack(paths) as both:
        weights = np.array([-1.0, 1.0]).reshape(1, 2, 1, 1, 1)
        apply(both, destination, weights, dtype="float32", memory=memory)
    return destination


def _described(one: Slices, part: _Embedded, window: tuple[float, float], unit: str | None) -> dict[str, Any]:
    """What the page's script is to know of a volume."""
    told = [*size_in_words(one)]
    if part.step != (1, 1, 1):
        told.append(f"shown smaller, as means of {' × '.join(map(str, part.step[::-1]))} voxels")
    world = one.geometry.matrix
    if unit is not None and one.geometry.unit is not None:
        world[:3] *= MILLIMETRES[one.geometry.unit] / MILLIMETRES[unit]
    return {
        "name": printable(basename(one.name)),
        "told": told,
        "oriented": one.oriented,
        "is_difference": False,
        "window": window,
        "step": part.step,
        "start": (part.matrix @ (*one.voxel[::-1], 1))[:3].tolist(),
        "to_voxel": np.linalg.inv(part.matrix).tolist(),
        "to_world": world.tolist() if one.geometry.unit else None,
    }


def _write(file: BinaryIO, title: str, facts: dict[str, Any], parts: Sequence[Path]) -> None:
    """Fill the page; what files say of themselves is text in it, and never markup."""
    source = files("volconv.view")
    told = {
        "title": html.escape(printable(title)),
        "version": __version__,
        "facts": json.dumps(facts).replace("<", "\\u003c"),
        "viewer": (source / "niivue" / "niivue.umd.js").read_text(encoding="utf-8"),
        "licence": (source / "niivue" / "LICENSE").read_text(encoding="utf-8"),
        "script": (source / "page.js").read_text(encoding="utf-8"),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", (source / "page.html").read_text(encoding="utf-8"))
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            file.write(piece.encode())
        elif piece != "volumes":
            file.write(told[piece].encode())
        else:
            for index, part in enumerate(parts):
                file.write(f'<script type="application/octet-stream" id="volume-{index}">'.encode())
                with part.open("rb") as packed:
                    while data := packed.read(_PIECE):
                        file.write(base64.b64encode(data))
                file.write(b"</script>\n")
