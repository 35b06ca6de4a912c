"""Several kernels behind one entry: what passes between them, what comes from outside, and which strides go where."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import autotune
from autotune.codegen import jit
from autotune.codegen.chain import chain
from autotune.codegen.runtime import runtime
from autotune.ir.partition import partition
from autotune.ir.program import canonical_names
from autotune.tracer import trace
from tests.kernels import ENTRY, HERE, Array, Machine, choices, spec

rng = np.random.default_rng(0)


def array(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "two layers": (lambda x, u, v: np.maximum(x @ u, 0) @ v, (array(9, 7), array(7, 17), array(17, 5))),
    "a middle that is a result too": (lambda x, u: (x @ u, (x @ u) @ u), (array(6, 7), array(7, 7))),
    "two independent results": (lambda x, y: (x @ x, y.sum(axis=0)), (array(5, 5), array(4, 19))),
    "three kernels": (lambda x: (x @ x) @ (x @ x), (array(11, 11),)),
    "memory that is used again": (lambda x, u: u @ np.maximum(u @ (u @ (u @ (u @ x))), 0), (array(7, 9), array(7, 7))),
    "turned and cut inputs": (lambda x, u, v: (x @ u) @ v, (array(7, 9).T, array(20, 34)[::2, ::2][:7], array(17, 5))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_chain_equals_numpy(case: str, threads: int) -> None:
    fn, arrays = CASES[case]
    made = autotune.kernel(fn, threads=threads, cache="off", tune="off")
    got, want = made(*arrays), fn(*arrays)
    for a, b in zip(got, want, strict=True) if isinstance(want, tuple) else ((got, want),):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert made.explain(*arrays).startswith(f"{made.explain(*arrays).count('chosen by')} kernels on ")


def test_the_entry_calls_kernels_in_turn() -> None:
    """By hand, with memory of its own for what passes between them, and no allocation where nothing does."""
    program = trace(lambda x, u, v: (x @ u) @ v, (spec(6, 7), spec(7, 9), spec(9, 3)), {}).program
    parts = partition(program).kernels
    text = chain(program, parts)
    assert text.count("call void @at_awake") == 2
    assert text.count("call void @kernel") == len(parts) == 2 and text.count("@at_scratch_acquire(i64") == 2
    machines = [Machine(k, next(choices(k, 1, 0))[1].schedule) for k in map(canonical_names, parts)]
    symbols = {f"kernel{n}": m.loaded.address for n, m in enumerate(machines)}
    loaded = jit.load(jit.assemble(text, HERE.arch, HERE.features), "chain", runtime().symbols | symbols)
    inputs, out = [array(6, 7), array(7, 9), array(9, 3)], np.full((6, 3), np.nan, np.float32)
    pointers = (ctypes.c_void_p * 4)(*[a.ctypes.data for a in (*inputs, out)])
    ENTRY(loaded.address)(pointers, None, 1)
    np.testing.assert_allclose(out, inputs[0] @ inputs[1] @ inputs[2], rtol=1e-5, atol=1e-5)
    row = trace(lambda x, u: x @ u @ u @ u @ u, (spec(6, 7), spec(7, 7)), {}).program
    plan = partition(row)
    assert f"@at_scratch_acquire(i64 {plan.memory.peak})" in chain(row, plan.kernels) and plan.memory.peak == 2 * 256
    apart = trace(lambda x, u: (x @ x, u.sum(axis=0)), (spec(5, 5), spec(4, 19)), {}).program
    assert "call ptr @at_scratch_acquire" not in chain(apart, partition(apart).kernels)
