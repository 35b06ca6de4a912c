"""Points at random, each once: what any other strategy has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ranking import Candidate, Ranking
from . import Told


class Random:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate], seed: int) -> None:
        self.ranking, self.first = ranking, list(seeds)
        rows = [(n, at) for n, p in enumerate(ranking.priced) for at in range(len(p.seconds))]
        self.left = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))][::-1]

    def ask(self, n: int) -> list[Candidate]:
        out, self.first = self.first[:n], self.first[n:]
        while len(out) < n and self.left:
            sketch, row = self.left.pop()
            out.append(self.ranking.candidate(sketch, row, "random"))
        return out

    def tell(self, results: Sequence[Told]) -> None:
        """It learns nothing."""
