"""`explain --counterfactual`: which decisions are flipped, what becomes of each, and what rules removed. No time is
asserted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autotune.cli import why
from autotune.counterfactual import Counterfactual, Flip, counterfactual
from autotune.devices.records import Status
from autotune.ir.errors import MeasureError
from autotune.ir.schedule import Schedule
from autotune.ir.steps import Split
from autotune.options import Options
from autotune.search import t4
from autotune.search.ranking import Ranking
from autotune.search.runoff import Interval
from autotune.session import Prepared, Session
from autotune.tracer import trace
from tests.cli.conftest import Run, place, run  # noqa: F401
from tests.kernels import spec
from tests.search.spaces import document, made


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    session = Session()
    program = trace(lambda x, y: x @ y, (spec(24, 16), spec(16, 40)), {}).program
    yield session.prepare(program, Options(threads=1, cache="off"))
    session.close()


def test_every_decision_is_flipped_once(prepared: Prepared) -> None:
    shop, kernel = prepared.workshop, prepared.kernels[0]
    chosen = kernel.choice.schedule
    found = counterfactual(shop, kernel.program, chosen)
    whole = Ranking(kernel.program, shop.spec, shop.threads, pruned=False, correction=shop.correction)
    sketch = next(n for n, s in enumerate(whole.sketches) if s.name == found.sketch)
    priced = whole.priced[sketch]
    row = next(r for r in range(len(priced.seconds)) if whole.sketches[sketch].schedule(priced.point(r)) == chosen)
    point = priced.point(row)
    holes = [f for f in found.flips if f.decision not in ("step", "sketch")]
    free = {h for h, column in priced.columns.items() if len(set(column.tolist())) > 1}
    assert {f.decision for f in holes} == free and all(f.chosen == str(point[f.decision]) for f in holes)
    assert len({(f.decision, f.other) for f in holes}) == len(holes)
    for f in holes:  # such a point is there, and the model prices it as the flip says
        value, *more = f.other.split(", ")
        other = point | {f.decision: int(value)} | {n: int(v) for n, v in (word.split("=") for word in more)}
        assert other[f.decision] != point[f.decision]
        (at,) = (r for r in range(len(priced.seconds)) if priced.point(r) == other)
        assert f.predicted == pytest.approx(float(priced.seconds[at] / priced.seconds[row]))
        assert f.rule == ("" if priced.why is None else str(priced.why[at]))
    steps = [f for f in found.flips if f.decision == "step"]
    assert [f.chosen for f in steps] == [str(step) for step in chosen.steps]
    for f in found.flips:
        assert (f.measured is not None and f.measured.middle > 0) if f.status is Status.OK else f.message
    ranking = shop.ranking(kernel.program)
    assert found.points == ranking.size and found.removed == dict(ranking.rejected) and found.thumb <= {*found.removed}


def test_a_schedule_of_no_sketch(prepared: Prepared) -> None:
    kernel = prepared.kernels[0]
    stage = kernel.program.computes[0].name
    found = counterfactual(prepared.workshop, kernel.program, Schedule((Split(stage, "i", 4),)))
    assert found.sketch == "" and [(f.decision, f.other) for f in found.flips] == [("step", "left out")]
    assert "of no sketch" in why.text(found)
    with pytest.raises(MeasureError, match="cannot be measured.*no loop"):
        counterfactual(prepared.workshop, kernel.program, Schedule((Split(stage, "nowhere", 4),)))


def test_what_is_shown() -> None:
    flips = (
        Flip("mr", "14", "12", 1.05, "", Interval(1.01, 1.031, 1.05)),
        Flip("nr", "2", "1", 1.5, "slow-tile", Interval(0.0, 4.2, float("inf"))),
        Flip("step", "split(...)", "left out", status=Status.CONSTRAINTS, message="there is no loop k.0\nmore"),
    )
    text = why.text(Counterfactual("panel", 360, {"registers": 66, "slow-tile": 14}, frozenset({"slow-tile"}), flips))
    lines = text.splitlines()
    assert lines[1].split() == ["mr", "14", "12", "1.05x", "1.031x", "1.010", "to", "1.050", "-"]
    assert lines[2].split() == ["nr", "2", "1", "1.50x", "4.200x", "-", "slow-tile"]
    assert lines[3] == "not measured, constraints: step split(...): left out: there is no loop k.0"
    assert lines[4:] == ["space: 360 points are left to the search", "  66 removed by registers (a limit)",
                         "  14 removed by slow-tile (a rule of thumb)"]  # fmt: skip


def test_rules_are_judged_on_recorded_spaces() -> None:
    space = made()
    text = why.judged([space, made("gemv")])
    best = min(s for row, s in space.seconds.items() if space.why(row)) / space.optimum
    assert f"{best:.3f}" in text and "slow-tile" in text
    assert text.endswith("no rule removed an optimum in 2 spaces\n" if best >= 1 else "in 1 of 2 spaces: square\n")
    row = next(r for r in space.seconds if space.why(r))
    seconds = {**space.seconds, row: 0.5 * space.optimum}
    space.__dict__["seconds"], kept = seconds, space.seconds
    try:
        assert why.judged([space]).endswith("a rule removed an optimum in 1 of 1 spaces: square\n")
    finally:
        space.__dict__["seconds"] = kept
    assert np.isfinite(space.optimum)


def test_the_command(run: Run, place: Path) -> None:  # noqa: F811
    t4.write(place / "square.json.xz", document())
    done = run("explain", "gemm", "m=8", "n=12", "k=16", "--threads", "1", "--counterfactual", "--spaces", ".")
    assert done.code == 0, done.err
    assert "kernel 0, each decision taken otherwise" in done.out and "decision  chosen" in done.out
    assert "points are left to the search" in done.out and done.out.splitlines()[-1].endswith(("spaces", "square"))
