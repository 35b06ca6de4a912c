"""What a tuning measures: nothing that the store knows but the run-off, every kernel once, one candidate where one is
new. Candidates are counted; no time is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.devices.client import WorkerClient
from autotune.devices.records import Measurement, Policy, Status
from autotune.ir.program import TensorProgram
from autotune.ir.schedule import Schedule
from autotune.options import Options
from autotune.search.recorded import Simulated, Space
from autotune.search.strategies import make
from autotune.search.tune import Outcome, Tuner
from autotune.session import Prepared, Session
from autotune.tracer import trace
from autotune.tuning import together
from tests.kernels import spec
from tests.search.spaces import made


@pytest.fixture(scope="module")
def worker() -> Iterator[dict[Any, Any]]:
    """The measuring processes of the file."""
    found: dict[Any, Any] = {}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture
def session(worker: dict[Any, Any]) -> Iterator[Session]:
    made = Session()
    made._workers = worker
    yield made
    made._workers = {}
    made.close()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(threads=1, cache_dir=str(tmp_path), trials=4, budget=10.0)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built in the measuring process, schedule by schedule."""
    found: list[str] = []
    build = WorkerClient.build

    def noted(self: WorkerClient, candidates: Any, *args: Any, **kwargs: Any) -> Any:
        found.extend(str(schedule) for _, schedule in candidates)
        return build(self, candidates, *args, **kwargs)

    monkeypatch.setattr(WorkerClient, "build", noted)
    return found


def product(m: int = 24, n: int = 32, k: int = 16) -> TensorProgram:
    return trace(lambda x, y: x @ y, (spec(m, k), spec(k, n)), {}).program


def outcome(prepared: Prepared) -> Outcome:
    (found,) = prepared.outcomes.values()
    return found


def digests(rows: Any) -> set[str]:
    return {row.candidate.schedule.digest for row in rows}


# ---- with real kernels ----------------------------------------------------------------------------------------------


def test_one_more_candidate_is_one_more_measurement(session: Session, options: Options, built: list[str]) -> None:
    prepared = session.prepare(product(), options)
    prepared.tune(trials=12)
    before, shop, kernel = outcome(prepared), prepared.workshop, prepared.kernels[0]
    known = digests(before.trials)
    new = next(c.schedule for c in shop.ranking(kernel.program).best() if c.schedule.digest not in known)
    built.clear()
    result = prepared.tune(trials=1, first={kernel.program.digest: [new]})
    after = outcome(prepared)
    old = {before.default.schedule.digest, before.winner.schedule.digest}
    assert digests(after.trials) - old == {new.digest} and result.trials == len(after.trials) <= 3
    finals = {c.schedule.digest for c, _ in after.finals}
    assert len(built) == len(set(built)) <= len(finals | old | {new.digest})
    again = session.prepare(product(), options)
    assert again.kernels[0].choice.source == "cache" and again.kernels[0].choice.schedule == after.winner.schedule


def test_a_search_that_has_come_to_its_end_measures_the_run_off(
    session: Session, options: Options, built: list[str]
) -> None:  # fmt: skip
    program = trace(lambda x: x.sum(axis=1), (spec(40, 56),), {}).program
    options = replace(options, trials=None, budget=30.0)
    prepared = session.prepare(program, options)
    prepared.tune()
    before = outcome(prepared)
    built.clear()
    prepared.tune()
    after = outcome(prepared)
    noisy = {t.candidate.schedule.digest for t in before.trials if t.measurement.noisy}
    noisy |= {c.schedule.digest for c, row in before.finals if row.noisy}
    assert digests(after.trials) - noisy <= {before.default.schedule.digest, before.winner.schedule.digest}
    assert digests(after.reused) | digests(after.trials) == digests(before.trials)
    more = {str(c.schedule.to_json()) for c, _ in after.finals}
    again = more | {str(c.schedule.to_json()) for c in (before.default, before.winner)}
    assert more <= set(built) and len(built) == len(set(built)) <= len(again) + len(noisy)


def test_a_kernel_of_two_programs_is_tuned_once(session: Session, options: Options, built: list[str]) -> None:
    two = trace(lambda x, u, v: (x @ u) @ v, (spec(24, 16), spec(16, 32), spec(32, 24)), {}).program
    parts = [session.prepare(p, options) for p in (product(), two)]
    results = together(parts, trials=2)
    shared = {k.program.digest for k in parts[0].kernels} & {k.program.digest for k in parts[1].kernels}
    assert len(shared) == 1 and len(built) == len(set(built)) == 4
    assert [len(p.outcomes) for p in parts] == [1, 2] and all(results)
    assert all(k.choice.source == "tuned" for p in parts for k in p.kernels)
    (digest,) = shared
    assert parts[0].outcomes[digest].winner == parts[1].outcomes[digest].winner


# ---- on a recorded space --------------------------------------------------------------------------------------------


class Counted(Simulated):
    """A replay that counts what it builds."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.seen: list[str] = []

    def build(self, candidates: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen += [str(schedule) for _, schedule in candidates]
        return super().build(candidates, *args, **kwargs)


def search(space: Space, known: dict[str, Measurement], trials: int | None = None) -> tuple[Outcome, Counted]:
    measurer, strategy = Counted(space), make("default", space.ranking)
    tuner = Tuner(space.ranking, None, measurer, Policy(), 1e9, trials, strategy, clock=measurer.clock, known=known)
    best = min((d for d, row in known.items() if row.ok), key=lambda d: known[d].seconds, default=None)
    incumbent = None if best is None else space.whole.candidate(*space.rows[best], "seed")
    return tuner.run(space.default(), incumbent), measurer


def remembered(found: Outcome, slower: float = 1.0) -> dict[str, Measurement]:
    return {
        t.candidate.schedule.digest: replace(t.measurement, seconds=t.measurement.seconds * slower)
        for t in found.trials
    }  # fmt: skip


def test_a_search_goes_on_where_it_was_stopped() -> None:
    """In two parts, the second with the first's measurements, it comes to what it comes to in one; no candidate that
    was slow is built again."""
    space = made("linear")
    whole, _ = search(space, {})
    half, _ = search(space, {}, 20)
    rest, measurer = search(space, remembered(half))
    assert digests(half.trials) | digests(rest.trials) >= digests(whole.trials)
    assert rest.winner.schedule == whole.winner.schedule
    finals = {str(c.schedule.to_json()) for c, _ in rest.finals}
    again = {str(t.candidate.schedule.to_json()) for t in half.trials} & set(measurer.seen)
    old = {str(c.schedule.to_json()) for c in (half.default, half.winner)}
    assert again <= finals | old and rest.reused


def test_times_of_a_slower_machine_are_put_right() -> None:
    """What was measured while everything took twice as long does not lose to what is measured now."""
    space = made("linear")
    half, _ = search(space, {}, 20)
    for slower in (0.5, 2.0):
        rest, _ = search(space, remembered(half, slower), 6)
        truth = {d: space.results[row].seconds for d, row in space.rows.items()}
        best = min(digests(half.trials) | digests(rest.trials), key=truth.__getitem__)
        assert truth[rest.winner.schedule.digest] <= 1.01 * truth[best]


def test_nothing_but_what_failed() -> None:
    space = made("linear")
    known = {d: Measurement(status=Status.COMPILE) for d in space.rows if d != space.default().schedule.digest}
    found, measurer = search(space, known)
    assert len(found.trials) == 1 and found.winner == found.default and math.isfinite(found.seconds)
    assert len(measurer.seen) == 1 or Schedule().digest not in space.rows
