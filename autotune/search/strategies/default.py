"""What `tune` does unless told otherwise: the seeds and the model's picks, then the points that the model and what was
measured so far make the best bets, until ten batches in a row have brought nothing.

The model's error at a point (the logarithm of measured over predicted) is taken for a sum of effects: one of its
sketch, one of each value of its holes, one that grows with the price. All are normal around zero and small beforehand;
what they are after some measurements, and how surely, follows in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import ScheduleError
from ..ranking import Candidate, Ranking
from . import Told

PICKS = 6  # of the model, before the first bet
PATIENCE, GAIN = 10, 0.995
EFFECT = 0.05  # deviation of an effect, before anything is known
SLOPE = 0.3  # of what grows with the logarithm of the price
NOISE = 0.04  # of a measurement, and of what effects do not explain
HOPE = 0.5  # deviations by which a point is taken for better than expected: what is little known gets its chance

Vector = NDArray[np.float64]


class Default:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate] = ()) -> None:
        self.ranking, self.stream = ranking, ranking.best()
        self.queue, self.begun = list(seeds), False
        self.asked: set[str] = set()  # digests of schedules; told of counts as asked for
        self.seconds: dict[int, float] = {}  # by place among all points
        self.best, self.stale, self.moving = float("inf"), 0, False
        sizes = [len(p.seconds) for p in ranking.priced]
        self.starts = np.cumsum([0, *sizes])
        self.free = np.ones(sum(sizes), dtype=bool)
        self.expected = np.log(np.concatenate([p.seconds for p in ranking.priced] or [np.zeros(0)]))
        self.effects = _effects(ranking, self.starts)

    def ask(self, n: int) -> list[Candidate]:
        if not self.begun:
            self.queue, self.begun = [*self.queue, *islice(self.stream, PICKS)], True
        while self.queue:
            batch, self.queue = self.queue[:n], self.queue[n:]
            if out := [c for c in batch if self._new(c)]:
                return out
        self.moving = True
        if self.stale >= PATIENCE:
            return []
        source = self._bets() if self.seconds else self.stream
        return list(islice((c for c in source if self._new(c)), n))

    def _place(self, c: Candidate) -> int | None:
        return int(self.starts[c.sketch]) + c.row if c.sketch >= 0 else None

    def _new(self, c: Candidate) -> bool:
        new, place = c.schedule.digest not in self.asked, self._place(c)
        self.asked.add(c.schedule.digest)
        if place is not None:
            self.free[place] = False
        return new

    def _bets(self) -> Iterator[Candidate]:
        """Free points, the most promising first."""
        known, free = np.array([*self.seconds]), np.flatnonzero(self.free)
        error = np.log([*self.seconds.values()]) - self.expected[known]
        error -= np.median(error)
        seen, rest = self.effects[known], self.effects[free]
        shared = rest @ seen.T
        weights = np.linalg.inv(seen @ seen.T + NOISE**2 * np.eye(len(known)))
        spread = (rest**2).sum(axis=1) - np.einsum("ij,jk,ik->i", shared, weights, shared)
        hoped = self.expected[free] + shared @ (weights @ error) - HOPE * np.sqrt(np.maximum(spread, 0) + NOISE**2)
        for at in free[np.argsort(hoped, kind="stable")]:
            sketch = int(np.searchsorted(self.starts, at, side="right")) - 1
            try:
                yield self.ranking.candidate(sketch, int(at - self.starts[sketch]), "move")
            except ScheduleError:  # a point that its sketch cannot express
                self.free[at] = False

    def tell(self, results: Sequence[Told]) -> None:
        before = self.best
        for r in results:
            self._new(r.candidate)
            if r.seconds < float("inf"):
                self.best = min(self.best, r.seconds)
                if (place := self._place(r.candidate)) is not None:
                    self.seconds[place] = r.seconds
        if self.moving:
            self.stale = 0 if self.best < GAIN * before else self.stale + 1


def _effects(ranking: Ranking, starts: NDArray[np.int64]) -> Vector:
    """How much of each effect every point has, in deviations of that effect."""
    columns: list[Vector] = []
    for n, p in enumerate(ranking.priced):
        if not len(p.seconds):
            continue
        price = np.log(p.seconds)
        rows = [np.full(len(price), EFFECT), SLOPE * (price - price.min())]
        for values in p.columns.values():
            each = np.unique(values)
            rows += [EFFECT * (values == value) for value in each] if len(each) > 1 else []
        for row in rows:
            column = np.zeros(int(starts[-1]))
            column[starts[n] : starts[n + 1]] = row
            columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0))
