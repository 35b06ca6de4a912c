"""Exploring: how candidates are compared across batches, and what a batch that the time cuts short leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from autotune.devices import device
from autotune.devices.records import BuildReport, Measurement, Policy, Status
from autotune.search.ranking import Ranking
from autotune.search.strategies import make
from autotune.search.tune import BATCH, Tuner, _drift
from tests.programs import gemm


class Machine:
    """Builds everything at once, and takes a microsecond times the number of a candidate, times what the state of the
    machine is in each round."""

    def __init__(self, rounds: Sequence[float] = (1.0,)) -> None:
        self.rounds, self.names, self.now = rounds, list[str](), 0.0
        self.room = math.inf  # candidates that there is time to build

    def build(self, candidates: Sequence[tuple[Any, Any]], *args: Any, **kwargs: Any) -> list[BuildReport]:
        reports = []
        for _, schedule in candidates:
            if self.room <= 0:
                reports.append(BuildReport(Status.INTERRUPTED, reason="deadline", message="the time was up"))
                continue
            self.room -= 1
            self.names.append(str(schedule))
            reports.append(BuildReport(handle=len(self.names)))
        return reports

    def time(self, handles: Sequence[int], *args: Any, **kwargs: Any) -> list[Measurement]:
        self.now += 1.0
        return [Measurement.of([1e-6 * (100 + h) * state for state in self.rounds], len(self.rounds)) for h in handles]

    def drop(self, handles: Iterable[int]) -> None: ...


def tuner(machine: Machine) -> Tuner:
    ranking = Ranking(gemm(64, 64, 64), device("cpu:znver4"), 1)
    made = Tuner(ranking, None, machine, Policy(), 100.0, None, make("default", ranking), clock=lambda: machine.now)
    return made.begin(next(ranking.best()), None, 100.0)


def test_a_machine_that_changes_its_pace_between_and_within_batches() -> None:
    machine = Machine()
    made = tuner(machine)
    for machine.rounds in ((1.3, 1.3, 1.3), (1.0, 1.3, 1.3, 1.0, 1.3), (0.8,)):
        assert made.more(100.0)
    places = {name: n + 1 for n, name in enumerate(machine.names)}
    found = {d: places[str(c.schedule.to_json())] for d, c in made.state.candidates.items()}
    assert len(found) == len(places) > 2 * BATCH
    for digest, n in found.items():
        assert made.state.seconds[digest] == pytest.approx(1e-6 * (100 + n))


def test_drift_is_what_all_that_ran_along_show() -> None:
    steady, shaken = Measurement.of([1.0, 1.3, 1.0], 3), Measurement.of([2.0, 5.0, 3.0], 3)
    assert _drift([(steady, 1.0), (shaken, 2.0)]) == pytest.approx([1.0, 1.3, 1.0])
    assert _drift([(shaken, 2.0)]) == pytest.approx([1.0, 2.5, 1.5])
    assert _drift([]) == _drift([(Measurement(status=Status.RUNTIME), 1.0)]) == []


def test_what_there_was_no_time_to_build_is_no_trial() -> None:
    machine = Machine()
    made = tuner(machine)
    machine.room = 2
    assert made.more(100.0)
    assert len(made.state.trials) == len(made.state.candidates) == 3 and not made.state.rejections
    machine.room = math.inf
    assert made.more(100.0) and len(made.state.candidates) > 3
