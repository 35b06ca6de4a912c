"""The whole loop: model, store, measurements, other sessions; and stores that are empty, foreign, wrong or broken."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.cache.records import Record, canonical, digest
from autotune.cache.store import Store
from autotune.decorator import TuningResult, make_kernel
from autotune.devices.records import Measurement, Policy
from autotune.ir.collapse import normal_form
from autotune.ir.errors import FrozenError, MeasureError, UsageError
from autotune.ir.partition import partition
from autotune.ir.program import TensorProgram, canonical_names
from autotune.ir.schedule import Schedule
from autotune.ir.steps import ComputeAt, Split, Step
from autotune.options import Options
from autotune.search import regret
from autotune.search.ranking import Candidate, Ranking
from autotune.session import Prepared, Session
from autotune.tracer import trace
from autotune.workshop import Workshop
from tests.kernels import spec

rng = np.random.default_rng(0)


def product(m: int = 24, n: int = 32, k: int = 16) -> TensorProgram:
    return trace(lambda x, y: x @ y, (spec(m, k), spec(k, n)), {}).program


@pytest.fixture(scope="module")
def shared() -> Iterator[Session]:
    """One measuring process for the file."""
    made = Session()
    yield made
    made.close()


@pytest.fixture
def fresh(shared: Session) -> Iterator[Callable[[], Session]]:
    """Sessions that know nothing of each other but the measuring process."""
    made: list[Session] = []

    def make() -> Session:
        made.append(Session())
        made[-1]._workers = shared._workers
        return made[-1]

    yield make
    for one in made:
        one._workers = {}
        one.close()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(threads=1, cache_dir=str(tmp_path), trials=4, budget=5.0)


def sources(prepared: Prepared) -> list[str]:
    return [k.choice.source for k in prepared.kernels]


Fresh = Callable[[], Session]


def test_cold_then_tuned_then_found(fresh: Fresh, options: Options) -> None:
    cold = fresh().prepare(product(), options)
    assert sources(cold) == ["model"] and cold.entry and not cold.outcomes
    assert (cold.kernels[0].choice.predicted or 0) > 0 and cold.kernels[0].choice.seconds is None
    before, told = cold.entry, list[int]()
    cold.subscribe(lambda: told.append(cold.entry))
    result: TuningResult = cold.tune()
    assert sources(cold) == ["tuned"] and told == [cold.entry] != [before]
    assert 1 <= result.trials == len(result.history) <= 4 and result.winner in ("tuned", "default")
    assert 0 < result.seconds <= result.default_seconds and result.elapsed < 6
    assert {row["status"] for row in result.history} == {"ok"}
    again = fresh().prepare(product(), options)
    assert sources(again) == ["cache"] and again.kernels[0].choice.seconds == result.seconds
    assert again.kernels[0].choice.schedule == cold.kernels[0].choice.schedule
    assert sources(fresh().prepare(product(), replace(options, frozen=True))) == ["cache"]
    assert sources(fresh().prepare(product(), replace(options, tune="off"))) == ["model"]


def test_what_was_linked_is_found_until_something_is_stored(
    fresh: Fresh, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def looked_at(prepared: Prepared) -> bool:
        return "kernels" in vars(prepared)

    first = fresh().prepare(pair(), options)
    again = fresh().prepare(pair(), options)
    assert looked_at(first) and not looked_at(again) and again.long == first.long
    assert_right(again, fresh(), options)
    assert again.plan == first.plan and sources(again) == sources(first)
    assert looked_at(fresh().prepare(pair(), replace(options, threads=2)))
    assert looked_at(fresh().prepare(product(), options))
    again.tune(trials=2)
    assert looked_at(found := fresh().prepare(pair(), options)) and sources(found) == ["cache"] * len(found.kernels)
    told = replace(options, tune="first-call")
    assert [looked_at(fresh().prepare(pair(), told)) for _ in range(2)] == [True, False]
    for file in Path(options.cache_dir or "", "objects").glob("*.o"):
        if b"ELF" in file.read_bytes():
            file.unlink()  # the machine code is lost, what it was is known
    assert looked_at(fresh().prepare(pair(), options))


def test_near_shapes_take_a_schedule_over_and_far_ones_do_not(fresh: Fresh, options: Options) -> None:
    fresh().prepare(product(), options).tune()
    near = fresh().prepare(product(n=36), options)
    assert sources(near) == ["transfer"] and "nearest shape" in near.kernels[0].choice.reason
    assert sources(fresh().prepare(product(n=300), options)) == ["model"]
    with pytest.raises(FrozenError, match="nearest shape"):
        fresh().prepare(product(n=36), replace(options, frozen=True))


@pytest.mark.parametrize(("bound", "source"), [(0.05, "model"), (0.3, "tuned"), (None, "tuned")])
def test_auto_measures_what_is_not_promised_to_be_near(
    fresh: Fresh, options: Options, monkeypatch: pytest.MonkeyPatch, bound: float | None, source: str
) -> None:
    known = {} if bound is None else {regret.ANY: regret.Promise(regret.ANY, bound, 20)}
    monkeypatch.setattr(regret, "shipped", lambda: known)
    made = fresh().prepare(product(), replace(options, tune="auto"))
    assert sources(made) == [source]
    if source == "model":
        assert "promise: at most 5 % from the best" in made.explain()
    else:
        assert made.result is not None and 1 <= made.result.trials <= 4
        assert sources(fresh().prepare(product(), replace(options, tune="auto"))) == ["cache"]


def test_a_miss_under_frozen_is_a_usage_error(fresh: Fresh, options: Options) -> None:
    with pytest.raises(UsageError, match="nothing is stored for this kernel.*nothing is stored for this program"):
        fresh().prepare(product(), replace(options, frozen=True))


def test_readonly_and_off(fresh: Fresh, options: Options, tmp_path: Path) -> None:
    fresh().prepare(product(), options).tune()
    stored = (tmp_path / "records.db").read_bytes()
    reader = fresh().prepare(product(), replace(options, cache="readonly"))
    assert sources(reader) == ["cache"]
    reader.tune(trials=2)
    assert sources(reader) == ["tuned"] and (tmp_path / "records.db").read_bytes() == stored
    unseen = replace(options, cache="off", cache_dir=str(tmp_path / "none"))
    session = fresh()
    assert sources(alone := session.prepare(product(), unseen)) == ["model"]
    alone.tune(trials=2)
    assert sources(session.prepare(product(), unseen)) == ["cache"], "remembered in this process"
    assert sources(fresh().prepare(product(), unseen)) == ["model"] and not (tmp_path / "none").exists()


def test_a_store_that_is_no_database(fresh: Fresh, options: Options, tmp_path: Path) -> None:
    tmp_path.joinpath("records.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.warns(RuntimeWarning, match="damaged"):
        prepared = fresh().prepare(product(), options)
    assert sources(prepared) == ["model"]
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.warns(UserWarning, match="nothing is remembered in this process"):
        prepared = fresh().prepare(product(), replace(options, cache=str(tmp_path / "other.db")))
    assert sources(prepared) == ["model"]


def test_first_call_and_background(fresh: Fresh, options: Options) -> None:
    first = replace(options, tune="first-call")
    assert sources(prepared := fresh().prepare(product(), first)) == ["tuned"] and len(prepared.outcomes) == 1
    assert sources(prepared := fresh().prepare(product(), first)) == ["cache"] and not prepared.outcomes
    behind = replace(options, tune="background")
    prepared = fresh().prepare(product(k=40, m=3), behind)
    end = time.monotonic() + 30
    while sources(prepared) != ["tuned"] and time.monotonic() < end:
        assert sources(prepared) in (["model"], ["transfer"], ["tuned"])
        time.sleep(0.01)
    assert sources(prepared) == ["tuned"]
    for thread in [t for t in threading.enumerate() if t.name == "autotune"]:
        thread.join()


def test_a_budget_that_is_no_time_at_all(fresh: Fresh, options: Options) -> None:
    prepared = fresh().prepare(product(), options)
    start = time.monotonic()
    try:
        assert prepared.tune(budget=1e-3).elapsed < 1.0
    except MeasureError as error:
        assert "raise the budget" in str(error)
    assert time.monotonic() - start < 2.0 and prepared.entry


# ---- one kernel or several -----------------------------------------------------------------------------------------


def pair() -> TensorProgram:
    """Two products of one array: as one kernel or as two."""
    fn = lambda x, u, v: (x @ u, np.maximum(x @ v, 0))  # noqa: E731
    return trace(fn, (spec(64, 48), spec(48, 32), spec(48, 64)), {}).program


def assert_right(prepared: Prepared, session: Session, options: Options) -> None:
    x, u, v = (rng.standard_normal(b.shape).astype(np.float32) for b in prepared.inputs)
    settings = {"threads": 1, "cache": str(Path(options.cache_dir or "", "records.db"))}
    got = make_kernel(lambda x, u, v: (x @ u, np.maximum(x @ v, 0)), settings, session)(x, u, v)
    for a, b in zip(got, (x @ u, np.maximum(x @ v, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_both_ways_are_measured_and_the_choice_is_found_again(fresh: Fresh, options: Options) -> None:
    cold = fresh().prepare(pair(), options)
    assert len(cold.plans) == 2 and cold.plan == cold.plans[0]
    ways = [[normal_form(k).digest for k in plan.kernels] for plan in cold.plans]
    assert sorted(map(len, ways)) == [1, 2]
    result = cold.tune(trials=3)
    assert {*cold.outcomes} == {*ways[0], *ways[1]} and {row["kernel"] for row in result.history} == {0, 1, 2}
    assert sources(cold) == ["tuned"] * len(cold.kernels) and len(result.choice) == len(cold.kernels)
    assert result.seconds == pytest.approx(sum(k.choice.seconds or 0 for k in cold.kernels))
    again = fresh().prepare(pair(), options)
    assert again.plan == cold.plan and not again.outcomes and sources(again) == ["cache"] * len(cold.kernels)
    assert again.plans == cold.plans and "could be" in again.explain() and ": measured" in again.explain()


def test_a_plan_follows_its_measurements(fresh: Fresh, options: Options) -> None:
    """Whichever way the store says is faster runs, in a process that measures nothing."""
    session = fresh()
    tuned = session.prepare(pair(), options)
    tuned.tune(trials=2)
    for n, want in enumerate((*tuned.plans, *tuned.plans)):
        times = {normal_form(k).digest: 1e-3 for plan in tuned.plans for k in plan.kernels}
        times |= {normal_form(k).digest: 1e-6 for k in want.kernels}
        store, rows = session.store(options), []
        for program, s in times.items():
            kept, measured = store.best(program=program), Measurement(s, s, 0.0, (s,), 1)
            assert kept is not None
            key = replace(kept.key, policy=Policy.in_turn(1).id)
            rows.append(replace(kept, key=key, measurement=measured, created=time.time() + 9 + n, place=0))
        store.put_many(rows)
        again = fresh()
        prepared = again.prepare(pair(), options)
        assert prepared.plan == want and sources(prepared) == ["cache"] * len(want.kernels)
        assert again.prepare(pair(), replace(options, tune="off")).plan == tuned.plans[0]
        assert_right(prepared, again, options)


def test_a_way_without_a_valid_schedule_gives_place(
    fresh: Fresh, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A plain nest is right, and slow: what could be several kernels is several then."""
    best = Ranking.best

    def poor(self: Ranking) -> Iterator[Candidate]:
        together = len(self.program.outputs) > 1
        return iter([Candidate(Schedule(), float("inf"), "plain")]) if together else best(self)

    monkeypatch.setattr(Ranking, "best", poor)
    prepared = fresh().prepare(pair(), replace(options, tune="off"))
    assert len(prepared.plan.kernels) == len(prepared.kernels) == 2 and sources(prepared) == ["model"] * 2


