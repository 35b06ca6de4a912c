"""Spaces that were measured point by point, and their replay: a `Measurer` that answers from the record, on a clock of
its own.

Knows points, results and what trying them took; must not know where files lie or how anything is compiled. What the
model says of a point is computed by today's model; what it took is the record's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.measure import FIRST_CUT, SECOND_CUT
from ..devices.records import BuildReport, Measurement, Policy, Status, median
from ..devices.spec import DeviceSpec
from ..ir.errors import AutotuneError, CacheError
from ..ir.program import TensorProgram
from ..ir.program import from_json as program_from_json
from ..ir.schedule import Schedule
from ..ir.schedule import from_json as schedule_from_json
from . import t4
from .ranking import Candidate, Ranking

FORMAT = 1
PLAIN = "plain"  # the sketch of the nest without steps
_FIELDS = frozenset({"format", "name", "case", "program", "device", "threads", "versions", "reduction"})
Row = tuple[int, int]  # sketch and place in it


Struck = list[tuple[str, str, int]]


def reduced(ranking: Ranking, most: int, seed: int) -> tuple[Ranking, dict[str, Struck]]:
    """A part of the space with about `most` points at most: two thirds of them points that a search may pick, the rest
    those that rules of thumb leave out. Of both parts values of holes are struck out at random, never points; what was
    struck out is returned too: (sketch, hole, value)."""
    left_out = [p.why != "" if p.why is not None else np.zeros(len(p.seconds), bool) for p in ranking.priced]
    parts = {"searched": [~m for m in left_out], "left out": left_out}
    limits = {"searched": most * 2 // 3, "left out": most - most * 2 // 3}
    struck = {name: _strike(ranking, parts[name], limits[name], seed) for name in parts}
    return ranking.only([a | b for a, b in zip(*parts.values())]), struck


def _strike(ranking: Ranking, keep: list[NDArray[np.bool_]], most: int, seed: int) -> Struck:
    """Narrow the masks `keep` to at most `most` points, if that leaves two values of each hole."""
    draw, struck = np.random.default_rng(seed), Struck()
    while sum(int(k.sum()) for k in keep) > most:
        holes = [
            (n, hole, sorted(set(column[keep[n]].tolist())))
            for n, p in enumerate(ranking.priced) for hole, column in p.columns.items()
        ]  # fmt: skip
        holes = [row for row in holes if len(row[2]) > 2]
        if not holes:
            break
        weights = np.array([len(values) * int(keep[n].sum()) for n, _, values in holes], dtype=float)
        n, hole, values = holes[int(draw.choice(len(holes), p=weights / weights.sum()))]
        value = values[int(draw.integers(len(values)))]
        keep[n] &= ranking.priced[n].columns[hole] != value
        struck.append((label(ranking, n), hole, value))
    return struck


def label(ranking: Ranking, sketch: int) -> str:
    """The sketch's name in a configuration."""
    return f"{ranking.sketches[sketch].name}.{sketch}" if sketch >= 0 else PLAIN


def configuration(ranking: Ranking, row: Row) -> dict[str, Any]:
    """A point as a T4 configuration."""
    sketch, at = row
    return {"sketch": label(ranking, sketch), **(ranking.priced[sketch].point(at) if sketch >= 0 else {})}


def metadata(
    name: str, case: str, ranking: Ranking, spec: DeviceSpec, threads: int, versions: Mapping[str, str], most: int,
    seed: int, struck: Mapping[str, Struck],
) -> dict[str, Any]:  # fmt: skip
    """What a space's document says about it."""
    reduction = {"points": most, "seed": seed, "struck": {k: [list(s) for s in v] for k, v in struck.items()}}
    return {"autotune": {
        "format": FORMAT, "name": name, "case": case, "program": ranking.program.canonical, "device": spec.to_json(),
        "threads": threads, "versions": dict(versions), "reduction": reduction,
    }}  # fmt: skip


