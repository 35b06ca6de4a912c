"""Prepared programs tuned within one budget: every kernel once, wherever it runs, measurements where they save most.

Knows which kernels there are and what becomes of the results; how the budget is spread is `search.allocation`'s
business, how a kernel is searched the tuner's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .ir.errors import MeasureError
from .planning import PAIRED, Job, jobs
from .search.allocation import Share, tune_all
from .workshop import Workshop

if TYPE_CHECKING:
    from .decorator import TuningResult
    from .ir.program import TensorProgram
    from .ir.schedule import Schedule
    from .search.tune import Outcome, Tuner
    from .session import Prepared

DEFAULT_BUDGET = 2.0
LOADING, MOST = 0.05, 0.2  # kept for the machine code of what is found: seconds a kernel, at most a share of the budget
Name = tuple[str, int, str]
Progress = Callable[["Prepared", int, float], None]


@dataclass
class _Task:
    """A kernel to tune, and whose it is; the first of `parts` is told of its progress."""

    job: Job
    parts: list[Prepared]
    weight: float


def _name(shop: Workshop, digest: str) -> Name:
    return shop.spec.digest, shop.threads, digest


def _tasks(parts: Iterable[Prepared]) -> dict[Name, _Task]:
    """Each kernel of all parts once; how often it runs adds up."""
    found: dict[Name, _Task] = {}
    for part in parts:
        expected = {k.program.digest: k.choice.seconds or k.choice.predicted or 1e-6 for k in part.kernels}
        for digest, job in jobs(part.plan, part.plans, expected).items():
            task = found.get(name := _name(part.workshop, digest))
            if task is None:
                found[name] = _Task(job, [part], job.weight)
                continue
            task.parts.append(part)
            task.weight += job.weight
            task.job = job if job.needed else task.job
    return found


def alone(shop: Workshop, program: TensorProgram, budget: float, trials: int | None = None) -> Outcome:
    """One kernel, in normal form, tuned within `budget` seconds and stored. Raises MeasureError."""
    start = time.monotonic()
    share = Share(lambda: shop.tuning(program, start + budget, trials))
    try:
        interrupted = tune_all([share], start, start + budget, time.monotonic)
        if share.tuning is None:
            raise share.failed or MeasureError("there was no time for it")
        found = share.tuning.outcome(interrupted)
        shop.record(program, found)
    finally:
        if share.tuning is not None:
            share.tuning.close()
    return found


def together(
    parts: Sequence[Prepared], budget: float | None = None, trials: int | None = None,
    progress: Progress | None = None, first: Mapping[str, Sequence[Schedule]] | None = None,
) -> list[TuningResult | None]:  # fmt: skip
    """Measure, keep what is faster, and run it from now on: all parts within `budget` seconds. The result of each part,
    None where time was up before it; raises MeasureError where nothing could be measured at all. A kernel that cannot
    be measured stays as it was. `first`: by the digest of a kernel's program, proved schedules to try before others.
    """
    start, options = time.monotonic(), parts[0].options
    total = next(b for b in (budget, options.budget, DEFAULT_BUDGET) if b is not None)
    with ExitStack() as stack:
        for part in sorted({id(p): p for p in parts}.values(), key=id):
            stack.enter_context(part.lock)
        tasks = _tasks(parts)
        several = PAIRED * any(len(part.plans) > 1 for part in parts)
        needed = sum(task.job.needed for task in tasks.values())
        deadline = start + total * (1 - several) - min(LOADING * needed, MOST * total)

        def begin(task: _Task) -> Tuner:
            told = progress and partial(progress, task.parts[0])
            return task.parts[0].workshop.tuning(
                task.job.program, deadline, trials or options.trials, told, known.get(task.job.program.digest, ())
            )

        known = first or {}
        shares: dict[Name, Share[Tuner]] = {}
        for name, task in tasks.items():
            shares[name] = Share(partial(begin, task), task.weight, task.job.needed, task.job.expected)
        try:
            interrupted = tune_all([*shares.values()], start, deadline, time.monotonic)
            done, failed = _outcomes(tasks, shares, interrupted)
        finally:
            for share in shares.values():
                if share.tuning is not None:
                    share.tuning.close()
        results = [_adopted(part, tasks, done, failed, start, start + total) for part in parts]
    if failed is not None and not any(results):
        raise failed
    for part, result in zip(parts, results):
        if result is not None:
            part.announce()
    if interrupted:
        raise KeyboardInterrupt
    return results


def _outcomes(
    tasks: Mapping[Name, _Task], shares: Mapping[Name, Share[Tuner]], interrupted: bool
) -> tuple[dict[Name, Outcome], MeasureError | None]:  # fmt: skip
    """What was found, stored; and why a kernel that is needed was not measured, if one was not."""
    done: dict[Name, Outcome] = {}
    failed: MeasureError | None = None
    for name, share in shares.items():
        error = share.failed
        if share.tuning is not None:
            try:
                done[name] = share.tuning.outcome(interrupted)
                tasks[name].parts[0].workshop.record(tasks[name].job.program, done[name])
            except MeasureError as found:
                error = found
        if share.needed and error is not None:
            failed = error
    return done, failed


def _adopted(
    part: Prepared, tasks: Mapping[Name, _Task], done: Mapping[Name, Outcome], failed: MeasureError | None,
    start: float, end: float,
) -> TuningResult | None:  # fmt: skip
    mine = {t.job.program.digest: done[n] for n, t in tasks.items() if part in t.parts and n in done}
    now = {k.program.digest: k.program for k in part.kernels}
    if not mine.keys() & now.keys():
        return None
    if failed is not None and now.keys() - mine.keys():
        warnings.warn(f"a kernel stays as it was: {failed}", stacklevel=4)
    code = {d: part.loaded(k, mine[d].winner.schedule) for d, k in now.items() if d in mine}
    return part.adopt(mine, code, start, end)
