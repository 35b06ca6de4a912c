"""Collapsed programs: the same values of the same memory, over as few axes as there can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import ops, spec
from autotune.ir.affine import var
from autotune.ir.collapse import collapse
from autotune.ir.dtypes import F32
from autotune.ir.expr import Index, Load, cast, op
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram
from autotune.tracer import trace
from tests.evaluation import evaluate

Function = Callable[..., Any]


def traced(fn: Function, *shapes: tuple[int, ...]) -> TensorProgram:
    return trace(fn, tuple(spec("f32", shape) for shape in shapes), {}, "f").program


def extents(program: TensorProgram) -> list[list[int]]:
    return [[a.extent for a in c.all_axes] for c in program.computes]


def same(program: TensorProgram) -> TensorProgram:
    """Both programs on the same memory; integers, so that every order of a sum gives the same."""
    less = collapse(program)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, b.shape).astype(b.dtype.numpy) for b in program.inputs]
    again = [a.reshape(b.shape) for a, b in zip(arrays, less.inputs, strict=True)]
    for one, other in zip(evaluate(program, arrays), evaluate(less, again), strict=True):
        np.testing.assert_array_equal(one.ravel(), other.ravel())
    assert less.bytes == program.bytes and less.flops == program.flops
    assert [b.name for b in less.buffers] == [b.name for b in program.buffers]
    return less


CASES: dict[str, tuple[Function, list[tuple[int, ...]], list[list[int]]]] = {
    "elementwise": (lambda x, y: x * y + x, [(2, 3, 4)] * 2, [[24]]),
    "bias": (lambda x, b: x + b, [(2, 3, 4), (4,)], [[6, 4]]),
    "rows of three": (lambda x, y: x + y, [(2, 3, 4), (3, 4)], [[2, 12]]),
    "batch of rows": (lambda x, w: x @ w, [(2, 3, 4), (4, 5)], [[6, 5, 4]]),
    "one batch": (lambda x, w: x @ w, [(1, 3, 4), (4, 5)], [[3, 5, 4]]),
    "batch of products": (lambda x, y: x @ y, [(2, 3, 4, 5), (2, 3, 5, 6)], [[6, 4, 6, 5]]),
    "epilogue": (lambda x, w, b: np.maximum(x @ w + b, 0), [(2, 3, 4), (4, 5), (5,)], [[6, 5, 4], [6, 5]]),
    "outer sum": (lambda x: x.sum(0), [(2, 3, 4)], [[12, 2]]),
    "whole sum": (lambda x: x.sum(), [(2, 3, 4)], [[24]]),
    "middle sum": (lambda x: x.sum(1), [(2, 3, 4)], [[2, 4, 3]]),
    "two sums": (lambda x: x.sum((0, 1)), [(2, 3, 4)], [[4, 6]]),
    "softmax": (ops.softmax, [(2, 3, 4)], [[6, 4], [6, 4], [6, 4], [6], [6, 4]]),
    "own transpose": (lambda x: x + x.T, [(4, 4)], [[4, 4]]),
    "transpose of blocks": (lambda x: x.transpose(2, 0, 1), [(2, 3, 4)], [[4, 6]]),
    "slice": (lambda x: x[:, 1:], [(4, 4)], [[4, 3]]),
}


@pytest.mark.parametrize("name", CASES)
def test_axes_that_are_one_run_of_memory_become_one(name: str) -> None:
    fn, shapes, wanted = CASES[name]
    found = extents(same(traced(fn, *shapes)))
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))
    assert collapse(collapse(traced(fn, *shapes))) == collapse(traced(fn, *shapes))


def test_indices_as_values_keep_their_axes() -> None:
    body = op("mul", Load("x", (var("i"), var("j")), F32), cast(Index(var("j")), F32))
    made = Compute("t", F32, (Axis("i", 3), Axis("j", 4)), body)
    assert extents(same(TensorProgram((Buffer("x", F32, (3, 4)),), (made,), ("t",)))) == [[3, 4]]


def test_strides_that_are_known_at_run_time_only_stay() -> None:
    index = (var("i"), var("j"), var("k"))
    made = Compute("t", F32, (Axis("i", 3), Axis("j", 4), Axis("k", 5)), Load("x", index, F32))
    less = collapse(TensorProgram((Buffer("x", F32, (3, 4, 5), "input", ("x.s0", 5, 1)),), (made,), ("t",)))
    assert less.inputs == (Buffer("x", F32, (3, 20), "input", ("x.s0", 1)),) and extents(less) == [[3, 20]]
    padded = Buffer("x", F32, (3, 4, 5), "input", (28, 7, 1))
    assert extents(collapse(TensorProgram((padded,), (made,), ("t",)))) == [[12, 5]]


def test_axes_of_one_iteration_join_only_what_belongs_together() -> None:
    """y names the first axis alone, and x the first and the last: the one between belongs to both."""
    same(traced(lambda x, y: (x * y).sum(3) * 2, (2, 1, 2, 3), (2, 1, 1, 1)))
    same(traced(lambda x, y: (x * y + x).transpose(3, 0, 1, 2).sum(0) * 2, (2, 1, 2, 1), (2, 1, 1, 1)))
    same(traced(lambda x, y: (x * y + x).transpose(0, 1, 3, 2).sum((0, 1, 2, 3)) * 2, (2, 1, 1, 2), (1, 1, 1, 1)))


@given(st.data())
def test_any_program_keeps_its_meaning(data: st.DataObject) -> None:
    """Chains of broadcasts, transpositions, products and reductions over random axes."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    count = len(shape)
    order = data.draw(st.permutations(range(count)))
    over = tuple(data.draw(st.sets(st.sampled_from(range(count)))))
    keep, last = data.draw(st.booleans()), data.draw(st.sampled_from(["map", "product", "scaled", "none"]))
    seen = tuple(n if data.draw(st.booleans()) else 1 for n in shape)

    def fn(x: Any, y: Any, w: Any) -> Any:
        z = x * y + x
        if data_order:
            z = z.transpose(order)
        if last == "product":
            z = z.transpose(np.argsort(order)) if data_order else z
            return z @ w
        total = z.sum(over, keepdims=keep)
        return total * 2 if last == "scaled" else total + z.max() if last == "map" else total

    data_order = data.draw(st.booleans())
    same(traced(fn, shape, seen, (shape[-1], 3)))
