"""Minimal filtering: the same function exactly, where it pays and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from autotune import filtering, ops
from autotune.ir.equiv import difference
from autotune.ir.expr import Expr, Load, transform
from autotune.ir.lower import lower
from autotune.ir.program import TensorProgram
from autotune.search.ranking import Ranking
from autotune.tracer import trace

from .kernels import HERE, kernels, spec
from .machine import check

Function = Callable[..., Any]


def grouped(x: Any, w: Any) -> Any:
    return ops.conv2d(x, w, groups=2)


def rows(x: Any, w: Any) -> Any:
    seen = np.lib.stride_tricks.sliding_window_view(x, 3, axis=2)
    return np.einsum("ncir,ocr->noi", seen, w)


def cubes(x: Any, w: Any) -> Any:
    seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3, 3), axis=(1, 2, 3))
    return np.einsum("cijkrst,ocrst->oijk", seen, w)


def layers(x: Any, w: Any, v: Any, b: Any) -> Any:
    y = ops.conv2d(x, w, pad=1)
    return y, np.maximum(ops.conv2d(np.maximum(y + b, 0), v), 0) * 2


CASES: dict[str, tuple[Function, tuple[tuple[int, ...], ...]]] = {
    "even": (partial(ops.conv2d, pad=1), ((2, 3, 6, 8), (4, 3, 3, 3))),
    "odd": (ops.conv2d, ((1, 2, 7, 9), (3, 2, 3, 3))),
    "odd and even": (ops.conv2d, ((1, 2, 9, 6), (3, 2, 3, 3))),
    "channels last": (partial(ops.conv2d, layout="nhwc", pad=1), ((2, 5, 6, 3), (3, 3, 3, 4))),
    "groups": (grouped, ((1, 4, 6, 6), (6, 2, 3, 3))),
    "one axis": (rows, ((2, 3, 11), (4, 3, 3))),
    "one short axis": (ops.conv2d, ((1, 2, 6, 8), (3, 2, 1, 3))),
    "taps of five": (ops.conv2d, ((1, 2, 8, 8), (3, 2, 5, 3))),
    "three axes": (cubes, ((2, 4, 5, 6), (3, 2, 3, 3, 3))),
    "transposed": (ops.conv_transpose2d, ((1, 3, 5, 6), (3, 2, 3, 3))),
    "layers": (layers, ((1, 3, 6, 6), (4, 3, 3, 3), (2, 4, 3, 3), (4, 1, 1))),
}


def named(program: TensorProgram) -> TensorProgram:
    """The results under names that do not depend on what else is computed."""
    names = {old: f"out{n}" for n, old in enumerate(program.outputs)}

    def load(node: Expr) -> Expr | None:
        return Load(names.get(node.buffer, node.buffer), node.index, node.dtype) if isinstance(node, Load) else None

    made = (replace(c, name=names.get(c.name, c.name), body=transform(c.body, load)) for c in program.computes)
    return TensorProgram(program.inputs, tuple(made), tuple(names.values()))


def both(fn: Function, shapes: tuple[tuple[int, ...], ...]) -> tuple[TensorProgram, TensorProgram]:
    """The program of plain sums, and the one with all that can be filtered."""
    made = []
    for pays in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(filtering._Windows, "pays", pays)
            made.append(named(trace(fn, tuple(spec(*s) for s in shapes), {}).program))
    return made[0], made[1]


@pytest.mark.parametrize("name", CASES)
def test_the_same_function(name: str) -> None:
    plain, minimal = both(*CASES[name])
    products = [sum(c.points for c in p.computes if c.combiner) for p in (plain, minimal)]
    assert products[1] < products[0]
    assert difference(lower(plain), lower(minimal)) == ""


def test_a_wrong_sum_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_X", "_W", "_Y"):
        rows = getattr(filtering, table)
        with monkeypatch.context() as patch:
            patch.setattr(filtering, table, (rows[0], (*rows[1][:-1], -rows[1][-1] or 1.0), *rows[2:]))
            plain, wrong = map(lower, both(*CASES["even"]))
            assert difference(plain, wrong)


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (partial(ops.conv2d, stride=2), ((1, 8, 9, 9), (8, 8, 3, 3))),
        (partial(ops.conv2d, dilation=2), ((1, 8, 9, 9), (8, 8, 3, 3))),
        (ops.conv2d, ((1, 8, 9, 9), (8, 8, 2, 2))),
    ],
    ids=["steps", "dilation", "two taps"],
)
def test_what_is_no_window_of_three(fn: Function, shapes: tuple[tuple[int, ...], ...]) -> None:
    plain, minimal = both(fn, shapes)
    assert plain == minimal


def test_integers_and_short_numbers_stay() -> None:
    for dtype in ("i32", "f16"):
        args = (spec(1, 64, 18, 18, dtype=dtype), spec(64, 64, 3, 3, dtype=dtype))
        assert [len(c.reduce_axes) for c in trace(ops.conv2d, args, {}).program.computes if c.combiner] == [3]


def contractions(*shapes: tuple[int, ...], **options: Any) -> list[int]:
    """How many axes are summed, for each contraction."""
    program = trace(partial(ops.conv2d, **options), tuple(spec(*s) for s in shapes), {}).program
    return [len(c.reduce_axes) for c in program.computes if c.combiner]


def test_it_is_done_where_it_pays() -> None:
    assert contractions((1, 64, 56, 56), (64, 64, 3, 3), pad=1) == [1]
    assert contractions((1, 512, 7, 7), (512, 512, 3, 3), pad=1) == [3], "sums of taps would be most of the work"
    assert contractions((1, 3, 224, 224), (64, 3, 3, 3), pad=1) == [3], "sums of places would be"
    assert contractions((1, 64, 56, 56), (64, 1, 3, 3), pad=1, groups=64) == [2], "nothing is summed but taps"


def test_the_machine_computes_it() -> None:
    rng = np.random.default_rng(0)
    for h, w in ((16, 16), (17, 21)):
        x, k = rng.standard_normal((1, 64, h, w), np.float32), rng.standard_normal((64, 64, 3, 3), np.float32)
        check(ops.conv2d, x, k, pad=1)
        check(lambda x, k, b: np.maximum(ops.conv2d(x, k, pad=1) + b, 0) + x, x, k, x[0, :, :1, :1])


def test_choices_of_a_place_share_what_they_read() -> None:
    made = kernels(partial(ops.conv2d, pad=1), spec(1, 64, 32, 32), spec(64, 64, 3, 3))
    (windows,) = [k for k in made if any(a.extent == 4 for a in k.computes[0].axes) and k.inputs[0].shape[-1] == 34]
    (sketch,) = Ranking(windows, HERE, 1).sketches
    apart, near = sketch.work  # type: ignore[attr-defined]
    assert near[2] == apart[2] / 4, "16 elements for 16 sums; 64 if each sum reads its own"
    assert next(Ranking(windows, HERE, 1).best()).point["near"] == 1
