"""Timing on a clock that the tests turn: interleaving, racing, preemption, drift, deadlines; and the lock."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autotune.devices import measure
from autotune.devices.measure import Sentinel, device_lock, time_interleaved, timed
from autotune.devices.records import BuildReport, Measurement, Policy, Status, median


@dataclass
class Clock:
    """Stands for the `time` module: kernels move it."""

    now: float = 100.0
    cpu: float = 0.0
    log: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.cpu

    def kernel(self, name: str, seconds: float, share: float = 1.0) -> measure.Run:
        def run(n: int) -> float:
            spent = n * seconds * self.slow
            self.now += spent
            self.cpu += spent * share
            self.log.append(name)
            return spent

        return run

    slow: float = 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    return made


FAR = 1e9


def test_medians_of_interleaved_rounds(clock: Clock) -> None:
    rows = time_interleaved([clock.kernel("a", 1e-6), clock.kernel("b", 1.05e-6)], Policy(rounds=5), FAR)
    assert [round(m.seconds * 1e6, 6) for m in rows] == [1.0, 1.05]
    assert all(len(m.samples) == 5 and m.rounds == 5 and m.ok and not m.noisy for m in rows)
    assert clock.log[-10:] == ["a", "b"] * 5 or sorted(clock.log[-4:]) == ["a", "a", "b", "b"]


def test_a_sample_lasts_a_millisecond(clock: Clock) -> None:
    time_interleaved([clock.kernel("a", 1e-7)], Policy(rounds=10), FAR)
    assert clock.now - 100 >= 10 * 1e-3


def test_racing_drops_the_slow(clock: Clock) -> None:
    runs = [clock.kernel(n, s) for n, s in (("best", 1e-3), ("near", 1.05e-3), ("slow", 1.3e-3), ("twice", 2.5e-3))]
    runs.append(clock.kernel("hopeless", 9e-3))
    rows = time_interleaved(runs, Policy(rounds=9), FAR)
    assert [len(m.samples) for m in rows] == [9, 9, 3, 1, 1]
    assert rows[4].seconds == pytest.approx(9e-3) and rows[4].rounds == 0 and rows[4].ok


def test_a_preempted_sample_is_taken_again(clock: Clock) -> None:
    steady = clock.kernel("a", 1e-3)
    calls = [0]

    def run(n: int) -> float:
        calls[0] += 1
        if calls[0] in (4, 7):  # 5 ms on the wall in which the thread did not run
            clock.now += 5e-3
            return steady(n) + 5e-3
        return steady(n)

    (row,) = time_interleaved([run], Policy(rounds=5), FAR)
    assert max(row.samples) == pytest.approx(1e-3) and not row.noisy


def test_lasting_preemption_is_marked(clock: Clock) -> None:
    rows = time_interleaved([clock.kernel("a", 1e-3, share=0.5)], Policy(rounds=5), FAR)
    assert rows[0].noisy
    assert not time_interleaved([clock.kernel("a", 1e-3, share=0.5)], Policy(threads=2, rounds=5), FAR)[0].noisy


def test_first_call_may_be_slow(clock: Clock) -> None:
    fast = clock.kernel("a", 1e-6)
    first = [True]

    def run(n: int) -> float:
        if first.pop() if first else False:
            clock.now += 4e-3
            return 4e-3
        return fast(n)

    (row,) = time_interleaved([run], Policy(rounds=3), FAR)
    assert row.seconds == pytest.approx(1e-6) and len(clock.log) > 3


def test_rounds_during_drift_are_repeated(clock: Clock) -> None:
    sentinel = Sentinel(clock.kernel("sentinel", 1e-5))
    work = clock.kernel("a", 1e-3)
    calls = [0]

    def run(n: int) -> float:
        calls[0] += 1
        clock.slow = 1.5 if 5 <= calls[0] < 8 else 1.0
        return work(n)

    (row,) = time_interleaved([run], Policy(rounds=6), FAR, sentinel)
    assert row.rounds > 6 == len(row.samples) and not row.noisy and max(row.samples) < 1.1e-3


def test_lasting_drift_is_marked(clock: Clock) -> None:
    sentinel = Sentinel(clock.kernel("sentinel", 1e-5))
    sentinel.ratio()
    clock.slow = 1.3
    (row,) = time_interleaved([clock.kernel("a", 1e-3)], Policy(rounds=4), FAR, sentinel)
    assert row.noisy and len(row.samples) == 4 and row.rounds == 6 and row.seconds == pytest.approx(1.3e-3)


def test_the_deadline_is_overrun_by_one_sample_at_most(clock: Clock) -> None:
    runs = [clock.kernel("a", 30e-3), clock.kernel("b", 31e-3)]
    rows = time_interleaved(runs, Policy(rounds=100), clock.now + 0.5)
    assert clock.now <= 100.5 + 31e-3 and all(m.samples for m in rows)
    late = time_interleaved([*runs, clock.kernel("c", 1.0)], Policy(rounds=3), clock.now + 0.04)
    assert late[0].noisy and late[0].ok and late[2].status is Status.INTERRUPTED and "time was up" in late[2].message


def test_touch_names_the_candidate_before_it_runs(clock: Clock) -> None:
    seen: list[int] = []
    time_interleaved([clock.kernel("a", 1e-3), clock.kernel("b", 1e-3)], Policy(rounds=2), FAR, touch=seen.append)
    assert set(seen) == {0, 1} and seen[:2] == [0, 1]


def test_cold_samples_are_single_calls(clock: Clock) -> None:
    counts: list[int] = []

    def run(n: int) -> float:
        counts.append(n)
        return clock.kernel("a", 1e-6)(n)

    time_interleaved([run], Policy(warm=False, rounds=3), FAR)
    assert set(counts) == {1}


def test_a_kernel_that_turns_out_faster_still_has_a_time(clock: Clock) -> None:
    """Every attempt at a sample finds that it needs more repetitions: the one after the last attempt counts."""
    calls = [0]

    def run(n: int) -> float:
        calls[0] += 1
        spent = n * (1e-3 if calls[0] <= 2 else 1e-3 / 100.0 ** min(calls[0] - 2, measure.ATTEMPTS + 1))
        clock.now += spent
        clock.cpu += spent
        return float(spent)

    (row,) = time_interleaved([run], Policy(rounds=1), FAR)
    assert row.ok and row.samples and all(0 < s < 1 for s in row.samples)


def test_no_candidates() -> None:
    assert time_interleaved([], Policy(), time.monotonic() + 1) == []


def test_real_clock() -> None:
    rows = time_interleaved([timed(lambda n: sum(range(200 * n))), timed(lambda n: None)], Policy(rounds=3), FAR)
    assert all(m.ok and 0 < m.minimum <= m.seconds for m in rows)


def test_records_travel() -> None:
    m = Measurement.of([3.0, 1.0, 2.0, 9.0], 5, True)
    assert (m.seconds, m.minimum, m.mad) == (2.5, 1.0, 1.0) and Measurement.from_json(m.to_json()) == m
    r = BuildReport(Status.CONSTRAINTS, reason="x")
    assert BuildReport.from_json(r.to_json()) == r and not r.ok
    assert Policy(threads=2).id == "warm-2t" and Policy(warm=False).id == "cold-1t" and median([]) != median([])


def test_in_turn_nobody_is_dropped_and_samples_are_single_calls(clock: Clock) -> None:
    policy = Policy.in_turn(1)
    assert policy.id == "warm-1t-turn"
    rows = time_interleaved([clock.kernel("a", 1e-4), clock.kernel("b", 5e-2)], policy, FAR)
    assert [len(m.samples) for m in rows] == [policy.rounds] * 2
    assert [m.seconds for m in rows] == pytest.approx([1e-4, 5e-2])
    assert clock.now - 100 < 1.2 * policy.rounds * (1e-4 + 5e-2)


HOLDER = """
    import sys, time
    from pathlib import Path
    from autotune.devices.measure import device_lock
    with device_lock(Path(sys.argv[1]), "cpu:x", 1e9) as held:
        print(held, flush=True)
        sys.stdin.readline()
