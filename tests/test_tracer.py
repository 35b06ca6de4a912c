"""Tracing: the shape of the programs, arguments and results, and what is refused, with which line."""

from __future__ import annotations

import inspect
import math
import os
import random
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.inlining import MAX_OPS, simplify
from autotune.ir.affine import var
from autotune.ir.dtypes import F32
from autotune.ir.errors import SignatureError, TraceError
from autotune.ir.expr import Op, walk
from autotune.ir.program import Compute, TensorProgram
from autotune.tracer import Tracer, spec, trace

from .evaluation import check, evaluate, run, same, values

rng = np.random.default_rng(0)
A, C = (rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2))
ROW, GLOBAL = (rng.standard_normal(6).astype(np.float32) for _ in range(2))

# ---- structure of programs ------------------------------------------------------------------------------------------


def shown(program: TensorProgram) -> list[str]:
    from autotune.ir.expr import show

    def line(c: Compute) -> str:
        combiner = f"{c.combiner}({', '.join(a.name for a in c.reduce_axes)}) " if c.combiner else ""
        return f"{c.name}[{', '.join(a.name for a in c.axes)}] = {combiner}{show(c.body)}"

    return [line(c) for c in program.computes]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_softmax_is_four_computes() -> None:
    assert shown(trace(softmax, (spec("f32", (8, 16)),)).program) == [
        "t0[a0] = max(r0) x[a0, r0]",
        "t1[a0, a1] = exp((x[a0, a1] - t0[a0]))",
        "t2[a0] = sum(r0) t1[a0, r0]",
        "t3[a0, a1] = (t1[a0, a1] / t2[a0])",
    ]
    check(softmax, A)


def test_layer_norm_recomputes_the_cheap_difference_and_keeps_the_row_statistics() -> None:
    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        d = x - x.mean(-1, keepdims=True)
        return d / np.sqrt(np.mean(d * d, -1, keepdims=True) + 1e-5) * w + b

    assert shown(trace(layer_norm, (spec("f32", (8, 16)), spec("f32", 16), spec("f32", 16))).program) == [
        "t0[a0] = sum(r0) x[a0, r0]",
        "t1[a0] = (t0[a0] / 16)",
        "t2[a0] = sum(r0) ((x[a0, r0] - t1[a0]) * (x[a0, r0] - t1[a0]))",
        "t3[a0] = sqrt(((t2[a0] / 16) + 1e-05))",
        "t4[a0, a1] = ((((x[a0, a1] - t1[a0]) / t3[a0]) * w[a1]) + b[a1])",
    ]
    check(layer_norm, A, ROW, ROW)


def test_dense_layer_keeps_casts_in_the_product_and_one_epilogue() -> None:
    dense = lambda x, w, b: np.maximum(x @ w + b, 0)  # noqa: E731
    assert shown(trace(dense, (spec("f16", (1, 8)), spec("f16", (8, 3)), spec("f16", 3))).program) == [
        "t0[a0, a1] = sum(r0) (cast_f32(x[a0, r0]) * cast_f32(w[r0, a1]))",
        "t1[a0, a1] = cast_f16(max((t0[a0, a1] + cast_f32(b[a1])), 0))",
    ]


