"""What the header of a NIfTI file says: nibabel reads it, and what it leaves open is settled here."""

from __future__ import annotations

import io
import logging
import math
import struct
import threading
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import nibabel
import numpy as np
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io.axes import arrange
from volconv.io.nifti.axes import file_axes
from volconv.io.nifti.newheader import DTYPES, TIME_UNITS, stated_units
from volconv.io.raw import COPY_BYTES
from volconv.io.volume import Scaling, VolumeInfo

if TYPE_CHECKING:
    from volconv.region import Index5

_UNITS = {"meter": "m", "mm": "mm", "micron": "um"}

#: Datatypes of colours: their name in the standard, and samples a voxel.
_COLOURS = {"RGB": ("RGB24", 3), "RGBA": ("RGBA32", 4)}

#: Size of the header and magic -> nibabel's class, and whether the voxels are in a file of their own.
_KINDS: dict[tuple[int, bytes], tuple[Any, bool]] = {
    (348, b"n+1\0"): (nibabel.Nifti1Header, False),
    (348, b"ni1\0"): (nibabel.nifti1.Nifti1PairHeader, True),
    (540, b"n+2\0"): (nibabel.Nifti2Header, False),
    (540, b"ni2\0"): (nibabel.nifti2.Nifti2PairHeader, True),
}
_MAGIC_AT = {348: 344, 540: 4}

#: A header with extensions that takes more than this is damaged; all of it is held in memory.
_EXTENSION_BYTES = 64 << 20

# nibabel prints each oddity that it mends to stderr by a logger of its own; a file that can be read is no news.
_QUIET = logging.getLogger("volconv.io.nifti.voxels.voxels")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

# What catches warnings is the process's, and volumes may be opened by several threads.
_HEARING = threading.Lock()

#: Of extensions: text.
_COMMENT = 6


class Layout(NamedTuple):
    """Where and how a file's voxels lie, as :class:`volconv.io.raw.RawFile` asks for it."""

    offset: int
    dtype: np.dtype[Any]
    shape: Index5
    order: Index5


def read_header(stream: BinaryIO, name: str, *, pair: bool) -> tuple[Any, tuple[str, ...]]:
    """Header as nibabel's own object, checked and mended as nibabel does, and what nibabel warned of.

    Parameters
    ----------
    stream : file
        At its start.
    name : str
        For messages.
    pair : bool
        Whether the file's name is that of a pair's header.

    Raises
    ------
    ReadError
        It is no such header, or damaged.
    """
    start = stream.read(544)
    kind, order = _kind(start, name, pair=pair)
    try:
        with _HEARING, warnings.catch_warnings(record=True) as heard, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            header = kind.from_fileobj(_with_extensions(kind, order, start, stream, name), order, check=False)
            _check_datatype(header, name)
            header.check_fix(logger=_QUIET, error_level=40)
            affine = header.get_best_affine()
    except (HeaderDataError, ValueError, OverflowError, KeyError, struct.error) as error:
        raise ReadError(f"{name}: its NIfTI header is damaged: {_one_line(error)}") from error
    if not np.isfinite(affine).all():
        raise ReadError(f"{name}: its NIfTI header is damaged: its affine is not finite")
    return header, tuple(" ".join(str(warning.message).split()) for warning in heard)


def describe(
    header: Any, heard: tuple[str, ...], name: str, *, header_name: str, axes: str | None, rgb: bool
) -> tuple[VolumeInfo, Layout]:
    """What a header says, with ``access`` and ``compression`` left open.

    Parameters
    ----------
    header, heard
        As :func:`read_header` gives them.
    name : str
        What the user asked for; for notes, without its folder.
    header_name : str
        Of the file that holds the header; for errors.
    axes : str or None
        What ``--axes`` says.
    rgb : bool
        Whether to take colours as channels.

    Raises
    ------
    ReadError
        The header tells of something that cannot be read.
    ParameterError
        ``axes`` do not fit.
    """
    sizes = _sizes(header, header_name)
    letters = file_axes(axes, sizes, header_name, "NIfTI")
    sizes = sizes[: len(letters)]
    label = data_type_codes.label[int(header["datatype"])]
    scaling = None
    if label in _COLOURS:
        standard, samples = _COLOURS[label]
        if not rgb:
            raise ReadError(
                f"{header_name}: its voxels are colours ({standard})",
                hint="pass --rgb (rgb=True) to take them as channels",
            )
        letters, sizes = _without_channels(letters, sizes, header_name)
        arrangement = arrange(letters[::-1] + "S", (*sizes[::-1], samples))
        dtype, shown = np.dtype(np.uint8), letters + "S"
    else:
        arrangement = arrange(letters[::-1], sizes[::-1])
        dtype, shown = header.get_data_dtype(), letters
        scaling = _scaling(header, header_name)  # colours have none, whatever the fields hold
    unit = _UNITS.get(stated_units(header)[0])
    notes = tuple(f"{name}: {text}" for text in heard)
    unstated = () if unit else (f"{name} states no units, taken as mm",)
    info = VolumeInfo(
        arrangement.shape,
        dtype.newbyteorder("="),
        Geometry.from_matrix(header.get_best_affine(), unit or "mm"),
        scaling,
        _time_step(header, letters),
        format="nifti" if header.is_single else "pair",
        axes=shown,
        header=header,
        notes=notes + unstated,
        spacing_notes=unstated,
        provenance=_provenance(header),
    )
    return info, Layout(int(header["vox_offset"]), dtype, *arrangement)


