"""Several kernels tuned within one budget: the next batch of measurements goes to the kernel where a second is expected
to save most.

Knows shares and the clock, nothing of candidates. A kernel's expected saving is its weight x its time x the share of it
that a batch is expected to gain, over what a batch costs. After n batches that is what they have gained together over
(n + 1)^2: the mean gain, which falls as one over n in a search that finds its records by chance. Before the first batch
all kernels are thought to gain alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..ir.errors import MeasureError

PRIOR = 0.2  # of a kernel's time, that the first batch is expected to gain
DECIDING, LOOKS, MOST = 0.3, 25, 0.4  # kept for run-offs: a share of the whole, or so many rounds, at most a share
LEAST = 0.05  # of the whole: with less left nothing is begun that could be done without


class Tuning(Protocol):
    """A kernel's search that can be continued: `more` is one batch, False where there is none; `decide` the end."""

    @property
    def best(self) -> float: ...

    @property
    def round_seconds(self) -> float: ...

    def more(self, until: float) -> bool: ...

    def decide(self, deadline: float) -> None: ...


T = TypeVar("T", bound=Tuning)


@dataclass
class Share(Generic[T]):
    """A kernel's share of the measurements. `begin` measures its default. `weight`: how often it runs, or less where it
    may not be run at all; such a one is not `needed`. `expected`: seconds, before it is measured."""

    begin: Callable[[], T]
    weight: float = 1.0
    needed: bool = True
    expected: float = 1e-6
    tuning: T | None = None
    failed: MeasureError | None = None
    gained: float = PRIOR
    batches: int = 0
    cost: float = 0.0
    open: bool = True

    @property
    def seconds(self) -> float:
        """What a call spends in this kernel now."""
        best = self.tuning.best if self.tuning else math.inf
        return self.weight * (best if best < math.inf else self.expected)

    @property
    def saving(self) -> float:
        """Seconds of each call that the next batch is expected to save."""
        return self.seconds * self.gained / (self.batches + 1) ** 2

    def batch(self, until: float, clock: Callable[[], float]) -> None:
        assert self.tuning is not None
        before, start = self.tuning.best, clock()
        self.open = self.tuning.more(until)
        self.cost = max(clock() - start, 1e-6)
        self.batches += 1
        self.gained += math.log(before / self.tuning.best) if before < math.inf else 0.0


def tune_all(shares: Sequence[Share[T]], start: float, deadline: float, clock: Callable[[], float]) -> bool:
    """Tune all of them by `deadline`; was it interrupted? One that cannot be begun has `failed`; one for which there
    was no time has no tuning. The first is always begun."""
    whole = deadline - start
    try:
        for share in sorted(shares, key=lambda s: (not s.needed, -s.seconds)):
            left = deadline - clock()
            if any(s.tuning for s in shares) and left < (0 if share.needed else LEAST * whole):
                break
            try:
                share.tuning = share.begin()
            except MeasureError as error:
                share.failed = error
        begun = [s for s in shares if s.tuning is not None]
        while waiting := [s for s in begun if s.open]:
            until = deadline - _kept(begun, whole)
            if clock() >= until:
                break
            best = max(waiting, key=lambda s: s.saving / (s.cost or _usual(waiting)))
            best.batch(until, clock)
        for n, share in enumerate(begun):
            assert share.tuning is not None
            mine, later = share.tuning.round_seconds, sum(s.tuning.round_seconds for s in begun[n:] if s.tuning)
            if mine:
                share.tuning.decide(clock() + max(deadline - clock(), 0.0) * mine / later)
    except KeyboardInterrupt:
        if not any(s.tuning and s.tuning.best < math.inf for s in shares):
            raise
        return True
    return False


def _usual(shares: Sequence[Share[T]]) -> float:
    """Seconds of a batch of a kernel that has had none: as long as others' took."""
    known = [s.cost for s in shares if s.cost]
    return sum(known) / len(known) if known else 1.0


def _kept(shares: Sequence[Share[T]], whole: float) -> float:
    """Seconds kept for the run-offs."""
    rounds = sum(s.tuning.round_seconds for s in shares if s.tuning)
    return min(max(DECIDING * whole, LOOKS * rounds), MOST * whole)
