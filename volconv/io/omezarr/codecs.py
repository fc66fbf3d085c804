"""How chunks are packed: which codecs are let in, and which ones an output gets."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from volconv.errors import ParameterError, ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Codecs that turn numbers into bytes and back, and do nothing else. numcodecs has a pickle, which would run code.
_KNOWN = {
    "bytes", "endian", "transpose", "sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3",
    "zstd", "gzip", "zlib", "blosc", "lz4", "lzma", "bz2", "shuffle", "delta", "fixedscaleoffset", "bitround",
    "quantize", "packbits", "astype", "zfpy", "pcodec",
}  # fmt: skip

#: Written, with the level of each by default.
WRITTEN = {"zstd": 3, "gzip": 4, "blosc": 5}


@dataclass(frozen=True, slots=True)
class Packing:
    """A compression by name, its level, and what blosc packs by."""

    name: str
    level: int
    inner: str = "zstd"

    def codec(self, version: str) -> Any:
        """What zarr-python takes for it, by the version of NGFF."""
        if version == "0.4":
            import numcodecs

            if self.name == "blosc":
                return numcodecs.Blosc(cname=self.inner, clevel=self.level, shuffle=numcodecs.Blosc.SHUFFLE)
            return {"zstd": numcodecs.Zstd, "gzip": numcodecs.GZip}[self.name](level=self.level)
        codecs: Any = import_module("zarr.codecs")
        if self.name == "blosc":
            return codecs.BloscCodec(cname=self.inner, clevel=self.level, shuffle="shuffle")
        return {"zstd": codecs.ZstdCodec, "gzip": codecs.GzipCodec}[self.name](level=self.level)


DEFAULT = Packing("zstd", WRITTEN["zstd"])


def chain(metadata: Any) -> list[dict[str, Any]]:
    """Codecs of an array, those in shards too, as its metadata has them: each a dict with its ``id`` or ``name``."""
    facts = metadata.to_dict()
    if facts["zarr_format"] == 2:
        found = [*(facts.get("filters") or ()), facts.get("compressor")]
    else:
        found = list(facts["codecs"])
        for codec in found:
            if codec["name"] == "sharding_indexed":
                found += [*codec["configuration"]["codecs"], *codec["configuration"]["index_codecs"]]
    plain = [codec for codec in found if codec is not None]
    return [codec if isinstance(codec, dict) else codec.get_config() for codec in plain]


def check_codecs(codecs: list[dict[str, Any]], name: str) -> None:
    """Refuse codecs that are not known to be harmless.

    Raises
    ------
    ReadError
    """
    for codec in codecs:
        if _name(codec) not in _KNOWN:
            raise ReadError(
                f"{name}: is packed by a codec that is not read (got {codec.get('id', codec.get('name'))!r})"
            )


def packing_of(codecs: list[dict[str, Any]]) -> tuple[str | None, Packing | None]:
    """Name of the compression, None where there is none; and what of it an output can carry on."""
    for codec in codecs:
        name, details = _name(codec), codec.get("configuration", codec)
        if name in WRITTEN:
            level = details.get("clevel" if name == "blosc" else "level", WRITTEN[name])
            level = min(max(level, 1), 9) if isinstance(level, int) else WRITTEN[name]
            inner = str(getattr(details.get("cname"), "value", details.get("cname", "zstd")))
            return name, Packing(name, level, inner if inner in ("lz4", "lz4hc", "zlib") else "zstd")
        if name in ("zlib", "lz4", "lzma", "bz2", "zfpy", "pcodec"):
            return name, None
    return None, None


def settled_packing(options: Mapping[str, str], compression: str | None, carried: Packing | None) -> Packing | None:
    """How an output is packed, by its creation options, otherwise as the input, otherwise by zstd.

    Parameters
    ----------
    options : dict
        Creation options ``compression`` and ``level``.
    compression : str or None
        Name of the input's where it is an OME-Zarr; "none" where it is packed by none.
    carried : Packing or None
        The same, where it can be written.

    Raises
    ------
    ParameterError
        An option has a value that it does not take.
    """
    asked = options.get("compression", "").strip().lower()
    if asked and asked not in ("none", *WRITTEN):
        close = difflib.get_close_matches(asked, ("none", *WRITTEN), n=1)
        raise ParameterError(
            f"compression must be one of none, {', '.join(WRITTEN)} (got {options['compression']!r})",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    if asked:
        packing = None if asked == "none" else Packing(asked, WRITTEN[asked])
    else:
        packing = None if compression == "none" else carried or DEFAULT
    text = options.get("level")
    if text is None:
        return packing
    if not (text.strip().isascii() and text.strip().isdigit() and 1 <= int(text) <= 9):
        raise ParameterError(f"level must be an integer from 1 to 9 (got {text!r})")
    if packing is None:
        raise ParameterError(f"level must go with a compression (got level={text})")
    return replace(packing, level=int(text))


def _name(codec: dict[str, Any]) -> str:
    return str(codec.get("id", codec.get("name"))).removeprefix("numcodecs.")
