"""Which algorithm a convolution takes on the CPU, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from volconv.engines.choice import Choice, known, pick
from volconv.engines.cpu.channels import Channels
from volconv.engines.cpu.direct import Direct
from volconv.engines.cpu.fft import Fft
from volconv.engines.cpu.gemm import Gemm
from volconv.engines.cpu.separable import Separable
from volconv.engines.cpu.winograd import Winograd
from volconv.shapes import multiply_adds

if TYPE_CHECKING:
    from volconv.engines import Engine, Problem

_ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (Direct(), Channels(), Separable(), Winograd(), Fft(), Gemm())
}

#: Jobs of so many multiply-adds are done before compiled loops would even be loaded: gemm takes them, which needs none.
SMALL = 20_000_000

#: What ``algorithm=`` may say.
ALGORITHMS = ("auto", *_ENGINES)


def get(name: str) -> Engine:
    """The algorithm of this name.

    Raises
    ------
    ParameterError
        There is none.
    """
    known(_ENGINES, name)
    return _ENGINES[name]


@lru_cache(maxsize=256)
def choose(algorithm: str, problem: Problem) -> Choice:
    """Pick the cheapest algorithm that can do this (gemm for what is small), or check the one asked for.

    Parameters
    ----------
    algorithm : str
        One of :data:`ALGORITHMS`.
    problem : Problem

    Raises
    ------
    ParameterError
        No such algorithm, or it cannot do this.
    """
    choice = pick(_ENGINES, algorithm, problem)
    small = algorithm == "auto" and multiply_adds(problem.output_shape, problem.params) <= SMALL
    return replace(choice, algorithm="gemm") if small else choice
