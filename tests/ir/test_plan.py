"""Plans: whichever way its regions go, the kernels in turn are the program; reasons in words; JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune import ops
from autotune.ir.partition import partition
from autotune.ir.plan import Plan, from_json, size
from autotune.ir.program import TensorProgram
from autotune.tracer import trace
from tests.evaluation import evaluate
from tests.kernels import softmax, spec

Array = Any
N = 6
STEPS: dict[str, Callable[[Array, Array], Array]] = {
    "product": lambda a, b: a @ b, "turned": lambda a, b: a.T @ b, "sum": lambda a, b: a + b * 2,
    "rows": lambda a, b: a * b.sum(axis=1, keepdims=True), "columns": lambda a, b: a - b.max(axis=0),
    "all": lambda a, b: a / (b * b).sum(), "wave": lambda a, b: np.sin(a) + b, "flat": lambda a, b: a.T * np.cos(b),
}  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> TensorProgram:
    """Up to nine steps on square arrays, of which some are results."""
    steps = draw(st.lists(st.tuples(st.sampled_from([*STEPS]), st.integers(0, 30), st.integers(0, 30)),
                          min_size=2, max_size=9))  # fmt: skip
    kept = draw(st.sets(st.integers(0, len(steps) - 1), min_size=1, max_size=4))

    def fn(x: Array, y: Array) -> tuple[Array, ...]:
        made = [x, y]
        for name, a, b in steps:
            made.append(STEPS[name](made[a % len(made)], made[b % len(made)]))
        return tuple(made[2 + n] for n in sorted(kept))

    return trace(fn, (spec(N, N), spec(N, N)), {}).program


def check(plan: Plan) -> None:
    """Every Compute is in one kernel; each kernel reads only what is there; together they are the program."""
    program = plan.program
    assert sorted(c.name for k in plan.kernels for c in k.computes) == sorted(c.name for c in program.computes)
    rng = np.random.default_rng(0)
    known = {b.name: rng.uniform(0.5, 1.5, b.shape).astype(np.float32) for b in program.inputs}
    with np.errstate(all="ignore"):
        wanted = evaluate(program, list(known.values()), wide=False)
        for k in plan.kernels:
            results = evaluate(k, [known[b.name] for b in k.inputs], wide=False)
            known |= dict(zip(k.outputs, results, strict=True))
    for name, want in zip(program.outputs, wanted, strict=True):
        np.testing.assert_array_equal(known[name], want)


@given(programs(), st.lists(st.booleans(), min_size=12, max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_way_is_the_program(program: TensorProgram, turns: list[bool], chains: bool) -> None:
    plan = partition(program, chains)
    assert chains or not plan.open
    check(plan)
    for n, turn in zip(plan.open, turns):
        plan = plan.turned(n) if turn else plan
    check(plan)
    assert from_json(program, json.loads(json.dumps(plan.to_json()))) == plan


def three(x: Array, u: Array, v: Array, w: Array, b: Array) -> tuple[Array, ...]:
    return x @ u + b, np.maximum(x @ v, 0), x @ w


def kernels(fn: Callable[..., Any], *args: Any) -> list[list[str]]:
    plan = partition(trace(fn, args, {}).program, True)
    return [[*g.names] for g in plan.groups]


def test_siblings_share_a_kernel() -> None:
    wide = [spec(64, 32)] * 3
    assert kernels(three, spec(48, 64), *wide, spec(32)) == [["t0", "t1", "t2", "t3", "t4"]]
    assert kernels(lambda x: (np.sin(x), np.cos(x)), spec(20, 30)) == [["t0", "t1"]]
    assert kernels(lambda x: (x.sum(axis=1), x.max(axis=1), x * 2), spec(20, 30)) == [["t0", "t1", "t2"]]
    assert kernels(lambda x, y: (np.sin(x), np.cos(y)), spec(20, 30), spec(20, 30)) == [["t0"], ["t1"]]
    assert kernels(lambda x: (np.sin(x), np.cos(x.T)), spec(20, 20)) == [["t0"], ["t1"]], "rows of one are columns"
    assert kernels(lambda x: (x.sum(axis=0), x.sum(axis=1)), spec(20, 30)) == [["t0"], ["t1"]]
    assert kernels(lambda x: (x.sum(axis=0), x.max(axis=0)), spec(20, 30)) == [["t0"], ["t1"]], "better row by row"
    assert kernels(lambda x, u: (x @ u, x * 2), spec(20, 30), spec(30, 4)) == [["t0"], ["t1"]]


def test_siblings_that_need_each_other_stay_apart() -> None:
    """Both read x; the second also what a third kernel makes of the first."""
    square = spec(32, 32)
    fn = lambda x, u: (lambda y: (y, x @ (u * y.max())))(x @ u)  # noqa: E731
    groups = kernels(fn, square, square)
    assert not any({"t0", "t3"} <= set(g) for g in groups) and len(groups) > 2


def test_an_epilogue_joins_past_a_kernel_that_comes_later() -> None:
    """What reads a product and, besides, a small array that is made after it, is still its epilogue."""
    fn = lambda x, u, b: np.maximum(x @ u, 0) * (1 / np.sqrt(b + 1))  # noqa: E731
    program = trace(fn, (spec(8, 9), spec(9, 12), spec(12)), {}).program
    plan = partition(program)
    (product,) = [c.name for c in program.computes if c.combiner]
    assert [[*g.names] for g in plan.groups if product in g.names] == [[product, program.outputs[0]]]
    check(plan)


def block(x: Array, wq: Array, wk: Array, wv: Array, wo: Array, g: Array, u: Array, b: Array, v: Array) -> Array:
    def heads(t: Array) -> Array:
        return t.reshape(128, 12, 32).transpose(0, 1, 2).transpose(1, 0, 2)

    def norm(t: Array) -> Array:
        d = t - t.mean(axis=-1, keepdims=True)
        return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + 1e-5) * g

    q, k, p = heads(x @ wq), heads(x @ wk), heads(x @ wv)
    mixed = softmax(q @ k.transpose(0, 2, 1) * np.float32(0.2)) @ p
    h = norm(x + mixed.transpose(1, 0, 2).reshape(128, 384) @ wo)
    return norm(h + ops.gelu(h @ u + b) @ v)


def encoder() -> Plan:
    w = spec(384, 384)
    shapes = (spec(128, 384), w, w, w, w, spec(384), spec(384, 1536), spec(1536), spec(1536, 384))
    return partition(trace(block, shapes, {}).program, True)


def test_the_words_for_an_encoder_block(golden: Callable[[str, str], None]) -> None:
    plan = encoder()
    golden("plan/encoder.txt", str(plan) + "\n")
    assert len(replace(plan, chosen=(0,) * len(plan.regions)).kernels) > len(plan.kernels)
    assert plan.memory.peak < plan.memory.apart
    for n in plan.open:
        assert plan.turned(n).turned(n) == plan and plan.turned(n).ways[n] != plan.ways[n]


@pytest.mark.parametrize(("count", "text"), [(64, "0.1 kB"), (2048, "2.0 kB"), (6_000_000, "6.0 MB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
