"""Sketches: which fit a program, that all their points are schedules that hold, and what the ranking makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune import ops
from autotune.ir.collapse import normal_form
from autotune.ir.errors import ScheduleError
from autotune.ir.partition import partition
from autotune.search.ranking import Candidate, Ranking, first_valid
from autotune.tracer import trace
from tests.kernels import HERE, NARROW, choices, kernels, named, problem, spec

SHAPES = ((8, 16, 8), (7, 19, 13), (3, 300, 40))
FITTING = {
    "product": {"panel"}, "second turned": {"panel", "lanes"}, "epilogue": {"panel", "rows"}, "scaled rows": {"panel"},
    "heavy epilogue": {"panel", "lanes"}, "packed prologue": {"panel", "map"}, "sum": {"lanes"}, "map": {"map"},
    "column sum": {"panel"}, "column norm": {"panel", "columns"}, "rows": {"rows"}, "centred": {"rows"},
    "columns": {"panel", "map"}, "turned": {"map"}, "permuted": {"map"}, "batch": {"panel"}, "outer": {"map"},
}  # fmt: skip


@pytest.mark.parametrize("case", FITTING)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_point_holds(case: str, threads: int) -> None:
    """Built, verified, equivalent, and right in machine code: the first choice and random points of every sketch."""
    seen: Counter[str] = Counter()
    for n, shape in enumerate(SHAPES):
        target = (HERE, NARROW)[n % 2]
        for program in named(case, shape):
            for sketch, candidate in choices(program, threads, 4, n, target):
                found = problem(program, candidate.schedule, threads, target, thorough=False)
                assert not found, f"{found}\n{shape} {candidate.point}\n{candidate.schedule}"
                seen[sketch] += 1
    assert seen.keys() - {"first"} >= FITTING[case], seen


@pytest.mark.parametrize("case", FITTING)
def test_ranking(case: str) -> None:
    """Every point has a price; the order is by price, with near duplicates last and the plain nest as the end."""
    for program in named(case, (64, 96, 128)):
        ranking = Ranking(program, HERE, 1)
        found = list(ranking.best(limit=40))
        assert all((p.seconds > 0).all() and np.isfinite(p.seconds).all() for p in ranking.priced)
        assert found[0].predicted == min(p.seconds.min() for p in ranking.priced)
        assert found[0].terms and found[0].point and found[-1].origin == "plain" and not found[-1].schedule.steps
        assert len({(c.sketch, c.row) for c in found}) == len(found) == min(40, ranking.size) + 1
        again = next(Ranking(program, HERE, 1).best())
        assert again.schedule == found[0].schedule


def test_a_number_has_no_sketch() -> None:
    (program,) = kernels(lambda x: x * 2, spec())
    ranking = Ranking(program, HERE, 1)
    assert not problem(program, next(ranking.best()).schedule)


def test_the_first_valid_choice() -> None:
    """What is refused is counted by its reason; the plain nest is tried after the best dozen."""
    (program,) = kernels(lambda x, y: x @ y, spec(64, 32), spec(32, 64))
    ranking, tried = Ranking(program, HERE, 1), list[str]()

    def valid(candidate: Candidate) -> None:
        tried.append(candidate.origin)
        if candidate.origin != "plain":
            raise ScheduleError("not today", "holiday")

    assert not first_valid(ranking, valid).schedule.steps
    assert tried == ["model"] * 12 + ["plain"] and ranking.rejected["holiday"] == 12
    with pytest.raises(ScheduleError, match="no schedule is valid for this program: never"):
        first_valid(ranking, lambda candidate: (_ for _ in ()).throw(ScheduleError("never", "holiday")))


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (lambda x, w, b: ops.group_norm(x, w, b, groups=4), ((1, 8, 6, 7), (8,), (8,))),
        (ops.layer_norm, ((1, 70), (70,), (70,))),
        (ops.softmax, ((1, 90),)),
        (lambda x, w, b: ops.relu(ops.conv2d(x, w, b, pad=1)), ((1, 3, 9, 9), (20, 3, 3, 3), (20,))),
        (ops.attention, ((1, 1, 20, 16),) * 3),
        (ops.attention, ((1, 4, 1, 16), (1, 4, 30, 16), (1, 4, 30, 16))),
    ],
    ids=["group norm", "layer norm", "softmax", "convolution", "attention", "one query"],
)
def test_a_batch_of_one_has_sketches(fn: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    program = trace(fn, tuple(spec(*s) for s in shapes), {}).program
    for kernel in partition(program, True).kernels:
        assert Ranking(normal_form(kernel), HERE, 2).sketches, [c.name for c in kernel.computes]
