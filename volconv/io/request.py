"""What a new file is to be: every check that is the same for all formats, and what the one that is asked for loses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from volconv.errors import ParameterError, WriteError
from volconv.geometry import Geometry
from volconv.io.formats import SLICES, ZARR, Format, Url, format_of, known_suffixes, names_folder, split_path
from volconv.io.volume import Request, Scaling, VolumeInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike

    from volconv.region import Index5


def output_format(path: str | os.PathLike[str]) -> Format:
    """Format that an output's name asks for.

    Raises
    ------
    ParameterError
        It names none that is written.
    """
    text = os.fspath(path)
    if not text:
        raise ParameterError("output must have a name (got an empty one)")
    file = split_path(path)[0]
    form = SLICES if names_folder(path) else format_of(file)
    if form is None:
        raise ParameterError(
            f"output must have a suffix that names a format: {known_suffixes(writes=True)} (got {text!r})",
            hint="a name that ends in / is a folder of TIFF slices",
        )
    if isinstance(file, Url) and form is not ZARR:
        raise ParameterError(f"output may be a URL for {ZARR.title} alone (got {text!r})")
    if not form.writes:
        raise ParameterError(
            f"output must be of a format that is written: {known_suffixes(writes=True)} (got {text!r}; {form.title} "
            "is only read)"
        )
    return form


def make_request(
    path: str | os.PathLike[str],
    *,
    shape: Index5,
    dtype: DTypeLike,
    geometry: Geometry | None = None,
    like: VolumeInfo | None = None,
    scaling: Scaling | None = None,
    options: Mapping[str, str] | None = None,
    copied: bool = False,
    overwrite: bool = False,
    shared: bool = False,
    mkdir: bool = False,
    cache_bytes: int | None = None,
    note: str = "",
) -> tuple[Format, Request, tuple[str, ...]]:
    """Check what :func:`volconv.io.create_volume` was told; also a line on each thing that the format cannot hold."""
    form = output_format(path)
    file, key = split_path(path)
    if shared and form is not ZARR:
        raise ParameterError(
            f"output must be an {ZARR.title} where several processes write it (got {str(path)!r})",
            hint="as in image.zarr",
        )
    known = form.options or {}
    if options and not known:
        raise ParameterError(
            f"creation options must be left out for {form.title}, which has none (got {next(iter(options))!r})"
        )
    for name in options or {}:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            raise ParameterError(
                f"creation option must be one of {', '.join(known)} for {form.title} (got {name!r})",
                hint=f"did you mean {close[0]}?" if close else None,
            )
    if scaling is not None and not form.scaling:
        raise WriteError(
            f"{path}: {form.title} has no place for a slope and intercept", hint="write real values, or NIfTI"
        )
    if geometry is None:
        geometry = like.geometry if like is not None else Geometry()
    stored = np.dtype(np.uint8) if np.dtype(dtype) == np.bool_ else np.dtype(dtype).newbyteorder("=")
    if stored.name not in form.dtypes:
        raise WriteError(
            f"{path}: {form.title} cannot hold dtype {stored.name} (it holds {', '.join(form.dtypes)})",
            hint="choose one of these with --dtype (dtype=...)",
        )
    step = like.time_step if like is not None and shape[0] > 1 else None
    lost = tuple(f"{file.name}: {form.title} holds no {what}" for what in _lost(form, geometry, step))
    return (
        form,
        Request(
            path=file,
            key=key,
            shape=shape,
            dtype=stored,
            geometry=geometry,
            scaling=scaling,
            time_step=step,
            like=like,
            options=dict(options or {}),
            copied=copied,
            overwrite=overwrite,
            shared=shared,
            mkdir=mkdir,
            cache_bytes=cache_bytes,
            note=_printable("; ".join(part for part in (note, *(text.partition(": ")[2] for text in lost)) if part)),
        ),
        lost,
    )


def _printable(text: str) -> str:
    """One line, without what XML, UTF-8 or UTF-16 cannot hold: names of files may bring that."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _lost(form: Format, geometry: Geometry, step: float | None) -> list[str]:
    """What of a volume's geometry the format has no place for."""
    lost = []
    if form.geometry != "affine" and geometry.unit is not None:
        if not geometry.is_axis_aligned:
            lost.append(f"orientation, only spacing: dropped {geometry.in_words()}")
        elif form.geometry == "spacing" and any(geometry.origin):
            lost.append(f"origin, only spacing: dropped {','.join(f'{v:.6g}' for v in geometry.origin)} (D,H,W)")
    if step is not None and not form.time:
        lost.append(f"time step: dropped {step:g} s")
    return lost
