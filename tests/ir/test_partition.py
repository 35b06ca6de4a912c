"""Which Computes share a kernel, and that kernels together are the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autotune.ir.partition import MAX_STAGES, partition, reuses_operands
from autotune.tracer import trace
from tests.evaluation import evaluate
from tests.kernels import centred, softmax, spec


def many(x: Any) -> Any:
    for _ in range(MAX_STAGES + 3):
        x = x * x.sum(axis=1, keepdims=True)
    return x


X, W = spec(6, 8), spec(8, 8)
# What is traced, and how many Computes each kernel has.
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], list[int]]] = {
    "two layers": (lambda x, u, b, v: np.maximum(x @ u + b, 0) @ v, (X, W, spec(8), W), [2, 1]),
    "rows": (softmax, (X,), [4]),
    "centred rows": (centred, (X, spec(8), spec(8)), [5]),
    "product, then rows": (lambda x, u: softmax(x @ u), (X, W), [1, 4]),
    "independent outputs": (lambda x, y: (x * 2, y.sum(axis=0)), (X, spec(3, 5)), [1, 1]),
    "an output that is read again": (lambda x, u: (x @ u, (x @ u).sum(axis=1)), (X, W), [1, 1, 1]),
    "two products": (lambda x, u: (x @ u) * (x @ (u + 1)), (X, W), [1, 1, 2]),
    "sums over different axes": (lambda x: x.sum(axis=0) + x.sum(axis=1)[:, None], (W,), [1, 2]),
    "one number for all": (lambda x: x - x.mean(), (X,), [1, 1, 1]),
    "more than a kernel holds": (many, (X,), [MAX_STAGES, 11]),
}


@pytest.mark.parametrize("case", CASES)
def test_kernels_in_turn_are_the_program(case: str) -> None:
    fn, args, sizes = CASES[case]
    program = trace(fn, args, {}).program
    parts = partition(program).kernels
    assert [len(k.computes) for k in parts] == sizes
    assert sorted(c.name for k in parts for c in k.computes) == sorted(c.name for c in program.computes)
    rng = np.random.default_rng(0)
    known = {b.name: rng.uniform(0.5, 1.5, b.shape).astype(np.float32) for b in program.inputs}
    wanted = evaluate(program, list(known.values()), wide=False)
    for k in parts:
        inputs = [known[b.name] for b in k.inputs]  # from outside, or from a kernel before
        known |= dict(zip(k.outputs, evaluate(k, inputs, wide=False), strict=True))
    for name, want in zip(program.outputs, wanted, strict=True):
        np.testing.assert_array_equal(known[name], want)


def test_a_contraction_with_shared_operands_is_a_kernel_of_its_own() -> None:
    program = trace(lambda x, u: softmax(x @ u), (X, W), {}).program
    assert [reuses_operands(c) for c in program.computes] == [True, False, False, False, False]
    row = trace(lambda x, y: (x * y).sum(axis=1), (X, X), {}).program
    assert not any(map(reuses_operands, row.computes)), "every element is read once"


def test_strides_go_with_their_inputs() -> None:
    program = trace(lambda x, u, v: (x @ u) @ v, (spec(6, 8), W, W), {}).program
    inputs = tuple(replace(b, strides=(f"{b.name}.s0", 1)) for b in program.inputs)
    parts = partition(replace(program, inputs=inputs)).kernels
    assert [[b.strides is not None for b in k.inputs] for k in parts] == [[True, True], [False, True]]
