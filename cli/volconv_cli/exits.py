"""Exit codes: one for each kind of failure, the same in every command."""

from __future__ import annotations

from volconv.errors import (
    DtypeError,
    OutOfMemoryError,
    OutputExistsError,
    ParameterError,
    ReadError,
    ShapeError,
    VolconvError,
)

DONE, FAILURE, USAGE, UNREADABLE, EXISTS, MISMATCH, MEMORY = range(7)
HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143  # 128 + the signal's number, as shells have it

_BY_ERROR: tuple[tuple[type[VolconvError], int], ...] = (
    (ParameterError, USAGE),
    (ReadError, UNREADABLE),
    (OutputExistsError, EXISTS),
    (ShapeError, MISMATCH),
    (DtypeError, MISMATCH),
    (OutOfMemoryError, MEMORY),
)

HELP = """\b
Exit codes:
  0    done
  1    failure (a file that cannot be written; some of several inputs failed);
       'volconv diff': the volumes differ
  2    usage: unknown option, bad value
  3    an input is missing, damaged or of an unsupported kind
  4    the output exists (-f overwrites it)
  5    volume, weights and parameters do not fit together
  6    out of memory
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)
  129  hung up (SIGHUP)
"""


def code_of(error: VolconvError) -> int:
    """Exit code of an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILURE)
