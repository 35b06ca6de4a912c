"""`bench --stability`: what is counted, that picks are compared, and that the neighbour goes when it should."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autotune import stability
from autotune.cache.store import open_store
from autotune.cli import stable
from autotune.devices.records import Measurement
from autotune.ir.errors import MeasureError
from autotune.ir.schedule import Schedule
from autotune.ir.steps import Split
from autotune.options import Options
from autotune.stability import Name, Pick, compared, neighbour, summary
from autotune.tracer import trace
from tests.cli.conftest import QUICK, Run, place, run  # noqa: F401
from tests.kernels import spec

GEMM = ("gemm", "m=8", "n=12", "k=16")
A, B, C = ((("program", name),) for name in "abc")


def test_summary() -> None:
    regret: dict[Name, float] = {A: 0.0, B: 0.02, C: 0.2}
    found = summary([A, A, B, C, A], regret, 0.03, [9, 5, 7, 7, 30])
    assert (found.tunes, found.picks, found.trials) == (5, 3, 7) and found.flips == pytest.approx(0.4)
    assert found.slow == pytest.approx(0.2) and (found.median_regret, found.worst_regret) == (0.0, 0.2)
    alike = summary([B, B], regret, 0.03, [1, 1])
    assert alike.flips == alike.slow == 0 and alike.median_regret == 0.02


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_neighbour_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    popen = subprocess.Popen

    def noted(*args: Any, **kwargs: Any) -> Any:
        child = popen(*args, **kwargs)
        made.append(child.pid)
        return child

    monkeypatch.setattr(subprocess, "Popen", noted)
    with neighbour():
        assert alive(made[0])
    with pytest.raises(KeyboardInterrupt), neighbour():
        raise KeyboardInterrupt
    assert len(made) == 2 and not any(map(alive, made))
    monkeypatch.setattr(stability, "_NEIGHBOUR", "raise SystemExit(3)")
    with pytest.raises(MeasureError, match="exit code 3"), neighbour():
        raise AssertionError("it is not there")


def test_picks_are_compared_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down meanwhile changes no regret; several kernels add up."""
    one, two = (trace(lambda x, y: x @ y, (spec(8, 8), spec(8, n)), {}).program for n in (8, 16))
    times = {one.digest: 1e-4, two.digest: 3e-4}
    rounds = [0]

    class Worker:
        def __init__(self, *args: Any) -> None:
            self.built: list[float] = []

        def __enter__(self) -> Worker:
            return self

        def __exit__(self, *error: object) -> None:
            return

        def build(self, rows: Any, check: str) -> Any:
            first = len(self.built)
            self.built += [times[digests[str(program)]] * (1.25 if schedule else 1.0) for program, schedule in rows]
            return [type("Report", (), {"handle": n, "message": ""}) for n in range(first, len(self.built))]

        def time(self, handles: Any, policy: Any, many: int) -> list[Measurement]:
            assert policy.moved and policy.race > 1e6
            rounds[0] += 1
            return [Measurement.of([self.built[h] * (1 + n + rounds[0]) for n in range(many)], many) for h in handles]

    digests = {str(p.canonical): p.digest for p in (one, two)}
    monkeypatch.setattr(stability, "WorkerClient", Worker)
    other = Schedule((Split("t0", "i", 4),))
    picks: list[Pick] = [((one, Schedule()), (two, Schedule())), ((one, other), (two, Schedule()))]
    regrets, _ = compared(picks, None, 1)  # type: ignore[arg-type]
    assert regrets[0] == 0 and 0.04 < regrets[1] < 0.08


def test_the_command(run: Run, place: Path) -> None:  # noqa: F811
    done = run("bench", *GEMM, "--stability", "2", "--format", "json", *QUICK)
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["status"] == "ok" and row["seconds"] > 0 and row["margin"] == 0.03
    for condition in ("quiet", "noisy"):
        found = row[condition]
        assert found["tunes"] == 2 and 1 <= found["picks"] <= 2 and 0 <= found["median_regret"] <= found["worst_regret"]
        assert f"2 tunes, {condition}" in done.err
    assert not [*open_store(place / "store" / "records.db").records()], "the user's store is not written"


def test_what_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Without a tuning: a table, a file, and the exit code."""
    slow = {"share": 0.0}

    def found(program: Any, options: Options, tunes: int, margin: float, told: Any) -> Any:
        assert margin in (0.03, 0.1)
        one = stability.Stability(tunes, 2, 0.25, slow["share"], 0.001, 0.08, 20)
        return {"quiet": one, "noisy": one}, 1e-5

    monkeypatch.setattr(stable, "stability", found)
    done = run("bench", *GEMM, "--stability", "4")
    lines = done.out.splitlines()
    assert done.code == 0 and lines[0].split()[:4] == ["case", "machine", "tunes", "picks"] and "25.0 %" in lines[1]
    assert lines[-1] == "noisy: 0.0 % of all tunes picked what is more than 3 % slower than the best pick"
    slow["share"] = 0.25
    assert run("bench", *GEMM, "--stability", "4").code == 0
    assert run("bench", *GEMM, "--stability", "4", "--fail-slower", "10%").code == 1
    done = run("bench", *GEMM, "--stability", "4", "--format", "csv")
    assert done.code == 2 and "a table or json" in done.err
    assert run("bench", *GEMM, "--stability", "1").code == 2

    def stopped(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(stable, "stability", stopped)
    assert run("bench", "gemm", "m=8,9", "n=12", "k=16", "--stability", "4").code == 130
