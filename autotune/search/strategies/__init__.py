"""What to try next. A strategy proposes points (`ask`) and is told what they took (`tell`); it measures nothing.

Every strategy is one short file, is seeded, and does the same for the same seed and the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...ir.errors import UsageError
from ..ranking import Candidate, Ranking

DEFAULT = "default"
NAMES = (DEFAULT, "random", "greedy", "local", "evolution", "tpe", "cma")


@dataclass(frozen=True)
class Told:
    """What a candidate took: seconds of one call, infinite where it failed."""

    candidate: Candidate
    seconds: float


class Strategy(Protocol):
    """`ask` gives at most n candidates, none that it gave before; none at all: there is nothing more worth a trial.
    `tell` is called once for each batch; it may contain candidates that were never asked for."""

    def ask(self, n: int) -> list[Candidate]: ...

    def tell(self, results: Sequence[Told]) -> None: ...


def make(
    name: str, ranking: Ranking, seeds: Sequence[Candidate] = (), seed: int = 0, study: str | None = None
) -> Strategy:
    """The strategy of a name over a space. `seeds`: schedules from elsewhere, tried first. `study`: the URL of a
    storage of Optuna (sqlite:///file.db), through which several processes search together. Raises UsageError."""
    if name not in NAMES:
        raise UsageError(f"no strategy {name!r}; there are {', '.join(NAMES)}")
    if study is not None and name not in ("tpe", "cma"):
        raise UsageError(f"the strategy {name!r} keeps no study; tpe and cma do")
    # Each is imported when it is wanted: one of them is slow to import.
    if name == DEFAULT:
        from .default import Default

        return Default(ranking, seeds)
    if name == "greedy":
        from .greedy import Greedy

        return Greedy(ranking, seeds)
    if name == "random":
        from .random import Random

        return Random(ranking, seeds, seed)
    if name == "local":
        from .local import Local

        return Local(ranking, seeds, seed)
    if name == "evolution":
        from .evolution import Evolution

        return Evolution(ranking, seeds, seed)
    from .sampled import Sampled

    return Sampled(name, ranking, seeds, seed, study)