def test_a_kernel_that_occurs_twice_is_tuned_once(fresh: Fresh, options: Options) -> None:
    program = trace(lambda x, u, v: (x @ u) @ v, (spec(16, 16),) * 3, {}).program
    prepared = fresh().prepare(program, options)
    prepared.tune(trials=2)
    assert sources(prepared) == ["tuned"] * 2 and len(prepared.outcomes) == 1


def test_a_kernel_that_cannot_be_measured_stays(
    fresh: Fresh, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    program = trace(lambda x, u, v: (x @ u) @ v, (spec(16, 16), spec(16, 24), spec(24, 8)), {}).program
    prepared, tuning = fresh().prepare(program, options), Workshop.tuning
    hopeless = {prepared.kernels[0].program.digest}

    def some(self: Workshop, program: TensorProgram, *args: Any) -> Any:
        if program.digest in hopeless:
            raise MeasureError("nothing valid was measured")
        return tuning(self, program, *args)

    monkeypatch.setattr(Workshop, "tuning", some)
    with pytest.warns(UserWarning, match="stays as it was: nothing valid"):
        assert prepared.tune(trials=2).trials == 2
    assert sources(prepared) == ["model", "tuned"]
    hopeless.add(prepared.kernels[1].program.digest)
    with pytest.raises(MeasureError, match="nothing valid"):
        prepared.tune(trials=2)


# ---- what others say ------------------------------------------------------------------------------------------------


def biased() -> TensorProgram:
    return trace(lambda x, y, b: np.maximum(x @ y + b, 0), (spec(9, 10), spec(10, 21), spec(21)), {}).program


def imported(session: Session, options: Options, steps: Any) -> Store:
    """A store with a schedule that somebody says is the fastest for `biased`."""
    program = canonical_names(*partition(biased()).kernels)
    key = session.prepare(biased(), replace(options, tune="off", cache="off")).workshop.key(program)
    measured = Measurement(1e-9, 1e-9, 0.0, (1e-9,), 1)
    text = canonical(steps)
    store = session.store(options)
    store.put_many([Record(key, digest(text), text, measured, time.time(), 0, local=False)])
    return store


WRONG: dict[str, Any] = {
    "no step": [{"step": "teleport", "stage": "t0"}],
    "a loop that is not there": Schedule((Split("t0", "zz", 4),)).to_json(),
    "results before they are complete": Schedule((Split("t0", "k", 4, "cut"), ComputeAt("t1", "t0", "k.0"))).to_json(),
    "no list": {"steps": []},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_schedule_is_refused(wrong: str, fresh: Fresh, options: Options, capfd: Any) -> None:
    store = imported(fresh(), options, WRONG[wrong])
    assert len(list(store.records())) == 1
    prepared = fresh().prepare(biased(), replace(options, debug=1))
    assert sources(prepared) == ["model"] and "a stored schedule does not hold here" in capfd.readouterr().err
    assert prepared.tune().winner in ("tuned", "default"), "nor is it a seed"


def test_a_right_schedule_of_somebody_else(fresh: Fresh, options: Options) -> None:
    steps: tuple[Step, ...] = (Split("t0", "i", 4), ComputeAt("t1", "t0", "i.0"))
    imported(fresh(), options, Schedule(steps).to_json())
    prepared = fresh().prepare(biased(), options)
    assert sources(prepared) == ["transfer"] and prepared.kernels[0].choice.seconds is None
    assert prepared.kernels[0].choice.reason == "exact, but measured elsewhere"
    assert prepared.kernels[0].choice.schedule.steps == steps


def test_calls_run_what_is_found(fresh: Fresh, options: Options) -> None:
    """Through the decorator: the same numbers before and after, from two kernels in a chain."""
    settings = {"threads": 1, "cache": str(Path(options.cache_dir or "", "store.db"))}
    x, u, v = (rng.standard_normal(s).astype(np.float32) for s in ((20, 30), (30, 40), (40, 10)))
    made = make_kernel(lambda x, u, v: np.maximum(x @ u, 0) @ v, settings, fresh())
    want = np.maximum(x @ u, 0) @ v
    np.testing.assert_allclose(made(x, u, v), want, rtol=1e-4, atol=1e-4)
    result = made.tune(x, u, v, trials=3)
    assert result.trials <= 6 and {row["kernel"] for row in result.history} == {0, 1} and len(result.choice) == 2
    np.testing.assert_allclose(made(x, u, v), want, rtol=1e-4, atol=1e-4)
    again = make_kernel(lambda x, u, v: np.maximum(x @ u, 0) @ v, settings, fresh())
    assert again.explain(x, u, v).count("chosen by: cache") == 2
    np.testing.assert_allclose(again(x, u, v), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [(6, 33), (64, 256)])
def test_results_come_in_the_order_in_which_they_are_returned(sizes: tuple[int, int], options: Options) -> None:
    """Whatever the order in which they are computed, and whether or not they have the same shape."""
    x = rng.standard_normal(sizes, dtype="f4")
    functions: list[Callable[..., Any]] = [
        lambda x: (lambda e: (e.sum(-1), e))(np.exp(x)), lambda x: (lambda y: (y + 1, y))(x * 2),
        lambda x: (lambda y: (np.maximum(y + 1, 0), y))(x @ x.T),
    ]  # fmt: skip
    for function in functions:
        kernel = make_kernel(function, {"tune": "off", "threads": 1})
        for got, wanted in zip(kernel(x), function(x), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
