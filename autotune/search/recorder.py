"""Measures every point of a space, batch by batch, so that it can be stopped and gone on with.

Knows points and a `Measurer`; must not know where results are kept: `keep` is called with each. One candidate, the
anchor, runs along in every batch: its time says how fast the machine was meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..devices.records import BuildReport, Measurement, Policy, Status, median
from ..ir.errors import AutotuneError, MeasureError
from ..ir.schedule import Schedule
from . import t4
from .longrun import long_run
from .ranking import Candidate, Ranking
from .recorded import Row, configuration
from .recorded import space as recorded_space
from .tune import Measurer

BATCH = 8
ROUNDS = 5
RACE = 2.0  # one twice as slow as another of its batch is known well enough
DRIFT = 1.1  # of the anchor, over its best: the batch is measured once more
SPREAD = 0.03  # of a point that might be among the best, above which it is measured once more
DIGITS = 10  # of a schedule's digest
CLOSE, MOST = 1.2, 100  # points so near to the best, and so many at most, are measured once more in turn
PROCESSES, LOOKS = 2, 8  # of that; each look of ROUNDS has its arrays in other places
RUNTIMES = 10  # samples of each that are kept


@dataclass(frozen=True)
class Point:
    """A point to measure, and its name in the record."""

    row: Row
    configuration: Mapping[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        return key(self.configuration)


def key(configuration: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(configuration.items()))


def points(ranking: Ranking, seed: int) -> list[Point]:
    """Every point of a space in random order, so that a part of a record is a fair sample; the nest without steps
    last."""
    rows = [(n, at) for n, p in enumerate(ranking.priced) for at in range(len(p.seconds))]
    order = np.random.default_rng(seed).permutation(len(rows))
    return [Point(row, configuration(ranking, row)) for row in [*(rows[i] for i in order), (-1, 0)]]


class Recorder:
    """One recording of one space."""

    def __init__(
        self, ranking: Ranking, program_json: Any, measurer: Measurer, policy: Policy, keep: Callable[[t4.Result], None]
    ) -> None:
        self.ranking, self.program, self.measurer, self.keep = ranking, program_json, measurer, keep
        self.policy = Policy(policy.threads, policy.warm, policy.sample_seconds, ROUNDS, RACE, ROUNDS)
        self.anchor = -1
        self.fastest = math.inf

    def run(self, todo: Sequence[Point], anchor: Candidate, deadline: float) -> int:
        """Measure points until the deadline (a `time.monotonic()`); how many were. Raises MeasureError where the anchor
        cannot be measured."""
        report = self.measurer.build([(self.program, anchor.schedule.to_json())])[0]
        if report.handle is None:
            raise MeasureError(f"the anchor cannot be built: {report.message}")
        self.anchor, done = report.handle, 0
        try:
            while done < len(todo) and time.monotonic() < deadline:
                batch = todo[done : done + BATCH]
                self._batch(batch)
                done += len(batch)
        finally:
            self.measurer.drop([self.anchor])
        return done

    def _batch(self, batch: Sequence[Point]) -> None:
        rows: list[tuple[Point, BuildReport, float, str]] = []
        for point in batch:
            begun = time.monotonic()
            schedule, report = self._build(point)
            rows.append((point, report, time.monotonic() - begun, schedule.digest[:DIGITS]))
        handles = [r.handle for _, r, _, _ in rows if r.handle is not None]
        try:
            measured, anchor = self._time(handles)
        finally:
            self.measurer.drop(handles)
        for point, report, spent, digest in rows:
            m = measured.get(report.handle or -1, Measurement(status=report.status, message=report.message))
            if Status.INTERRUPTED in (report.status, m.status):
                continue  # no verdict: it is tried again when the recording goes on
            self.keep(_result(point, report, m, spent, digest, anchor))

    def _build(self, point: Point) -> tuple[Schedule, BuildReport]:
        sketch, at = point.row
        try:
            schedule = self.ranking.candidate(sketch, at, "record").schedule if sketch >= 0 else Schedule()
        except AutotuneError as error:
            reason = getattr(error, "reason", "sketch")
            return Schedule(), BuildReport(Status.CONSTRAINTS, reason=reason, message=str(error))
        return schedule, self.measurer.build([(self.program, schedule.to_json())])[0]

    def _time(self, handles: Sequence[int]) -> tuple[dict[int, Measurement], Measurement]:
        """The batch's times, and the anchor's; the quieter of two where the machine was disturbed or a good point
        scattered."""
        tries: list[list[Measurement]] = []
        for _ in range(2):
            tries.append(self.measurer.time([self.anchor, *handles], self.policy, ROUNDS))
            anchor, *others = tries[-1]
            if anchor.ok:
                self.fastest = min(self.fastest, anchor.seconds)
            good = min((m.seconds for m in tries[-1]), default=math.inf) * 1.2
            scattered = any(m.seconds < good and m.mad > SPREAD * m.seconds for m in tries[-1])
            if anchor.ok and anchor.seconds < DRIFT * self.fastest and not scattered:
                break
        best = min(tries, key=lambda rows: (not rows[0].ok, rows[0].seconds))
        return dict(zip(handles, best[1:])), best[0]


def sharpened(
    document: t4.Document, make: Callable[[], AbstractContextManager[Measurer]], processes: int = PROCESSES,
    looks: int = LOOKS,
) -> t4.Document:  # fmt: skip
    """The same recording, its best points measured once more, all in turn: of hundreds of points measured by
    themselves, the one that is called the best is the luckiest. Each time becomes the median of its ratios to the
    default's, on the record's scale. `make` starts a measuring process. Raises CacheError or MeasureError."""
    space = recorded_space(document, "the recording")
    default = space.rows[space.default().schedule.digest]
    limit = CLOSE * min(space.seconds.values())
    best = sorted((row for row, t in space.seconds.items() if t <= limit), key=space.seconds.__getitem__)[:MOST]
    rows = [default, *(row for row in best if row != default)]
    program = space.whole.program.canonical
    todo = [(program, space.whole.candidate(*row, "record").schedule.to_json()) for row in rows]
    (samples,) = long_run(make, [todo], Policy(threads=space.threads), processes, looks, ROUNDS)
    base = samples[0]
    times = {row: [a / b for a, b in zip(part, base)] for row, part in zip(rows, samples)}
    level = median(space.seconds[row] / median(ratios) for row, ratios in times.items())
    quiet = median(float(r.extra["anchor"][0]) for r in document.results if "anchor" in r.extra)
    names = {tuple(sorted(space.results[row].configuration.items())): ratios for row, ratios in times.items()}

    def sharp(r: t4.Result) -> t4.Result:
        ratios = names.get(tuple(sorted(r.configuration.items())))
        if ratios is None or r.status is not Status.OK:
            return r
        m = Measurement.of([level * x for x in ratios], len(base))
        extra = {k: v for k, v in r.extra.items() if k not in ("apart", "noisy")}
        extra |= {"mad": (_ms(m.mad), "ms"), "minimum": (_ms(m.minimum), "ms"), "anchor": (quiet, "ms"),
                  "rounds": (len(base), "")}  # fmt: skip
        return replace(r, seconds=m.seconds, runtimes=m.samples[:RUNTIMES], extra=extra)

    return t4.Document(tuple(map(sharp, document.results)), document.metadata)


def _result(
    point: Point, report: BuildReport, m: Measurement, spent: float, digest: str, anchor: Measurement
) -> t4.Result:
    status = report.status if not report.ok else m.status
    extra: dict[str, tuple[Any, str]] = {"schedule": (digest, "")}
    if status is not Status.OK and report.reason:
        extra["reason"] = report.reason, ""
    if status is Status.OK:
        extra |= {
            "mad": (_ms(m.mad), "ms"), "minimum": (_ms(m.minimum), "ms"), "anchor": (_ms(anchor.seconds), "ms"),
        }  # fmt: skip
        if m.noisy or anchor.noisy:
            extra["noisy"] = 1, ""
    known = report.seconds + report.check_seconds
    return t4.Result(
        point.configuration, status, m.seconds if status is Status.OK else math.inf, m.samples if m.ok else (),
        report.seconds, report.check_seconds, max(0.0, spent - known),
        timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), extra=extra,
    )  # fmt: skip


def _ms(seconds: float) -> float:
    return float(f"{1e3 * seconds:.5g}")



