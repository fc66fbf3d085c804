"""What the creation options of TIFF files mean: compression, predictor and tiles."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile

from volconv.errors import ParameterError, WriteError

if TYPE_CHECKING:
    from volconv.io.volume import Request
    from volconv.region import Index5


class _Codec(NamedTuple):
    """``dtypes``: those of which it loses nothing, NaN and infinities included; None stands for all."""

    tag: tifffile.COMPRESSION
    dtypes: tuple[str, ...] | None = None
    takes_predictor: bool = False


_CODECS = {
    "zlib": _Codec(tifffile.COMPRESSION.ADOBE_DEFLATE, takes_predictor=True),
    "lzw": _Codec(tifffile.COMPRESSION.LZW, takes_predictor=True),
    "zstd": _Codec(tifffile.COMPRESSION.ZSTD, takes_predictor=True),
    "lzma": _Codec(tifffile.COMPRESSION.LZMA, takes_predictor=True),
    "packbits": _Codec(tifffile.COMPRESSION.PACKBITS),  # libtiff undoes no predictor after it
    "jpeg2000": _Codec(tifffile.COMPRESSION.JPEG2000, ("uint8", "int8", "uint16", "int16")),
    "jpegxl": _Codec(tifffile.COMPRESSION.JPEGXL, ("uint8", "uint16")),
    "lerc": _Codec(tifffile.COMPRESSION.LERC, ("uint8", "int8", "uint16", "int16", "uint32", "int32")),
    "png": _Codec(tifffile.COMPRESSION.PNG, ("uint8", "uint16")),
}

_ALIASES = {"deflate": "zlib", "adobe_deflate": "zlib"}

#: Bytes of a tile, which readers count in 32 bits with a sign.
_TILE_BYTES = 2**31 - 1

#: Bytes of a compressed strip, to which tifffile cuts pages.
_STRIP_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Packing:
    """How the pages of a new TIFF are packed.

    Parameters
    ----------
    compression : str or None
        A name that creation options take.
    predictor : int or None
        The tag's value: 2 for differences of integers, 3 for floats taken apart into bytes.
    tile : (H, W) or None
        None for strips.
    """

    compression: str | None = None
    predictor: int | None = None
    tile: tuple[int, int] | None = None

    @property
    def flat(self) -> bool:
        """Whether voxels lie in the file as in memory, and can be written where they belong."""
        return self.compression is None and self.tile is None

    def chunk(self, shape: Index5) -> Index5 | None:
        """Box of the volume that is packed as one; None where there is none."""
        if self.flat:
            return None
        height, width = self.tile or shape[3:]
        return (1, 1, 1, min(height, shape[3]), min(width, shape[4]))

    def held_bytes(self, shape: Index5, dtype: np.dtype[Any]) -> int:
        """Memory for a plane that comes in parts, and for one strip or tile as it is, as it is packed and between."""
        plane = shape[3] * shape[4] * dtype.itemsize
        piece = min(plane, math.prod(self.tile) * dtype.itemsize if self.tile else _STRIP_BYTES)
        return plane + 4 * piece

    def most_bytes(self, shape: Index5, dtype: np.dtype[Any]) -> int:
        """More bytes than a file of such a volume can take."""
        n, c, d, h, w = shape
        if self.tile is not None:
            height, width = self.tile
            pieces = math.ceil(h / height) * math.ceil(w / width)
            page = pieces * height * width * dtype.itemsize
        else:
            page = h * w * dtype.itemsize
            pieces = math.ceil(h / max(1, _STRIP_BYTES // (w * dtype.itemsize))) if self.compression else 1
        if self.compression:
            # LZW makes at most 12 bits of 8; the others have headers of a few hundred bytes.
            page = page * 3 // 2 + pieces * 512
        return n * c * d * (page + pieces * 16 + 1024)

    def arguments(self) -> dict[str, Any]:
        """Arguments of tifffile's ``TiffWriter.write``."""
        codec = _CODECS.get(self.compression or "")
        return {
            "compression": codec and codec.tag,
            "compressionargs": {"lossless": True} if self.compression == "jpegxl" else None,
            "predictor": self.predictor,
            "tile": self.tile,
        }


def parse_packing(request: Request) -> Packing:
    """Read and check the creation options.

    Raises
    ------
    ParameterError
        A value breaks a rule of its own, or does not go with the dtype.
    WriteError
        A codec is not installed.
    """
    compression = _compression(request.options.get("compression", "none"), request.dtype)
    predictor = _predictor(request.options.get("predictor", "no"), compression, request.dtype)
    packing = Packing(compression, predictor, _tile(request.options.get("tile"), request.dtype))
    _check_installed(packing, request)
    return packing


def _compression(text: str, dtype: np.dtype[Any]) -> str | None:
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    if name == "none":
        return None
    if name not in _CODECS:
        # Names that tifffile has are no misprints: they are lossy, or only read.
        known = name.upper() in tifffile.COMPRESSION.__members__
        close = [] if known else difflib.get_close_matches(name, ["none", *_CODECS, *_ALIASES], 1, 0.7)
        raise ParameterError(
            f"compression must be one that loses nothing: none, {', '.join(_CODECS)} (got {text!r})",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    held = _CODECS[name].dtypes
    if held is not None and dtype.name not in held:
        raise ParameterError(
            f"compression {name} keeps {', '.join(held)} without loss, nothing else (got {dtype.name})",
            hint=f"choose one of {', '.join(name for name, codec in _CODECS.items() if codec.dtypes is None)}",
        )
    return name


def _predictor(text: str, compression: str | None, dtype: np.dtype[Any]) -> int | None:
    answer = text.strip().lower()
    if answer not in ("yes", "no"):
        raise ParameterError(f"predictor must be yes or no (got {text!r})")
    if answer == "no":
        return None
    taking = [name for name, codec in _CODECS.items() if codec.takes_predictor]
    if compression not in taking:
        raise ParameterError(
            f"predictor needs compression to be one of {', '.join(taking)} (got {compression or 'none'})"
        )
    if dtype.kind == "c":
        raise ParameterError(f"predictor must be no for complex values (got yes, {dtype.name})")
    return 3 if dtype.kind == "f" else 2


def _tile(text: str | None, dtype: np.dtype[Any]) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,9})\s*(?:,\s*(\d{1,9})\s*)?", text, re.ASCII)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (height and width) or height % 16 or width % 16:
        raise ParameterError(f"tile must be H,W in multiples of 16, or one number for both (got {text!r})")
    if height * width * dtype.itemsize > _TILE_BYTES:
        raise ParameterError(f"tile must take less than 2 GiB (got {text!r}, {dtype.name})")
    return height, width


def _check_installed(packing: Packing, request: Request) -> None:
    """Pack a little: a codec that is missing is told now, not when all is computed."""
    if packing.compression is None:
        return
    sample = np.zeros((16, 16, 1), request.dtype)
    try:
        if packing.predictor is not None:
            sample = tifffile.TIFF.PREDICTORS[packing.predictor](sample, axis=-2)
        tifffile.TIFF.COMPRESSORS[_CODECS[packing.compression].tag](sample)
    except (KeyError, ImportError, NotImplementedError) as error:
        what = f"compression {packing.compression}" + (" with a predictor" if packing.predictor is not None else "")
        raise WriteError(
            f"{request.path}: {what} of {request.dtype.name} needs a codec that is not installed",
            hint="pip install 'volconv[tiff]'",
        ) from error
