"""Strategies: what every one of them promises, on spaces that are replayed; and the tuner with each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
from autotune.devices.records import Policy
from autotune.ir.errors import UsageError
from autotune.ir.schedule import Schedule
from autotune.options import STRATEGIES, resolve
from autotune.search.ranking import Candidate
from autotune.search.recorded import Simulated, Space
from autotune.search.strategies import NAMES, Strategy, Told, make
from autotune.search.strategies.points import Points
from autotune.search.tune import Tuner
from benchmarks.search import search
from tests.search.spaces import made

SPACES = (("square", 300), ("linear", 300), ("gemv", 300), ("attention", 300))


def seconds(space: Space, candidate: Candidate) -> float:
    r = space.of(candidate)
    return r.seconds if r is not None else float("inf")


def drive(space: Space, strategy: Strategy, trials: int) -> list[Candidate]:
    """Ask and tell as the tuner does."""
    asked: list[Candidate] = []
    while len(asked) < trials and (batch := strategy.ask(6)):
        assert len(batch) <= 6
        asked += batch
        strategy.tell([Told(c, seconds(space, c)) for c in batch])
    return asked


def test_the_names_are_the_option() -> None:
    assert NAMES == STRATEGIES and resolve().strategy == "default"
    with pytest.raises(UsageError, match="strategy must be default | random"):
        resolve(strategy="luck")
    with pytest.raises(UsageError, match="no strategy 'luck'; there are default, random"):
        make("luck", made().ranking)
    with pytest.raises(UsageError, match="'local' keeps no study"):
        make("local", made().ranking, study="sqlite:///x.db")
    with pytest.raises(UsageError, match="the study 'nosuch://x' cannot be opened"):
        make("tpe", made().ranking, study="nosuch://x")


@pytest.mark.parametrize("name", NAMES)
def test_no_point_is_asked_for_twice(name: str) -> None:
    """Every strategy but the default, which stops where nothing is gained, comes to every point (or, of CMA-ES, to
    every point of its sketch) and then has no more to say."""
    for case, most in SPACES[1:3]:
        space = made(case, 60 if case == "linear" else most)
        asked = drive(space, make(name, space.ranking, seed=3), 1000)
        places = [(c.sketch, c.row) for c in asked]
        assert len(set(places)) == len(places)
        if name in ("random", "local", "evolution", "tpe"):
            assert len(places) == space.ranking.size
        if name == "greedy":
            assert len(places) == space.ranking.size + 1, "the nest without steps is the last"
            later = [c.predicted for c in asked[len(space.ranking.sketches) :]]
            assert later == sorted(later) and asked[0].predicted <= later[0], "but for the first of other sketches"
        if name == "cma":
            (sketch,) = {n for n, _ in places}
            assert len(places) == len(space.ranking.priced[sketch].seconds)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_come_first(name: str) -> None:
    space = made()
    seeds = [Candidate(Schedule(), float("inf"), "seed"), space.ranking.candidate(0, 5, "seed")]
    strategy = make(name, space.ranking, seeds, 1)
    first = strategy.ask(6)
    assert [c.origin for c in first[:2]] == ["seed", "seed"]
    strategy.tell([Told(c, float("inf")) for c in first])
    assert strategy.ask(1), "failures are no reason to stop"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("case", "most"), SPACES)
def test_the_same_seed_gives_the_same_search(name: str, case: str, most: int) -> None:
    space = made(case, most)
    one, other = (search(space, name, 5, trials=24) for _ in range(2))
    assert one == other and len(one.seconds) <= 24
    assert all(a <= b for a, b in zip(one.elapsed, one.elapsed[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_in_seconds_is_kept(name: str) -> None:
    """By the clock of the replay; a first measurement is always made."""
    space, budget = made(), 2.0
    run = search(space, name, 1, trials=None, budget=budget)
    assert len(run.seconds) > 1 and run.elapsed[-1] <= budget
    assert len(search(space, name, 1, trials=None, budget=1e-3).seconds) == 1


def test_a_space_without_points() -> None:
    space = made("gemv")
    nothing = space.ranking.only([np.zeros(0, np.int64) for _ in space.ranking.priced])
    for name in NAMES:
        assert [c.origin for c in make(name, nothing).ask(6)] in ([], ["plain"])


def test_points() -> None:
    """Ranks, the nearest point that is free, a line through a point."""
    space = made()
    points, ranking = Points(space.ranking), space.ranking
    assert len(points) == ranking.size
    taken = points.take(0, 3, "test")
    assert len(points) == ranking.size - 1 and not points.free(0, 3)
    near = points.near(0, points.vector(taken))
    assert near is not None and near != 3
    for hole, name in enumerate(points.holes[0]):
        for row in points.line(taken, hole):
            other = ranking.priced[0].point(row)
            assert [k for k, v in other.items() if v != taken.point[k]] == [name]
    while (point := points.draw(np.random.default_rng(1))) is not None:
        points.take(*point, "test")
    assert len(points) == 0 and points.near(0, points.vector(taken)) is None


def test_default_moves_around_the_best_and_stops() -> None:
    space = made("linear", 300)
    asked = drive(space, make("default", space.ranking), 1000)
    origins = [c.origin for c in asked]
    assert origins[:6] == ["model"] * 6 and "move" in origins[6:12] and len(asked) < space.ranking.size


def test_several_processes_share_a_study(tmp_path: Path) -> None:
    """Two samplers with one storage: the second knows what the first was told."""
    space, url = made("linear", 100), f"sqlite:///{tmp_path}/study.db"
    one, other = (make("tpe", space.ranking, seed=1, study=url) for _ in range(2))
    drive(space, one, 12)
    drive(space, other, 12)
    third: Any = make("tpe", space.ranking, seed=1, study=url)
    assert len(third.study.trials) == 24 and third.study.best_value < float("inf")


def test_the_tuner_counts_what_failed() -> None:
    space = made()
    measurer = Simulated(space)
    strategy = make("random", space.ranking, seed=2)
    tuner = Tuner(space.ranking, None, measurer, Policy(), 1e9, 64, strategy, clock=measurer.clock)
    outcome = tuner.run(space.default())
    assert outcome.rejections["planted"] == sum(not t.build.ok for t in outcome.trials) > 0
    assert len(outcome.trials) == min(64, space.ranking.size) and outcome.seconds <= outcome.default_seconds
    assert seconds(space, outcome.winner) <= seconds(space, outcome.default)


@pytest.mark.parametrize("name", ["local", "tpe"])
def test_tune_takes_the_option(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    study = f"sqlite:///{tmp_path}/study.db" if name == "tpe" else None
    with autotune.context(strategy=name, study=study, threads=1):
        kernel = autotune.kernel(lambda x, y: x @ y, name="product")
        arrays = np.ones((48, 40), np.float32), np.ones((40, 32), np.float32)
        result = kernel.tune(*arrays, trials=5, budget=20.0)
        assert {row["origin"] for row in result.history[1:]} <= {"random", "move", "sampled"}
        assert 1 < result.trials <= 5 and np.all(kernel(*arrays) == 40)
    assert (tmp_path / "study.db").exists() == (name == "tpe")
