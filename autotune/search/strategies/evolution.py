"""A population: two good points are crossed, a hole or two changed, and the nearest point that is new is tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ranking import Candidate, Ranking
from . import Told
from .points import Points, Vector

POPULATION, TOURNAMENT, STRANGERS = 20, 3, 0.1


class Evolution:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate], seed: int) -> None:
        self.points, self.rng, self.first = Points(ranking), np.random.default_rng(seed), list(seeds)
        self.population: list[Told] = []

    def ask(self, n: int) -> list[Candidate]:
        out, self.first = self.first[:n], self.first[n:]
        while len(out) < n and (point := self._next()) is not None:
            out.append(self.points.take(*point, "evolved"))
        return out

    def _next(self) -> tuple[int, int] | None:
        if len(self.population) >= POPULATION and self.rng.random() > STRANGERS:
            one, other = self._parent(), self._parent()
            sketch = one.sketch
            row = self.points.near(sketch, self._child(one, other if other.sketch == sketch else one))
            if row is not None:
                return sketch, row
        return self.points.draw(self.rng)

    def _parent(self) -> Candidate:
        drawn = self.rng.integers(len(self.population), size=TOURNAMENT)
        return self.population[int(drawn.min())].candidate  # it is sorted

    def _child(self, one: Candidate, other: Candidate) -> Vector:
        a, b, sizes = self.points.vector(one), self.points.vector(other), self.points.sizes[one.sketch]
        child = np.where(self.rng.random(len(a)) < 0.5, a, b)
        changed = self.rng.random(len(a)) < 1.0 / max(len(a), 1)
        return np.where(changed, self.rng.integers(np.maximum(sizes, 1)), child)

    def tell(self, results: Sequence[Told]) -> None:
        for r in results:
            self.points.mark(r.candidate)
            if r.candidate.sketch >= 0:
                self.population.append(r)
        self.population = sorted(self.population, key=lambda t: t.seconds)[:POPULATION]
