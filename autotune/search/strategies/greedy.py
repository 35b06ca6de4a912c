"""Points in the order of their predicted times, without a look at what they took: what the model alone is worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

from ..ranking import Candidate, Ranking
from . import Told


class Greedy:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate] = ()) -> None:
        self.stream = chain(seeds, ranking.best(apart=0, limit=ranking.size))

    def ask(self, n: int) -> list[Candidate]:
        return list(islice(self.stream, n))

    def tell(self, results: Sequence[Told]) -> None:
        """It learns nothing."""
