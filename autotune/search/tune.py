"""The tuning loop: the default and what a strategy asks for are measured, then the best few meet the default in a
paired run-off.

Knows candidates and measurements; sees building and timing only as a `Measurer`, and what to try next as a `Strategy`.
The model ranks and prunes; only measurements choose.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..devices.records import BuildReport, Measurement, Policy, median
from ..ir.errors import MeasureError
from .ranking import Candidate, Ranking
from .strategies import Strategy, Told

BATCH = 6
IDLE = 50  # batches without anything new, after which a strategy has no more to say
FINALISTS = 3
MOSTLY = 0.7  # ... and it is the faster one in so many of the rounds: luck is not enough
FIRST_BYTE = 4e-8  # seconds a byte of arrays that are made, filled, run on and compared for the first time
CLEAR = 0.99  # a finalist replaces the default where the median of paired ratios is below this


class Measurer(Protocol):
    """What builds, checks and times candidates."""

    def build(
        self, candidates: Sequence[tuple[Any, Any]], deadline: float | None = None, check: str = "quick",
        threads: int | None = None,
    ) -> list[BuildReport]: ...  # fmt: skip

    def time(
        self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
    ) -> list[Measurement]: ...

    def drop(self, handles: Iterable[int]) -> None: ...


@dataclass(frozen=True)
class Trial:
    """One candidate tried: how it built and, if it did, how long it took. `elapsed`: seconds since tuning began."""

    candidate: Candidate
    build: BuildReport
    measurement: Measurement
    elapsed: float


@dataclass(frozen=True)
class Outcome:
    """The result of tuning one kernel. `finals` are the run-off's measurements, in the order of places."""

    winner: Candidate
    default: Candidate
    seconds: float
    default_seconds: float
    trials: tuple[Trial, ...]
    finals: tuple[tuple[Candidate, Measurement], ...]
    rejections: dict[str, int]
    elapsed: float
    interrupted: bool = False


@dataclass
class _State:
    trials: list[Trial] = field(default_factory=list)
    handles: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    rejections: Counter[str] = field(default_factory=Counter)


