"""The interpreter against NumPy and against an evaluator that visits one point at a time; both arithmetics."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.ir.affine import Affine, affine, const, var
from autotune.ir.domains import Float64, P, Residues
from autotune.ir.dtypes import BOOL, F16, F32, F64, I8, I32, I64, U8, DType
from autotune.ir.errors import VerifyError
from autotune.ir.expr import Const, Expr, Index, Load, Op, cast, op
from autotune.ir.interp import Interpreter, interpret
from autotune.ir.lower import lower
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Prefetch, Reduce, Stmt, Store
from autotune.ir.program import COMBINERS, Axis, Buffer, Compute, TensorProgram

from .nests import SCHEDULES, scheduled
from .programs import array, at, axes, biased, compute, normalised, number, product

# ---- a second evaluator: one point at a time ------------------------------------------------------------------------


def pointwise(nest: Nest, arrays: dict[str, np.ndarray], domain: Float64) -> dict[str, np.ndarray]:
    """The outputs of a nest by plain recursion over dictionaries of points."""
    memory: dict[str, dict[tuple[int, ...], Any]] = {b.name: {} for b in nest.buffers}
    for b in nest.buffers:
        if b.scope == "input":
            memory[b.name] = {i: domain.encode(arrays[b.name], b.dtype)[i] for i in np.ndindex(*b.shape)}

    def where(index: tuple[Affine, ...], env: dict[str, int]) -> tuple[int, ...]:
        return tuple(int(a.evaluate(env)) for a in index)

    def value(e: Expr, env: dict[str, int]) -> Any:
        match e:
            case Const():
                return domain.constant(e.value, e.dtype)
            case Load():
                return memory[e.buffer][where(e.index, env)]
            case Index():
                return np.asarray(e.value.evaluate(env), np.int64)
            case Op():
                return domain.apply(e, [np.asarray(value(a, env)) for a in e.args])

    def run(body: tuple[Stmt, ...], env: dict[str, int]) -> None:
        for s in body:
            match s:
                case Loop():
                    for i in range(min(int(e.evaluate(env)) for e in s.extents)):
                        run(s.body, {**env, s.name: i})
                case Guard():
                    if all(c.evaluate(env) >= 0 for c in s.conditions):
                        run(s.body, env)
                case Alloc():
                    memory[s.buffer.name] = {}
                    run(s.body, env)
                case Store():
                    memory[s.buffer][where(s.index, env)] = value(s.value, env)
                case Reduce():
                    cell, new = where(s.index, env), value(s.value, env)
                    if s.first is None or any(a.evaluate(env) for a in s.first):
                        ufunc, encode, decode = domain.monoid(s.combiner, s.value.dtype)
                        old = np.asarray(memory[s.buffer][cell])
                        new = decode(np.asarray(ufunc(encode(old), encode(np.asarray(new)))))
                    memory[s.buffer][cell] = new

    with np.errstate(all="ignore"):
        run(nest.body, {})
    made = {}
    for b in nest.buffers:
        if b.scope == "output":
            made[b.name] = np.zeros(b.shape, domain.storage(b.dtype))
            for i in np.ndindex(*b.shape):
                made[b.name][i] = memory[b.name][i]
    return made


def residues(nest: Nest, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {b.name: rng.integers(0, P, b.shape) for b in nest.buffers if b.scope == "input"}


@pytest.mark.parametrize("name", SCHEDULES)
def test_bands_equal_points(name: str) -> None:
    program, nest = scheduled(name)
    for made in (nest, lower(program)):
        arrays = residues(made)
        want, got = pointwise(made, arrays, Residues(3)), interpret(made, arrays, Residues(3))
        assert all(np.array_equal(want[b], got[b]) for b in want)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_random_reductions_equal_points(data: st.DataObject) -> None:
    """Any index, first, extent and guard, duplicates and restarts included: order decides, and must be kept."""
    names = ("i", "j", "k")

    def draw(lo: int, hi: int) -> int:
        return int(data.draw(st.integers(lo, hi)))

    def linear(lo: int = 0) -> Affine:
        return sum((var(n) * draw(lo, 2) for n in names), Affine()) + draw(0, 2)

    index = linear() if draw(0, 2) else linear() // 2
    first = data.draw(st.sampled_from([None, (), (var("k"),), (var("k"), var("j")), (var("k") - 1,), (linear(-1),)]))
    combiner = data.draw(st.sampled_from(["sum", "max", "prod"]))
    own = draw(0, 3) == 0
    loaded = op("add", at("a", "i", "j"), at("t", index if draw(0, 1) else "j")) if own else at("a", "i", var("k"))
    reduce = Reduce("t", (index,), combiner, loaded, first, "t")
    leaf: Stmt = reduce if draw(0, 4) else Store("t", (index,), loaded, "t")
    inner = (const(draw(1, 3)), var("i") + draw(0, 2)) if draw(0, 1) else (const(draw(0, 3)),)
    if draw(0, 1):
        leaf = Guard((linear(-2),), (leaf,))
    loops = Loop("i", (const(draw(1, 4)),), (Loop("j", (const(draw(1, 3)),), (Loop("k", inner, (leaf,)),)),))
    init = Loop("z", (const(24),), (Store("t", (var("z"),), number(0.5), "t"),))
    nest = Nest((array("a", 6, 6), Buffer("t", F32, (24,), "output")), (init, loops))
    arrays, domain = residues(nest, draw(0, 5)), Residues(draw(0, 5))
    assert np.array_equal(pointwise(nest, arrays, domain)["t"], interpret(nest, arrays, domain)["t"])


# ---- values against NumPy -------------------------------------------------------------------------------------------


def test_programs_give_numpys_values() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((9, 7)), rng.standard_normal((7, 8)), rng.standard_normal(8)
    made = interpret(lower(biased(9, 8, 7)), {"a": a, "b": b, "c": c})["t1"]
    np.testing.assert_allclose(made, np.maximum(a @ b + c, 0), rtol=1e-12)
    e = np.exp(a - a.max(1, keepdims=True))
    made = interpret(lower(normalised(9, 7)), {"a": a})["t2"]
    np.testing.assert_allclose(made, e / e.sum(1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("domain", [Float64(), Residues(1)])
def test_large_products_are_contracted_exactly(domain: Float64, monkeypatch: pytest.MonkeyPatch) -> None:
    nest = lower(product(40, 50, 60))
    arrays = residues(nest) if isinstance(domain, Residues) else {"a": np.ones((40, 60)), "b": np.eye(60)[:, :50]}
    fast = interpret(nest, arrays, domain)["t0"]
    monkeypatch.setattr("autotune.ir.interp.CONTRACT_POINTS", 1 << 30)
    whole = interpret(nest, arrays, domain)["t0"]
    monkeypatch.setattr("autotune.ir.interp.MAX_POINTS", 100)  # one iteration at a time
    assert np.array_equal(fast, whole) and np.array_equal(fast, interpret(nest, arrays, domain)["t0"])


def one(expr: Expr, *inputs: tuple[str, DType, Any], domain: Float64 | None = None) -> Any:
    """The value of an expression whose loads are elements of one-dimensional inputs."""
    n = len(inputs[0][2])
    buffers = tuple(Buffer(name, t, (n,)) for name, t, _ in inputs)
    stage = Compute("t", expr.dtype, (Axis("i", n),), expr)
    arrays = {name: np.asarray(v, t.numpy if domain is None else None) for name, t, v in inputs}
    return interpret(lower(TensorProgram(buffers, (stage,), ("t",))), arrays, domain)["t"]


def load(name: str, dtype: DType) -> Load:
    return Load(name, (var("i"),), dtype)


def test_max_and_min_keep_nan() -> None:
    a, b = [1.0, math.nan, 3.0, math.nan], [2.0, 1.0, math.nan, math.nan]
    for name, want in (("max", [2.0, math.nan, math.nan, math.nan]), ("min", [1.0, math.nan, math.nan, math.nan])):
        made = one(op(name, load("a", F32), load("b", F32)), ("a", F32, a), ("b", F32, b))
        np.testing.assert_array_equal(made, want)


def test_casts_saturate_wrap_and_test_for_zero() -> None:
    values = [math.nan, -math.inf, math.inf, 3.99, -3.99, 1e30, -0.0]
    assert one(cast(load("a", F64), I32), ("a", F64, values)).tolist() == [0, -(2**31), 2**31 - 1, 3, -3, 2**31 - 1, 0]
    top = 2**63
    assert one(cast(load("a", F64), I64), ("a", F64, [2.0**63, -(2.0**63), 2.0**62])).tolist() == [top - 1, -top, 2**62]
    assert one(cast(load("a", F64), U8), ("a", F64, [-5.0, 255.9, 300.0])).tolist() == [0, 255, 255]
    assert one(cast(load("a", I32), I8), ("a", I32, [127, 128, -129, 256])).tolist() == [127, -128, 127, 0]
    truth = one(cast(load("a", F32), BOOL), ("a", F32, [0.0, -0.0, 0.5, math.nan]))
    assert truth.tolist() == [False, False, True, True]
    assert one(cast(load("a", F16), F32), ("a", F16, [0.5, 2.0])).dtype == np.float64


def test_integers_keep_their_width() -> None:
    a, b = [100, -128, 7, -7], [100, -1, -2, 0]
    pair = (("a", I8, a), ("b", I8, b))
    ops = {n: one(op(n, load("a", I8), load("b", I8)), *pair) for n in ("add", "mul", "div", "mod", "max", "xor", "lt")}
    with np.errstate(all="ignore"):
        x, y = np.array(a, np.int8), np.array(b, np.int8)
        want = {"add": x + y, "mul": x * y, "div": x // y, "mod": x % y, "xor": x ^ y, "lt": x < y}
    want["max"] = np.maximum(x, y)
    for name, made in ops.items():
        assert made.dtype == want[name].dtype and made.tolist() == want[name].tolist(), name
    assert one(op("abs", load("a", I8)), ("a", I8, [-128, 5])).tolist() == [-128, 5]
    assert one(op("shr", load("a", I8), load("b", I8)), ("a", I8, [-8, 8]), ("b", I8, [1, 2])).tolist() == [-4, 2]
    assert one(op("not", load("a", BOOL)), ("a", BOOL, [True, False])).tolist() == [False, True]


def test_floor_rint_mod_and_where_are_numpys() -> None:
    a = [2.5, -2.5, 0.5, -7.0]
    assert one(op("rint", load("a", F32)), ("a", F32, a)).tolist() == [2.0, -2.0, 0.0, -7.0]
    assert one(op("mod", load("a", F32), Const(3.0, F32)), ("a", F32, a)).tolist() == np.mod(a, 3.0).tolist()
    chosen = op("where", op("lt", load("a", F32), Const(0.0, F32)), Const(1.0, F32), load("a", F32))
    assert one(chosen, ("a", F32, a)).tolist() == [2.5, 1.0, 0.5, 1.0]
    masked = op("where", op("lt", Index(var("i") * 2), Const(3, I64)), load("a", F32), Const(-math.inf, F32))
    assert one(masked, ("a", F32, a)).tolist() == [2.5, -2.5, -math.inf, -math.inf]


# ---- residues -------------------------------------------------------------------------------------------------------

words = st.lists(st.integers(0, P - 1), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(words, st.integers(0, 9))
def test_residues_are_a_field_with_an_order(xs: list[int], seed: int) -> None:
    d = Residues(seed)
    x, y, z = (np.asarray([v]) for v in xs)

    def do(name: str, *args: np.ndarray) -> Any:
        return d.primitive(name, list(args))

    assert do("mul", x, do("add", y, z)) == do("add", do("mul", x, y), do("mul", x, z))
    assert do("mul", x, do("add", y, z)) == do("fma", x, y, do("mul", x, z))
    assert do("sub", do("add", x, y), y) == x and do("add", x, do("neg", x)) == 0
    if xs[1]:
        assert do("mul", do("div", x, y), y) == x and do("div", x, y) == do("mul", x, do("recip", y))
    assert do("max", x, do("max", y, z)) == do("max", do("max", z, x), y) and do("max", x, y) in (x, y)
    assert do("max", x, y) + do("min", x, y) == x + y
    assert bool(do("lt", x, y)) == (xs[0] != xs[1] and bool(do("max", x, y) == y))
    ends = d.constant(-math.inf, F32), d.constant(math.inf, F32)
    assert do("max", x, ends[0]) == x and do("min", x, ends[1]) == x and do("max", x, ends[1]) == ends[1]


def test_zero_is_near_an_end_of_the_order_and_maps_differ() -> None:
    x = np.random.default_rng(0).integers(0, P, 4000)
    below, above = (float((Residues(s).primitive("lt", [x, np.asarray(0)])).mean()) for s in (6, 7))
    assert 0.92 < below < 0.96 and 0.04 < above < 0.08
    d = Residues(7)
    images = [d.primitive(name, [x]) for name in ("exp", "exp2", "log", "log2", "sqrt", "sin", "abs", "floor", "rint")]
    images += [d.cast(x, F32, F16), d.cast(x, F32, I32).astype(np.int64), x]
    assert all((a == b).sum() < 3 for n, a in enumerate(images) for b in images[:n])
    assert np.array_equal(d.cast(x, F16, F32), x)


def test_constants_are_rationals() -> None:
    d = Residues()
    for value in (0.1, -2.5, 3.0, 2.0**-40):
        exact = Fraction(value)
        assert int(d.constant(value, F32)) * exact.denominator % P == exact.numerator % P
    with pytest.raises(ValueError, match="integers in 0"):
        d.encode(np.zeros(3), F32)


# ---- what is refused ------------------------------------------------------------------------------------------------

X, T = array("x", 4), Buffer("t", F32, (4,), "output")
SCRATCH = Buffer("s", F32, (4,), "scratch")


def each(name: str, n: int, *body: Stmt, kind: str = "serial") -> Loop:
    return Loop(name, (affine(n),), body, kind)


def store(buffer: str, index: Affine | str, value: Expr) -> Store:
    return Store(buffer, (affine(index),), value, buffer)


def refused(match: str, *body: Stmt) -> None:
    with pytest.raises(VerifyError, match=match):
        interpret(Nest((X, T), body), {"x": np.arange(4.0)})


def test_undefined_memory_is_never_read() -> None:
    copy_in, copy_out = store("s", "i", at("x", "i")), each("i", 4, store("t", "i", at("s", "i")))
    refused(r"s\[3\] is read before it is written", Alloc(SCRATCH, (each("i", 3, copy_in), copy_out)))
    refused(r"t\[0\] is read before", each("i", 4, Reduce("t", (var("i"),), "sum", at("x", "i"), None, "t")))
    # What one execution of an allocation wrote is gone in the next.
    fill = Guard((-var("r"),), (each("i", 4, copy_in),))
    refused("s.* is read before it is written", each("r", 2, Alloc(SCRATCH, (fill, copy_out))))


def test_bounds_outputs_types_and_names_are_checked() -> None:
    refused(r"x\[4\] has no index 4 = i \+ 1", each("i", 4, store("t", "i", at("x", var("i") + 1))))
    refused(r"t\[4\] has no index -1 ", each("i", 4, store("t", var("i") - 1, at("x", "i"))))
    refused("has no index 4", Prefetch("t", (affine(4),), "t"))
    refused(r"t\[3\] is never written", each("i", 3, store("t", "i", at("x", "i"))))
    refused("the input x is written", each("i", 4, store("x", "i", at("x", "i"))))
    refused("a value of int64 is stored", each("i", 4, store("t", "i", Index(var("i")))))
    refused("'q' is no loop or buffer", each("i", 4, store("t", "i", at("x", "q"))))
    refused("has 1 dimensions, its index has 2", each("i", 4, store("t", "i", at("x", "i", 0))))


# ---- order ----------------------------------------------------------------------------------------------------------


def test_a_statement_that_reads_its_own_buffer_runs_in_order() -> None:
    start = store("t", affine(0), at("x", 0))
    scan = each("i", 3, store("t", var("i") + 1, op("add", at("t", "i"), at("x", var("i") + 1))))
    assert interpret(Nest((X, T), (start, scan)), {"x": np.arange(4.0)})["t"].tolist() == [0.0, 1.0, 3.0, 6.0]
    double = each("r", 3, each("i", 4, store("t", "i", op("add", at("t", "i"), at("t", "i")))))
    fill = each("i", 4, store("t", "i", at("x", "i")))
    assert interpret(Nest((X, T), (fill, double)), {"x": np.arange(4.0)})["t"].tolist() == [0.0, 8.0, 16.0, 24.0]


def test_the_last_of_several_stores_wins() -> None:
    nest = Nest((array("x", 3, 4), T), (each("i", 3, each("j", 4, store("t", "j", at("x", "i", "j")))),))
    assert interpret(nest, {"x": np.arange(12.0).reshape(3, 4)})["t"].tolist() == [8.0, 9.0, 10.0, 11.0]


def test_parallel_loops_do_not_run_in_order() -> None:
    body = Reduce("t", (var("i"),), "sum", at("x", "k"), (var("k"),), "t")
    nest = Nest((X, T), (each("k", 4, each("i", 4, body), kind="parallel"),))
    for seed in range(4):
        try:
            made = interpret(nest, {"x": np.array([1, 10, 100, 1000])}, Residues(seed))["t"]
        except VerifyError as error:
            assert "read before it is written" in str(error)
        else:
            assert (made != 1111).all()


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("n", [1, 5])
def test_horizontal_reductions(combiner: str, n: int) -> None:
    dtype = BOOL if combiner in ("any", "all") else I32
    acc = Buffer("acc", dtype, (n,), "register")
    total = Reduce("s", (), combiner, Load("acc", (var("l"),), dtype), (const(0), var("l")), "s")
    copied = store("acc", "l", Load("x", (var("l"),), dtype))
    nest = Nest(
        (Buffer("x", dtype, (n,)), Buffer("s", dtype, (), "output")),
        (Alloc(acc, (each("l", n, copied, kind="vector"), each("l", n, total, kind="vector"))),),
    )
    x = np.random.default_rng(n).integers(-3, 9, n).astype(dtype.numpy)
    ufunc: Any = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}.get(combiner)
    ufunc = ufunc or {"any": np.logical_or, "all": np.logical_and}[combiner]
    assert interpret(nest, {"x": x})["s"] == ufunc.reduce(x, dtype=dtype.numpy)


def test_zero_trips_and_scalars() -> None:
    empty = each("i", 4, Loop("j", (var("i") - 9,), (store("t", "i", at("x", "j")),)))
    nest = Nest((X, T), (each("i", 4, store("t", "i", at("x", "i"))), empty))
    assert interpret(nest, {"x": np.arange(4.0)})["t"].tolist() == [0.0, 1.0, 2.0, 3.0]
    stage = Compute("t0", F32, (), at("a", "k"), (Axis("k", 5),), "max")
    program = TensorProgram((array("a", 5),), (stage,), ("t0",))
    assert interpret(lower(program), {"a": np.arange(5.0)})["t0"] == 4.0
    none = TensorProgram((array("a", 3, 0),), (compute("t0", axes(i=3), at("a", "i", "k"), axes(k=0)),), ("t0",))
    assert interpret(lower(none), {"a": np.zeros((3, 0))})["t0"].tolist() == [0.0] * 3


def test_sampled_loops_run_first_middle_and_last() -> None:
    nest = Nest((X, T), (each("i", 4, store("t", "i", at("x", "i"))),))
    memory = Interpreter(nest, frozenset({id(nest.body[0])})).run({"x": np.arange(4.0)}, Float64())
    assert memory["t"].defined is not None and memory["t"].defined.tolist() == [True, False, True, True]
