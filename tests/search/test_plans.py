"""The model's plan is the cheapest as predicted; the others differ from it in one region that is close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.devices import device
from autotune.ir.collapse import normal_form
from autotune.ir.partition import partition
from autotune.ir.plan import Plan
from autotune.search.plans import TIE, UNSURE, plans
from autotune.search.ranking import Ranking
from autotune.tracer import trace
from tests.kernels import HERE, choices, problem, softmax, spec
from tests.machine import check

Array = Any
rng = np.random.default_rng(0)


def price(plan: Plan, threads: int = 1) -> float:
    kernels = map(normal_form, plan.kernels)
    return sum(min(float(p.seconds.min()) for p in Ranking(k, HERE, threads).priced) for k in kernels)


def test_fewer_kernels_where_prices_are_equal() -> None:
    program = trace(lambda x, y: np.tanh(x @ y), (spec(96, 48), spec(48, 48)), {}).program
    first = plans(program, HERE, 1)[0]
    assert len(first.kernels) == 1 and price(first) <= TIE * price(first.turned(0))


def mixed(x: Array, u: Array, v: Array, w: Array) -> Array:
    """Three products of x, a chain of two products, a product with rows behind it."""
    q, k, p = x @ u, x @ v, np.tanh(x @ w)
    return softmax((softmax(q @ k.T) @ p) @ u)


def test_the_cheapest_first_and_then_one_other_way_each() -> None:
    program = trace(mixed, (spec(96, 48), spec(48, 48), spec(48, 48), spec(48, 48)), {}).program
    first, *others = plans(program, HERE, 1)
    assert others and first.open
    for other in others:
        (region,) = [n for n, (a, b) in enumerate(zip(first.chosen, other.chosen, strict=True)) if a != b]
        assert first.regions[region].close
        assert price(first) <= TIE * price(other) and price(other) <= TIE * UNSURE * price(first)
    assert all(price(first) <= TIE * price(first.turned(n)) for n in first.open)


def test_only_what_is_always_joined_runs_where_blocks_do() -> None:
    program = trace(mixed, (spec(96, 48), spec(48, 48), spec(48, 48), spec(48, 48)), {}).program
    assert [plan.open for plan in plans(program, device("cuda:sm_80"), 1)] == [()]


def floats(*shape: int) -> Array:
    return rng.standard_normal(shape).astype("f4")


SIBLINGS: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "maps": (lambda x: (np.sin(x), np.cos(x), x * 2), (floats(33, 70),)),
    "rows": (lambda x: (x.sum(axis=1), x.max(axis=1), np.exp(x - 3)), (floats(33, 70),)),
    "moments": (lambda x: (x.mean(axis=1), x.var(axis=1)), (floats(33, 70),)),
    "products": (lambda x, u, v, b: (x @ u, np.maximum(x @ v + b, 0)), (floats(40, 33), floats(33, 48),
                                                                        floats(33, 64), floats(64))),
    "all of it": (mixed, tuple(0.1 * floats(n, 33) for n in (50, 33, 33, 33))),
}  # fmt: skip


@pytest.mark.parametrize("case", SIBLINGS)
def test_machine_code(case: str) -> None:
    fn, arrays = SIBLINGS[case]
    check(fn, *arrays)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", [*SIBLINGS][:-1])
def test_siblings_as_one_kernel_under_any_schedule(case: str, threads: int) -> None:
    fn, arrays = SIBLINGS[case]
    (kernel,) = partition(trace(fn, [spec(*a.shape) for a in arrays], {}).program, True).kernels
    program = normal_form(kernel)
    for name, candidate in choices(program, threads, 2):
        assert problem(program, candidate.schedule, threads) == "", (name, candidate.point)