"""


def test_two_processes_wait_for_each_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "True\n"
    with device_lock(tmp_path, "cpu:x", time.monotonic() + 0.02) as held:
        assert not held
    assert "waiting for another process" in capfd.readouterr().err
    with device_lock(tmp_path, "cpu:other", time.monotonic()) as held:
        assert held
    holder.communicate("\n")
    with device_lock(tmp_path, "cpu:x", time.monotonic()) as held:
        assert held


def test_no_lock_where_none_can_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with device_lock(None, "cpu", 0) as held:
        assert held
    with device_lock(tmp_path / "missing", "cpu", 0) as held:
        assert not held
    assert "without a lock" in capfd.readouterr().err


def test_what_ran_before_has_left_its_data_in_the_caches(clock: Clock) -> None:
    """A kernel's first call after another one takes ten times as long. Timed alone that is not counted; among kernels
    of a program, in turn, it is what happens in each call of the program."""

    def chilled(name: str) -> measure.Run:
        plain = clock.kernel(name, 1e-4)

        def run(n: int) -> float:
            cold = clock.log[-1:] != [name]
            return plain(n) + (plain(9) if cold else 0.0)

        return run

    alone = time_interleaved([chilled("a"), chilled("b")], Policy(rounds=4), 200.0)
    assert [row.seconds for row in alone] == pytest.approx([1e-4, 1e-4])
    turns = time_interleaved([chilled("a"), chilled("b")], Policy.in_turn(1), 200.0)
    assert [row.seconds for row in turns] == pytest.approx([1e-3, 1e-3])
    assert Policy().sample(1e-4) == pytest.approx(11e-4) and Policy().sample(2e-3) == 2e-3
    assert Policy.in_turn(1).sample(1e-4) == 1e-4