@dataclass(frozen=True)
class Space:
    """A recorded space. `whole` has the points that were recorded and exist today, `results` what each took, drift of
    the machine taken out, `rows` the point of each schedule (by digest); `strangers` counts recorded points that
    today's sketches do not have, or build otherwise."""

    name: str
    case: str
    spec: DeviceSpec
    threads: int
    whole: Ranking
    results: Mapping[Row, t4.Result]
    rows: Mapping[str, Row]
    strangers: int

    @cached_property
    def ranking(self) -> Ranking:
        """The points that a search may pick: without those that rules of thumb leave out."""
        return self.whole.only([p.why == "" if p.why is not None else np.arange(len(p.seconds))
                                for p in self.whole.priced])  # fmt: skip

    @cached_property
    def seconds(self) -> dict[Row, float]:
        """Of every point with a time."""
        return {row: r.seconds for row, r in self.results.items() if r.status is Status.OK}

    @cached_property
    def optimum(self) -> float:
        """The best of what a search may pick."""
        return min(s for row, s in self.seconds.items() if not self.why(row))

    @cached_property
    def noise(self) -> float:
        """Below so much (of the natural logarithm) a difference of two times says nothing: twice the deviation of
        their difference, from two recordings; 0 where there is only one."""
        rows = [float(r.extra["apart"][0]) for r in self.results.values() if "apart" in r.extra]
        return 2 * float(np.std(rows)) / math.sqrt(2) if rows else 0.0

    def why(self, row: Row) -> str:
        """The rule of thumb that leaves a point out, "" if none."""
        why = self.whole.priced[row[0]].why if row[0] >= 0 else None
        return "" if why is None else str(why[row[1]])

    def pruned(self) -> dict[str, tuple[int, float]]:
        """By rule of thumb, how many points with a time it leaves out, and the best of them over the optimum: below 1
        the rule has removed the optimum."""
        found: dict[str, tuple[int, float]] = {}
        for row, seconds in self.seconds.items():
            if rule := self.why(row):
                count, best = found.get(rule, (0, math.inf))
                found[rule] = count + 1, min(best, seconds / self.optimum)
        return found

    def of(self, candidate: Candidate) -> t4.Result | None:
        """What a candidate took, if it was recorded."""
        row = self.rows.get(candidate.schedule.digest)
        return None if row is None else self.results[row]

    def default(self) -> Candidate:
        """The model's first choice of those that have a time."""
        return next(c for c in self.ranking.best() if (r := self.of(c)) is not None and r.status is Status.OK)


def load(path: Path) -> Space:
    """A recorded space. Raises CacheError for a file that is none."""
    return space(t4.read(path), str(path))


