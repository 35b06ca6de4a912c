"""Recorded spaces: which part is recorded, that a record means today's points, that a replay costs what it should."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.devices import device
from autotune.devices.records import BuildReport, Measurement, Policy, Status
from autotune.devices.spec import DeviceSpec
from autotune.ir.errors import CacheError
from autotune.ir.schedule import Schedule
from autotune.search import recorded, t4
from autotune.search.ranking import Ranking
from autotune.search.recorded import Simulated, load, reduced, space
from autotune.search.recorder import CLOSE, MOST, Recorder, points, sharpened
from benchmarks import spaces
from benchmarks.spaces import PROGRAMS, kernel
from tests.search.spaces import SPEC, document, made


@pytest.mark.parametrize("name", PROGRAMS)
def test_unpruned_spaces_have_every_point(name: str) -> None:
    """What is not marked is what a search may pick, and no point is there twice."""
    program = kernel(PROGRAMS[name])
    pruned, whole = Ranking(program, SPEC, 1), Ranking(program, SPEC, 1, pruned=False)
    for few, many in zip(pruned.priced, whole.priced, strict=True):
        kept = [at for at in range(len(many.seconds)) if many.why is None or not many.why[at]]
        assert {(*few.point(at).items(), float(few.seconds[at])) for at in range(len(few.seconds))} == {
            (*many.point(at).items(), float(many.seconds[at])) for at in kept
        }
        assert len({tuple(many.point(at).items()) for at in range(len(many.seconds))}) == len(many.seconds)


def test_rejections(golden: Callable[[str, str], None]) -> None:
    """The size of every space, and how many points which rule leaves out."""
    rows = []
    for arch in ("znver3", "znver4"):
        for name, program in PROGRAMS.items():
            ranking = Ranking(kernel(program), device(f"cpu:{arch}"), 1)
            counts = ", ".join(f"{ranking.rejected[r]} {r}" for r in sorted(ranking.rejected)) if ranking.size else ""
            rows.append(f"{arch} {name}: {ranking.size} points; {counts or 'none'} left out")
    golden("search/rejections.txt", "\n".join(rows) + "\n")


@pytest.mark.parametrize("name", ["skinny", "linear", "gemv"])
def test_a_part_is_a_product_of_values(name: str) -> None:
    whole = Ranking(kernel(PROGRAMS[name]), SPEC, 1, pruned=False)
    part, struck = reduced(whole, 300, 1)
    again, same = reduced(whole, 300, 1)
    assert struck == same and part.size == again.size <= 300
    if whole.size <= 300:
        assert part.size == whole.size and struck == {"searched": [], "left out": []}
        return
    assert reduced(whole, 300, 2)[1] != struck
    for n, (p, all_points) in enumerate(zip(part.priced, whole.priced, strict=True)):
        assert p.why is not None and all_points.why is not None
        for kind, mask in (("searched", all_points.why == ""), ("left out", all_points.why != "")):
            for sketch, hole, value in struck[kind]:
                if sketch == recorded.label(whole, n):
                    mask &= all_points.columns[hole] != value
            assert int(mask.sum()) == int(((p.why == "") == (kind == "searched")).sum())


def test_a_record_is_found_again(tmp_path: Path) -> None:
    """What a file says of a point is what the space says, whatever part a search may see."""
    path, written = tmp_path / "square.json.xz", document()
    t4.write(path, written)
    found = load(path)
    assert found.strangers == 0 and len(found.results) == len(written.results) == len(found.rows)
    for r in written.results[1:]:
        holes = dict(r.configuration)
        n = int(str(holes.pop("sketch")).split(".")[1])
        (at,) = (i for i in range(len(found.whole.priced[n].seconds)) if found.whole.priced[n].point(i) == holes)
        assert found.results[n, at].status is r.status
        assert found.results[n, at].seconds == pytest.approx(r.seconds, rel=1e-5)
        assert found.of(found.whole.candidate(n, at, "test")) is found.results[n, at]
    assert 0 < found.ranking.size < found.whole.size
    assert found.of(found.default()) is not None and found.optimum >= min(found.seconds.values())


def test_drift_is_taken_out() -> None:
    written = document()
    slow = [
        replace(r, seconds=2 * r.seconds, runtimes=tuple(2 * t for t in r.runtimes),
                extra={**r.extra, "anchor": (0.2, "ms")})
        if n % 5 == 1 and r.status is Status.OK else r for n, r in enumerate(written.results)
    ]  # fmt: skip
    disturbed = space(t4.Document(tuple(slow), written.metadata), "")
    for row, seconds in made().seconds.items():
        assert disturbed.seconds[row] == pytest.approx(seconds)


def test_what_changed_since_is_counted() -> None:
    """Points that are no more, and points that mean another schedule now."""
    written = document()
    first, second, *others = written.results[1:]
    gone = replace(first, configuration={**first.configuration, "mr": 77})
    other = replace(second, extra={**second.extra, "schedule": ("0123456789", "")})
    found = space(t4.Document((gone, other, *others), written.metadata), "")
    assert found.strangers == 2 and len(found.results) == len(others)
    with pytest.raises(CacheError, match="no point of it has a time and exists today"):
        space(t4.Document((gone,), written.metadata), "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "a space of format 2; .* reads 1"), ({"more": 1}, "field 'more' is unknown"),
        ({"case": None}, "field 'case' is missing"), ({"program": {"computes": []}}, "cannot be read"),
        ({"program": 3}, "cannot be read"), ({"device": {"colour": 1}}, "cannot be read"),
        ({"threads": "x"}, "cannot be read"),
    ],
)  # fmt: skip
def test_metadata_that_is_wrong(change: dict[str, Any], message: str) -> None:
    written = document()
    known = {k: v for k, v in {**written.metadata["autotune"], **change}.items() if v is not None}
    with pytest.raises(CacheError, match=f"a file: .*{message}"):
        space(t4.Document(written.results, {"autotune": known}), "a file")
    with pytest.raises(CacheError, match="no space of autotune"):
        space(t4.Document(written.results), "a file")


def test_a_replay_costs_what_it_took() -> None:
    found = made()
    measurer, policy = Simulated(found), Policy(rounds=4)
    default = found.default()
    r = found.of(default)
    assert r is not None
    (report,) = measurer.build([(None, default.schedule.to_json())])
    assert report.ok and measurer.clock() == pytest.approx(0.024)
    assert report.handle is not None
    (row,) = measurer.time([report.handle], policy)
    assert row.samples == pytest.approx([r.seconds, 1.01 * r.seconds, r.seconds, r.seconds])
    assert measurer.clock() == pytest.approx(0.024 + r.seconds + 5 * policy.sample(r.seconds))
    late = measurer.clock()
    assert measurer.time([report.handle], policy, deadline=late)[0].status is Status.INTERRUPTED
    assert measurer.build([(None, default.schedule.to_json())], deadline=late)[0].reason == "deadline"
    assert measurer.clock() == late, "nothing was done"
    failed = next(row for row, r in found.results.items() if r.status is Status.COMPILE)
    (report,) = measurer.build([(None, found.whole.candidate(*failed, "test").schedule.to_json())])
    assert (report.status, report.reason) == (Status.COMPILE, "planted") and measurer.clock() > late
    part = space(t4.Document(document().results[1:], document().metadata), "")
    assert Simulated(part).build([(None, Schedule().to_json())])[0].reason == "unrecorded"


def test_slow_ones_are_raced_out() -> None:
    found = made()
    order = sorted(found.seconds, key=found.seconds.__getitem__)
    measurer = Simulated(found)
    some = [order[0], next(r for r in order if found.seconds[r] > 1.2 * found.optimum), order[-1]]
    schedules = [found.whole.candidate(*row, "test").schedule if row[0] >= 0 else Schedule() for row in some]
    handles = [measurer.build([(None, s.to_json())])[0].handle or 0 for s in schedules]
    rounds = [len(m.samples) for m in measurer.time(handles, Policy(rounds=7))]
    assert rounds[0] == 7 and rounds[1] < 7 and rounds[2] <= 1
    assert [m.ok for m in measurer.time(handles, Policy())] == [True] * 3


def test_recording_a_replay_gives_the_record() -> None:
    """The recorder sees a `Measurer`, so that a recorded space can be recorded: the same points with the same times."""
    found, kept = made(), list[t4.Result]()
    todo = points(found.whole, 3)
    assert len(todo) == len(found.results) and len({p.key for p in todo}) == len(todo)
    recorder = Recorder(found.whole, None, Simulated(found), Policy(), kept.append)
    assert recorder.run(todo, found.default(), math.inf) == len(todo) == len(kept)
    again = space(t4.Document(tuple(kept), document().metadata), "")
    assert again.seconds.keys() == found.seconds.keys() and again.strangers == 0
    for row, seconds in found.seconds.items():
        assert again.seconds[row] == pytest.approx(seconds, rel=0.011)
    assert {r.extra["reason"] for r in kept if r.status is not Status.OK} == {("planted", "")}
    assert recorder.run(todo, found.default(), -1.0) == 0


def test_two_recordings_are_one() -> None:
    """On a machine that was twice as slow, and drifted: what both say of a point is its time, how far they are apart is
    the noise."""
    first, draw = document(), np.random.default_rng(7)
    drift, luck = draw.uniform(0.8, 1.2, len(first.results)), np.exp(0.05 * draw.standard_normal(len(first.results)))
    slow = [
        replace(r, seconds=2 * r.seconds * d * e, runtimes=tuple(2 * t * d * e for t in r.runtimes),
                extra={**r.extra, "anchor": (0.2 * d, "ms")})
        if r.status is Status.OK and "anchor" in r.extra else r for r, d, e in zip(first.results, drift, luck)
    ]  # fmt: skip
    both = space(recorded.merged(first, t4.Document(tuple(slow), first.metadata)), "")
    alone = made()
    assert both.seconds.keys() == alone.seconds.keys() and alone.noise == 0
    assert both.noise == pytest.approx(2 * 0.05 / math.sqrt(2), rel=0.2)
    for row, seconds in alone.seconds.items():
        assert both.seconds[row] == pytest.approx(seconds, rel=0.12)
        assert len(both.results[row].runtimes) == (6 if row[0] >= 0 else 1)
    other = document(most=200)
    with pytest.raises(CacheError, match="of different programs, threads or parts"):
        recorded.merged(first, other)


def test_a_recording_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real kernels: stopped, its last line cut short, gone on with, and loaded."""
    import autotune.calibrate

    def ensure(spec: DeviceSpec, say: object) -> DeviceSpec:
        return spec

    monkeypatch.setattr(autotune.calibrate, "ensure", ensure)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    said: list[str] = []
    assert not spaces.record("transpose", tmp_path, -1.0, 8, 1, said.append)
    partial = tmp_path / "transpose.partial.jsonl"
    assert len(partial.read_text().splitlines()) == 1 and "go on later" in said[-1]
    assert spaces.record("transpose", tmp_path, 60.0, 8, 1, said.append) and not partial.exists()
    path = tmp_path / "transpose.json.xz"
    whole = t4.read(path)
    assert load(path).strangers == 0 and {r.status for r in whole.results} == {Status.OK}
    rows = [json.dumps(whole.metadata), *(json.dumps(t4.to_json(r)) for r in whole.results[:4])]
    partial.write_text("\n".join(rows)[:-20])
    path.unlink()
    assert spaces.record("transpose", tmp_path, 60.0, 8, 1, said.append)
    assert f"{len(whole.results) - 3} of {len(whole.results)} points" in said[-2]
    assert t4.read(path).results[:3] == whole.results[:3]
    assert {tuple(r.configuration.items()) for r in t4.read(path).results} == {
        tuple(r.configuration.items()) for r in whole.results
    }
    partial.write_text("{}\n")
    with pytest.raises(CacheError, match="was begun elsewhere"):
        spaces.record("transpose", tmp_path, 1.0, 8, 1, said.append)


