"""Which of several algorithms is predicted to be the fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volconv.engines import Problem


@dataclass(frozen=True, slots=True)
class Choice:
    """The algorithm that was picked, and the predicted seconds (on one thread, or a GPU) of all that could do it."""

    algorithm: str
    candidates: dict[str, float]


class Candidate(Protocol):
    """What is asked of an algorithm to pick one: see :class:`volconv.engines.Engine`."""

    def supports(self, problem: Problem) -> str | None:
        """None where it can do this; otherwise why not."""
        ...

    def cost(self, problem: Problem) -> float:
        """Predicted seconds."""
        ...


def known(engines: Mapping[str, Candidate], name: str, where: str = "") -> str:
    """Check an algorithm's name.

    Raises
    ------
    ParameterError
        There is none.
    """
    if not isinstance(name, str) or name not in engines:
        raise ParameterError(f"algorithm must be one of auto, {', '.join(engines)}{where} (got {name!r})")
    return name


def pick(engines: Mapping[str, Candidate], algorithm: str, problem: Problem, where: str = "") -> Choice:
    """The cheapest algorithm that can do this, or the one asked for, once it is checked.

    Raises
    ------
    ParameterError
        No such algorithm, or it cannot do this.
    """
    if algorithm != "auto":
        known(engines, algorithm, where)
    reasons = {name: engine.supports(problem) for name, engine in engines.items()}
    if algorithm != "auto" and reasons[algorithm] is not None:
        raise ParameterError(f"algorithm={algorithm!r} cannot do this: {reasons[algorithm]}")
    candidates = {name: engine.cost(problem) for name, engine in engines.items() if reasons[name] is None}
    if not candidates:
        raise ParameterError(f"no algorithm{where} can do this: {next(iter(reasons.values()))}")
    return Choice(min(candidates, key=candidates.__getitem__) if algorithm == "auto" else algorithm, candidates)
