"""What `tune` does unless told otherwise: the seeds and the model's picks, then moves around the two best beside more
of the picks, until six batches in a row have brought nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ..ranking import Candidate, Ranking
from . import Told

PICKS = 6  # of the model, before the first move
PATIENCE, GAIN = 6, 0.995


class Default:
    def __init__(self, ranking: Ranking, seeds: Sequence[Candidate] = ()) -> None:
        self.ranking, self.stream = ranking, ranking.best()
        self.queue, self.begun = list(seeds), False
        self.candidates: dict[str, Candidate] = {}  # asked for, or told of
        self.seconds: dict[str, float] = {}
        self.stale, self.moving = 0, False

    def ask(self, n: int) -> list[Candidate]:
        if not self.begun:
            self.queue, self.begun = [*self.queue, *islice(self.stream, PICKS)], True
        if self.queue:
            out, self.queue = self._new(self.queue[:n]), self.queue[n:]
            return out or self.ask(n)
        self.moving = True
        if self.stale >= PATIENCE:
            return []
        moves = self._new(self._moves(n))
        return moves + list(islice(self._picks(), n - len(moves)))

    def _new(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        found = [c for c in candidates if c.schedule.digest not in self.candidates]
        self.candidates |= {c.schedule.digest: c for c in found}
        return found

    def _picks(self) -> Iterator[Candidate]:
        for candidate in self.stream:
            yield from self._new([candidate])

    def _moves(self, n: int) -> list[Candidate]:
        """Untried neighbours of the two best points."""
        out: list[Candidate] = []
        leaders = sorted(self.seconds, key=self.seconds.__getitem__)[:2]
        for digest in leaders:
            near = self.ranking.neighbours(self.candidates[digest])
            out += [c for c in near if c.schedule.digest not in self.candidates][: max(n // 3, 1)]
        return list({c.schedule.digest: c for c in out}.values())[: max(n // 2, 1)]

    def tell(self, results: Sequence[Told]) -> None:
        before = min(self.seconds.values(), default=float("inf"))
        for r in results:
            self.candidates.setdefault(r.candidate.schedule.digest, r.candidate)
            if r.seconds < float("inf"):
                self.seconds[r.candidate.schedule.digest] = r.seconds
        after = min(self.seconds.values(), default=float("inf"))
        if self.moving:
            self.stale = 0 if after < GAIN * before else self.stale + 1
