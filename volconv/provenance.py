"""The note that an output keeps of how it was made, and whether it would be made in the same way again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv import __version__
from volconv.errors import ReadError, VolconvError
from volconv.io import open_volume, split_path
from volconv.io.files import files_of, objects_at
from volconv.io.formats import Url
from volconv.kernels import split_file_spec
from volconv.report import json_number

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from volconv.io import OpenVolume, VolumeInfo
    from volconv.job import Job, Loaded

#: Bytes of an input that its digest is made of at most: more would cost large volumes a second reading.
DIGEST_BYTES = 64 << 20

#: Of which so many are read at a time.
_PIECE = 1 << 20

#: What begins the facts, behind the sentence for people.
_FACTS = '; {"volconv": '


def note(
    job: Job,
    volume: OpenVolume,
    mask: OpenVolume | None,
    *,
    algorithm: str,
    allow_tf32: bool = False,
    pyramid: bool = False,
    options: Mapping[str, str] | None,
) -> str:
    """One line for the output file: what it is made of, in a sentence, and how, as JSON.

    It is the same wherever the input lies and whenever it is read: no folder, and no time.

    Parameters
    ----------
    job : Job
    volume : OpenVolume
    mask : OpenVolume or None
    algorithm : str
        As it was asked for; what "auto" picks follows from the rest.
    allow_tf32, pyramid : bool
    options : dict or None
        Creation options.

    Raises
    ------
    ReadError
        The input can no longer be read.
    """
    files = " + ".join(name.rpartition("/")[2] for name in volume.names) or "an array"
    kernel = job.kernel.spec or "weights from an array"
    if file_and_key := split_file_spec(kernel):
        kernel = file_and_key[0].rpartition("/")[2] + (f":{file_and_key[1]}" if file_and_key[1] else "")
    params = asdict(job.params)
    facts = {
        "volconv": __version__,
        "input": [_identity(name) for name in volume.names],
        "reading": {name: _plain(value) for name, value in volume.reading.items()},
        "kernel": _weights(job.kernel),
        "flip_kernel": job.flip_kernel,
        "weight_layout": job.weight_layout,
        "bias": None if job.loaded_bias is None else _weights(job.loaded_bias),
        **{key: params[key] for key in ("stride", "padding_low", "padding_high", "dilation", "groups", "padding_mode")},
        "padding_value": json_number(job.params.padding_value),
        "compute_dtype": job.compute_dtype.name,
        "dtype": job.output_dtype.name,
        "scaling": None if job.output_scaling is None else asdict(job.output_scaling),
        "algorithm": algorithm,
        "allow_tf32": allow_tf32 or None,
        "pyramid": pyramid or None,
        "co": dict(options or {}),
        "roi": None if job.box is None else [list(job.box.origin), list(job.box.size)],
        "activation": job.epilogue.activation,
        "reduce": job.epilogue.reduce,
        "mask": None if mask is None else [_identity(name) for name in mask.names],
        "outside": None if job.masking is None or job.masking.outside is None else json_number(job.masking.outside),
        "nan": "ignore" if job.masking is not None and job.masking.ignore_nan else None,
    }
    return f"volconv {__version__}: conv3d of {files} with {kernel}; {json.dumps(facts)}"


class Existing(NamedTuple):
    """An output that is there already.

    Parameters
    ----------
    info : VolumeInfo or None
        None where it cannot be read.
    differences : tuple of str
        In what it is not what would be made now, a few words each; empty where it is.
    """

    info: VolumeInfo | None
    differences: tuple[str, ...]


def existing(destination: str | os.PathLike[str], wanted: str, names: tuple[str, ...]) -> Existing | None:
    """Compare the note in an output, if it is there, with the one that it would get.

    Parameters
    ----------
    destination : path
    wanted : str
        The :func:`note` that it would get.
    names : tuple of str
        Of the inputs: where their digests are of samples, they must not have changed since the output was made.
    """
    file, _ = split_path(destination)
    made: int | None = None
    try:
        if isinstance(file, Url):
            if not objects_at(file):
                return None
        else:
            made = file.stat().st_mtime_ns
        if file.is_dir() and not any(file.iterdir()):
            return None
    except OSError:
        return None
    try:
        with open_volume(destination) as volume:
            info = volume.info
    except VolconvError as error:
        if isinstance(file, Url):
            from volconv.io.omezarr.unfinished import Unfinished  # most runs do without

            if Unfinished(file).facts() is not None:
                return None  # not yet: that is told, or gone on with, where the output is described
        return Existing(None, (f"it cannot be read ({error.message})",))
    other = differences(info.provenance, wanted)
    if not other and any("sha256_of_samples" in one for one in (_facts(wanted) or {})["input"]):
        if made is None:
            other = ("nobody knows when it was made, and its inputs are known by samples alone",)
        else:
            changed = (file for name in names for file in files_of(name) if _changed(file) > made)
            other = tuple(f"{file} changed after it was made" for file in changed)[:1]
    return Existing(info, other)


def differences(found: str | None, wanted: str) -> tuple[str, ...]:
    """In what one note differs from another that is wanted, a few words each."""
    facts, now = _facts(found), _facts(wanted) or {}
    if facts is None:
        return ("it has no note of how it was made",)
    return tuple(
        f"{key.replace('_', ' ')} {_words(facts.get(key))} (now {_words(value)})"
        for key, value in now.items()
        if facts.get(key) != value
    )


def stamps(names: tuple[str, ...]) -> list[list[int]]:
    """Size and time of each file of inputs: of large ones a note knows samples alone. A URL's listing is in the note.

    Raises
    ------
    ReadError
        A file can no longer be read.
    """
    found = []
    for name in names:
        if isinstance(split_path(name)[0], Url):
            continue
        try:
            found += [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in files_of(name))]
        except OSError as error:
            raise ReadError(f"{name}: cannot be read: {error.strerror or error}") from error
    return found


def _identity(name: str) -> dict[str, Any]:
    """What tells an input from others, whatever it is called: size, digest, and which part of the file."""
    file, part = split_path(name)
    digest = hashlib.sha256()
    if isinstance(file, Url):
        found = objects_at(file)
        digest.update(json.dumps(found).encode())
        total = sum(size for _, size, _ in found)
        return {"bytes": total, "sha256_of_listing": digest.hexdigest(), **({} if part is None else {"part": part})}
    files = files_of(name)
    try:
        sizes = [file.stat().st_size for file in files]
        for piece in _pieces(files, sizes):
            digest.update(piece)
    except OSError as error:
        raise ReadError(f"{name}: cannot be read: {error.strerror or error}") from error
    kind = "sha256" if sum(sizes) <= DIGEST_BYTES else "sha256_of_samples"
    return {"bytes": sum(sizes), kind: digest.hexdigest(), **({} if part is None else {"part": part})}


def _pieces(files: list[Path], sizes: list[int]) -> Iterator[bytes]:
    """All bytes of files that follow each other or, of many, pieces that lie evenly from the first byte to the last."""
    total, count = sum(sizes), DIGEST_BYTES // _PIECE
    if total <= DIGEST_BYTES:
        starts = range(0, total, _PIECE)
    else:
        starts = [(total - _PIECE) * k // (count - 1) for k in range(count)]  # type: ignore[assignment]
    begin = 0
    for file, size in zip(files, sizes, strict=True):
        with file.open("rb", buffering=0) as opened:
            for start in starts:
                low, high = max(start, begin), min(start + _PIECE, begin + size)
                if low < high:
                    opened.seek(low - begin)
                    yield opened.read(high - low)
        begin += size


def _changed(file: Path) -> int:
    """When a file was changed, or moved here, last: a copy that keeps its time has a new inode."""
    stat = file.stat()
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _weights(loaded: Loaded) -> dict[str, Any]:
    return {"shape": loaded.shape, "dtype": loaded.dtype, "sha256": loaded.sha256}


def _plain(value: Any) -> Any:
    """What was asked of an input, as JSON can hold it."""
    return f"{value.start or 0}:{'' if value.stop is None else value.stop}" if isinstance(value, slice) else value


def _facts(text: str | None) -> dict[str, Any] | None:
    """The facts in a note; None where it has none."""
    at = (text or "").find(_FACTS)
    if text is None or at < 0:
        return None
    try:
        facts, _ = json.JSONDecoder().raw_decode(text, at + 2)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _words(value: Any) -> str:
    """A fact in few words: of a digest its first digits."""
    if value in (None, [], {}):
        return "none"
    match value:
        case bool():
            return "yes" if value else "no"
        case {"shape": shape, "sha256": digest}:
            return f"{_words(shape)} sha256 {str(digest)[:8]}"
        case {"bytes": size}:
            digest = next((text for key, text in value.items() if key.startswith("sha256")), "")
            return f"{size} bytes{value.get('part', '')} sha256 {str(digest)[:8]}"
        case dict():
            return " ".join(f"{key}={_words(item)}" for key, item in value.items())
        case list():
            return (" + " if isinstance(value[0], dict) else ",").join(map(_words, value))
        case _:
            return str(value)