def test_masks_and_indices_choose_alike() -> None:
    whole = made().whole
    mask = [np.arange(len(p.seconds)) % 3 == 0 for p in whole.priced]
    one, other = whole.only(mask), whole.only([np.flatnonzero(m) for m in mask])
    assert one.size == other.size and [c.point for c in one.best()] == [c.point for c in other.best()]


def test_the_best_points_are_measured_once_more_in_turn() -> None:
    """The one that a recording calls the best was lucky; what lies far behind stays as it is recorded."""
    lucky = document()
    before = space(lucky, "made")
    best = min(before.seconds, key=before.seconds.__getitem__)
    names = {schedule: row for row, schedule in ((r, before.whole.candidate(*r, "x").schedule) for r in before.seconds
                                                 if r[0] >= 0)}  # fmt: skip
    truth = {str(s.to_json()): before.seconds[r] * (1.1 if r == best else 1.0) for s, r in names.items()}
    policies: list[Policy] = []

    class Again:
        def build(self, candidates: Sequence[tuple[Any, Any]], *args: Any, **kwargs: Any) -> list[BuildReport]:
            self.seconds = [truth[str(schedule)] for _, schedule in candidates]
            return [BuildReport(handle=n) for n in range(len(self.seconds))]

        def time(
            self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
        ) -> list[Measurement]:
            policies.append(policy)
            load = 1.0 + 0.3 * (len(policies) % 2)
            return [Measurement.of([self.seconds[h] * load] * (rounds or 1), rounds or 1) for h in handles]

        def drop(self, handles: Iterable[int]) -> None: ...

    made_again = sharpened(lucky, lambda: nullcontext(Again()), processes=1, looks=3)
    after = space(made_again, "made")
    assert len(policies) == 3 and all(p.moved and p.race > 1e6 for p in policies)
    limit = CLOSE * min(before.seconds.values())
    default = before.rows[before.default().schedule.digest]
    level = after.seconds[default] / before.seconds[default]
    assert level == pytest.approx(1.0, abs=0.02)
    assert after.seconds[best] == pytest.approx(1.1 * level * before.seconds[best])
    for row, seconds in before.seconds.items():
        if row not in (best, default) and row[0] >= 0:
            known = after.results[row].extra.get("rounds")
            assert (known is not None and known[0] == 15) or seconds > limit or len(before.seconds) > MOST
            assert after.seconds[row] == pytest.approx(seconds * (level if known else 1.0))
