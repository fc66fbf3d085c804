"""What is in a file, and what can each format hold? Facts as plain data, from headers alone."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io import FORMATS, Entry, Format, Scaling, list_contents, open_volume, split_path
from volconv.io.axes import AXIS
from volconv.io.combine import Selected
from volconv.io.files import bytes_of
from volconv.io.formats import format_of

if TYPE_CHECKING:
    from volconv.io import VolumeInfo
    from volconv.region import Index5

#: Of the keys of :meth:`Description.as_dict` and :func:`formats`, and of their meaning.
SCHEMA_VERSION = 1

_BY_NAME = {form.name: form for form in FORMATS}

#: Formats whose files may hold more than one volume.
_SEVERAL = ("hdf5", "tiff", "ome", "zarr")

Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says of itself; None where it does not say, or where it holds no one volume.

    Parameters
    ----------
    file : str
        As it was asked for.
    format : str
        Name of a :class:`volconv.io.Format`.
    format_version : str or None
        As in "NIfTI-2, big-endian".
    axes : str or None
        The file's own, in its library's order: "XYZT".
    file_shape : tuple of int or None
        Their sizes.
    shape : tuple of 5 ints or None
        (N, C, D, H, W) of what would be read.
    dtype : str or None
        Of stored values.
    slope, intercept : float or None
        Real value = stored*slope + intercept.
    spacing, origin : tuple of 3 floats or None
        D, H, W; None where no unit is stated.
    unit : {"mm", "um", "nm", "m"} or None
    affine : tuple of 4 rows of 4 floats, or None
        Maps (x, y, z, 1), indices along W, H, D, to the world, in ``unit``.
    orientation : str or None
        As in "RAS": where x, y, z run to; of formats that keep orientation.
    time_step : float or None
        Seconds.
    chunks : tuple of 5 ints or None
        Box (N, C, D, H, W) that is packed as one piece.
    compression : str or None
    file_bytes : int
        On disk; of all slices, and of both files of a pair.
    data_bytes : int or None
        Of what would be read, uncompressed.
    provenance : str or None
        Of what volconv made the file, and how.
    notes : tuple of str
        What was assumed, one line each.
    contents : tuple of Entry
        Datasets or series; a file that holds one volume has one entry.
    """

    file: str
    format: str
    format_version: str | None
    axes: str | None
    file_shape: tuple[int, ...] | None
    shape: Index5 | None
    dtype: str | None
    slope: float | None
    intercept: float | None
    spacing: Spacing | None
    origin: Spacing | None
    unit: str | None
    affine: tuple[tuple[float, ...], ...] | None
    orientation: str | None
    time_step: float | None
    chunks: Index5 | None
    compression: str | None
    file_bytes: int
    data_bytes: int | None
    provenance: str | None
    notes: tuple[str, ...]
    contents: tuple[Entry, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {"schema_version": SCHEMA_VERSION} | asdict(self)
        for entry in facts["contents"]:
            entry["axes"] = entry["axes"] or None
        return facts


#: Keys of :meth:`Description.as_dict`, in order.
FIELDS = ("schema_version", *Description.__dataclass_fields__)


def describe(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    spacing: tuple[Spacing, str | None] | None = None,
    rgb: bool = False,
    time: int | slice | None = None,
    channel: int | slice | None = None,
) -> Description:
    """Describe a file, from its headers alone.

    An HDF5 file of which no one dataset is meant is described by its ``contents``; why is in the ``notes``.

    Parameters
    ----------
    path, axes, spacing, rgb, time, channel
        As :func:`volconv.open_volume`'s.

    Raises
    ------
    ReadError, ParameterError, ShapeError
        As :func:`volconv.open_volume`.

    Examples
    --------
    >>> describe("sample_data/mni152_t1.nii.gz").orientation  # doctest: +SKIP
    'RAS'
    """
    name = os.fspath(path)
    try:
        with open_volume(path, axes=axes, spacing=spacing, rgb=rgb) as volume:
            whole = volume.info
            info = whole if time is None and channel is None else Selected(volume, time, channel, name).info
    except ReadError as error:
        return _listing(name, error)
    file_shape = tuple(whole.shape[AXIS[letter]] for letter in info.axes)
    geometry, scaling = info.geometry, info.scaling or Scaling(1.0, 0.0)
    has_unit = geometry.unit is not None
    if info.format in _SEVERAL:
        contents = tuple(list_contents(path))
    else:
        contents = (Entry(name, file_shape, info.dtype.name, info.axes),)
    return Description(
        file=name,
        format=info.format,
        format_version=_version(info),
        axes=info.axes,
        file_shape=file_shape,
        shape=info.shape,
        dtype=info.dtype.name,
        slope=scaling.slope,
        intercept=scaling.intercept,
        spacing=geometry.spacing if has_unit else None,
        origin=geometry.origin if has_unit else None,
        unit=geometry.unit,
        affine=geometry.affine if geometry != Geometry() else None,
        orientation=_orientation(geometry) if has_unit and _BY_NAME[info.format].geometry == "affine" else None,
        time_step=info.time_step,
        chunks=info.access.chunk,
        compression=info.compression,
        file_bytes=bytes_of(path),
        data_bytes=math.prod(info.shape) * info.dtype.itemsize,
        provenance=info.provenance,
        notes=info.notes,
        contents=contents,
    )


def formats() -> list[dict[str, Any]]:
    """The table of formats as plain data.

    Examples
    --------
    >>> [form["name"] for form in formats() if form["writes"]]
    ['nifti', 'tiff', 'ome', 'slices', 'hdf5', 'zarr']
    """
    table = []
    for form in FORMATS:
        facts = asdict(form) | {"options": form.options or {}}
        del facts["module"]
        table.append(facts)
    return table


def dtypes_in_words(form: Format) -> str:
    """What a format can hold, in few words.

    Examples
    --------
    >>> dtypes_in_words(FORMATS[0])
    '(u)int8-64, float32/64, complex64/128'
    """
    integers = [name for name in form.dtypes if "int" in name]
    words = {8: ["(u)int8-64"], 6: ["(u)int8-32"]}.get(len(integers), integers)
    for kind in ("float", "complex"):
        bits = [name.removeprefix(kind) for name in form.dtypes if name.startswith(kind)]
        words += [kind + "/".join(bits)] if bits else []
    return ", ".join(words)


def keeps_in_words(form: Format) -> str:
    """What a format keeps besides voxels.

    Examples
    --------
    >>> keeps_in_words(FORMATS[0])
    'affine, slope and intercept, time step'
    """
    words = [form.geometry, "slope and intercept" if form.scaling else "", "time step" if form.time else ""]
    return ", ".join(word for word in words if word)


def formats_markdown() -> str:
    """The table of formats in Markdown, as the README shows it."""
    lines = ["| format | suffixes | | dtypes | axes | keeps | `--co` |", "|---|---|---|---|---|---|---|"]
    for form in FORMATS:
        cells = [
            form.title,
            " ".join(f"`{suffix}`" for suffix in form.suffixes or ("folder/",)),
            "read, write" if form.writes else "read",
            dtypes_in_words(form),
            form.axes,
            keeps_in_words(form),
            ", ".join(form.options or {}),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _listing(name: str, error: ReadError) -> Description:
    """An HDF5 file by its datasets alone; for any other file the error stands."""
    file, key = split_path(name)
    form = format_of(file)
    if key is not None or form is None or form.name != "hdf5":
        raise error
    contents = tuple(list_contents(name))
    unknown = dict.fromkeys(FIELDS[1:])
    facts = {
        "file": name,
        "format": form.name,
        "file_bytes": file.stat().st_size,
        "notes": (str(error),),
        "contents": contents,
    }
    return Description(**{**unknown, **facts})  # type: ignore[arg-type]  # all others are None


def _version(info: VolumeInfo) -> str | None:
    """What a header says of its kind."""
    if info.format == "zarr":
        return f"NGFF {info.header.version}"
    if info.format not in ("nifti", "pair") or info.header is None:
        return None
    version = "NIfTI-2" if int(info.header["sizeof_hdr"]) == 540 else "NIfTI-1"
    return f"{version}, {'big' if info.header.endianness == '>' else 'little'}-endian"


def _orientation(geometry: Geometry) -> str:
    from volconv.io.orientation import orientation  # nibabel is loaded where letters are asked for

    return orientation(geometry)
