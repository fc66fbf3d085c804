"""Every error that volconv raises on purpose.

::

    VolconvError
    ├── ParameterError (ValueError)     a parameter breaks a rule of its own: stride=0, an unknown mode
    │   └── ConfigError                 a --config file that cannot be read or has an unknown key
    ├── ShapeError (ValueError)         volume, weights and parameters do not fit together
    ├── DtypeError (TypeError)          a dtype that cannot be used, or that cannot hold the values asked of it
    ├── ReadError                       an input that is missing, damaged or of no supported kind
    ├── WriteError                      an output that cannot be written
    │   └── OutputExistsError           an output that is already there
    ├── BackendError                    a GPU that was asked for and cannot be used
    ├── ClusterError                    worker processes that cannot be reached, or are lost
    └── OutOfMemoryError (MemoryError)  a run that does not fit in memory

A message is one line: name, rule, value received, as in
``groups must divide in_channels (got groups=3, in_channels=16)``.
What to do about it goes into ``hint``, apart from the message, so that each caller shows it in its own way.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, and nothing in it that a terminal would act on: files may say what they like.

    Examples
    --------
    >>> print(printable("dataset red\\x1b[31m\\n"))
    dataset red\\x1b[31m\\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class VolconvError(Exception):
    """Base of the tree.

    Parameters
    ----------
    message : str
        One line: name, rule, value received.
    hint : str, optional
        One line that says what to do next.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = printable(message)
        self.hint = None if hint is None else printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ParameterError(VolconvError, ValueError):
    """A parameter breaks a rule of its own, whatever the volume."""


class ConfigError(ParameterError):
    """A configuration file cannot be read, or says something that no option means."""


class ShapeError(VolconvError, ValueError):
    """Volume, weights and parameters do not fit together."""


class DtypeError(VolconvError, TypeError):
    """A dtype cannot be used, or cannot hold the values asked of it."""


class ReadError(VolconvError):
    """An input is missing, damaged or of no supported kind."""


class WriteError(VolconvError):
    """An output cannot be written."""


class OutputExistsError(WriteError):
    """An output is already there, and overwriting was not asked for."""


class BackendError(VolconvError):
    """A GPU that was asked for cannot be used."""


class ClusterError(VolconvError):
    """Worker processes cannot be reached, or are lost."""


class OutOfMemoryError(VolconvError, MemoryError):
    """A run does not fit in memory."""

    #: Bytes that would do, where a plan found too few.
    least: int = 0
