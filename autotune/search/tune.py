"""The tuning of one kernel: the default and what a strategy asks for are measured, then the best few meet the default
in a paired run-off.

Knows candidates and measurements; sees building and timing only as a `Measurer`, and what to try next as a `Strategy`.
The model ranks and prunes; only measurements choose. What the store knows of a candidate is not measured again. When a
batch is measured is for `allocation` to say.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..devices.records import BuildReport, Measurement, Policy, median
from ..ir.errors import MeasureError
from ..ir.schedule import Schedule
from .allocation import Share, tune_all
from .ranking import Candidate, Ranking
from .runoff import GAIN, ROUNDS, TIE, TOUCHES, Interval, paired, run_off
from .strategies import Strategy, Told

BATCH = 6
IDLE = 50  # batches without anything new, after which a strategy has no more to say
FINALISTS = 5  # at most, beside the default
CLOSE = 1.08  # a finalist is within so much of the best
FIRST_BYTE = 4e-8  # seconds a byte of arrays that are made, filled, run on and compared for the first time


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
    """The result of tuning one kernel. `trials` were measured, `reused` known from the store; `finals` are the
    run-off's measurements, in the order of places. `claim`: the winner's time over the default's, None where it is the
    default or there was no run-off."""

    winner: Candidate
    default: Candidate
    seconds: float
    default_seconds: float
    trials: tuple[Trial, ...]
    finals: tuple[tuple[Candidate, Measurement], ...]
    rejections: dict[str, int]
    elapsed: float
    interrupted: bool = False
    reused: tuple[Trial, ...] = ()
    claim: Interval | None = None


@dataclass
class _State:
    trials: list[Trial] = field(default_factory=list)
    reused: list[Trial] = field(default_factory=list)
    handles: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    rejections: Counter[str] = field(default_factory=Counter)
    finals: list[tuple[Candidate, Measurement]] = field(default_factory=list)
    claim: Interval | None = None
    winner: Candidate | None = None
    idle: int = 0
    scale: float = 1.0  # of times from the store: how fast the machine is now


class Tuner:
    """One tuning of one kernel. `deadline` is a time of `clock`, in seconds; `trials` bounds the candidates that are
    measured for the first time. `known`: by digest of a schedule, what was measured of it before."""

    def __init__(
        self, ranking: Ranking, program_json: Any, measurer: Measurer, policy: Policy, deadline: float,
        trials: int | None, strategy: Strategy, progress: Callable[[int, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic, known: Mapping[str, Measurement] | None = None,
    ) -> None:  # fmt: skip
        self.ranking, self.program, self.measurer, self.policy = ranking, program_json, measurer, policy
        self.deadline, self.limit, self.progress = deadline, trials, progress
        self.strategy, self.clock, self.known = strategy, clock, known or {}
        self.start = clock()
        self.default = self.incumbent = Candidate(Schedule(), math.inf, "plain")
        self.state = _State()

    def run(self, default: Candidate, incumbent: Candidate | None = None) -> Outcome:
        """Tune this kernel alone. Raises MeasureError where not even the default could be measured."""
        share = Share(lambda: self.begin(default, incumbent, self.deadline))
        try:
            interrupted = tune_all([share], self.start, self.deadline, self.clock)
            return self.outcome(interrupted)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what was built."""
        self.measurer.drop(self.state.handles.values())
        self.state.handles.clear()

    # ---- exploring ----

    @property
    def best(self) -> float:
        """Seconds of the fastest so far."""
        return min(self.state.seconds.values(), default=math.inf)

    @property
    def round_seconds(self) -> float:
        """What a round of the run-off takes."""
        return self._round(self._finalists())

    def _round(self, digests: Sequence[str]) -> float:
        return sum(self.policy.sample(self.state.seconds[d]) for d in digests)

    def begin(self, default: Candidate, incumbent: Candidate | None, until: float) -> Tuner:
        """Measure the default, and beside it the `incumbent`: the best that is known of from before."""
        if incumbent is None or incumbent.schedule.digest == default.schedule.digest:
            incumbent = default
        self.default, self.incumbent = default, incumbent
        first = [*{c.schedule.digest: c for c in (default, incumbent)}.values()]
        self._tell(self._measure(first, until, again=True))
        now = self.state.seconds
        for d in (c.schedule.digest for c in first):
            if d in now and d in self.known and self.known[d].ok:
                self.state.scale = now[d] / self.known[d].seconds
        return self

    def more(self, until: float) -> bool:
        """Measure one batch of what the strategy asks for; False where there is nothing new or no room for it."""
        st = self.state
        if self._room() <= 0 or st.idle >= IDLE:
            return False
        before = len(st.candidates)
        batch = self.strategy.ask(min(BATCH, self._room()))
        if not batch:
            return False
        self._tell(self._measure(batch, until))
        st.idle = 0 if len(st.candidates) > before else st.idle + 1
        return True

    def _room(self) -> int:
        if self.limit is None:
            return 1 << 30
        return self.limit - sum(t.candidate.schedule.digest not in self.known for t in self.state.trials)

    def _tell(self, candidates: Sequence[Candidate]) -> None:
        seconds = self.state.seconds
        self.strategy.tell([Told(c, seconds.get(c.schedule.digest, math.inf)) for c in candidates])

    def _measure(self, candidates: Sequence[Candidate], until: float, again: bool = False) -> Sequence[Candidate]:
        """Build and time candidates that are new, beside others, so that drift between batches cancels. What the store
        knows of one is taken from there, unless it is to be measured `again`. Returns those of `candidates` of which
        something is known now."""
        st, fresh = self.state, list[Candidate]()
        for d, c in {c.schedule.digest: c for c in candidates}.items():
            if d in st.candidates:
                continue
            if d in self.known and not again:
                self._recall(c, self.known[d])
            elif self._room() > len(fresh):
                fresh.append(c)
        built = self._build(fresh, until)
        told = [c for c in candidates if c.schedule.digest in st.candidates]
        if not built:
            return told
        beside = self._beside(until)
        digests = [c.schedule.digest for c in built] + beside
        slow = self.best != math.inf and self.best > 5 * self.policy.sample_seconds
        rows = self.measurer.time([st.handles[d] for d in digests], self.policy, 3 if slow else 5, self._end(until))
        drift = _drift([(row, st.seconds[d]) for d, row in zip(beside, rows[len(built) :])])
        for c, row in zip(built, rows):
            if row.ok and row.samples:
                paired = [sample / now for sample, now in zip(row.samples, drift)]
                st.seconds[c.schedule.digest] = median(paired) if paired else row.seconds
            else:
                st.rejections[str(row.status)] += 1
            st.trials.append(Trial(c, BuildReport(), row, self._elapsed()))
        if self.progress and st.seconds:
            self.progress(len(st.trials), self.best)
        return told

    def _end(self, until: float) -> float:
        """The first candidate to be measured is given what a check of it takes, so that there is a result at all."""
        first = 0.4 + self.ranking.program.bytes * FIRST_BYTE
        return until if self.state.seconds else max(until, self.clock() + first)

    def _beside(self, until: float) -> list[str]:
        """What runs along with new candidates, to tell how fast the machine is meanwhile: the leader and the default,
        for a neighbour that uses the caches may slow down one of them alone."""
        st = self.state
        default = self.default.schedule.digest
        leader = min(st.seconds, key=st.seconds.__getitem__, default=default)
        known = [d for d in dict.fromkeys((leader, default)) if d in st.seconds]
        return [d for d in known if d in st.handles or self._build([st.candidates[d]], until)]

    def _build(self, candidates: Sequence[Candidate], until: float) -> list[Candidate]:
        """Those of `candidates` that were built. One that fails is a trial; what there was no time for is none."""
        st, built = self.state, list[Candidate]()
        todo = [(self.program, c.schedule.to_json()) for c in candidates]
        for c, report in zip(candidates, self.measurer.build(todo, self._end(until)) if todo else ()):
            digest = c.schedule.digest
            if report.reason == "deadline":
                continue
            st.candidates[digest] = c
            if report.ok and report.handle is not None:
                st.handles[digest] = report.handle
                built.append(c)
                continue
            st.rejections[report.reason or str(report.status)] += 1
            failed = Measurement(status=report.status, message=report.message)
            st.trials.append(Trial(c, report, failed, self._elapsed()))
        return built

    def _recall(self, c: Candidate, row: Measurement) -> None:
        st = self.state
        st.candidates[c.schedule.digest] = c
        report = BuildReport() if row.ok else BuildReport(row.status, reason=str(row.status), message=row.message)
        st.reused.append(Trial(c, report, row, self._elapsed()))
        if row.ok:
            st.seconds[c.schedule.digest] = row.seconds * st.scale

    def _elapsed(self) -> float:
        return self.clock() - self.start

    # ---- deciding ----

    def _finalists(self) -> list[str]:
        """The best few, the incumbent and the default, in the order of preference between equals: what won before, what
        runs without a search, what the model likes best, what has fewer steps."""
        st = self.state
        close = [d for d in sorted(st.seconds, key=st.seconds.__getitem__) if st.seconds[d] <= CLOSE * self.best]
        old = [c.schedule.digest for c in (self.incumbent, self.default)]
        chosen = {d for d in (*close[:FINALISTS], *old) if d in st.seconds}

        def preferred(digest: str) -> tuple[bool, bool, float, int]:
            c = st.candidates[digest]
            return digest != old[0], digest != old[1], c.predicted, len(c.schedule.steps)

        return sorted(chosen, key=preferred)

    def decide(self, deadline: float) -> None:
        """The run-off, within `deadline`: of as many as there is time for, of what won before and the best at least."""
        st, old = self.state, self.incumbent.schedule.digest
        chosen = self._finalists()
        self._build([st.candidates[d] for d in chosen if d not in st.handles], deadline)
        digests = [d for d in chosen if d in st.handles]
        while len(digests) > 2 and (TOUCHES + ROUNDS) * self._round(digests) > deadline - self.clock():
            digests.remove(max((d for d in digests if d != old), key=st.seconds.__getitem__))
        if len(digests) < 2:
            return
        verdict = run_off(
            self.measurer, [st.handles[d] for d in digests], digests.index(old) if old in digests else None,
            self.policy, self._round(digests), deadline, self.clock,
            GAIN if old != self.default.schedule.digest else TIE,  # nobody has chosen the default yet
        )  # fmt: skip
        if verdict.winner is None:
            return
        st.winner, won = st.candidates[digests[verdict.winner]], verdict.rows[verdict.winner]
        plain = dict(zip(digests, verdict.rows)).get(self.default.schedule.digest)
        if plain is not None and plain.ok and st.winner is not self.default:
            st.claim = paired(won, plain, verdict.risk)
        finals = [(st.candidates[d], row) for d, row in zip(digests, verdict.rows) if row.ok and row.samples]
        st.finals = sorted(finals, key=lambda f: (f[0] is not st.winner, f[1].seconds))

    def outcome(self, interrupted: bool = False) -> Outcome:
        """What was found. Raises MeasureError where nothing was."""
        st, old = self.state, self.default.schedule.digest
        if not st.seconds:
            reasons = ", ".join(f"{n} {reason}" for reason, n in st.rejections.items()) or "no time was left"
            why = next((f" ({t.build.message.splitlines()[0]})" for t in st.trials if t.build.message), "")
            raise MeasureError(f"nothing valid was measured: {reasons}{why}; raise the budget or run `autotune doctor`")
        winner, times = st.winner, {c.schedule.digest: row.seconds for c, row in st.finals}
        if winner is None:  # no run-off: nothing is faster for sure, unless the default has no time at all
            best = min(st.seconds, key=st.seconds.__getitem__)
            before = next((c for c in (self.incumbent, self.default) if c.schedule.digest in st.seconds), None)
            winner, times = before or st.candidates[best], st.seconds
        seconds = times[winner.schedule.digest]
        base = seconds / st.claim.middle if st.claim else times.get(old, st.seconds.get(old, math.inf))
        rejections = dict(st.rejections + Counter({f"model:{k}": v for k, v in self.ranking.rejected.items()}))
        return Outcome(
            winner, self.default, seconds, base, tuple(st.trials), tuple(st.finals), rejections, self._elapsed(),
            interrupted, tuple(st.reused), st.claim,
        )  # fmt: skip


def _drift(beside: Sequence[tuple[Measurement, float]]) -> list[float]:
    """How slow the machine was in each round: what ran along over what it takes, as far as all of that show it; nothing
    where nothing ran."""
    rows = [[sample / seconds for sample in m.samples] for m, seconds in beside if m.ok and m.samples]
    return [min(now, key=lambda ratio: abs(math.log(ratio))) for now in zip(*rows)]
