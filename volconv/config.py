"""A TOML file that says what the options of ``volconv apply`` say."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volconv.errors import ConfigError
from volconv.kernels.files import split_file_spec

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIPLE = "an integer or a list of 1 or 3 integers (D, H, W)"


def load_config(path: str | Path) -> dict[str, Any]:
    """Options from a configuration file.

    Parameters
    ----------
    path : str or Path
        A TOML file. Its keys are the long options of ``volconv apply`` without the dashes: ``kernel``, ``bias``,
        ``stride``, ``padding``, ``padding-mode``, ``padding-value``, ``dilation``, ``groups``, ``flip-kernel``,
        ``dtype``, ``compute-dtype``, ``algorithm``, ``threads``.

    Returns
    -------
    dict
        By Python parameter name (``padding_mode``): the text that the option would be given on the command line
        (``[2, 1, 1]`` is ``"2,1,1"``); flags are bools. Files are relative to the configuration's folder there, and to
        the working folder here.

    Raises
    ------
    ConfigError
        The file cannot be read, has an unknown key, or a value of the wrong type. Whether a string or number is
        a good one is left to the option itself.

    Examples
    --------
    >>> load_config("configs/mean.toml")  # doctest: +SKIP
    {'kernel': 'box:size=3', 'padding': 'same', 'padding_mode': 'replicate'}
    """
    path = Path(path)
    options: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        if key not in _READERS:
            close = difflib.get_close_matches(key.lower(), _READERS, n=1)
            raise ConfigError(
                f"{path}: key must be one of {', '.join(_READERS)} (got {key!r})",
                hint=f"did you mean {close[0]}?" if close else None,
            )
        expected, read = _READERS[key]
        option = read(value)
        if option is None:
            raise ConfigError(f"{path}: {key} must be {expected} (got {_shown(value)})")
        options[key.replace("-", "_")] = _beside(path, option) if key in ("kernel", "bias") else option
    return options


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be UTF-8 text (got byte 0x{error.object[error.start]:02x})") from error
    except ValueError as error:  # TOMLDecodeError is one, and so is an integer of too many digits
        raise ConfigError(
            f"{path} is no valid TOML: {' '.join(str(error).split())}", hint='strings need quotes: padding = "same"'
        ) from error


def _beside(path: Path, spec: str) -> str:
    """A file spec as seen from the working folder, any other spec as it is."""
    file_and_key = split_file_spec(spec)
    if file_and_key is None:
        return spec
    file, key = file_and_key
    return str(path.parent / file) + (f":{key}" if key is not None else "")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> str | None:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text_or_number(value: object) -> str | None:
    return _text(value) or _number(value)


def _integer(value: object) -> str | None:
    return _number(value) if isinstance(value, int) else None


def _triple(value: object) -> str | None:
    values = value if isinstance(value, list) else [value]
    texts = [text for text in map(_integer, values) if text is not None]
    return ",".join(texts) if len(texts) == len(values) and len(texts) in (1, 3) else None


def _padding(value: object) -> str | None:
    return _text(value) if value in ("same", "valid") else _triple(value)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


#: What a key's value must be, in words and as a function that gives None where it is not.
_READERS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "kernel": ("a string", _text),
    "bias": ("a number or a string", _text_or_number),
    "stride": (_TRIPLE, _triple),
    "padding": (f'{_TRIPLE}, "same" or "valid"', _padding),
    "padding-mode": ("a string", _text),
    "padding-value": ("a number or a string", _text_or_number),
    "dilation": (_TRIPLE, _triple),
    "groups": ("an integer", _integer),
    "flip-kernel": ("true or false", _flag),
    "dtype": ("a string", _text),
    "compute-dtype": ("a string", _text),
    "algorithm": ("a string", _text),
    "threads": ("an integer", _integer),
}


def _shown(value: object) -> str:
    """A value as TOML writes it, where that is short."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
