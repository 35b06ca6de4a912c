"""Which windows become an array of their own, and that nothing but speed depends on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from autotune import ops, windows
from autotune.ir.collapse import normal_form
from autotune.ir.partition import partition, slides
from autotune.search.ranking import Ranking
from autotune.tracer import trace

from .kernels import HERE, spec
from .machine import check


def kernels(fn: Callable[..., Any], *shapes: tuple[int, ...]) -> list[list[int]]:
    """The number of loops of each Compute of each kernel, as few as there can be."""
    program = trace(fn, tuple(spec(*s) for s in shapes), {}).program
    return [[len(c.all_axes) for c in normal_form(k).computes] for k in partition(program, True).kernels]


def test_short_rows_make_a_product_of_matrices() -> None:
    image = kernels(partial(ops.conv2d, pad=1), (2, 8, 14, 14), (64, 8, 3, 3))
    assert image == [[3, 5], [4]], "n c y x; (n c) r s y x; n o (y x) and (c r s)"
    assert kernels(ops.conv2d, (1, 8, 16, 16), (64, 8, 3, 3)) == [[5], [3]]
    assert kernels(partial(ops.conv2d, stride=2), (1, 8, 16, 16), (64, 8, 1, 1)) == [[3], [3]], "no windows, but steps"


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (ops.conv2d, ((1, 8, 40, 40), (64, 8, 3, 3))),  # rows are long
        (ops.conv2d, ((1, 8, 16, 16), (32, 8, 3, 3))),  # each element is used too seldom
        (ops.conv2d, ((1, 512, 30, 30), (64, 512, 5, 5))),  # the array would be large
        (ops.conv2d, ((1, 8, 16, 16), (64, 8, 1, 1))),  # windows of one element
        (partial(ops.conv2d, layout="nhwc"), ((1, 16, 16, 8), (3, 3, 8, 64))),  # vectors run along channels
        (np.matmul, ((16, 128), (128, 16))),
    ],
)
def test_what_is_read_in_place(fn: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    program = trace(fn, tuple(spec(*s) for s in shapes), {}).program
    assert len(program.computes) == 1


def test_overlap() -> None:
    from autotune.ir.affine import var

    i, k = var("i"), var("k")
    assert windows.overlap(i + k, {"i": 5, "k": 3}) and windows.overlap(i * 2 + k, {"i": 5, "k": 3})
    assert not windows.overlap(i * 3 + k, {"i": 5, "k": 3}) and not windows.overlap(i + k, {"i": 5, "k": 1})


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "pad": 1}, {"pad": (2, 1), "dilation": 2}, {"stride": (1, 3)}, {"groups": 2, "pad": 1}],
)
@pytest.mark.parametrize("co", [64, 130])
def test_convolutions_through_their_windows(options: dict[str, Any], co: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 13, 15)), rng.standard_normal((co, 4 // options.get("groups", 1), 3, 3))
    check(partial(ops.conv2d, **options), x.astype("f4"), w.astype("f4"))


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_long_rows_with_steps_are_copied_by_loops(stride: int) -> None:
    """Some candidate of such a convolution copies windows inside of its kernel."""
    program = trace(partial(ops.conv2d, stride=stride), (spec(1, 3, 9, 33 * stride + 2), spec(16, 3, 3, 3)), {}).program
    ranking = Ranking(normal_form(program), HERE, 1)
    steps = [str(s) for c in ranking.best(limit=60) for s in c.schedule.steps]
    assert any(s.startswith("pack") and s.endswith("'))") and "l.1" in s for s in steps)


def test_windows_that_slide_over_rows_join_what_makes_them() -> None:
    def layer(x: Any, w: Any) -> Any:
        return np.maximum(ops.conv2d(x, w, pad=1, groups=6), 0)

    program = trace(layer, (spec(1, 6, 9, 20), spec(6, 1, 3, 3)), {}).program
    assert [slides(c) for c in program.computes] == [False, True, False]
    assert [len(k.computes) for k in partition(program, True).kernels] == [3]
    assert [len(k.computes) for k in partition(program).kernels] == [1, 2], "on blocks and threads each is by itself"
    assert {c.point["lines"] for c in Ranking(normal_form(program), HERE, 1).best(limit=200) if c.point} > {1}


def test_every_sketch_is_tried_early_where_it_is_close() -> None:
    program = normal_form(trace(partial(ops.conv2d, pad=1), (spec(1, 8, 56, 56), spec(64, 8, 3, 3)), {}).program)
    ranking = Ranking(partition(program, True).kernels[-1], HERE, 1)
    close = [p for p in ranking.priced if len(p.seconds) and p.seconds.min() <= min(q.seconds.min() for q in
             ranking.priced if len(q.seconds))]  # fmt: skip
    first = [c.sketch for _, c in zip(range(len(ranking.sketches)), ranking.best())]
    assert len(set(first)) >= len(close)
