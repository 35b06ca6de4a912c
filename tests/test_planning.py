"""Which plan runs, from what is known of its kernels; and what is tuned, in which order, with which share of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.ir.collapse import normal_form
from autotune.ir.partition import partition
from autotune.ir.plan import Plan
from autotune.planning import CLEAR, decided, jobs, times, way_of
from autotune.tracer import trace
from tests.kernels import spec

Array = Any
SHAPES = (spec(20, 30), spec(30, 8), spec(30, 12))


def pair(x: Array, u: Array, v: Array) -> tuple[Array, Array]:
    return x @ u, np.maximum(x @ v, 0)


@pytest.fixture
def plans() -> list[Plan]:
    """Two products of x as one kernel, and as two."""
    plan = partition(trace(pair, SHAPES, {}).program, True)
    (region,) = plan.open
    assert len(plan.kernels) == 1
    return [plan, plan.turned(region)]


def known(plan: Plan, *seconds: float | None) -> dict[str, float | None]:
    return dict(zip((normal_form(k).digest for k in plan.kernels), seconds, strict=True))


def asked(*rows: dict[str, float | None]) -> Callable[[Any], float | None]:
    table = {digest: s for row in rows for digest, s in row.items()}
    return lambda program: table.get(program.digest)


def test_what_is_not_known_is_left_to_the_model(plans: list[Plan]) -> None:
    one, two = plans
    assert decided(plans, asked()) == one
    assert decided(plans, asked(known(two, 1e-6, 1e-6))) == one, "the model's way has not been measured"
    assert decided(plans, asked(known(one, 9e-6), known(two, 1e-6, None))) == one
    assert decided(plans, asked(known(two, 1e-6, 1e-6)), frozen=True) == two
    assert decided(plans, asked(known(one, 9e-6), known(two, 1e-6, None)), frozen=True) == one


def test_the_faster_way_where_it_is_clear(plans: list[Plan]) -> None:
    one, two = plans
    for ratio, want in ((CLEAR - 0.01, two), (CLEAR + 0.01, one)):
        row = asked(known(one, 10e-6), known(two, 4e-6 * ratio, 6e-6 * ratio))
        assert decided(plans, row) == want
        assert decided([two, one], row) == two, "and what the model takes stays where it is no slower"
    (region,) = one.open
    assert times(one, region, asked(known(one, 3.0), known(two, 1.0, 1.0))) == (3.0, 2.0)
    assert times(two, region, asked(known(one, 3.0))) == (None, 3.0)


def test_jobs(plans: list[Plan]) -> None:
    one, two = plans
    (region,) = one.open
    wanted = jobs(one, plans, {normal_form(one.kernels[0]).digest: 1e-5})
    assert [*wanted] == [normal_form(k).digest for k in (*one.kernels, *two.kernels)]
    assert [job.needed for job in wanted.values()] == [True, False, False]
    weights = [job.weight for job in wanted.values()]
    assert weights[0] > weights[1] == weights[2] > 0
    assert {k.digest for k in way_of(two, region)} == {*wanted} - {normal_form(one.kernels[0]).digest}


def test_a_kernel_that_occurs_twice_is_one_job() -> None:
    program = trace(lambda x, u, v: (x @ u) @ v, (spec(16, 16),) * 3, {}).program
    plan = partition(program)
    assert len(plan.kernels) == 2 and len(jobs(plan, [plan], {normal_form(plan.kernels[0]).digest: 1.0})) == 1
