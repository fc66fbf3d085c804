"""How the voxels of a dataset are packed, whether that can be undone, and how an output is packed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import h5py

from volconv.errors import ParameterError, ReadError, WriteError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SHUFFLE = 2

#: HDF5's numbers of filters that pack.
_NAMES = {
    1: "gzip",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
    32033: "htj2k",
}

#: What is written: filters that lose nothing. Those of hdf5plugin by the name of its class.
_PLUGINS = {
    "zstd": "Zstd",
    "blosc": "Blosc",
    "blosc2": "Blosc2",
    "lz4": "LZ4",
    "bzip2": "BZip2",
    "bitshuffle": "Bitshuffle",
}
WRITTEN = ("none", "gzip", "lzf", *_PLUGINS)

#: Where level and shuffling lie among the options that a filter is created with.
_LEVEL_AT = {"gzip": 0, "zstd": 0, "bzip2": 0, "blosc": 4, "blosc2": 4}
_SHUFFLE_AT = {"blosc": 5, "blosc2": 5}

#: Where the options that a filter is created with lie among those that it stores.
_CREATED_WITH = {"blosc": slice(7), "blosc2": slice(7), "bitshuffle": slice(3, None)}

#: What holds for options that were left out: size of voxels and chunks (filled in), level, shuffling, codec.
_BLOSC = (0, 0, 0, 0, 5, 1, 0)

INSTALL = "pip install 'volconv[hdf5]'"


@dataclass(frozen=True, slots=True)
class Packing:
    """A filter that packs chunks, and whether bytes are shuffled before.

    Parameters
    ----------
    name : str
    code : int
        HDF5's number of it.
    options : tuple of int
        What it is created with.
    shuffle : bool
        By HDF5's own filter; blosc and bitshuffle have theirs.
    """

    name: str
    code: int
    options: tuple[int, ...] = ()
    shuffle: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """For h5py's ``create_dataset``."""
        if self.name == "gzip":
            return {
                "compression": "gzip",
                "compression_opts": self.options[0] if self.options else None,
                "shuffle": self.shuffle,
            }
        if self.name == "lzf":
            return {"compression": "lzf", "shuffle": self.shuffle}
        return {"compression": self.code, "compression_opts": self.options, "shuffle": self.shuffle}


_GZIP = Packing("gzip", 1, (4,))


def packing_of(data: Any) -> Packing | None:
    """Packing of a dataset; None where its voxels lie as they are."""
    filters = _filters(data)
    shuffle = any(code == _SHUFFLE for code, _, _ in filters)
    for code, stored, label in filters:
        if code in _NAMES:
            name = _NAMES[code]
            return Packing(name, code, stored[_CREATED_WITH.get(name, slice(None))], shuffle)
        if code > 3:  # neither shuffled nor summed: it packs
            return Packing(label, code, stored, shuffle)
    return None


def check_filters(data: Any, name: str) -> None:
    """Refuse a dataset that cannot be unpacked here.

    Raises
    ------
    ReadError
        It names the filter, and what to install.
    """
    for code, _, label in _filters(data):
        if h5py.h5z.filter_avail(code):
            continue
        plugins = _plugins()
        if not h5py.h5z.filter_avail(code):
            raise ReadError(
                f"{name}: is packed by a filter that is not installed ({_NAMES.get(code, label)}, number {code})",
                hint=INSTALL
                if plugins is None
                else "hdf5plugin does not have it: point HDF5_PLUGIN_PATH to a folder that does, or repack the file",
            )