@pytest.mark.parametrize(
    "fn, expected",
    [
        (lambda x, w: (x @ w).T, ["t0[a0, a1] = sum(r0) (x[a1, r0] * w[r0, a0])"]),
        (lambda x, w: x.sum(0, keepdims=True), ["t0[a0, a1] = sum(r0) x[r0, a1]"]),
        (lambda x, w: abs(x) @ w, ["t0[a0, a1] = abs(x[a0, a1])", "t1[a0, a1] = sum(r0) (t0[a0, r0] * w[r0, a1])"]),
        (lambda x, w: x, ["t0[a0, a1] = x[a0, a1]"]),
        (lambda x, w: (x[0], x[0] + 1), ["t0[a0] = x[0, a0]", "t1[a0] = (x[0, a0] + 1)"]),
        (lambda x, w: ((y := x * 2), y), ["t0[a0, a1] = (x[a0, a1] * 2)"]),
        (lambda x, w: np.exp(x).sum() + 0 * np.sin(x)[0, 0] * 0, None),
        (lambda x, w: x.reshape(2, 2, 8)[:, 1].reshape(16) * 1.5, ["t0[a0] = (x[2*(a0)//8 + 1, (a0)%8] * 1.5)"]),
        (lambda x, w: x.reshape(32).reshape(4, 8) + x.T.T, ["t0[a0, a1] = (x[a0, a1] + x[a0, a1])"]),
        (lambda x, w: (h := x * x + 1).sum(1) + h.max(1), None),
    ],
)  # fmt: skip
def test_shape_of_programs(fn: Any, expected: list[str] | None) -> None:
    program = trace(fn, (spec("f32", (4, 8)), spec("f32", (8, 3)))).program
    assert expected is None or shown(program) == expected
    check(fn, values(np.dtype("f4"), (4, 8)), values(np.dtype("f4"), (8, 3)))


def test_an_expression_used_by_two_reductions_is_stored_once() -> None:
    program = trace(lambda x: (h := x * x + 1).sum(1) + h.max(1), (spec("f32", (4, 8)),)).program
    assert shown(program)[0] == "t0[a0, a1] = ((x[a0, a1] * x[a0, a1]) + 1)" and len(program.computes) == 4


def random_function(draw: random.Random) -> Callable[[Any, Any], Any]:
    """Some tens of operations on values of shape (4, 6), with sharing, broadcasts, views, reductions and products."""
    unary: list[Callable[[Any], Any]] = [
        lambda v: v * 0.5 + 1, np.tanh, np.exp2, lambda v: v.reshape(6, 4).T.reshape(4, 6),
        lambda v: v - v.max(1)[:, None], lambda v: v + v.mean(0), lambda v: np.concatenate([v[:, 3:], v[:, :3]], 1),
        lambda v: v / (1 + v.sum(1, keepdims=True) ** 2), lambda v: (v @ v.T @ v) * 0.01, lambda v: v[:, :1] + v,
        lambda v: np.where(v > 0, v, v[0]), lambda v: np.broadcast_to(np.sqrt(abs(v).sum()), (4, 6)) * v * 0.1,
    ]  # fmt: skip
    binary: list[Callable[[Any, Any], Any]] = [np.add, np.multiply, np.maximum, lambda v, w: v - w[1]]
    plan = [(draw.choice(unary), draw.choice(binary), draw.random(), draw.random()) for _ in range(draw.randint(2, 14))]
    outputs = draw.randint(1, 3)

    def fn(x: Any, y: Any) -> Any:
        known = [x, y]
        for one, two, first, second in plan:
            a, b = (known[int(len(known) * part)] for part in (first, second))
            known.append(np.clip(one(two(a, b)), -3, 3))
        return known[-outputs:]

    return fn


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    check(random_function(random.Random(seed)), A.astype(np.float64), C.astype(np.float64), tolerance=1e-9)


@pytest.mark.parametrize(
    "step", [lambda t: t * t * 0.5, lambda t: np.tanh(t) + t, lambda t: t + 1], ids=["square", "tanh", "add"]
)
def test_long_chains_are_cut(step: Callable[[Any], Any]) -> None:
    def chain(x: Any) -> Any:
        for _ in range(60):
            x = step(x)
        return x

    program = trace(chain, (spec("f64", 5),)).program
    assert 1 <= len(program.computes) <= 60
    for c in program.computes:
        assert len({n for n in walk(c.body) if isinstance(n, Op)}) <= MAX_OPS
    x = np.linspace(-0.9, 0.9, 5)
    check(chain, x)


