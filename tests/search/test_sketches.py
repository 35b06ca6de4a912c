"""Sketches: which fit a program, that all their points are schedules that hold, and what the ranking makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.ir.errors import ScheduleError
from autotune.search.ranking import Ranking, first_valid
from tests.codegen.test_llvm import centred, softmax
from tests.kernels import HERE, NARROW, choices, kernels, problem, spec

Case = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]
SMALL, ODD, LONG = (8, 16, 8), (7, 19, 13), (3, 300, 40)


def cases(m: int, n: int, k: int) -> dict[str, Case]:
    return {
        "product": (lambda x, y: x @ y, ((m, k), (k, n))),
        "turned product": (lambda x, y: x @ y.T, ((m, k), (n, k))),
        "product and more": (lambda x, y, b: np.tanh(x @ y + b), ((m, k), (k, n), (n,))),
        "row sums": (lambda x: x.sum(axis=1), ((m, n),)),
        "column sums": (lambda x: x.sum(axis=0), ((m, n),)),
        "rows": (softmax(-1), ((m, n),)),
        "centred rows": (centred, ((m, n), (n,), (n,))),
        "columns": (softmax(0), ((m, n),)),
        "map": (lambda x, y: np.exp(x) * y, ((m, n), (n,))),
        "turned": (lambda x: x.T * 2, ((n, m),)),
        "turned in three": (lambda x: np.transpose(x, (2, 0, 1)) + 0, ((m, k, n),)),
    }


FITTING = {
    "product": {"panel"}, "turned product": {"panel", "lanes"}, "product and more": {"panel", "rows"},
    "row sums": {"lanes"}, "column sums": {"panel"}, "rows": {"rows"}, "centred rows": {"rows"}, "columns": {"columns"},
    "map": {"map"}, "turned": {"map"}, "turned in three": {"map"},
}  # fmt: skip


@pytest.mark.parametrize("case", FITTING)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_point_holds(case: str, threads: int) -> None:
    """Built, verified, equivalent, and right in machine code: the first choice and random points of every sketch."""
    seen: Counter[str] = Counter()
    for n, shape in enumerate((SMALL, ODD, LONG)):
        fn, shapes = cases(*shape)[case]
        (program,) = kernels(fn, *(spec(*s) for s in shapes))
        for sketch, candidate in choices(program, threads, 3, n, (HERE, NARROW)[n % 2]):
            found = problem(program, candidate.schedule, threads, (HERE, NARROW)[n % 2], thorough=False)
            assert not found, f"{found}\n{shapes} {candidate.point}\n{candidate.schedule}"
            seen[sketch] += 1
    assert seen.keys() - {"first"} >= FITTING[case], seen
