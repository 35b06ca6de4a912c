"""Which plan of a program to run: the model's, or one that measurements say is faster; and which kernels have to be
measured to know.

A plan's time is the sum of its kernels' measured times. Nothing is stored of a decision: it is made again, from the
measurements in the store. Knows nothing of how kernels are built or searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .ir.collapse import normal_form
from .ir.plan import Plan
from .ir.program import TensorProgram

CLEAR = 0.97  # the model's way of a region gives place where the other takes less than this share of its time
PAIRED = 0.1  # of the budget, for timing both ways of regions in turn
OTHER = 0.5  # the weight of a kernel that may not be run at all

Seconds = Callable[[TensorProgram], float | None]


@dataclass(frozen=True)
class Job:
    """A kernel to tune, in normal form. `weight`: how often it runs; `expected`: seconds of one run; `needed`: the plan
    that runs now has it."""

    program: TensorProgram
    weight: float
    expected: float
    needed: bool


def decided(plans: Sequence[Plan], seconds: Seconds, frozen: bool = False) -> Plan:
    """The model's plan, with those regions turned whose other way is known to be faster. `frozen`: what is known is
    taken before what is not."""
    best = model = plans[0]
    for other in plans[1:]:
        region = turned(model, other)
        mine, theirs = times(model, region, seconds)
        if theirs is not None and (frozen if mine is None else theirs < CLEAR * mine):
            best = best.turned(region)
    return best


def times(plan: Plan, region: int, seconds: Seconds) -> tuple[float | None, float | None]:
    """Of the way that a region goes and of its other way; None where a kernel has not been measured."""
    mine, theirs = (_total(way_of(p, region), seconds) for p in (plan, plan.turned(region)))
    return mine, theirs


def turned(plan: Plan, other: Plan) -> int:
    """The region in which two plans differ."""
    return next(n for n, (a, b) in enumerate(zip(plan.chosen, other.chosen)) if a != b)


def way_of(plan: Plan, region: int) -> list[TensorProgram]:
    """The kernels of one region, in normal form."""
    return [normal_form(k) for k in plan.kernels_of(plan.ways[region])]


def jobs(plan: Plan, plans: Sequence[Plan], expected: Mapping[str, float]) -> dict[str, Job]:
    """By digest, each kernel once: those of the plan, then of the other way of each region in question, the nearest in
    price first; the other way is taken to last as long as the plan's. `expected`: seconds of the plan's kernels."""
    found: dict[str, Job] = {}
    for program in map(normal_form, plan.kernels):
        before = found.get(program.digest)
        many = before.weight + 1 if before else 1
        found[program.digest] = Job(program, many, expected[program.digest], True)
    for other in plans[1:]:
        region = turned(plans[0], other)
        mine, theirs = way_of(plan, region), way_of(plan.turned(region), region)
        whole = sum(expected[k.digest] for k in mine)
        for program in theirs:
            found.setdefault(program.digest, Job(program, OTHER, whole / len(theirs), False))
    return found


def _total(programs: Sequence[TensorProgram], seconds: Seconds) -> float | None:
    known = [s for s in map(seconds, programs) if s is not None]
    return sum(known) if len(known) == len(programs) else None