def test_what_overlapping_windows_share_is_computed_once() -> None:
    def made(fn: Callable[..., Any]) -> int:
        return len(trace(fn, (spec("f32", (4, 12)),)).program.computes)

    windows = np.lib.stride_tricks.sliding_window_view
    assert made(lambda x: windows(np.exp(x), 3, 1).max(-1)) == 2
    assert made(lambda x: windows(np.exp(x), 3, 1)[:, ::3].max(-1)) == made(lambda x: np.exp(x)[:, ::2].max(-1)) == 1
    assert made(lambda x: np.exp(x).reshape(4, 4, 3).max(-1)) == 1
    assert made(lambda x: np.concatenate([x[:, :6] * x[:, 6:] + 1, np.exp(x[:, ::2])], 1)) == 1


def test_positions_are_compared_and_never_stored() -> None:
    def masked(x: Any) -> Any:
        row, column = np.arange(4, like=x)[:, None], np.arange(12, like=x)
        return np.where((column <= row + 8) & (column > row - 3), x, -np.inf).max(1)

    assert [c.combiner for c in trace(masked, (spec("f32", (4, 12)),)).program.computes] == ["max"]


def test_an_axis_of_one_is_the_axis_of_one_there() -> None:
    program = trace(lambda x: softmax(x * 2 + 1), (spec("f32", (1, 4, 8, 16)),)).program
    assert {c.shape[:3] for c in program.computes} == {(1, 4, 8)}


def test_unused_operations_leave_no_trace_and_unused_arguments_stay() -> None:
    program = trace(lambda x, y: (np.exp(y).sum(), x + 1)[1], (spec("f32", 3), spec("f32", 4))).program
    assert shown(program) == ["t0[a0] = (x[a0] + 1)"] and [b.name for b in program.inputs] == ["x", "y"]


def test_digest_ignores_names_and_is_kept_by_json() -> None:
    from autotune.ir.program import from_json, to_json

    one = trace(lambda x, y: softmax(x) * y, (spec("f32", (3, 4)), spec("f32", 4))).program
    two = trace(lambda t0, b: softmax(t0) * b, (spec("f32", (3, 4)), spec("f32", 4))).program
    assert one.digest == two.digest == from_json(to_json(one)).digest
    assert one.digest != trace(lambda x, y: softmax(x) + y, (spec("f32", (3, 4)), spec("f32", 4))).program.digest


