"""Pickles as data: a machine of its own for their opcodes, which knows containers and calls nothing.

A pickle is a program for a small stack machine. Python's runs whatever functions it names; this one has no way to call
any. What a pickle names must be in a table of the reader's own, and becomes what that table says; all else is refused
by its name. (What opcodes do: ``pickletools`` in Python's library.)
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Opcodes of one pickle; a model of a thousand layers takes a hundred thousand.
_MOST_OPCODES = 2_000_000

#: Bytes of one pickle: it names tensors, and holds none.
MOST_PICKLE_BYTES = 32 << 20

_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class DamagedError(ValueError):
    """A pickle that no writer makes."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a pickle calls by its name: that name, and nothing behind it."""

    name: str


class Machine:
    """Carries out one pickle after the other of a file.

    Parameters
    ----------
    path : str
        For messages.
    names : callable
        From a dotted name to what takes the arguments that the pickle calls it with; None where it is only mentioned.
        KeyError for what is not known.
    storage : callable
        From a persistent id to what it stands for.
    hint : str
        What to do about a name that is not known.
    """

    def __init__(
        self,
        path: str,
        names: Callable[[str], Callable[..., Any] | None],
        storage: Callable[[Any], Any],
        hint: str,
    ) -> None:
        self._path, self._names, self._storage, self._hint = path, names, storage, hint

    def run(self, file: Any) -> Any:
        """What one pickle stands for: containers of Python, keys of dicts as texts, and what tables made.

        Parameters
        ----------
        file : object with read(n) and readline()
            Where the pickle begins; afterwards, behind its end.

        Raises
        ------
        ReadError
            It names what is not known.
        ValueError
            It is damaged.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        for number, (opcode, argument) in enumerate(_opcodes(file)):
            if number > _MOST_OPCODES:
                raise ReadError(f"{self._path} must have pickles of at most {_MOST_OPCODES} steps", hint=self._hint)
            if opcode.name == "STOP":
                return self._stack[-1]
            try:
                self._step(opcode.name, argument)
            except (IndexError, KeyError, TypeError) as error:
                raise DamagedError(f"its pickle is damaged at {opcode.name}") from error
        raise DamagedError("its pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "INST"):
            self._name(argument.replace(" ", ".", 1))
            if name == "INST":
                raise DamagedError(f"it makes an object of {argument.replace(' ', '.', 1)}")
        elif name == "STACK_GLOBAL":
            last, first = stack.pop(), stack.pop()
            self._name(f"{first}.{last}")
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self.call(stack.pop(), arguments))
        elif name in ("PERSID", "BINPERSID"):
            stack.append(self._storage(argument if name == "PERSID" else stack.pop()))
        elif name == "BUILD":
            stack.pop()  # attributes of an object: of no use to containers and tensors
            stack[-1]
        else:
            self._container(name)

    def _container(self, name: str) -> None:
        stack = self._stack
        if name == "MARK":
            self._marks.append(stack)
            self._stack = []
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self._since_mark()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise IndexError(name)
            stack[-count:] = [tuple(stack[-count:])]
        elif name.startswith("EMPTY_"):
            stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}[name]())
        elif name == "APPEND":
            _list(stack[-2]).append(stack.pop())
        elif name in ("APPENDS", "ADDITEMS"):
            items = self._since_mark()
            _list(self._stack[-1]).extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            put(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = self._since_mark()
            put(self._stack[-1], items)
        elif name in ("LIST", "TUPLE", "DICT", "FROZENSET"):
            items = self._since_mark()
            made: Any = {} if name == "DICT" else tuple(items) if name == "TUPLE" else items
            if name == "DICT":
                put(made, items)
            self._stack.append(made)
        else:
            raise DamagedError(f"its pickle has {name}, which no file of weights needs")

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _name(self, name: str) -> None:
        try:
            self._names(name)
        except KeyError:
            raise ReadError(f"{self._path} holds {name}, which volconv never loads", hint=self._hint) from None
        self._stack.append(Named(name))

    def call(self, what: Any, arguments: Any) -> Any:
        """What a call of a known name stands for."""
        if not isinstance(what, Named) or not isinstance(arguments, tuple):
            raise DamagedError("its pickle calls what is no function")
        made = self._names(what.name)
        if made is None:
            raise DamagedError(f"its pickle calls {what.name}")
        return made(*arguments)


def _opcodes(file: Any) -> Iterator[tuple[Any, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in texts that Python itself would not write
        for opcode, argument, _ in pickletools.genops(file):
            yield opcode, argument


def put(target: Any, items: list[Any]) -> None:
    """Set keys and values that follow each other; keys become texts, and what is neither text nor number is left out.

    Texts alone, since the hash of a number can be foreseen, and that of a tuple in a tuple may take all of the stack.
    """
    if not isinstance(target, dict) or len(items) % 2:
        raise DamagedError("its pickle puts items where there is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str | int):
            target[str(key)] = value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DamagedError("its pickle appends to what is no list")
    return value
