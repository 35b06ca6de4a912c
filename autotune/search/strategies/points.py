"""The points of a space as vectors: each hole by the rank of its value, so that neighbours are near each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ranking import Candidate, Ranking

Vector = NDArray[np.int64]


class Points:
    """All points of a ranking, and which of them were taken. Sketches without points do not occur."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self.sketches = [n for n, p in enumerate(ranking.priced) if len(p.seconds)]
        self.holes: dict[int, list[str]] = {}
        self.sizes: dict[int, Vector] = {}
        self._ranks: dict[int, Vector] = {}
        self._free: dict[int, NDArray[np.bool_]] = {}
        for n in self.sketches:
            columns = ranking.priced[n].columns
            ranks = [np.searchsorted(np.array(sorted(set(c.tolist()))), c) for c in columns.values()]
            table = np.stack(ranks, axis=1) if ranks else np.zeros((len(ranking.priced[n].seconds), 0), np.int64)
            self.holes[n], self._ranks[n] = [*columns], table
            self.sizes[n] = table.max(axis=0) + 1 if ranks else np.zeros(0, np.int64)
            self._free[n] = np.ones(len(table), dtype=bool)

    def __len__(self) -> int:
        """Points that are free."""
        return sum(int(f.sum()) for f in self._free.values())

    def vector(self, of: Candidate) -> Vector:
        ranks: Vector = self._ranks[of.sketch][of.row]
        return ranks

    def take(self, sketch: int, row: int, origin: str) -> Candidate:
        self._free[sketch][row] = False
        return self.ranking.candidate(sketch, row, origin)

    def free(self, sketch: int, row: int) -> bool:
        return bool(self._free[sketch][row])

    def mark(self, of: Candidate) -> None:
        """Somebody else has tried it."""
        if of.sketch in self._free:
            self._free[of.sketch][of.row] = False

    def near(self, sketch: int, at: NDArray[Any]) -> int | None:
        """The free point of a sketch that is nearest to a vector, each hole's ranks counted from 0 to 1."""
        free = np.flatnonzero(self._free[sketch])
        if not len(free):
            return None
        scale = np.maximum(self.sizes[sketch] - 1, 1)
        distance = (np.abs(self._ranks[sketch][free] - at) / scale).sum(axis=1)
        return int(free[int(np.argmin(distance))])

    def draw(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """A free point, all alike."""
        left = [(n, np.flatnonzero(self._free[n])) for n in self.sketches]
        total = sum(len(rows) for _, rows in left)
        if not total:
            return None
        k = int(rng.integers(total))
        for n, rows in left:
            if k < len(rows):
                return n, int(rows[k])
            k -= len(rows)
        return None

    def line(self, of: Candidate, hole: int) -> list[int]:
        """Free points that differ from one in this hole alone, in the order of its values."""
        table, mine = self._ranks[of.sketch], self.vector(of)
        other = np.delete(table, hole, axis=1) == np.delete(mine, hole)
        rows = np.flatnonzero(other.all(axis=1) & self._free[of.sketch])
        return [int(r) for r in rows[np.argsort(table[rows, hole], kind="stable")]]
