"""Programs as data: JSON there and back, and a digest that depends on what is computed and on no name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from autotune.ir.affine import const, var
from autotune.ir.dtypes import ALL, BF16, BOOL, F32, I8, I32, U8, DType, dtype
from autotune.ir.errors import SignatureError
from autotune.ir.expr import PRIMITIVES, Const, Expr, Index, Load, Op, cast, op, show, substitute, walk
from autotune.ir.program import COMBINERS, Axis, Buffer, Compute, TensorProgram, canonical_names, from_json, to_json
from tests.ir.programs import (
    array,
    at,
    axes,
    biased,
    chained,
    compute,
    normalised,
    number,
    product,
    row_sum,
    scale,
    shifted,
    transposed,
    window,
)

PROGRAMS = {
    "scale": scale(10),
    "shifted": shifted(5, 6),
    "transposed": transposed(5, 6),
    "product": product(5, 6, 7),
    "prologue": product(5, 6, 7, prologue=True),
    "biased": biased(5, 6, 7),
    "row_sum": row_sum(5, 22),
    "normalised": normalised(5, 7),
    "chained": chained(10),
    "window": window(9, 3),
}


def mixed() -> TensorProgram:
    """Every kind of node: casts, comparisons, indices, infinities, integers, run-time strides, a constant result."""
    i, j = var("i"), var("j")
    x = cast(Load("a", (i, (2 * j) % 6), BF16), F32)
    mask = op("lt", Index(3 * i + j // 2), cast(Load("n", (), I32), Index(i).dtype))
    body = op("where", mask, op("max", x, Const(-math.inf, F32)), Const(math.nan, F32))
    return TensorProgram(
        (Buffer("a", BF16, (5, 6), "input", ("a.s0", 1)), Buffer("n", I32, ())),
        (
            Compute("t0", F32, axes(i=5, j=6), body),
            Compute("t1", BOOL, axes(i=5), op("eq", at("t0", "i", "j"), number(0.0)), axes(j=6), "any"),
            Compute("t2", U8, (), Const(7, U8)),
        ),
        ("t1", "t2", "t0"),
    )


ALL_PROGRAMS = {**PROGRAMS, "mixed": mixed()}


def renamed(program: TensorProgram) -> TensorProgram:
    """The same program with other names for everything."""
    names = {b.name: f"in_{n}_z" for n, b in enumerate(program.inputs)} | {
        c.name: f"made_{c.name}" for c in program.computes
    }

    def rename(node: Expr) -> Expr:
        if isinstance(node, Op):
            return Op(node.name, tuple(rename(a) for a in node.args), node.dtype)
        return Load(names[node.buffer], node.index, node.dtype) if isinstance(node, Load) else node

    computes = []
    for c in program.computes:
        # Reversed letters: an order of names that disagrees with the order of axes must not matter either.
        c = c.renamed({a.name: f"{chr(ord('z') - n)}q" for n, a in enumerate(c.all_axes)})
        computes.append(Compute(names[c.name], c.dtype, c.axes, rename(c.body), c.reduce_axes, c.combiner))
    inputs = []
    for b in program.inputs:
        strides = b.strides and tuple(
            s if isinstance(s, int) else f"{names[b.name]}.stride{d}" for d, s in enumerate(b.strides)
        )
        inputs.append(Buffer(names[b.name], b.dtype, b.shape, b.scope, strides))
    return TensorProgram(tuple(inputs), tuple(computes), tuple(names[o] for o in program.outputs))


@pytest.mark.parametrize("program", ALL_PROGRAMS.values(), ids=ALL_PROGRAMS.keys())
def test_json_round_trip(program: TensorProgram) -> None:
    text = json.dumps(to_json(program))
    again = from_json(json.loads(text))
    assert json.dumps(to_json(again)) == text and again.digest == program.digest
    if "NaN" not in text and "nan" not in text:
        assert again == program


@pytest.mark.parametrize("program", ALL_PROGRAMS.values(), ids=ALL_PROGRAMS.keys())
def test_digest_depends_on_no_name(program: TensorProgram) -> None:
    other = renamed(program)
    assert to_json(other) != to_json(program)
    assert other.canonical == program.canonical and other.digest == program.digest
    canonical = canonical_names(program)
    assert to_json(canonical) == program.canonical == canonical.canonical


def test_digests_tell_programs_apart() -> None:
    minus = op("sub", at("a", "i", "j"), at("b", "j"))
    different = [
        *ALL_PROGRAMS.values(), scale(11), shifted(6, 5), product(5, 7, 6), transposed(6, 5),
        window(8, 3), normalised(7, 5),
        TensorProgram(shifted(5, 6).inputs, (compute("t0", axes(i=5, j=6), minus),), ("t0",)),
        TensorProgram((array("a", 5, 6),), (compute("t0", axes(i=5), at("a", "i", "j"), axes(j=6), "max"),), ("t0",)),
        TensorProgram((Buffer("a", F32, (10,), "input", (2,)),), scale(10).computes, ("t0",)),
        TensorProgram((Buffer("a", F32, (10,), "input", ("a.s0",)),), scale(10).computes, ("t0",)),
        TensorProgram(chained(10).inputs, chained(10).computes, ("t0", "t1")),
        TensorProgram(chained(10).inputs, chained(10).computes, ("t1", "t0")),
    ]  # fmt: skip
    assert len({p.digest for p in different}) == len(different)


def test_an_argument_read_twice_is_not_two_arguments() -> None:
    both = compute("t0", axes(i=10), op("mul", at("a", "i"), at("a", "i")))
    two = compute("t0", axes(i=10), op("mul", at("a", "i"), at("b", "i")))
    inputs = (array("a", 10), array("b", 10))
    assert TensorProgram(inputs, (both,), ("t0",)).digest != TensorProgram(inputs, (two,), ("t0",)).digest


def test_from_json_refuses_what_to_json_never_wrote() -> None:
    good = to_json(product(5, 6, 7))

    def broken(change: Callable[[Any], object]) -> Any:
        value = json.loads(json.dumps(good))
        change(value)
        return value

    wrong: list[tuple[Callable[[Any], object], type[Exception] | tuple[type[Exception], ...]]] = [
        (lambda v: v.pop("computes"), KeyError),
        (lambda v: v["computes"][0].pop("body"), KeyError),
        (lambda v: v["computes"][0].update(combiner=None), ValueError),
        (lambda v: v["computes"][0].update(body=["explode", [], "f32"]), ValueError),
        (lambda v: v["computes"][0].update(body=["add", [["index", 0]], "f32"]), ValueError),
        (lambda v: v["computes"][0].update(axes=[["i"]]), ValueError),
        (lambda v: v["inputs"][0].update(shape=["many"]), ValueError),
        (lambda v: v["inputs"][0].update(dtype="f31"), SignatureError),
    ]
    for change, error in wrong:
        with pytest.raises(error):
            from_json(broken(change))


def test_what_a_program_costs() -> None:
    p = biased(5, 6, 7)
    assert p.flops == 5 * 6 * 7 * 2 + 5 * 6 * 2
    assert p.bytes == 4 * (5 * 7 + 7 * 6 + 6 + 5 * 6)
    assert [b.scope for b in p.buffers] == ["input", "input", "input", "temp", "output"]
    assert p.consumers("t0") == (p.compute("t1"),) and p.consumers("t1") == ()


def test_a_combiner_and_its_axes_come_together() -> None:
    with pytest.raises(ValueError, match="t0: a combiner and reduce axes"):
        Compute("t0", F32, axes(i=3), at("a", "i"), (), "sum")
    with pytest.raises(ValueError, match="t0: a combiner and reduce axes"):
        Compute("t0", F32, axes(i=3), at("a", "i"), axes(j=3))


@pytest.mark.parametrize("name", COMBINERS)
def test_identities(name: str) -> None:
    combine: dict[str, Callable[[Any, Any], Any]] = {
        "sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "max": max, "min": min,
        "any": lambda a, b: a | b, "all": lambda a, b: a & b,
    }  # fmt: skip
    logical = name in ("any", "all")
    for kind in (BOOL,) if logical else (F32, I8, U8):
        samples = [False, True] if kind == BOOL else [0, 1, 5, *([-7] if kind != U8 else [])]
        assert all(combine[name](COMBINERS[name].identity(kind), x) == x for x in samples)
    if name in ("max", "min"):
        assert COMBINERS[name].identity(I8) == (-128 if name == "max" else 127)
        assert COMBINERS[name].identity(U8) == (0 if name == "max" else 255)


def test_strides() -> None:
    assert array("a", 3, 4, 5).contiguous_strides == (20, 5, 1)
    assert array("a", 3, 0, 5).contiguous_strides == (5, 5, 1) and array("a", 3, 0, 5).size == 0
    assert Buffer("a", F32, (3, 4), "input", ("a.s0", 1)).element_strides == ("a.s0", 1)


def test_renaming_axes_is_simultaneous() -> None:
    c = transposed(5, 6).computes[0].renamed({"i": "j", "j": "i"})
    assert c.axes == (Axis("j", 5), Axis("i", 6)) and c.body == at("a", "i", "j")


def test_expressions() -> None:
    e = op("where", op("lt", at("a", "i"), number(0.0)), number(1.0), cast(at("n", 0, dtype=I32), F32))
    assert e.dtype == F32 and show(e) == "where((a[i] < 0), 1, cast_f32(n[0]))"
    assert [type(n).__name__ for n in walk(e)] == ["Load", "Const", "Op", "Const", "Load", "Op", "Op"]
    assert show(substitute(e, {"i": 2 * var("k") + 1})) == "where((a[2*k + 1] < 0), 1, cast_f32(n[0]))"
    assert substitute(Index(var("i")), {"i": const(3)}) == Index(const(3)) and cast(e, F32) is e
    for name, count in PRIMITIVES.items():
        with pytest.raises(ValueError, match=f"{name} is no primitive of {count + 1}"):
            Op(name, (number(0.0),) * (count + 1), F32)


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_dtype_names(kind: DType) -> None:
    assert dtype(kind.name) is kind and dtype(kind) is kind and dtype(str(kind)) is kind
    assert dtype(kind.numpy) is kind and kind.numpy.itemsize == kind.bytes
    assert kind.compute.bits >= 32 or not kind.is_float


@pytest.mark.parametrize("value", ["complex64", "f31", "U8", object, "float128", "str"])
def test_unknown_dtypes(value: Any) -> None:
    with pytest.raises(SignatureError, match="is not supported; use one of f16, bf16"):
        dtype(value)
