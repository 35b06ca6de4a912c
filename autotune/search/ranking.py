"""All points of all sketches of one program, in the order in which the model would try them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.errors import ScheduleError
from ..ir.program import TensorProgram
from ..ir.schedule import Schedule
from .sketch import Priced, Sketch, unpruned
from .space import sketches

if TYPE_CHECKING:
    from .correction import Correction

CLOSE = 1.3  # a sketch within so much of the best one has its first candidate tried first


@dataclass(frozen=True)
class Candidate:
    """A schedule to try. `origin`: model | move | seed | plain; `sketch` and `row` say where it lies in the ranking,
    if anywhere."""

    schedule: Schedule
    predicted: float
    origin: str
    sketch: int = -1
    row: int = -1
    point: dict[str, int] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)


class Ranking:
    """The priced space of one program on one device; `pruned` False: with the points that rules of thumb leave out.
    `correction`: what was learned about the model's terms on this device."""

    def __init__(
        self, program: TensorProgram, spec: DeviceSpec, threads: int, pruned: bool = True,
        correction: Correction | None = None,
    ) -> None:  # fmt: skip
        self.program, self.correction = program, correction
        found = sketches(program, spec, threads)
        self.sketches: list[Sketch] = found if pruned else [unpruned(s) for s in found]
        self.rejected: Counter[str] = Counter()

    @cached_property
    def priced(self) -> list[Priced]:
        out = [s.priced() for s in self.sketches]
        if self.correction is not None:
            out = [self.correction.apply(s.name, p) for s, p in zip(self.sketches, out)]
        for p in out:
            self.rejected.update({reason: n for reason, n in p.rejected.items() if n})
        return out

    def only(self, rows: Sequence[np.ndarray[Any, Any]]) -> Ranking:
        """A part of the space: of each sketch the points chosen by index or mask."""
        part = copy(self)
        for name in ("_places", "_order"):
            part.__dict__.pop(name, None)
        part.__dict__["priced"] = [p.take(r) for p, r in zip(self.priced, rows, strict=True)]
        part.rejected = Counter(self.rejected)
        return part

    @cached_property
    def _places(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        sizes = [len(p.seconds) for p in self.priced]
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(n) for n in sizes] or [np.arange(0)])

    @cached_property
    def _order(self) -> np.ndarray[Any, Any]:
        seconds = np.concatenate([p.seconds for p in self.priced] or [np.zeros(0)])
        return np.argsort(seconds, kind="stable")

    @property
    def size(self) -> int:
        return len(self._order)

    def candidate(self, sketch: int, row: int, origin: str) -> Candidate:
        """The candidate of one point. Raises ScheduleError where a sketch cannot express it."""
        priced = self.priced[sketch]
        point = priced.point(row)
        schedule = self.sketches[sketch].schedule(point)
        return Candidate(schedule, float(priced.seconds[row]), origin, sketch, row, point, priced.explain(row))

    def best(self, apart: int = 2, limit: int = 2000) -> Iterator[Candidate]:
        """Candidates best first; each differs from every earlier one of its sketch in at least `apart` holes, until
        none does. The first of another sketch comes early where it is about as good: what the model compares least
        surely are sketches."""
        which, rows = self._places
        chosen: dict[int, list[np.ndarray[Any, Any]]] = {}
        tables = [
            np.stack(list(p.columns.values()), axis=1) if p.columns else np.zeros((len(p.seconds), 0))
            for p in self.priced
        ]
        late: list[tuple[int, int]] = []
        for at in self._heads(limit):
            s, row = int(which[at]), int(rows[at])
            mine = tables[s][row]
            if apart > 0 and any(int((mine != other).sum()) < apart for other in chosen.get(s, ())):
                late.append((s, row))
                continue
            chosen.setdefault(s, []).append(mine)
            yield self.candidate(s, row, "model")
        for s, row in late:
            yield self.candidate(s, row, "model")
        yield Candidate(Schedule(), float("inf"), "plain")

    def _heads(self, limit: int) -> list[int]:
        """Places in the order in which they are tried."""
        best = [float(p.seconds.min()) if len(p.seconds) else float("inf") for p in self.priced]
        starts = np.cumsum([0, *(len(p.seconds) for p in self.priced)])
        near = [n for n in sorted(range(len(best)), key=best.__getitem__) if best[n] <= CLOSE * min(best)]
        heads = [int(starts[n] + np.argmin(self.priced[n].seconds)) for n in near if len(self.priced[n].seconds)]
        return [*heads, *(int(at) for at in self._order[:limit] if at not in heads)][:limit]


def first_valid(ranking: Ranking, valid: Any) -> Candidate:
    """The model's first choice that `valid` accepts (it raises AutotuneError otherwise); the plain nest at worst."""
    from ..ir.errors import AutotuneError, DeviceError

    last: AutotuneError | None = None
    for n, candidate in enumerate(ranking.best()):
        if n >= 12 and candidate.origin != "plain":
            continue
        try:
            valid(candidate)
            return candidate
        except DeviceError:
            raise  # no other schedule would help
        except AutotuneError as error:
            ranking.rejected[getattr(error, "reason", "verifier")] += 1
            last = error
    raise ScheduleError(f"no schedule is valid for this program: {last}")