def test_simplify_keeps_the_value() -> None:
    extents = {"a": 5, "b": 3, "c": 4}
    draw = random.Random(1)
    grid = dict(zip(extents, np.ogrid[:5, :3, :4]))
    for _ in range(300):
        value = sum((var(n) * draw.randint(-3, 12) for n in extents), var("a") * 0) + draw.randint(-5, 20)
        for _ in range(draw.randint(1, 3)):
            value = (value // draw.randint(1, 12)) if draw.random() < 0.5 else (value % draw.randint(1, 12)) + var("b")
        assert np.all(simplify(value, extents).evaluate(grid) == value.evaluate(grid))
    flat = var("a") * 12 + var("b") * 4 + var("c")
    assert [str(simplify(e, extents)) for e in (flat // 12, flat // 4 % 3, flat % 4, flat // 4)] == [
        "a",
        "b",
        "c",
        "3*a + b",
    ]


# ---- arguments, hidden inputs, results ------------------------------------------------------------------------------


def test_arguments_results_and_static_values() -> None:
    Pair = namedtuple("Pair", "left right")

    def fn(x: Any, many: Any, *rest: Any, scale: float, table: Any = None, mode: str) -> Any:
        assert mode == "double" and isinstance(x, Tracer)
        return {"sum": x + many[0], "pair": Pair(many[1]["w"] * scale, rest[0] + table), "scale": scale, "none": None}

    traced = trace(fn, (A, [C, {"w": ROW}], ROW), {"scale": 3.0, "table": ROW, "mode": "double"}, name="named")
    assert traced.name == "named"
    assert [b.name for b in traced.program.inputs] == ["x", "many_0", "many_1_w", "rest0", "table"]
    assert traced.arguments == (
        ("arg", 0, ()), ("arg", 1, (0,)), ("arg", 1, (1, "w")), ("arg", 2, ()), ("arg", "table", ()),
    )  # fmt: skip
    result = traced.rebuild(evaluate(traced.program, [A, C, ROW, ROW, ROW], wide=False))
    assert list(result) == ["sum", "pair", "scale", "none"] and result["scale"] == 3.0 and result["none"] is None
    np.testing.assert_array_equal(result["pair"].left, ROW * 3)
    np.testing.assert_array_equal(result["sum"], A + C)


def test_captured_arrays_are_hidden_inputs_by_identity() -> None:
    local = ROW.copy()

    def fn(x: Any) -> Any:
        return x * local + GLOBAL - local + np.arange(6, dtype=np.float32)

    traced = trace(fn, (A,))
    assert [source[0] for source in traced.arguments] == ["arg", "hidden", "hidden", "hidden"]
    assert traced.arguments[1][1] is local and traced.arguments[2][1] is GLOBAL
    check(fn, A)
    assert run(lambda x: (x, GLOBAL), A)[1] is not GLOBAL
    check(lambda x: x + np.float64(1).reshape(()), A)  # an array of no dimension promotes like one
    masked = np.ma.masked_array(ROW)
    with pytest.raises(TraceError, match="MaskedArray"):
        trace(lambda x: np.add(masked, x), (A,))
    with pytest.raises(TraceError, match="byte order"):
        trace(lambda x: x + ROW.astype(">f4"), (A,))


def test_ufuncs_builtins_and_lambdas_trace() -> None:
    same(run(np.add, A, C), A + C)
    same(run(abs, A), np.abs(A))
    same(run(lambda *a: a[0] - a[1], A, C), A - C)


def test_spec() -> None:
    made = spec("f32", (128, 768))
    assert (made.dtype, made.shape, made.strides, str(made)) == (F32, (128, 768), None, "f32[128, 768]")
    assert spec(np.int8, 5, [2]).strides == (2,) and spec("bool", ()).size == 1
    for bad in (lambda: spec("complex64", 3), lambda: spec("f32", (-1,)), lambda: spec("f32", (1 << 40, 1 << 40)),
                lambda: spec("f32", (3, 4), (1,)), lambda: trace(abs, (np.zeros(3, object),))):  # fmt: skip
        with pytest.raises(SignatureError):
            bad()


def test_rebinding_operators_are_not_assignments() -> None:
    def fn(x: Any, y: Any) -> Any:
        total = x
        total += y
        total *= 2
        return total

    check(fn, A, C)


# ---- refusals -------------------------------------------------------------------------------------------------------


def branch(t: Any) -> Any:
    if t.sum() > 0:
        return t
    return -t


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (branch, "np.where"), (lambda t: float(t[0, 0]), r"np\.exp"), (lambda t: int(t[0, 0]), "astype"),
    (lambda t: [1, 2][t[0, 0]], "static|Python integers"), (lambda t: np.asarray(t), "as it is"),
    (lambda t: math.exp(t[0, 0]), r"np\.exp"), (lambda t: np.array([t, t]), r"np\.stack"),
    (lambda t: t.__setitem__(0, 1), r"np\.where"), (lambda t: [r for r in t], "reductions"),
    (lambda t: 1.0 in t, r"np\.any"), (lambda t: np.sort(t), "np.sort cannot be traced"),
    (lambda t: t.sort(), "ndarray.sort"), (lambda t: t @ t, r"\(4, 6\) and \(4, 6\).*6 and 4"),
    (lambda t: t + np.zeros(5), r"\(4, 6\) and \(5,\)"), (lambda t: t[t > 0], r"np\.where\(mask"),
    (lambda t: t[[0, 1]], "static"), (lambda t: t[np.array([0, 1])], "static"),
    (lambda t: GLOBAL[t], "index|NumPy array"), (lambda t: np.add(t, t, out=np.zeros((4, 6), np.float32)), "out="),
    (lambda t: np.add(t, t, out=t), "out="), (lambda t: np.sum(t, axis=0, out=GLOBAL), "out="),
    (lambda t: t[9], "out of bounds"), (lambda t: t[0, 0, 0], "too many indices"),
    (lambda t: t[5], "out of bounds"), (lambda t: t.reshape(5, 5), "reshape"),
    (lambda t: t.reshape(6, 4, order="F"), "order"), (lambda t: np.sum(t, axis=7), "axis 7"),
    (lambda t: t.sum(where=t > 0), "where"), (lambda t: np.where(t > 0), "depends on data"),
    (lambda t: np.arctan2(t, t), "arctan2"), (lambda t: np.logical_or.accumulate(t), "accumulate"),
    (lambda t: np.random.default_rng(0).normal(t), "NumPy array"), (lambda t: t + 1j, "complex"),
    (lambda t: t + None, "NoneType"), (lambda t: t + "a", "str"), (lambda t: t & t, "bitwise_and"),
    (lambda t: t.tolist(), "tolist"), (lambda t: t.item(), "item"), (lambda t: t[:0].max(axis=0), "empty axis"),
    (lambda t: np.einsum("ij,jk", t, t), "do not match"), (lambda t: np.einsum("ijk->i", t), "do not fit"),
    (lambda t: np.concatenate([t, t[:, :1]]), "must agree"), (lambda t: t.astype(np.int8) + 300, "300"),
    (lambda t: t.astype("c8"), "complex"), (lambda t: t.astype(np.int32) ** t.astype(np.int32), "exponent"),
    (lambda t: np.broadcast_to(t[0, 0], (1 << 40, 1 << 40)), "too large|too big|dimension"),
    (lambda t: t @ np.float32(2), "no dimension"), (lambda t: np.add(t, 1, where=t > 0), "where"),
    (lambda t: np.broadcast_to(t, (3, 3)), "broadcast"), (lambda t: np.ones(6).__iadd__(t), "out="),
]  # fmt: skip


@pytest.mark.parametrize("fn, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_the_line_and_the_alternative(fn: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        trace(fn, (A,))
    line = fn.__code__.co_firstlineno
    lines, _ = inspect.getsourcelines(fn)
    found = str(caught.value).split(" in ")[0]
    path, _, number = found.rpartition(":")
    assert os.path.samefile(path, __file__) and line <= int(number) <= line + max(len(lines), 2) - 1, str(caught.value)


def test_the_line_of_a_statement_in_the_middle_and_of_a_helper() -> None:
    def helper(t: Any) -> Any:
        u = t * 2
        return u if u.any() else t

    def fn(t: Any) -> Any:
        t = t + 1
        t = helper(t)
        return t

    with pytest.raises(TraceError) as caught:
        trace(fn, (A,))
    line = inspect.getsourcelines(helper)[1] + 2
    assert f"test_tracer.py:{line} in helper (`return u if u.any() else t`)" in str(caught.value)


def test_a_traced_array_does_not_outlive_its_trace() -> None:
    kept: dict[str, Any] = {}
    trace(lambda x: kept.setdefault("x", x), (A,))
    with pytest.raises(TraceError, match="earlier call"):
        trace(lambda x: x + kept["x"], (A,))


def test_random_numbers_from_the_global_generators_are_refused() -> None:
    with pytest.raises(TraceError, match="random"):
        trace(lambda x: x + np.random.rand(6), (A,))
    with pytest.raises(TraceError, match="random"):
        trace(lambda x: x + random.random(), (A,))


def test_the_functions_own_exceptions_pass() -> None:
    def fn(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(fn, (A,))
    assert not hasattr(Tracer, "__array_interface__")
