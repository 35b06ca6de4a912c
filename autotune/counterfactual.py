"""A chosen schedule's decisions taken otherwise, one at a time: what each would be predicted to take, and takes.

A decision is a hole of the schedule's sketch, the sketch itself, or a step that could be left out. Knows spaces,
proofs and measurements; must not know how they are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .codegen import build
from .devices.records import Measurement, Policy, Status
from .ir.equiv import prove
from .ir.errors import AutotuneError, MeasureError
from .ir.program import TensorProgram
from .ir.schedule import Schedule
from .search.ranking import Ranking
from .search.runoff import Interval, paired
from .workshop import Workshop

VALUES = 3  # of a hole, at most: the nearest to the chosen one
GROUP, ROUNDS = 8, 15  # flips that are timed beside the chosen schedule, and in how many rounds
HOPELESS = 4.0  # times the chosen one's time, from where one sample is enough
SECONDS = 30.0  # for one kernel


@dataclass(frozen=True)
class Flip:
    """One decision taken otherwise. `predicted`: the model's time over that of the chosen schedule, None where the
    model knows no such schedule; `rule`: the rule of thumb that keeps it from a search, "" if none; `measured`: its
    time over the chosen one's, None where `status` says why not."""

    decision: str
    chosen: str
    other: str
    predicted: float | None = None
    rule: str = ""
    measured: Interval | None = None
    status: Status = Status.OK
    message: str = ""


@dataclass(frozen=True)
class Counterfactual:
    """All flips of one kernel's schedule. `points` in the search's space, and how many were `removed` by which rule;
    `thumb`: those of the rules that are no law, but experience. `sketch` is "" for a schedule of no sketch."""

    sketch: str
    points: int
    removed: dict[str, int]
    thumb: frozenset[str]
    flips: tuple[Flip, ...]


def counterfactual(shop: Workshop, program: TensorProgram, schedule: Schedule) -> Counterfactual:
    """Flip what can be flipped, and measure it beside the schedule itself. Raises MeasureError where that cannot be
    measured."""
    searched = shop.ranking(program)
    points = searched.size  # which prices all points
    whole = Ranking(program, shop.spec, shop.threads, pruned=False, correction=shop.correction)
    at = _place(whole, schedule)
    found = list(_points(whole, *at)) if at is not None else []
    for n, step in enumerate(schedule.steps):
        less = Schedule(schedule.steps[:n] + schedule.steps[n + 1 :])
        found.append((less, Flip("step", str(step), "left out")))
    thumb = {str(rule) for p in whole.priced if p.why is not None for rule in set(p.why.tolist()) if rule}
    return Counterfactual(
        whole.sketches[at[0]].name if at is not None else "", points, dict(sorted(searched.rejected.items())),
        frozenset(thumb), _measured(shop, program, schedule, found),
    )  # fmt: skip


def _place(whole: Ranking, schedule: Schedule) -> tuple[int, int] | None:
    """Sketch and row of a schedule, looked for where the model would look first."""
    for n, (sketch, priced) in enumerate(zip(whole.sketches, whole.priced)):
        for row in np.argsort(priced.seconds, kind="stable"):
            if sketch.schedule(priced.point(int(row))) == schedule:
                return n, int(row)
    return None


def _points(whole: Ranking, sketch: int, row: int) -> Iterator[tuple[Schedule, Flip]]:
    """For each hole the points that differ in it alone, or, where there are none, the best of those that differ in as
    little else as can be; and the best of each other sketch."""
    priced = whole.priced[sketch]
    holes = list(priced.columns)
    table = np.stack(list(priced.columns.values()), axis=1) if holes else np.zeros((1, 0), np.int64)
    base = float(priced.seconds[row])
    for hole, name in enumerate(holes):
        values = sorted(set(table[:, hole].tolist()))
        if len(values) < 2:
            continue
        place = values.index(int(table[row, hole]))
        apart = np.where(table[:, hole] != table[row, hole], (table != table[row]).sum(axis=1), len(holes) + 1)
        others = [int(r) for r in np.flatnonzero(apart == apart.min())]
        if apart.min() > 1:
            others = [min(others, key=lambda r: float(priced.seconds[r]))]
        near = sorted(others, key=lambda r: abs(values.index(int(table[r, hole])) - place))[:VALUES]
        for other in sorted(near, key=lambda r: int(table[r, hole])):
            more = [f"{n}={v}" for n, v, old in zip(holes, table[other], table[row]) if n != name and v != old]
            label = f"{table[other, hole]}{', ' * bool(more)}{', '.join(more)}"
            flip = Flip(name, str(table[row, hole]), label, float(priced.seconds[other]) / base)
            yield whole.candidate(sketch, other, "flip").schedule, replace(flip, rule=_rule(whole, sketch, other))
    for n, p in enumerate(whole.priced):
        if n != sketch and len(p.seconds):
            best = int(np.argmin(p.seconds))
            flip = Flip("sketch", whole.sketches[sketch].name, whole.sketches[n].name, float(p.seconds[best]) / base)
            yield whole.candidate(n, best, "flip").schedule, replace(flip, rule=_rule(whole, n, best))


def _rule(whole: Ranking, sketch: int, row: int) -> str:
    why = whole.priced[sketch].why
    return "" if why is None else str(why[row])


def _measured(
    shop: Workshop, program: TensorProgram, schedule: Schedule, found: Sequence[tuple[Schedule, Flip]]
) -> tuple[Flip, ...]:  # fmt: skip
    """The flips with what became of them; what fails a proof is not built."""
    ends = {other: _proved(shop, program, other) for other, _ in found}
    worker = shop.owner.worker(shop.spec, shop.threads, shop.options)
    worker.wait()
    end = time.monotonic() + SECONDS
    policy = Policy(threads=shop.threads, race=HOPELESS, rounds=ROUNDS)
    todo = [other for other, known in ends.items() if known.status is Status.OK]
    for n in range(0, len(todo), GROUP):
        some = [schedule, *todo[n : n + GROUP]]
        built = worker.build([(program.canonical, s.to_json()) for s in some], end)
        handles = [r.handle for r in built if r.handle is not None]
        timed = iter(worker.time(handles, policy, ROUNDS, end))
        worker.drop(handles)
        rows = [next(timed) if r.handle is not None else Measurement(status=r.status, message=r.message) for r in built]
        if not rows[0].ok:
            raise MeasureError(f"the chosen schedule cannot be measured: {rows[0].message}")
        for other, row in zip(some[1:], rows[1:]):
            ends[other] = _End(row.status, row.message, paired(row, rows[0]) if row.ok else None)
    return tuple(
        replace(flip, status=ends[other].status, message=ends[other].message, measured=ends[other].measured)
        for other, flip in found
    )


@dataclass(frozen=True)
class _End:
    """What became of a schedule."""

    status: Status = Status.OK
    message: str = ""
    measured: Interval | None = None


def _proved(shop: Workshop, program: TensorProgram, schedule: Schedule) -> _End:
    status = Status.CONSTRAINTS
    try:
        nest = build.plan(program, schedule, shop.spec)
        status = Status.CORRECTNESS
        prove(program, schedule, nest)
    except AutotuneError as error:
        return _End(status, str(error))
    return _End()