def space(document: t4.Document, where: str) -> Space:
    """The space of a document. Raises CacheError."""
    known = document.metadata.get("autotune")
    if not isinstance(known, dict):
        raise CacheError(f'{where}: no space of autotune: its metadata has no "autotune"')
    if (form := known.get("format")) != FORMAT:
        raise CacheError(f"{where}: a space of format {form!r:.20}; this version of autotune reads {FORMAT}")
    if wrong := sorted(_FIELDS ^ known.keys()):
        raise CacheError(f"{where}: field {wrong[0]!r:.40} is {'missing' if wrong[0] in _FIELDS else 'unknown'}")
    try:
        program: TensorProgram = program_from_json(known["program"])
        spec, threads = DeviceSpec.from_json(known["device"]), int(known["threads"])
        whole = Ranking(program, spec, threads, pruned=False)
        places = {(PLAIN, ()): (-1, 0)} | {
            (label(whole, n), tuple(sorted(zip(p.columns, values)))): (n, at)
            for n, p in enumerate(whole.priced)
            for at, values in enumerate(zip(*(c.tolist() for c in p.columns.values())))
        }  # fmt: skip
        quiet = _quiet(document.results)
        found: dict[Row, tuple[t4.Result, str]] = {}
        for r in document.results:
            holes = dict(r.configuration)
            row = places.get((str(holes.pop("sketch", "")), tuple(sorted(holes.items()))))
            if row is None:
                continue
            digest = (whole.candidate(*row, "model").schedule if row[0] >= 0 else Schedule()).digest
            if "schedule" not in r.extra or digest.startswith(str(r.extra["schedule"][0])):
                found[row] = _without_drift(r, quiet), digest
    except (AutotuneError, TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise CacheError(f"{where}: its program, device or points cannot be read: {error}") from error
    strangers = len(document.results) - len(found)
    if not any(r.status is Status.OK for r, _ in found.values()):
        raise CacheError(f"{where}: no point of it has a time and exists today ({strangers} do not exist any more)")
    here = [sorted(at for sketch, at in found if sketch == n) for n in range(len(whole.priced))]
    index = {(n, at): (n, new) for n, rows in enumerate(here) for new, at in enumerate(rows)} | {(-1, 0): (-1, 0)}
    return Space(
        str(known["name"]), str(known["case"]), spec, threads, whole.only([np.array(r, dtype=np.int64) for r in here]),
        {index[row]: r for row, (r, _) in found.items()}, {digest: index[row] for row, (_, digest) in found.items()},
        strangers,
    )  # fmt: skip


def merged(first: t4.Document, second: t4.Document) -> t4.Document:
    """Two recordings of one space as one: of each point measured in both, all samples, the second's as if the machine
    had been as it was for the first. What a single recording says of its best point is partly luck. Raises CacheError
    where the recordings are of different spaces."""
    about = [{k: d.metadata["autotune"][k] for k in ("program", "threads", "reduction")} for d in (first, second)]
    if about[0] != about[1]:
        raise CacheError("the recordings are of different programs, threads or parts of the space: remove one")
    quiet = [_quiet(d.results) for d in (first, second)]
    there = {_identity(r): _without_drift(r, quiet[1]) for r in second.results if _timed(r)}
    both = [(_without_drift(r, quiet[0]), there[_identity(r)]) for r in first.results
            if _timed(r) and _identity(r) in there]  # fmt: skip
    level = median(a.seconds / b.seconds for a, b in both) if both else 1.0

    def joined(r: t4.Result) -> t4.Result:
        other = there.get(_identity(r))
        if not _timed(r) or other is None:
            return r
        scale = level * float(r.extra["anchor"][0]) / quiet[0]
        apart = other.seconds * scale / r.seconds
        samples = (*r.runtimes, *(t * scale for t in other.runtimes))
        extra = {**r.extra, "apart": (float(f"{math.log(apart):.4g}"), "")}
        return replace(r, seconds=r.seconds * (1 + apart) / 2, runtimes=samples, extra=extra)

    return t4.Document(tuple(map(joined, first.results)), first.metadata)


def _identity(r: t4.Result) -> tuple[Any, ...]:
    return (*sorted(r.configuration.items()), r.extra.get("schedule"))


def _timed(r: t4.Result) -> bool:
    return r.status is Status.OK and "anchor" in r.extra


def _quiet(results: Iterable[t4.Result]) -> float:
    """What the anchor takes (ms) while nothing disturbs it."""
    return median(float(r.extra["anchor"][0]) for r in results if "anchor" in r.extra)


def _without_drift(r: t4.Result, quiet: float) -> t4.Result:
    """Times as if the machine had been as fast throughout as it was in the middle."""
    if not _timed(r):
        return r
    scale = quiet / float(r.extra["anchor"][0])
    return replace(r, seconds=r.seconds * scale, runtimes=tuple(t * scale for t in r.runtimes))


class Simulated:
    """A `Measurer` over a recorded space. `clock` is seconds since its making: what builds and measurements took."""

    def __init__(self, space: Space) -> None:
        self.space, self.now = space, 0.0
        self._built: dict[int, t4.Result] = {}

    def clock(self) -> float:
        return self.now

    def build(
        self, candidates: Sequence[tuple[Any, Any]], deadline: float | None = None, check: str = "quick",
        threads: int | None = None,
    ) -> list[BuildReport]:  # fmt: skip
        return [self._build(schedule, math.inf if deadline is None else deadline) for _, schedule in candidates]

    def _build(self, schedule: Any, deadline: float) -> BuildReport:
        if self.now >= deadline:
            return BuildReport(Status.INTERRUPTED, reason="deadline", message="the time was up")
        r = self.space.of(Candidate(schedule_from_json(schedule), math.inf, "replay"))
        if r is None:
            return BuildReport(Status.CONSTRAINTS, reason="unrecorded", message="no such point was recorded")
        self.now += r.compile_seconds + r.check_seconds + r.framework_seconds
        if r.status is not Status.OK:
            reason = str(r.extra["reason"][0]) if "reason" in r.extra else str(r.status)
            return BuildReport(r.status, reason=reason, message="as recorded")
        handle = len(self._built) + 1
        self._built[handle] = r
        return BuildReport(handle=handle, seconds=r.compile_seconds, check_seconds=r.check_seconds)

    def time(
        self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
    ) -> list[Measurement]:
        """Recorded samples, over and over, for as many rounds as racing and the deadline leave; each costs what it
        would."""
        end, rounds = math.inf if deadline is None else deadline, rounds or policy.rounds
        live, samples = [*handles], dict[int, list[float]]()
        for h in handles:  # the first touch: warming up, and finding how often to repeat
            if self.now < end:
                self.now += self._built[h].seconds + self._sample(h, policy)
                samples[h] = []
        live = self._raced(live, samples, max(FIRST_CUT, policy.race))
        for done in range(rounds):
            if self.now + sum(self._sample(h, policy) for h in live) > end:
                break
            for h in live:
                self.now += self._sample(h, policy)
                kept = self._built[h].runtimes or (self._built[h].seconds,)
                samples[h].append(kept[done % len(kept)])
            live = self._raced(
                live, samples, policy.race if done + 1 >= policy.race_after else max(policy.race, SECOND_CUT)
            )
        return [self._row(h, samples.get(h), h in live) for h in handles]

    def _sample(self, handle: int, policy: Policy) -> float:
        return policy.sample(self._built[handle].seconds)

    def _raced(self, live: list[int], samples: Mapping[int, Any], factor: float) -> list[int]:
        live = [h for h in live if h in samples]
        leader = min((self._built[h].seconds for h in live), default=0.0)
        return [h for h in live if self._built[h].seconds <= factor * leader]

    def _row(self, handle: int, samples: Sequence[float] | None, live: bool) -> Measurement:
        if samples is None:
            return Measurement(status=Status.INTERRUPTED, message="the time was up before its first run")
        return Measurement.of(samples or [self._built[handle].seconds], len(samples), noisy=live and not samples)

    def drop(self, handles: Iterable[int]) -> None:
        """Nothing is held."""
