"""What strategies and models are judged by, on numbers that are known; and the judgement of what is recorded."""

from __future__ import annotations

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest

from autotune.devices.records import Status
from autotune.search.correction import predictions
from autotune.search.metrics import expected, pairwise, peak
from autotune.search.recorded import load
from benchmarks import search
from benchmarks.search import BLIND, FOREVER, NEAR, Run, curve, judge, pruning
from tests.search.spaces import made

STORED = sorted(search.HERE.glob("*.json.xz"))


def test_peak_and_pairs() -> None:
    measured = np.array([4.0, 1.0, 2.0, 8.0])
    assert [peak(np.array([1.0, 3, 2, 4]), measured, k) for k in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert pairwise(measured, measured) == 1 and pairwise(-measured, measured) == 0
    assert pairwise(np.zeros(4), measured) == 0.5
    assert pairwise(np.array([1.0, 2, 3]), np.array([1.0, 1.001, 5])) == 1, "a tie is no pair"
    assert pairwise(np.array([2.0, 1]), np.array([1.0, 1.001])) == 1


def test_what_a_random_search_finds() -> None:
    """Against all draws of a few; and against the closed form."""
    times = np.array([3.0, 1.0, 7.0, 2.0, 5.0])
    found = expected(times)
    for k in range(1, 6):
        draws = [min(c) for c in combinations(times, k)]
        assert found[k - 1] == pytest.approx(sum(draws) / comb(5, k))


def test_a_run() -> None:
    run = Run((float("inf"), 3.0, 4.0, 1.0), (1.0, 2.0, 3.0, 5.0))
    assert [run.after(n) for n in (1, 2, 3, 4, 99)] == [float("inf"), 3, 3, 1, 1]
    assert run.at(np.array([0.5, 1.0, 2.0, 4.0, 9.0]), 10.0).tolist() == [10, 10, 3, 3, 1]
    assert run.until(3.0) == 2 and run.until(1.0) == 4 and run.until(0.5) == float("inf")


def test_the_curve_over_time() -> None:
    """0 for what a random search finds on average, 1 for the optimum at once, less than 0 for the middle for ever."""
    space = made("linear")
    random = [search.search(space, "random", seed) for seed in range(40)]
    assert abs(curve(space, random, random)) < 0.15
    assert curve(space, [Run((space.optimum,), (0.0,))], random) == pytest.approx(1)
    assert curve(space, [Run((1.0,), (0.0,))], random) < -1


def test_pruning_is_found_out() -> None:
    space = made()
    found = pruning(space)
    out = [s for row, s in space.seconds.items() if space.why(row)]
    assert found.left_out == len(out) > 0 and found.ratio == pytest.approx(min(out) / space.optimum)
    assert found.rule == "slow-tile"
    assert pruning(made("gemv")).left_out == 0 and pruning(made("gemv")).ratio == float("inf")


def test_judgement() -> None:
    lines: list[str] = []
    spaces = [made(), made("gemv")]
    result = judge(spaces, ["default", "random", BLIND], 2, lines.append)
    assert result["model"].keys() == {"square", "gemv"} and result["strategies"].keys() == {"default", "random", BLIND}
    for found in result["strategies"].values():
        assert 0 < found["fraction@30"] <= found["fraction@100"] <= 1
    assert any(line.startswith("rules of thumb removed") for line in lines)
    assert judge(spaces, ["default"], 2, lines.append)["strategies"]["default"] == result["strategies"]["default"]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_stored_spaces(path: Path) -> None:
    """Each can be read, means points of today, and the default strategy finds a better point than the middle one.

    Where this fails because points do not exist any more, remove the files: python -m benchmarks.spaces record
    """
    space = load(path)
    assert len(space.seconds) > 10 and space.strangers <= len(space.results)
    assert path.name == f"{space.name}.json.xz" and set(r.status for r in space.results.values()) <= set(Status)
    predicted, measured = predictions(space)
    assert 0 < peak(predicted, measured, 5) <= 1 and 0 <= pairwise(predicted, measured) <= 1
    run = search.search(space, "default", 0, trials=30)
    assert run.after(30) <= float(np.median(measured)) < FOREVER
    assert pruning(space).ratio > 1 / NEAR, "a rule of thumb has removed a point better than all others"


def test_stored_spaces_are_small() -> None:
    assert sum(path.stat().st_size for path in STORED) <= 8 << 20