def settled_packing(
    options: Mapping[str, str], carried: Packing | None, path: Path, *, chunked: bool | None
) -> tuple[Packing | None, tuple[str, ...]]:
    """How an output is packed, by its creation options and otherwise as its input; and notes.

    Parameters
    ----------
    options : dict
        Creation options ``compression``, ``level`` and ``shuffle``.
    carried : Packing or None
        The input's.
    path : Path
        The output's, for messages.
    chunked : bool or None
        What the option ``chunks`` says, None where it is not given; without chunks nothing can be packed.

    Raises
    ------
    ParameterError
        An option has a value that it does not take.
    WriteError
        hdf5plugin is needed and not installed.
    """
    asked, level, shuffle = _name(options), _level(options.get("level")), _yes_or_no(options.get("shuffle"))
    if asked not in (None, "none") and chunked is False:
        raise ParameterError(f"chunks must be given where compression is (got chunks=none, compression={asked})")
    notes: tuple[str, ...] = ()
    if asked is not None:
        packing = _default(asked, path)
    elif chunked is False or carried is None:
        packing = None
    elif _is_written(carried):
        packing = carried
    else:
        packing = replace(_GZIP, shuffle=carried.shuffle)
        notes = (f"{path.name}: {carried.name} is not written, so its voxels are packed by gzip",)
    if packing is None and (level is not None or shuffle):
        option = "level" if level is not None else "shuffle"
        raise ParameterError(f"{option} must go with a compression (got {option}={options[option]})")
    return _adapted(packing, level, shuffle) if packing is not None else None, notes


def _default(name: str, path: Path) -> Packing | None:
    """Packing by a name alone."""
    if name == "none":
        return None
    if name in ("gzip", "lzf"):
        return _GZIP if name == "gzip" else Packing("lzf", 32000)
    plugins = _plugins()
    if plugins is None:
        raise WriteError(f"{path}: compression {name} needs hdf5plugin, which is not installed", hint=INSTALL)
    made = getattr(plugins, _PLUGINS[name])()
    if not h5py.h5z.filter_avail(made.filter_id):
        raise WriteError(f"{path}: compression {name} is missing from the installed hdf5plugin")
    return Packing(name, made.filter_id, tuple(made.filter_options))


def _adapted(packing: Packing, level: int | None, shuffle: bool | None) -> Packing:
    """The same filter with another level or shuffling."""
    if level is not None:
        if packing.name not in _LEVEL_AT:
            raise ParameterError(
                f"level must go with a compression that has levels: {', '.join(_LEVEL_AT)} (got {packing.name})"
            )
        packing = replace(packing, options=_with(packing.options, _LEVEL_AT[packing.name], level))
    if shuffle is None:
        return packing
    if packing.name == "bitshuffle":
        raise ParameterError("shuffle must be left out with bitshuffle, which does its own")
    if packing.name in _SHUFFLE_AT:
        return replace(packing, options=_with(packing.options, _SHUFFLE_AT[packing.name], int(shuffle)), shuffle=False)
    return replace(packing, shuffle=shuffle)


def _with(options: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    filled = options + _BLOSC[len(options) : place]
    return (*filled[:place], value, *filled[place + 1 :])


def _filters(data: Any) -> list[tuple[int, tuple[int, ...], str]]:
    """Number, stored options and label of each filter, in the order in which they are applied."""
    creation = data.id.get_create_plist()
    found = []
    for index in range(creation.get_nfilters()):
        code, _, options, label = creation.get_filter(index)
        text = label.decode(errors="replace").split("\0")[0].strip() or "unnamed"
        found.append((code, tuple(options), text))
    return found


def _plugins() -> Any:
    """Return hdf5plugin, whose import registers its filters; None where it is not installed."""
    try:
        return import_module("hdf5plugin")
    except ImportError:
        return None


def _is_written(packing: Packing) -> bool:
    if packing.name not in WRITTEN or not h5py.h5z.filter_avail(packing.code):
        return False
    return bool(h5py.h5z.get_filter_info(packing.code) & h5py.h5z.FILTER_CONFIG_ENCODE_ENABLED)


def _name(options: Mapping[str, str]) -> str | None:
    if "compression" not in options:
        return None
    name = options["compression"].strip().lower()
    if name not in WRITTEN:
        close = difflib.get_close_matches(name, WRITTEN, n=1)
        raise ParameterError(
            f"compression must be one of {', '.join(WRITTEN)} (got {options['compression']!r})",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    return name


def _level(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.strip().isascii() and text.strip().isdigit() and 1 <= int(text) <= 9):
        raise ParameterError(f"level must be an integer from 1 to 9 (got {text!r})")
    return int(text)


def _yes_or_no(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.strip().lower() not in ("yes", "no"):
        raise ParameterError(f"shuffle must be yes or no (got {text!r})")
    return text.strip().lower() == "yes"
