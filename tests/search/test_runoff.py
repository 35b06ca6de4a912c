"""The run-off: intervals that hold as often as they say, ties that go to what is preferred, rounds that end when the
answer is known. Times are drawn, never measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from autotune.devices.records import Measurement, Policy, Status
from autotune.search.runoff import LEAST, LOOKS, ROUNDS, Interval, interval, paired, run_off


class Drawn:
    """Candidates with a time each, under noise that all of a round share and noise of their own; counts samples."""

    def __init__(self, times: Sequence[float], shared: float = 0.0, own: float = 0.0, seed: int = 0) -> None:
        self.times, self.shared, self.own, self.draw = times, shared, own, np.random.default_rng(seed)
        self.now, self.taken = 0.0, [0] * len(times)

    def time(
        self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
    ) -> list[Measurement]:
        rows: dict[int, list[float]] = {h: [] for h in handles}
        for _ in range(rounds or policy.rounds):
            load = 1 + self.shared * abs(self.draw.standard_cauchy())
            for h in handles:
                seconds = self.times[h] * load * math.exp(self.own * self.draw.standard_normal())
                if deadline is not None and self.now + seconds > deadline:
                    return [_row(row) for row in rows.values()]
                self.now += seconds
                rows[h].append(seconds)
                self.taken[h] += 1
        return [_row(row) for row in rows.values()]


def _row(samples: Sequence[float]) -> Measurement:
    if not samples:
        return Measurement(status=Status.INTERRUPTED)
    return Measurement.of(samples, len(samples))


def decide(timer: Drawn, incumbent: int | None = 0, end: float = math.inf) -> int | None:
    handles = list(range(len(timer.times)))
    return run_off(timer, handles, incumbent, Policy(), sum(timer.times), end, lambda: timer.now).winner


def test_intervals_from_order_statistics() -> None:
    row = [1.0, 2, 3, 4, 5]
    assert interval(row) == Interval(1, 3, 5), "of five coins all fall alike once in 32"
    assert interval(row[:4]) == Interval(0, 2.5, math.inf), "four rounds say nothing at 95 %"
    assert interval(row, 0.2) == Interval(2, 3, 4) and interval([]) == Interval()
    nine = interval(map(float, range(9)))
    assert (nine.low, nine.high) == (1, 7) and interval([2.0] * 9) == Interval(2, 2, 2)


@pytest.mark.parametrize("n", [5, 11, 30])
def test_an_interval_misses_as_rarely_as_it_says(n: int) -> None:
    """Under noise without a mean."""
    draw, many = np.random.default_rng(n), 2000
    rows = [interval(draw.standard_cauchy(n).tolist()) for _ in range(many)]
    assert sum(r.low > 0 for r in rows) < 0.06 * many and sum(r.high < 0 for r in rows) < 0.06 * many


def test_what_all_meet_alike_decides_nothing() -> None:
    """A load that makes every round longer by another factor leaves the ratios as they are."""
    a, b = Drawn([1.0, 1.05], shared=3.0).time([0, 1], Policy(), 30)
    assert paired(b, a).low == pytest.approx(1.05) and b.mad > 0.1 * b.seconds


def test_the_faster_one_wins_under_noise() -> None:
    for seed in range(40):
        assert decide(Drawn([1.1, 1.0, 1.06], shared=1.0, own=0.02, seed=seed)) == 1


def test_the_incumbent_is_replaced_by_luck_at_most_as_often_as_claimed() -> None:
    """Nothing is faster than it: each replacement is a mistake."""
    wrong = sum(decide(Drawn([1.0, 1.0], own=0.05, seed=seed)) != 0 for seed in range(300))
    assert wrong <= 0.05 * 300 + 5
    assert sum(decide(Drawn([1.0, 1.02], own=0.05, seed=seed)) == 1 for seed in range(300)) < wrong


def test_equals_go_to_the_preferred() -> None:
    assert decide(Drawn([1.0, 1.004, 1.0])) == 0
    assert decide(Drawn([1.2, 1.002, 1.0], own=0.01)) == 1, "both beat the incumbent"
    assert decide(Drawn([1.002, 1.0, 1.2], own=0.01), incumbent=None) == 0
    assert decide(Drawn([1.05, 1.0], own=0.001), incumbent=None) == 1


def test_rounds_end_when_the_answer_is_known() -> None:
    clear = Drawn([1.0, 1.5, 0.5])
    assert decide(clear) == 2 and clear.taken == [2 * ROUNDS, ROUNDS, 2 * ROUNDS], "a claim takes nine rounds"
    close = Drawn([1.0, 0.97, 2.0], own=0.03)
    decide(close)
    assert close.taken[2] == ROUNDS < close.taken[0] == close.taken[1] <= LOOKS * ROUNDS, "who is out is timed no more"
    alike = Drawn([1.0, 1.0])
    assert decide(alike) == 0 and alike.taken == [2 * ROUNDS] * 2, "equal for sure is an answer"


def test_the_time_is_kept() -> None:
    timer = Drawn([1.0, 0.99], own=0.05)
    decide(timer, end=200.0)
    assert timer.taken[0] > ROUNDS and timer.now <= 200
    late = Drawn([1.0, 0.5])
    assert decide(late, end=0.0) == 1 and late.taken == [LEAST] * 2, "a first look is always taken"


def test_what_cannot_be_timed_does_not_win() -> None:
    class Broken(Drawn):
        def time(self, handles: Sequence[int], *args: object, **kwargs: object) -> list[Measurement]:
            rows = super().time(handles, Policy(), ROUNDS)
            return [Measurement(status=Status.RUNTIME) if h == 1 else r for h, r in zip(handles, rows)]

    assert decide(Broken([1.0, 0.1, 0.8])) == 2
    assert decide(Broken([1.0, 0.1]), incumbent=1) == 0
    alone = Broken([0.0, 0.1])
    assert run_off(alone, [1], 0, Policy(), 1.0, 9.0, lambda: 0.0).winner is None