class Tuner:
    """One tuning of one kernel. `deadline` is a time of `clock`, in seconds."""

    def __init__(
        self, ranking: Ranking, program_json: Any, measurer: Measurer, policy: Policy, deadline: float,
        trials: int | None, strategy: Strategy, progress: Callable[[int, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.ranking, self.program, self.measurer, self.policy = ranking, program_json, measurer, policy
        self.deadline, self.limit, self.progress = deadline, trials, progress
        self.strategy, self.clock = strategy, clock
        self.start = clock()
        self.state = _State()

    def run(self, default: Candidate) -> Outcome:
        """Tune. Raises MeasureError where not even the default could be measured."""
        try:
            return self._run(default)
        finally:
            self.measurer.drop(self.state.handles.values())

    def _run(self, default: Candidate) -> Outcome:
        interrupted, st = False, self.state
        finals: list[tuple[Candidate, Measurement]] = []
        try:
            self._explore(default)
            finals = self._finish(default) if st.seconds else []
        except KeyboardInterrupt:
            if not st.seconds:
                raise
            interrupted = True
        if not st.seconds:
            reasons = ", ".join(f"{n} {reason}" for reason, n in st.rejections.items()) or "no time was left"
            why = next((f" ({t.build.message.splitlines()[0]})" for t in st.trials if t.build.message), "")
            raise MeasureError(f"nothing valid was measured: {reasons}{why}; raise the budget or run `autotune doctor`")
        winner, seconds, default_seconds = self._choose(default, finals)
        elapsed = self.clock() - self.start
        rejections = dict(st.rejections + Counter({f"model:{k}": v for k, v in self.ranking.rejected.items()}))
        return Outcome(
            winner, default, seconds, default_seconds, tuple(st.trials), tuple(finals), rejections, elapsed, interrupted
        )

    # ---- exploring ----

    def _left(self) -> float:
        return self.deadline - self.clock()

    def _end(self) -> float:
        """The deadline; the first candidate to be measured is given what a check of it takes, so that there is a
        result at all."""
        first = 0.4 + self.ranking.program.bytes * FIRST_BYTE
        return self.deadline if self.state.seconds else max(self.deadline, self.clock() + first)

    def _room(self) -> int:
        return 1 << 30 if self.limit is None else self.limit - len(self.state.trials)

    def _reserve(self) -> float:
        """Seconds kept for the run-off."""
        st = self.state
        best = max(min(st.seconds.values(), default=1e-3), self.policy.sample_seconds)
        whole = self.deadline - self.start
        return min(max(0.15 * whole, 8 * (FINALISTS + 1) * best), 0.4 * whole)

    def _explore(self, default: Candidate) -> None:
        """Measure the default, then what the strategy asks for while there is room, time, and something new."""
        st, idle = self.state, 0
        self._tell(self._measure([default]))
        while self._room() > 0 and self._left() > self._reserve() and idle < IDLE:
            before = len(st.candidates)
            batch = self.strategy.ask(min(BATCH, self._room()))
            if not batch:
                break
            self._tell(self._measure(batch))
            idle = 0 if len(st.candidates) > before else idle + 1

    def _tell(self, candidates: Sequence[Candidate]) -> None:
        seconds = self.state.seconds
        self.strategy.tell([Told(c, seconds.get(c.schedule.digest, float("inf"))) for c in candidates])

    def _measure(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Build and time candidates that are new; the leader runs along, so that drift between batches cancels. Returns
        those of `candidates` of which now something is known."""
        st = self.state
        fresh = list({c.schedule.digest: c for c in candidates if c.schedule.digest not in st.candidates}.values())
        fresh = fresh[: max(0, self._room())]
        built: list[Candidate] = []
        for c in fresh:
            if self._left() <= self._reserve() and st.seconds:
                break
            st.candidates[c.schedule.digest] = c
            report = self.measurer.build([(self.program, c.schedule.to_json())], self._end())[0]
            if report.ok and report.handle is not None:
                st.handles[c.schedule.digest] = report.handle
                built.append(c)
            else:
                st.rejections[report.reason or str(report.status)] += 1
                st.trials.append(
                    Trial(c, report, Measurement(status=report.status, message=report.message), self._elapsed())
                )
        known = [c for c in candidates if c.schedule.digest in st.candidates]
        if not built:
            return known
        leader = min(st.seconds, key=st.seconds.__getitem__, default=None)
        digests = [c.schedule.digest for c in built] + ([leader] if leader is not None else [])
        slow = min(st.seconds.values(), default=0.0) > 5 * self.policy.sample_seconds
        rows = self.measurer.time([st.handles[d] for d in digests], self.policy, 3 if slow else 5, self._end())
        scale = 1.0
        if leader is not None and rows[-1].ok and rows[-1].seconds < float("inf"):
            scale = st.seconds[leader] / rows[-1].seconds
        for c, row in zip(built, rows):
            if row.ok and row.samples:
                st.seconds[c.schedule.digest] = row.seconds * scale
            else:
                st.rejections[str(row.status)] += 1
            st.trials.append(Trial(c, BuildReport(), row, self._elapsed()))
        if self.progress and st.seconds:
            self.progress(len(st.trials), min(st.seconds.values()))
        return known

    def _elapsed(self) -> float:
        return self.clock() - self.start

    # ---- deciding ----

    def _finish(self, default: Candidate) -> list[tuple[Candidate, Measurement]]:
        """Paired, interleaved rounds of the best few and the default."""
        st = self.state
        digests = sorted(st.seconds, key=st.seconds.__getitem__)[:FINALISTS]
        if default.schedule.digest in st.seconds and default.schedule.digest not in digests:
            digests.append(default.schedule.digest)
        one = sum(max(st.seconds[d], self.policy.sample_seconds) for d in digests)
        rounds = int(min(25, max(5, 0.8 * self._left() / max(one, 1e-9))))
        rows = self.measurer.time(
            [st.handles[d] for d in digests], self.policy, rounds, max(self.deadline, self.clock() + 6 * one)
        )
        finals = [(st.candidates[d], row) for d, row in zip(digests, rows) if row.ok and row.samples]
        return sorted(finals, key=lambda f: f[1].seconds)

    def _choose(
        self, default: Candidate, finals: list[tuple[Candidate, Measurement]]
    ) -> tuple[Candidate, float, float]:
        st = self.state
        known = {c.schedule.digest: row for c, row in finals}
        base = known.get(default.schedule.digest)
        if not finals:
            best = min(st.seconds, key=st.seconds.__getitem__)
            mine = st.seconds.get(default.schedule.digest, float("inf"))
            clear = st.seconds[best] < CLEAR * mine
            return (st.candidates[best], st.seconds[best], mine) if clear else (default, mine, mine)
        if base is None:
            return finals[0][0], finals[0][1].seconds, st.seconds.get(default.schedule.digest, float("inf"))
        for candidate, row in finals:
            if candidate.schedule.digest == default.schedule.digest:
                break
            ratios = [a / b for a, b in zip(row.samples, base.samples)]
            if median(ratios) < CLEAR and sum(r < 1 for r in ratios) >= MOSTLY * len(ratios):
                return candidate, row.seconds, base.seconds
        return default, base.seconds, base.seconds


