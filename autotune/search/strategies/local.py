"""Coordinate descent from random points: all values of one hole after another, the others held; where a whole turn
brings nothing, from another random point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ranking import Candidate, Ranking
from . import Told
from .points import Points


class Local:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate], seed: int) -> None:
        self.points, self.rng, self.first = Points(ranking), np.random.default_rng(seed), list(seeds)
        self.at: Candidate | None = None
        self.seconds = float("inf")
        self.waiting: list[tuple[int, int]] = []  # points of the hole that is being tried
        self.holes: list[int] = []  # still to try since the last gain

    def ask(self, n: int) -> list[Candidate]:
        out, self.first = self.first[:n], self.first[n:]
        if out:
            return out
        while not self.waiting:
            if self.at is None or not self.holes:
                point = self.points.draw(self.rng)
                if point is None:
                    return []
                self.at, self.seconds = None, float("inf")
                return [self.points.take(*point, "random")]
            hole = self.holes.pop(0)
            self.waiting = [(self.at.sketch, row) for row in self.points.line(self.at, hole)]
        batch, self.waiting = self.waiting[:n], self.waiting[n:]
        return [self.points.take(*p, "move") for p in batch]

    def tell(self, results: Sequence[Told]) -> None:
        for r in results:
            self.points.mark(r.candidate)
            if r.candidate.sketch < 0 or not r.seconds < self.seconds:
                continue
            if self.at is None or r.candidate.sketch == self.at.sketch:
                self.at, self.seconds = r.candidate, r.seconds
                self.holes = [int(h) for h in self.rng.permutation(len(self.points.holes[r.candidate.sketch]))]
                self.waiting = []
