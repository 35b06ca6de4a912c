"""The paired run-off: which of a few built candidates is the fastest, and with what confidence.

Knows handles and samples. Samples of one round are taken one after another, so that what disturbs the machine meets
all of them: candidates are compared round by round. An interval is that of the sign test, from order statistics of the
paired ratios; it assumes nothing of how times are distributed. Arrays lie elsewhere at each look, so that nobody wins
by their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..devices.records import Measurement, Policy, Status, median

CONFIDENCE = 0.95  # of a claim, over all looks at the samples together
EARLY = 0.4  # of the risk is for the looks before the last one
LOOKS, ROUNDS, LEAST = 16, 5, 5  # at most; rounds before each; rounds below which nothing is claimed
TOUCHES = 3  # samples of each candidate that warming it up takes, at each look
TIE = 0.01  # what is nearer than this is equally fast
GAIN, LIKELY = 0.02, 0.2  # what won before is also replaced by what is so much faster, with a risk of at most so much
HOPELESS = 1.1  # one whose best round is so much slower than the median of the first is out, whatever is claimed


class Timer(Protocol):
    """The part of a measurer that a run-off needs."""

    def time(
        self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
    ) -> list[Measurement]: ...


@dataclass(frozen=True)
class Interval:
    """Where the median of a ratio of times lies; without enough rounds, anywhere."""

    low: float = 0.0
    middle: float = 1.0
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(ratios: Iterable[float], risk: float = 1 - CONFIDENCE) -> Interval:
    """Each end is wrong with a probability of at most `risk`: the k-th smallest and k-th largest ratio, with the
    largest k for which fewer than k of n fair coins fall on one side that rarely."""
    row = sorted(ratios)
    n, k, tail = len(row), 0, 0.5 ** len(row)
    while 2 * k < n and tail <= risk:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    if not k:
        return Interval(middle=median(row)) if row else Interval()
    return Interval(row[k - 1], median(row), row[-k])


def paired(a: Measurement, b: Measurement, risk: float = 1 - CONFIDENCE) -> Interval:
    """The interval of a's time over b's, over the rounds that both have taken part in."""
    return interval((x / y for x, y in zip(a.samples, b.samples)), risk)


@dataclass(frozen=True)
class Verdict:
    """A run-off's end. `rows`: a measurement of each handle, in their order; `winner` and `first`: indices of what to
    take and of the fastest; `risk`: that of its comparisons, so that all looks together keep CONFIDENCE."""

    rows: tuple[Measurement, ...]
    winner: int | None
    first: int | None
    risk: float


def run_off(
    timer: Timer, handles: Sequence[int], incumbent: int | None, policy: Policy, one: float, end: float,
    clock: Callable[[], float], gain: float = GAIN,
) -> Verdict:  # fmt: skip
    """Interleaved rounds of `handles`, in the order of preference, until all but one are slower, the rest is equally
    fast, or time is up. `one`: seconds of a round; `end`: by `clock`; a first look is always taken.

    Equally fast candidates: the one that is preferred. The `incumbent` (an index) is replaced only by what is faster
    with CONFIDENCE, or by `gain` and likely so.
    """
    how = replace(policy, race=1e9, moved=True)  # the intervals decide who stays
    looks = int(min(LOOKS, max(1.0, (end - clock()) / max(one, 1e-9) / (ROUNDS + TOUCHES))))
    whole = 1 - CONFIDENCE
    early, last = (EARLY * whole / looks, (1 - EARLY) * whole) if looks > 1 else (whole, whole)
    risk = last
    live = list(range(len(handles)))
    samples: list[list[float]] = [[] for _ in handles]
    parts: list[list[Measurement]] = [[] for _ in handles]
    for look in range(looks):
        limit = max(end, clock() + 1.5 * (ROUNDS + TOUCHES) * one) if not look else end
        rows = dict(zip(live, timer.time([handles[i] for i in live], how, ROUNDS, limit)))
        for i, row in rows.items():
            parts[i].append(row)
        live = [i for i in live if rows[i].ok and rows[i].samples]
        even = min((len(rows[i].samples) for i in live), default=0)
        for i in live:
            samples[i] += rows[i].samples[:even]
        late = even < ROUNDS or look == looks - 1 or clock() >= end
        if not _open(live, samples, incumbent, last if late else early):
            risk = last if late else early
            break
        if late:
            break
    merged = tuple(_merged(s, p) for s, p in zip(samples, parts))
    known = [i for i, row in enumerate(merged) if row.ok]
    live = [i for i in live if i in known] or known
    first = min(live, key=lambda i: merged[i].seconds, default=None)
    return Verdict(merged, None if first is None else _winner(merged, live, first, incumbent, risk, gain), first, risk)


def _open(live: list[int], samples: Sequence[Sequence[float]], incumbent: int | None, risk: float) -> bool:
    """Takes the slower ones out of `live`, the incumbent only by a claim; is there still a question?"""
    if not live:
        return False
    first = min(live, key=lambda i: median(samples[i]))
    against = {i: interval((a / b for a, b in zip(samples[i], samples[first])), risk) for i in live if i != first}
    limit = HOPELESS * median(samples[first])
    live[:] = [i for i in live if i == first or against[i].low <= 1 and (i == incumbent or min(samples[i]) <= limit)]
    undecided = [r for i, r in against.items() if i in live]
    return any(r.high > 1 + TIE or r.low < 1 / (1 + TIE) for r in undecided)


def _winner(
    rows: Sequence[Measurement], live: Sequence[int], first: int, incumbent: int | None, risk: float, gain: float
) -> int:
    """The incumbent, unless something is faster; else the preferred one of those as fast as the first."""

    def better(i: int) -> bool:
        if incumbent is None or not rows[incumbent].ok:
            return True
        likely = paired(rows[i], rows[incumbent], max(risk, LIKELY))
        return paired(rows[i], rows[incumbent], risk).high < 1 or likely.high < 1 and likely.middle < 1 - gain

    if incumbent is not None and (first == incumbent or not better(first)):
        return incumbent
    return min(i for i in live if i == first or _near(paired(rows[i], rows[first], risk)) and better(i))


def _near(ratio: Interval) -> bool:
    return ratio.low <= 1 and ratio.middle <= 1 + TIE


def _merged(samples: Sequence[float], parts: Sequence[Measurement]) -> Measurement:
    """One measurement of the looks that a candidate took part in."""
    if not samples:
        failed = next((p for p in parts if not p.ok), None)
        return failed or Measurement(status=Status.INTERRUPTED, message="the time was up before its first run")
    return Measurement.of(samples, sum(p.rounds for p in parts), noisy=2 * sum(p.noisy for p in parts) > len(parts))