def _kind(start: bytes, name: str, *, pair: bool) -> tuple[Any, str]:
    """Class of nibabel for a header, and its byte order."""
    if not start:
        raise ReadError(f"{name}: is empty")
    sizes = {struct.unpack(f"{order}i", start[:4])[0]: order for order in "<>"} if len(start) >= 4 else {}
    size = next((size for size in _MAGIC_AT if size in sizes), None)
    if size is None:
        raise ReadError(f"{name}: is no NIfTI {'header' if pair else 'file'}")
    if len(start) < size:
        raise ReadError(f"{name}: is truncated: its header ends early")
    magic = start[_MAGIC_AT[size] :][:4]
    if (size, magic) not in _KINDS:
        if size == 348:
            raise ReadError(
                f"{name}: is no NIfTI {'header' if pair else 'file'} but an Analyze 7.5 header, without NIfTI's magic",
                hint="convert it to NIfTI first: Analyze does not say which side is left",
            )
        raise ReadError(f"{name}: is no NIfTI {'header' if pair else 'file'}: its magic is {magic!r}")
    kind, detached = _KINDS[size, magic]
    if detached and not pair:
        raise ReadError(
            f"{name}: is the header of a .hdr/.img pair", hint="name it .hdr, beside the .img that has its voxels"
        )
    if pair and not detached:
        raise ReadError(
            f"{name}: is a whole NIfTI file and no header of a .hdr/.img pair", hint="name it .nii to read it"
        )
    return kind, sizes[size]


def _with_extensions(kind: Any, order: str, start: bytes, stream: BinaryIO, name: str) -> BinaryIO:
    """The header and its extensions alone: where these lie about their size, nibabel would go on into the voxels."""
    header = kind(start[: kind.sizeof_hdr], order, check=False)
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise HeaderDataError(f"a volume must have 1 to 7 axes (got dim[0]={rank})")
    offset = int(header["vox_offset"])
    if offset < (kind.single_vox_offset if kind.is_single else 0):
        raise HeaderDataError(f"its voxels must begin after it (got vox_offset={offset})")
    extended = start[kind.sizeof_hdr :][:1] not in (b"", b"\0")
    if not extended:
        return io.BytesIO(start[: kind.sizeof_hdr + (4 if kind.is_single else 0)])
    if not kind.is_single:
        start += stream.read(_EXTENSION_BYTES)
        offset = len(start)
    if offset > _EXTENSION_BYTES:
        raise HeaderDataError(f"its extensions must take less than {_EXTENSION_BYTES >> 20} MB (got {offset} bytes)")
    block = bytearray(start[:offset])
    while len(block) < offset and (piece := stream.read(min(COPY_BYTES, offset - len(block)))):
        block += piece
    if len(block) < offset:
        raise ReadError(f"{name}: is truncated: its header ends early")
    return io.BytesIO(block)


def _check_datatype(header: Any, name: str) -> None:
    code = int(header["datatype"])
    if code not in data_type_codes.code:
        raise ReadError(f"{name}: its datatype code {code} is unknown")
    label = data_type_codes.label[code]
    if label not in DTYPES and label not in _COLOURS:
        raise ReadError(f"{name}: voxels of datatype {label} are not supported (known: {', '.join(DTYPES)})")


def _sizes(header: Any, name: str) -> tuple[int, ...]:
    """Sizes of the file's axes, five at most."""
    try:
        sizes = tuple(int(size) for size in header.get_data_shape())
    except HeaderDataError as error:
        raise ReadError(f"{name}: its NIfTI header is damaged: {_one_line(error)}") from error
    if any(size < 1 for size in sizes):
        raise ReadError(f"{name}: every axis must hold a voxel (got shape {sizes})")
    if any(size > 1 for size in sizes[5:]):
        raise ReadError(f"{name}: a volume has at most five axes x, y, z, t, channel (got shape {sizes})")
    return sizes[:5]


def _without_channels(letters: str, sizes: tuple[int, ...], name: str) -> tuple[str, tuple[int, ...]]:
    """Axes beside colours, which are channels themselves."""
    kept = [(letter, size) for letter, size in zip(letters, sizes, strict=True) if letter != "C"]
    if math.prod(sizes) > math.prod(size for _, size in kept):
        raise ReadError(f"{name}: colours and an axis of channels cannot both be channels (got {letters}, {sizes})")
    return "".join(letter for letter, _ in kept), tuple(size for _, size in kept)


def _scaling(header: Any, name: str) -> Scaling | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's way to say that there is none
        return None
    for what, value in (("slope", slope), ("intercept", intercept)):
        if not math.isfinite(value):
            raise ReadError(
                f"{name}: its {what} is {value:g}, which gives no values",
                hint="set scl_slope=1 and scl_inter=0 in its header if its voxels are meant as they are stored",
            )
    return None if (slope, intercept) == (1.0, 0.0) else Scaling(slope, intercept)


def _time_step(header: Any, letters: str) -> float | None:
    """Seconds from one volume to the next; a step without a unit is taken as seconds, as it nearly always is."""
    if "T" not in letters:
        return None
    step = float(header["pixdim"][letters.index("T") + 1])
    unit = stated_units(header)[1]
    factor = 1.0 if unit == "unknown" else TIME_UNITS.get(unit, 0.0)
    return step * factor if 0 < step * factor < math.inf else None


def _provenance(header: Any) -> str | None:
    """The last comment that volconv made: inputs that it made itself brought theirs along."""
    for extension in reversed(header.extensions):
        if extension.get_code() == _COMMENT:
            content = extension.get_content()
            text = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
            if text.startswith("volconv "):
                return text.rstrip("\0")
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
