"""A TOML file that says what the options of ``volconv apply`` say: read, and written back."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.errors import ConfigError
from volconv.io.formats import Url, as_path
from volconv.kernels.files import split_file_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TRIPLE = "an integer or a list of 1 or 3 integers (D, H, W)"


def load_config(path: str | Path) -> dict[str, Any]:
    """Options from a configuration file.

    Parameters
    ----------
    path : str or Path
        A TOML file. Its keys are the long options of ``volconv apply`` without the dashes, such as ``kernel``,
        ``padding-mode`` or ``co``.

    Returns
    -------
    dict
        By option (``padding-mode``): the text that it would be given on the command line (``[2, 1, 1]`` is
        ``"2,1,1"``); flags are bools, ``co`` a list of texts, and kernels and biases of numbers are arrays. Files are
        relative to the configuration's folder there, and to the working folder here.

    Raises
    ------
    ConfigError
        The file cannot be read, has an unknown key, or a value of the wrong type. Whether a string or number is
        a good one is left to the option itself.

    Examples
    --------
    >>> load_config("configs/mean.toml")  # doctest: +SKIP
    {'kernel': 'box:size=3', 'padding': 'same', 'padding-mode': 'replicate'}
    """
    path = Path(path)
    options: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        if key not in KEYS:
            import difflib

            close = difflib.get_close_matches(key.lower(), KEYS, n=1)
            raise ConfigError(
                f"{path}: key must be one of {', '.join(KEYS)} (got {key!r})",
                hint=f"did you mean {close[0]}?" if close else None,
            )
        kind = KEYS[key]
        option = kind.read(value)
        if option is None:
            raise ConfigError(f"{path}: {key} must be {kind.expected} (got {_shown(value)})")
        options[key] = moved(option, kind.place, path.parent)
    return options


def dump_config(options: Mapping[str, Any]) -> str:
    """Text of a configuration file that says the same as these options.

    Parameters
    ----------
    options : dict
        By option, as :func:`load_config` gives them; None is left out. Files become absolute: the text may be kept
        in any folder.

    Examples
    --------
    >>> print(dump_config({"kernel": "box:size=3", "stride": "2", "groups": None}), end="")
    kernel = "box:size=3"
    stride = 2
    """
    import tomli_w

    said = {}
    for key, kind in KEYS.items():
        value = options.get(key)
        if value is not None:
            said[key] = kind.write(moved(value, kind.place, Path.cwd()))
    return tomli_w.dumps(said)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be UTF-8 text (got byte 0x{error.object[error.start]:02x})") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError is one, and so is an integer of too many digits
        raise ConfigError(
            f"{path} is no valid TOML: {' '.join(str(error).split())}", hint='strings need quotes: padding = "same"'
        ) from error


def moved(value: Any, place: str, folder: Path) -> Any:
    """A path seen from ``folder`` as seen from the working folder; anything that is no path as it is.

    Parameters
    ----------
    value : object
    place : {"path", "weights", "none"}
        Whether text is a path, or may begin with one as :func:`volconv.kernels.load_kernel` has it, or neither.
    folder : Path
    """
    if not isinstance(value, str) or place == "none" or (place != "weights" and isinstance(as_path(value), Url)):
        return value
    file, key = (split_file_spec(value, folder) or (None, None)) if place == "weights" else (value, None)
    if file is None or folder == Path():
        return value
    return os.path.join(folder, file) + (f":{key}" if key is not None else "")  # noqa: PTH118  # a final slash stays


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> str | None:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text_or_number(value: object) -> str | None:
    return _text(value) or _number(value)


def _integer(value: object) -> str | None:
    return _number(value) if isinstance(value, int) else None


def _text_or_integer(value: object) -> str | None:
    return _text(value) or _integer(value)


def _triple(value: object) -> str | None:
    values = value if isinstance(value, list) else [value]
    texts = [text for text in map(_integer, values) if text is not None]
    return ",".join(texts) if len(texts) == len(values) and len(texts) in (1, 3) else None


def _padding(value: object) -> str | None:
    return _text(value) if value in ("same", "valid") else _triple(value)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _array(value: object, axes: tuple[int, ...]) -> Any:
    """Nested lists of numbers as an array; None where they are anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # ragged, or an integer beyond 64 bits
        return None
    return array if array.ndim in axes and array.dtype.kind in "iuf" and array.size else None


