"""Promises of how far from the best an unmeasured schedule may be, and what is made of records of such picks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from autotune.search import regret
from autotune.search.regret import ANY, CONFIDENCE, FEW, bound, kind, promises
from benchmarks import zero


@pytest.mark.parametrize("n", [9, 10, 30, 100])
def test_a_bound_keeps_its_confidence(n: int) -> None:
    """Of many draws, the next value is within the bound of those before it as often as stated, or more."""
    draw = np.random.default_rng(n)
    kept = [draw.exponential() <= bound(draw.exponential(size=n).tolist()) for _ in range(4000)]
    assert CONFIDENCE - 0.015 < sum(kept) / len(kept) <= CONFIDENCE + 1 / n + 0.015


def test_few_values_promise_nothing() -> None:
    assert bound([0.0] * (FEW - 1)) == math.inf and bound([0.0] * FEW) == 0.0
    assert bound([0.1, 0.3, 0.2], 0.5) == 0.2


def test_kinds_and_tables() -> None:
    assert kind("model", {"compute": 2.0, "memory": 1.0}) == "model, arithmetic"
    assert kind("model", {"compute": 2.0, "tile": 1.0, "memory": 4.0}) == "model, memory"
    assert kind("transfer", {"compute": 1.0}) == kind("transfer", {}) == "transfer"
    table = promises([("model, memory", 0.01 * n) for n in range(20)] + [("transfer", 0.5)] * 3)
    assert table.keys() == {"model, memory", ANY} and table["model, memory"].bound == 0.18 and table[ANY].picks == 23
    assert regret.of(table, "transfer") == table[ANY] and regret.of({}, "transfer") is None
    assert str(table["model, memory"]) == "at most 18 % from the best, with 90 % confidence"


def test_judgement_by_the_other_cases() -> None:
    """Twenty cases that keep to 5 %, and one that does not: its promise is broken, theirs are kept."""
    rows = [{"case": str(n), "picks": {"model": {"kind": "model, memory", "regret": 0.002 * n}}} for n in range(20)]
    rows.append({"case": "bad", "picks": {"model": {"kind": "model, memory", "regret": 0.4}}})
    said: list[str] = []
    found = zero.judge({"rows": rows}, said.append)
    assert found["promised"] == 21 and found["close"] == 20 and 18 / 21 <= found["kept"] <= 20 / 21
    assert found["kinds"]["model, memory"]["least"] == pytest.approx(1 / 1.4)
    assert any("of which 20 were" in line for line in said)


def test_what_is_shipped_is_what_was_recorded() -> None:
    document = json.loads(zero.HERE.read_text("utf-8"))
    assert json.loads(Path(regret.FILE).read_text("utf-8")) == zero.fit(document)
    assert regret.shipped().keys() >= {ANY, "model, arithmetic", "transfer"}
    assert len(document["rows"]) >= 40
