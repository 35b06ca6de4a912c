"""One budget for several kernels: measurements go where they are expected to save most, on simulated clocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from autotune.devices.records import Policy, Status
from autotune.ir.errors import MeasureError
from autotune.search.allocation import Share, tune_all
from autotune.search.recorded import Simulated, Space
from autotune.search.strategies import make
from autotune.search.tune import Tuner
from tests.search.spaces import made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Curve:
    """A search whose best time after each batch is known; it notes what it did on a list that several share."""

    def __init__(self, name: str, clock: Clock, times: list[float], cost: float = 0.1) -> None:
        self.name, self.clock, self.times, self.cost = name, clock, times, cost
        self.batches, self.decided, self.round_seconds = 0, 0.0, 0.001

    @property
    def best(self) -> float:
        return min(self.times[: self.batches + 1])

    def more(self, until: float) -> bool:
        assert self.clock.now < until
        self.clock.now += self.cost
        self.batches += 1
        return self.batches < len(self.times) - 1

    def decide(self, deadline: float) -> None:
        self.decided = deadline


def falling(start: float, factor: float, batches: int = 200) -> list[float]:
    return [start * max(factor**n, 0.3) for n in range(batches)]


def spend(clock: Clock, *rows: tuple[Curve, float], budget: float = 5.0) -> list[int]:
    def begin(tuning: Curve) -> Callable[[], Curve]:
        return lambda: tuning

    shares = [Share(begin(t), weight) for t, weight in rows]
    assert not tune_all(shares, 0.0, budget, clock)
    assert all(t.decided > 0 for t, _ in rows)
    return [t.batches for t, _ in rows]


def test_the_heavy_kernel_gets_more() -> None:
    clock = Clock()
    heavy, light = Curve("heavy", clock, falling(1e-3, 0.97)), Curve("light", clock, falling(1e-5, 0.97))
    many, few = spend(clock, (heavy, 1), (light, 1))
    assert many > 5 * few
    clock = Clock()
    often, once = Curve("often", clock, falling(1e-5, 0.97)), Curve("once", clock, falling(1e-5, 0.97))
    many, few = spend(clock, (often, 50), (once, 1))
    assert many > 5 * few, "so does one that runs often"


def test_what_gains_nothing_gives_place() -> None:
    clock = Clock()
    stuck, falls = Curve("stuck", clock, [1e-4] * 200), Curve("falls", clock, falling(1e-4, 0.95))
    few, many = spend(clock, (stuck, 1), (falls, 1))
    assert 0 < few < many
    clock = Clock()
    late = Curve("late", clock, [1e-4] * 20 + falling(1e-4, 0.9))
    assert spend(clock, (late, 1), (Curve("none", clock, [1e-4] * 200), 1), budget=10.0)[0] > 20, "none is given up"


def test_slow_batches_have_to_gain_more() -> None:
    clock = Clock()
    cheap, dear = Curve("cheap", clock, falling(1e-4, 0.97)), Curve("dear", clock, falling(1e-4, 0.97), cost=0.8)
    many, few = spend(clock, (cheap, 1), (dear, 1))
    assert many > 2 * few >= 2


def test_one_that_has_nothing_more_leaves_its_time_to_others() -> None:
    clock = Clock()
    short, long = Curve("short", clock, falling(1e-2, 0.9, 4)), Curve("long", clock, falling(1e-6, 0.99))
    few, many = spend(clock, (short, 1), (long, 1))
    assert few == 3 and many > 30 and clock.now <= 5.0


def test_who_is_begun() -> None:
    """What runs now before what may run, the longest first, and at least one; a failure is no end."""
    clock, begun = Clock(), list[str]()

    def begin(name: str, error: bool = False) -> Callable[[], Curve]:
        def made() -> Curve:
            begun.append(name)
            clock.now += 1.0
            if error:
                raise MeasureError("no")
            return Curve(name, clock, [1e-3] * 3)

        return made

    shares = [
        Share(begin("may"), 0.5, False, 9.0), Share(begin("short"), 1, True, 1e-6),
        Share(begin("fails", True), 1, True, 1e-4), Share(begin("long"), 1, True, 1e-3),
    ]  # fmt: skip
    assert not tune_all(shares, 0.0, 2.5, clock)
    assert begun == ["long", "fails", "short"]
    assert [s.tuning is not None for s in shares] == [False, True, False, True] and shares[2].failed is not None


def test_an_interrupt_keeps_what_is_known() -> None:
    clock = Clock()

    class Stopped(Curve):
        def more(self, until: float) -> bool:
            raise KeyboardInterrupt

    def never() -> Curve:
        raise KeyboardInterrupt

    assert tune_all([Share(lambda: Stopped("stopped", clock, [1.0, 1.0]))], 0.0, 5.0, clock)
    with pytest.raises(KeyboardInterrupt):
        tune_all([Share(never)], 0.0, 5.0, clock)


class OnOneClock(Simulated):
    """A replay that shares its clock with others."""

    def __init__(self, space: Space, shared: Clock) -> None:
        self.shared = shared
        super().__init__(space)

    @property
    def now(self) -> float:
        return self.shared.now

    @now.setter
    def now(self, value: float) -> None:
        self.shared.now = value or self.shared.now


KERNELS = ("square", "linear", "attention", "dense", "softmax", "gemv")


def tuner(name: str, clock: Clock, deadline: float, seed: int) -> tuple[Tuner, Any]:
    """A search that begins somewhere, and where that is."""
    space = made(name)
    rows = [(n, at) for n, p in enumerate(space.ranking.priced) for at in range(len(p.seconds))]
    order = [rows[int(i)] for i in np.random.default_rng(seed).permutation(len(rows))]
    some = (space.ranking.candidate(sketch, at, "random") for sketch, at in order)
    default = next(c for c in some if (r := space.of(c)) is not None and r.status is Status.OK)
    strategy = make("random", space.ranking, seed=seed)
    measurer = OnOneClock(space, clock)
    return Tuner(space.ranking, None, measurer, Policy(), deadline, None, strategy, clock=clock), default


def together(weights: Sequence[float], budget: float, seed: int) -> float:
    """Seconds of all kernels, as often as they run, after one budget for all."""
    clock, shares = Clock(), list[Share[Tuner]]()
    for name, weight in zip(KERNELS, weights):
        one, default = tuner(name, clock, budget, seed)
        shares.append(Share(partial(one.begin, default, None, budget), weight))
    tune_all(shares, 0.0, budget, clock)
    assert clock.now <= budget
    return sum(s.weight * s.tuning.outcome().seconds for s in shares if s.tuning)


def evenly(weights: Sequence[float], budget: float, seed: int) -> float:
    """The same where each has its own part of the budget."""
    whole = 0.0
    for name, weight in zip(KERNELS, weights):
        clock = Clock()
        one, default = tuner(name, clock, budget / len(KERNELS), seed)
        whole += weight * one.run(default).seconds
    return whole


@pytest.mark.parametrize("budget", [3.0, 6.0])
def test_it_is_better_than_even_shares(budget: float) -> None:
    """On average, and by more where the budget is short; and it is the same each time."""
    weights = [(1, 30, 1, 1, 1, 1), (1, 3, 10, 3, 30, 100), (10, 3, 1, 100, 30, 1)]
    cases = [(w, budget, seed) for w in weights for seed in range(4)]
    ratios = [together(*case) / evenly(*case) for case in cases]
    assert math.prod(ratios) ** (1 / len(ratios)) < (0.97 if budget < 5 else 0.99)
    assert together(*cases[0]) == together(*cases[0])