def _kernel(value: object) -> Any:
    return _text(value) if isinstance(value, str) else _array(value, (3, 4, 5))


def _bias(value: object) -> Any:
    return _array(value, (1,)) if isinstance(value, list) else _text_or_number(value)


def _table(value: object) -> list[str] | None:
    if not isinstance(value, dict):
        return None
    pairs = [(name, _option(item)) for name, item in value.items()]
    return None if any(text is None for _, text in pairs) else [f"{name}={text}" for name, text in pairs]


def _option(value: object) -> str | None:
    """Value of a creation option: yes, no, a word, a number or several."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    texts = [_text_or_number(item) for item in (value if isinstance(value, list) else [value])]
    return ",".join(text for text in texts if text) if texts and all(texts) else None


def _as_is(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _as_integers(text: str) -> Any:
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        return text
    return int(text) if len(numbers) == 1 else [int(number) for number in numbers]


def _as_table(pairs: list[str]) -> dict[str, str]:
    return {name: text for name, _, text in (pair.partition("=") for pair in pairs)}


class _Key(NamedTuple):
    """What a key's value must be, in words and as a function that gives None where it is not; how it is written.

    ``place``: whether its text is a path ("path"), a spec that may start with one ("weights"), or neither ("none").
    """

    expected: str
    read: Callable[[object], Any]
    write: Callable[[Any], Any] = _as_is
    place: str = "none"


#: Every option of ``volconv apply`` but --config, --print-config and --debug.
KEYS: dict[str, _Key] = {
    "kernel": _Key("a string, or nested lists of numbers (3 to 5 axes of equal rows)", _kernel, place="weights"),
    "bias": _Key("a number, a string or a list of numbers", _bias, place="weights"),
    "stride": _Key(_TRIPLE, _triple, _as_integers),
    "padding": _Key(f'{_TRIPLE}, "same" or "valid"', _padding, _as_integers),
    "padding-mode": _Key("a string", _text),
    "padding-value": _Key("a number or a string", _text_or_number),
    "dilation": _Key(_TRIPLE, _triple, _as_integers),
    "groups": _Key("an integer", _integer, int),
    "weight-layout": _Key("a string", _text),
    "flip-kernel": _Key("true or false", _flag),
    "roi": _Key('a string, as in "10:20,:,5:"', _text),
    "activation": _Key("a string", _text),
    "reduce": _Key("a string", _text),
    "mask": _Key("a string", _text, place="path"),
    "outside": _Key('"keep" or a number', _text_or_number),
    "nan": _Key("a string", _text),
    "dtype": _Key("a string", _text),
    "compute-dtype": _Key("a string", _text),
    "algorithm": _Key("a string", _text),
    "backend": _Key("a string", _text),
    "gpu-memory": _Key('an integer or a string, as in "2G"', _text_or_integer, _as_integers),
    "allow-tf32": _Key("true or false", _flag),
    "threads": _Key("an integer", _integer, int),
    "memory": _Key('an integer or a string, as in "512M"', _text_or_integer, _as_integers),
    "workers": _Key("an integer", _integer, int),
    "scheduler": _Key("a string", _text),
    "resume": _Key("true or false", _flag),
    "output": _Key("a string", _text, place="path"),
    "axes": _Key("a string", _text),
    "spacing": _Key('a string, as in "1,0.5,0.5um"', _text),
    "time": _Key('an integer or a string, as in "0:10"', _text_or_integer, _as_integers),
    "channel": _Key('an integer or a string, as in "0:2"', _text_or_integer, _as_integers),
    "rgb": _Key("true or false", _flag),
    "stack": _Key("true or false", _flag),
    "co": _Key('a table, as in {compression = "zlib"}', _table, _as_table),
    "report": _Key("a string", _text, place="path"),
    "json": _Key("true or false", _flag),
    "dry-run": _Key("true or false", _flag),
    "overwrite": _Key("true or false", _flag),
    "skip-existing": _Key("true or false", _flag),
    "mkdir": _Key("true or false", _flag),
    "pyramid": _Key("true or false", _flag),
    "jobs": _Key("an integer", _integer, int),
    "fail-fast": _Key("true or false", _flag),
    "quiet": _Key("true or false", _flag),
    "verbose": _Key("true or false", _flag),
}


def _shown(value: object) -> str:
    """A value as TOML writes it, where that is short."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
