"""Every step of the registry: a golden print of what it does, a refusal with its reason, JSON. None may be without."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest

from autotune.ir.dtypes import BF16, F16
from autotune.ir.errors import ScheduleError
from autotune.ir.lower import lower
from autotune.ir.program import TensorProgram
from autotune.ir.schedule import MAX_STEPS, Schedule, from_json
from autotune.ir.steps import (
    REGISTRY,
    Bind,
    Clip,
    ComputeAt,
    Distribute,
    DotProduct,
    Fuse,
    Pack,
    Pad,
    Parallel,
    Pipeline,
    Prefetch,
    ReadAhead,
    RegisterTile,
    Reorder,
    Segment,
    Split,
    SplitReduction,
    Step,
    StoreHint,
    Tensorize,
    Tile,
    TreeReduce,
    Unroll,
    Vectorize,
    step_from_json,
)
from tests.conftest import GOLDEN
from tests.ir.programs import (
    biased,
    chained,
    column_sum,
    framed,
    half_product,
    in_turn,
    normalised,
    product,
    row_sum,
    scale,
    shifted,
    sound,
    transposed,
    triangle,
    unrelated,
    window,
)


@dataclass(frozen=True)
class Case:
    """One step on one nest; `before` are the steps that made it."""

    name: str
    program: TensorProgram
    step: Step
    before: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Refusal(Case):
    """`name` is the reason code; `words` must occur in the message."""

    words: str = ""


BLOCKED = (Split("t0", "j", 8), Split("t0", "k", 4), Reorder("t0", ("j.0", "k.0", "i", "j.1", "k.1")))
BLOCKS = (Split("t0", "k", 4), Reorder("t0", ("k.0", "i", "j", "k.1")))
WHOLE = RegisterTile("t0", (("i", 16), ("j", 24)))
TILED = (RegisterTile("t0", (("i", 2), ("j", 4))),)
SUMS = (RegisterTile("t0", (("i", 2), ("j", 8))), Unroll("t0", "i.1"))
PAIRS = (Pack("t0", 1, "", ((1, 8), (0, 2)), True), *SUMS, Vectorize("t0", "j.1", 8))

CASES = [
    Case("split-clip", scale(10), Split("t0", "i", 4)),
    Case("split-cut", scale(10), Split("t0", "i", 4, "cut")),
    Case("split-cut-clipped", scale(100), Split("t0", "i.1", 16, "cut"), (Split("t0", "i", 48),)),
    Case("split-guard", scale(10), Split("t0", "i", 4, "guard")),
    Case("split-exact", scale(12), Split("t0", "i", 4, "exact")),
    Case("reorder", product(5, 6, 7), Reorder("t0", ("k", "i"))),
    Case("reorder-cut", shifted(10, 6), Reorder("t0", ("j", "i.1")), (Split("t0", "i", 4, "cut"),)),
    Case("fuse", shifted(4, 6), Fuse("t0", "i", "j")),
    Case("fuse-split", scale(8), Fuse("t0", "i.0", "i.1"), (Split("t0", "i", 4),)),
    Case("vectorize", scale(20), Vectorize("t0", "i.1", 8), (Split("t0", "i", 8),)),
    Case("vectorize-both", transposed(4, 8), Vectorize("t0", "i", 4), (Vectorize("t0", "j", 8),)),
    Case("unroll", scale(20), Unroll("t0", "i.1"), (Split("t0", "i", 8, "cut"),)),
    Case("parallel", shifted(4, 6), Parallel("t0", "i", 2)),
    Case("tile", transposed(6, 10), Tile("t0", (("i", 4), ("j", 4)))),
    Case("register_tile", product(5, 6, 7), RegisterTile("t0", (("i", 2), ("j", 4)))),
    Case("register_tile-blocked", product(4, 8, 7), RegisterTile("t0", (("i", 2), ("j.1", 4)), (("k.1", 2),)), BLOCKED),
    Case("register_tile-lanes", row_sum(5, 22), RegisterTile("t0", (("k", 8),))),
    Case("register_tile-lanes-clipped", row_sum(5, 22), RegisterTile("t0", (("k.1", 8),)), (Split("t0", "k", 16),)),
    Case("pack", product(5, 22, 7), Pack("t0", 1, "k.0"), BLOCKED),
    Case("pack-panels", product(5, 22, 7), Pack("t0", 1, "k.0", ((1, 4),)), BLOCKED),
    Case("pack-prologue", product(5, 22, 7, prologue=True), Pack("t0", 1, "k.0", ((1, 4),)), BLOCKED),
    Case("pack-loops", window(9, 3), Pack("t0", 0, "i.0", ((1, 4),), loops=("k", "i.1")), (Split("t0", "i", 4),)),
    Case("pack-top", product(5, 6, 7), Pack("t0", 0, "", ((0, 2),))),
    Case("compute_at-producer", chained(10), ComputeAt("t0", "t1", "i.0"), (Split("t0", "i", 4), Split("t1", "i", 4))),
    Case("compute_at-three", normalised(5, 7), ComputeAt("t0", "t2", "i"), (ComputeAt("t1", "t2", "i"),)),
    Case("compute_at-registers", biased(4, 6, 7), ComputeAt("t1", "t0"), TILED),
    Case("compute_at-loop", biased(5, 6, 7), ComputeAt("t1", "t0", "i.0"), (Split("t0", "i", 2),)),
    Case("compute_at-sibling", unrelated(10), ComputeAt("t0", "t1", "i.0"), (Split("t0", "i", 4), Split("t1", "i", 4))),
    Case("prefetch", product(4, 6, 7), Prefetch("t0"), TILED),
    Case(
        "read_ahead",
        normalised(5, 10),
        ReadAhead("t2", "a", "i", 2),
        (Tile("t2", (("j", 4),)), Vectorize("t2", "j.1", 4)),
    ),
    Case("bind", shifted(10, 6), Bind("t0", "j", "thread.x"), (Bind("t0", "i", "block.x"),)),
    Case("distribute", product(4, 8, 7), Distribute("t0", ("i.0", "j.0"), "k"), TILED),
    Case("tree_reduce", row_sum(5, 22), TreeReduce("t0"), (RegisterTile("t0", (("k", 8),)),)),
    Case("tree_reduce-odd", row_sum(5, 22), TreeReduce("t0"), (RegisterTile("t0", (("k", 5),)),)),
    Case("tree_reduce-warp", row_sum(5, 22), TreeReduce("t0", 4), (RegisterTile("t0", (("k", 8),)),)),
    Case("tree_reduce-several", column_sum(9, 10), TreeReduce("t0", 1, "thread.y"),
         (RegisterTile("t0", (("k", 4), ("i", 4))),)),
    Case("pad", product(4, 8, 7), Pad("t0.load1", 3), (Pack("t0", 1, ""),)),
    Case("pipeline", product(4, 8, 7), Pipeline("t0", "k.0"), (*BLOCKS, Pack("t0", 1, "k.0"), Pack("t0", 0, "k.0"))),
    Case("pipeline-ahead", product(4, 8, 20), Pipeline("t0", "k.0", True, 2), (*BLOCKS, Pack("t0", 1, "k.0"))),
    Case("segment", framed(10), Segment("t0", "i", (2, 8))),
    Case("split_reduction", product(4, 6, 12), SplitReduction("t0", "k", 3)),
    Case("tensorize", half_product(16, 24, 32), Tensorize("t0", "mma_m16n8k16_f16", "i.1", "j.1", "k"), (WHOLE,)),
    Case("clip", triangle(12, 12), Clip("t1", "j", "i.1"), (Split("t0", "i", 4), Split("t1", "i", 4))),
    Case("clip-producer", triangle(12, 10, 3), Clip("t0", "j", "i.1"), (
        Split("t0", "i", 4), Split("t1", "i", 4), Clip("t1", "j", "i.1"), ComputeAt("t0", "t1", "i.0"))),
    Case("dot_product", half_product(4, 24, 6, BF16), DotProduct("t0", "k", "dpbf16"), PAIRS),
    Case("dot_product-clipped", half_product(2, 8, 10, BF16), DotProduct("t0", "k.1", "dpbf16"), (
        Split("t0", "k", 4), *SUMS, Vectorize("t0", "j.1", 8))),
    Case("store_hint", scale(20), StoreHint("t0"), (Split("t0", "i", 8), Vectorize("t0", "i.1", 8))),
]

FUSED = (ComputeAt("t0", "t1", "i"),)
REFUSALS = [
    Refusal("no-such-loop", scale(10), Split("t0", "z", 4), words="stage t0 has no loop 'z'; it has i"),
    Refusal("no-such-loop", scale(10), Split("t9", "i", 4), words="it has nothing: the stages are t0"),
    Refusal("bad-factor", scale(10), Split("t0", "i", 0), words="at least 1"),
    Refusal("bad-tail", scale(10), Split("t0", "i", 4, "mask"), words="clip, cut, exact, guard"),
    Refusal("not-divisible", scale(10), Split("t0", "i", 4, "exact"), words="or a factor in {1,2,5,10}"),
    Refusal(
        "ragged",
        scale(100),
        Split("t0", "i.1", 10, "cut"),
        (Split("t0", "i", 48),),
        "varies by steps that 10 does not divide",
    ),
    Refusal("bad-order", product(5, 6, 7), Reorder("t0", ("j", "j")), words="each loop once"),
    Refusal("imperfect", product(5, 6, 7), Reorder("t0", ("j", "z")), words="z is not in the perfect band j, k"),
    Refusal("no-such-loop", product(5, 6, 7), Reorder("t9", ("j", "i")), words="none of these loops"),
    Refusal(
        "order", scale(10), Reorder("t0", ("i.1", "i.0")), (Split("t0", "i", 4),), "the extent of i.1 depends on i.0"
    ),
    Refusal("imperfect", product(4, 6, 3), Fuse("t0", "i", "k"), words="k is not the only statement of i"),
    Refusal("ragged", scale(10), Fuse("t0", "i.0", "i.1"), (Split("t0", "i", 4),), "both extents must be constants"),
    Refusal("lanes", scale(10), Vectorize("t0", "i", 12), words="power of two"),
    Refusal("lanes", scale(20), Vectorize("t0", "i", 8), words="extent 20 is not bounded by 8"),
    Refusal("not-innermost", shifted(4, 6), Vectorize("t0", "i", 4), words="i is not innermost"),
    Refusal("unroll", scale(1000), Unroll("t0", "i"), words="extent 1000 is not a constant up to 512"),
    Refusal("not-outermost", shifted(4, 6), Parallel("t0", "j"), words="j is inside another loop"),
    Refusal("bad-factor", shifted(4, 6), Tile("t0", (("i", 0),)), words="factors of at least 1"),
    Refusal(
        "imperfect", biased(4, 6, 3), Tile("t0", (("i", 2),)), (ComputeAt("t0", "t1", "i"),), "around one statement"
    ),
    Refusal(
        "dependent", scale(10), Tile("t0", (("i.0", 2), ("i.1", 2))), (Split("t0", "i", 4),), "i.0, which is cut too"
    ),
    Refusal("bad-factor", product(5, 6, 7), RegisterTile("t0", ()), words="at least one tile"),
    Refusal("no-such-loop", product(5, 6, 7), RegisterTile("t0", (("z", 2),)), words="none of the loops z"),
    Refusal(
        "no-reduction", shifted(5, 6), RegisterTile("t0", (("i", 2),)), words="a perfect band around one reduction"
    ),
    Refusal(
        "bad-tile",
        product(5, 6, 7),
        RegisterTile("t0", (("i", 2),), (("j", 2),)),
        words="j is not a plain reduction loop",
    ),
    Refusal("already-tiled", product(5, 6, 7), RegisterTile("t0", (("j", 2),)), TILED, "already has accumulators"),
    Refusal(
        "dependent",
        row_sum(5, 22),
        RegisterTile("t0", (("k.0", 2), ("k.1", 8))),
        (Split("t0", "k", 8),),
        "the extent of k.1 depends on k.0, which is cut too",
    ),
    Refusal("no-such-load", product(5, 6, 7), Pack("t0", 2, ""), words="has 2 loads"),
    Refusal("bad-panel", product(5, 6, 7), Pack("t0", 1, "", ((2, 8),)), words="dimensions 0..1 and positive widths"),
    Refusal("loops-differ", window(9, 3), Pack("t0", 0, "", loops=("i",)), words="moves with i, k"),
    Refusal(
        "dependent", window(10, 3), Pack("t0", 0, "", loops=("k", "i.0", "i.1")), (Split("t0", "i", 4),),
        "depends on another inner loop",
    ),  # fmt: skip
    Refusal("already-packed", product(5, 6, 7), Pack("t0", 1, ""), (Pack("t0", 1, ""),), "packed already"),
    Refusal("imperfect", product(5, 6, 7), Pack("t0", 1, "i"), (Split("t0", "j", 4, "cut"),), "needs one statement"),
    Refusal("made-inside", chained(10), Pack("t1", 0, ""), FUSED, "t0 is computed inside the same nest"),
    Refusal("not-separate", chained(10), ComputeAt("t0", "t1", "i"), FUSED, "nests of their own"),
    Refusal(
        "loops-differ",
        chained(10),
        ComputeAt("t0", "t1", "i.0"),
        (Split("t0", "i", 4), Split("t1", "i", 8)),
        "loops differ",
    ),
    Refusal("other-reader", normalised(5, 7), ComputeAt("t0", "t1", "i"), words="t2 reads t0 too, outside of t1's"),
    Refusal(
        "read-elsewhere",
        normalised(5, 7),
        ComputeAt("t1", "t2", "i"),
        (Pack("t2", 2, ""),),
        "t2 does not read t1 inside i",
    ),
    Refusal(
        "carried",
        biased(5, 6, 7),
        ComputeAt("t1", "t0", "k.0"),
        (Split("t0", "k", 4), Reorder("t0", ("k.0", "i", "j", "k.1"))),
        "k.0 carries the reduction of t0; name a loop around it",
    ),
    Refusal("not-related", unrelated(10), ComputeAt("t0", "t1"), words="neither stage reads the other"),
    Refusal("not-ready", in_turn(10), ComputeAt("t2", "t0", "i"), words="t1, which t2 reads, is made after t0"),
    Refusal("incomplete", biased(5, 6, 7), ComputeAt("t1", "t0"), words="name a loop instead"),
    Refusal(
        "not-pointwise", normalised(5, 7), ComputeAt("t2", "t1", "i"), words="every loop of the epilogue as an index"
    ),
    Refusal("no-accumulators", product(5, 6, 7), Prefetch("t0"), words="apply register_tile first"),
    Refusal("bad-factor", normalised(5, 7), ReadAhead("t2", "a", "i", 0), words="at least one element"),
    Refusal("no-such-loop", normalised(5, 7), ReadAhead("t2", "a", "z", 4), words="inside z"),
    Refusal("no-such-loop", normalised(5, 7), ReadAhead("t2", "y", "i", 4), words="t2 reads y in no vector"),
    Refusal("no-store", product(5, 6, 7), StoreHint("t0"), words="no plain store"),
    Refusal("bad-kind", shifted(5, 6), Bind("t0", "i", "grid"), words="block.x, block.y"),
    Refusal("bad-kind", shifted(5, 6), Bind("t0", "i", "block.x"), (Bind("t0", "i", "block.y"),), "block.y already"),
    Refusal("not-outermost", shifted(5, 6), Bind("t0", "j", "block.x"), words="inside a loop that is no block loop"),
    Refusal("no-such-loop", product(5, 6, 7), Distribute("t0", ("z",), "k"), words="none of the loops z"),
    Refusal("no-such-loop", product(5, 6, 7), Distribute("t0", ("i",), "z"), words="z is not inside i"),
    Refusal(
        "dependent", row_sum(10, 7), Distribute("t0", ("i.0",), "i.1"), (Split("t0", "i", 4),), "i.1 depends on i.0"
    ),
    Refusal("no-accumulators", row_sum(5, 7), TreeReduce("t0"), words="register_tile first"),
    Refusal("no-lanes", product(4, 8, 7), TreeReduce("t0"), TILED, "no reduction loop"),
    Refusal("bad-kind", column_sum(9, 8), TreeReduce("t0", 4), (RegisterTile("t0", (("k", 4), ("i", 4))),),
            "one result only"),
    Refusal("no-such-stage", product(4, 8, 7), Pad("t0.load1", 4), words="no copy of that name"),
    Refusal("bad-factor", product(4, 8, 7), Pad("t0.load1", 0), (Pack("t0", 1, ""),), "at least one element"),
    Refusal("bad-factor", product(4, 8, 8), Pipeline("t0", "k.0", True, 0), (*BLOCKS, Pack("t0", 1, "k.0")),
            "one iteration"),
    Refusal("no-copies", product(4, 8, 7), Pipeline("t0", "k.0"), BLOCKS, "does not begin with copies"),
    Refusal("ragged", scale(10), Pipeline("t0", "i.1"), (Split("t0", "i", 4),), "its extent is no constant"),
    Refusal("bad-factor", scale(10), Segment("t0", "i", ()), words="no point to cut at"),
    Refusal("ragged", scale(10), Segment("t0", "i.1", (2,)), (Split("t0", "i", 4),), "its extent is no constant"),
    Refusal("no-reduction", scale(10), SplitReduction("t0", "i", 2), words="no reduction in one perfect band"),
    Refusal("no-such-loop", product(4, 6, 12), SplitReduction("t0", "i", 2), words="those are k"),
    Refusal("ragged", product(4, 6, 12), SplitReduction("t0", "k", 5), words="no multiple of 5"),
    Refusal("no-instruction", product(4, 6, 12), Tensorize("t0", "fma", "i", "j", "k"), words="mma_m16n8k16_f16"),
    Refusal(
        "no-accumulators",
        half_product(16, 8, 16),
        Tensorize("t0", "mma_m16n8k16_f16", "i", "j", "k"),
        words="register_tile first",
    ),
    Refusal("ragged", half_product(16, 12, 16), Tensorize("t0", "mma_m16n8k16_f16", "i.1", "j.1", "k"), (
        RegisterTile("t0", (("i", 16), ("j", 12))),), "no multiple of (16, 8)"),
    Refusal("not-idle", row_sum(5, 22), Clip("t0", "k", "i"), words="nothing shows that k may end early"),
    Refusal("not-idle", triangle(8, 8), Clip("t0", "j", "i"), words="nothing shows that j may end early"),
    Refusal("no-such-loop", triangle(8, 8), Clip("t1", "j", "i.1"), words="j is not inside i.1"),
    Refusal("no-instruction", half_product(4, 8, 6, BF16), DotProduct("t0", "k", "fma"), PAIRS, "dpbf16, dpwssd"),
    Refusal("ragged", half_product(4, 8, 7, BF16), DotProduct("t0", "k", "dpbf16"), (*SUMS, Vectorize("t0", "j.1", 8)),
            "no multiple of 2"),
    Refusal("no-match", half_product(4, 8, 6, F16), DotProduct("t0", "k", "dpbf16"), PAIRS, "multiplies bf16 by bf16"),
    Refusal("no-match", half_product(4, 8, 6, BF16), DotProduct("t0", "k", "dpbf16"), SUMS, "right inside a vector"),
    Refusal("imperfect", scale(8), DotProduct("t0", "i", "dpbf16"), words="no serial loop around one sum"),
    Refusal("bad-type", half_product(4, 8, 6), Pack("t0", 0, "", (), True, "bf16"), words="f16 cannot be kept as bf16"),
    Refusal("bad-type", product(4, 8, 6), Pack("t0", 0, "", (), True, "f64"), words="f32 cannot be kept as f64"),
    Refusal("no-match", product(16, 8, 16), Tensorize("t0", "mma_m16n8k16_f16", "i.1", "j.1", "k"), (
        RegisterTile("t0", (("i", 16), ("j", 8))),), "multiplies f16 by f16 into f32"),
]


def _name(case: Case) -> str:
    return f"{case.step.kind}-{case.name}" if isinstance(case, Refusal) else case.name


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_golden(case: Case, golden: Callable[[str, str], None]) -> None:
    before = Schedule(case.before).apply(lower(case.program))
    after = Schedule((case.step,)).apply(before)
    assert case.name.partition("-")[0] == case.step.kind
    golden(f"steps/{case.name}.txt", f"{before}\n--- {case.step} -->\n\n{after}")
    sound(case.program, after)


def test_no_stale_golden_file() -> None:
    assert {f.stem for f in (GOLDEN / "steps").iterdir()} == {case.name for case in CASES}


@pytest.mark.parametrize("case", REFUSALS, ids=_name)
def test_refusal(case: Refusal) -> None:
    nest = Schedule(case.before).apply(lower(case.program))
    with pytest.raises(ScheduleError) as caught:
        case.step.apply(nest)
    assert case.words in str(caught.value)
    assert caught.value.reason == case.name
    assert str(caught.value).startswith(f"{case.step}: "), "a message begins with the step"


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_step_has_cases(kind: str) -> None:
    assert kind in {case.step.kind for case in CASES}, f"step {kind} has no golden case"
    assert kind in {case.step.kind for case in REFUSALS}, f"step {kind} has no refusal"
    assert REGISTRY[kind].__doc__, f"step {kind} has no docstring"


@pytest.mark.parametrize("kind", REGISTRY)
def test_json_round_trip(kind: str) -> None:
    steps = [case.step for case in (*CASES, *REFUSALS) if case.step.kind == kind]
    for step in steps:
        text = json.dumps(step.to_json())
        assert step_from_json(json.loads(text)) == step
        assert json.loads(text)["step"] == kind
    again = from_json(json.loads(json.dumps(Schedule(tuple(steps)).to_json())))
    assert again == Schedule(tuple(steps))
    assert again.digest == Schedule(tuple(steps)).digest


@pytest.mark.parametrize("kind", REGISTRY)
def test_wrong_field_types_are_refused(kind: str) -> None:
    good = next(case.step for case in CASES if case.step.kind == kind).to_json()
    wrong: list[Any] = [None, 1.5, {}, True, [[1]], [["i"]], [["i", 2, 3]], [[2, "i"]], [["i", 1.5]], [["i", True]]]
    for f in fields(REGISTRY[kind]):
        for value in [*(w for w in wrong if f.type != "bool" or w is not True), 3 if f.type == "str" else "3"]:
            with pytest.raises(ScheduleError, match=f"{kind}: field {f.name!r} must be") as caught:
                step_from_json({**good, f.name: value})
            assert caught.value.reason == "unknown-step"


@pytest.mark.parametrize("kind", REGISTRY)
def test_unknown_and_missing_fields_are_refused(kind: str) -> None:
    good = next(case.step for case in CASES if case.step.kind == kind).to_json()
    with pytest.raises(ScheduleError, match="unknown field 'colour'"):
        step_from_json({**good, "colour": 1})
    with pytest.raises(ScheduleError, match="field 'stage' is missing"):
        step_from_json({k: v for k, v in good.items() if k != "stage"})


@pytest.mark.parametrize(
    "value", [{"step": "explode", "stage": "t0"}, {"stage": "t0"}, {"step": ["split"]}, {}, [], None, "split", 3]
)
def test_unknown_steps_are_refused(value: Any) -> None:
    with pytest.raises(ScheduleError, match="unknown step .*; known steps: .*split") as caught:
        step_from_json(value)
    assert caught.value.reason == "unknown-step"


@pytest.mark.parametrize("value", [None, {}, "[]", 3, ({"step": "unroll", "stage": "t0", "loop": "i"},)])
def test_a_schedule_is_a_list(value: Any) -> None:
    with pytest.raises(ScheduleError, match="a schedule is a list"):
        from_json(value)


def test_a_schedule_has_a_greatest_length() -> None:
    row = Unroll("t0", "i").to_json()
    assert len(from_json([row] * MAX_STEPS).steps) == MAX_STEPS
    with pytest.raises(ScheduleError, match=f"at most {MAX_STEPS} steps"):
        from_json([row] * (MAX_STEPS + 1))


def test_a_schedule_replays_on_another_shape() -> None:
    schedule = from_json(json.loads(json.dumps(Schedule((*BLOCKED, Pack("t0", 1, "k.0", ((1, 4),)), *(
        RegisterTile("t0", (("i", 2), ("j.1", 4))), Prefetch("t0")))).to_json())))  # fmt: skip
    for shape in ((5, 22, 7), (1, 1, 1), (8, 16, 4), (3, 9, 30)):
        sound(product(*shape), schedule.apply(lower(product(*shape))))


def test_digests_tell_schedules_apart() -> None:
    digests = {Schedule((case.step,)).digest for case in CASES}
    assert len(digests) == len({str(case.step) for case in CASES})
    assert Schedule().digest != Schedule((Unroll("t0", "i"),)).digest


def test_a_digest_depends_on_what_is_given_only() -> None:
    """Fields that steps get later, and that no schedule uses, leave digests as they are."""
    schedule = Schedule((Split("t", "i", 8), Pack("t", 1, "i.0", ((0, 8),))))
    assert from_json(schedule.to_json()).digest == schedule.digest
    assert Pack("t", 1, "i.0", ((0, 8),)).to_json() == {
        "step": "pack", "stage": "t", "load": 1, "at": "i.0", "panels": [[0, 8]],
    }  # fmt: skip
    assert Schedule((Split("t", "i", 8, "cut"),)).digest != Schedule((Split("t", "i", 8),)).digest
