"""Loads whose index is data: their values on every backend that runs here, what the proofs ask of them, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autotune import ops
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.devices import device
from autotune.hostrun import compiler
from autotune.ir.collapse import normal_form
from autotune.ir.dtypes import I64
from autotune.ir.equiv import difference, equivalent
from autotune.ir.errors import DeviceError, TraceError
from autotune.ir.expr import Const, Expr, Load, Op, gather, gathers, op, transform
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.nest import Loop, Nest, Store
from autotune.ir.partition import partition
from autotune.ir.program import TensorProgram, from_json, to_json
from autotune.ir.schedule import Schedule
from autotune.ir.verify import verify
from autotune.tracer import spec, trace

from .emulated import Together, legal
from .evaluation import check as check_program
from .machine import check

rng = np.random.default_rng(0)
TABLE = rng.standard_normal((37, 24)).astype(np.float32)
PLACES = rng.integers(-3, 41, 50)


def take(x: Any, places: Any, axis: int = 0) -> Any:
    return x.take(places, axis, mode="clip")


FUNCTIONS: list[Callable[..., Any]] = [
    take, lambda x, i: take(x, i, 1), lambda x, i: take(x[:, ::2], i), lambda x, i: x.take(i, mode="clip"),
    lambda x, i: take(x, i.reshape(5, 10)), lambda x, i: take(x.T, i), lambda x, i: take(np.exp(x), i + 1) * 2,
    lambda x, i: take(x, i).sum(0), lambda x, i: take(x, i) @ x.T, lambda x, i: take(take(x, i), i[::-1], 1),
    lambda x, i: take(x, take(i, i)), lambda x, i: take(x, i[3]), lambda x, i: take(x, i * 2 - i) + take(x, i[::-1]),
    lambda x, i: take(x, np.argmax(x, 0)), lambda x, i: take(x, i.astype(np.int8)), lambda x, i: take(x[:1], i),
    lambda x, i: take(x[:, :1], i), lambda x, i: take(x[:0, :], i[:0]), lambda x, i: take(x, i, -1)[:, 1:],
    lambda x, i: np.pad(take(x, i), 1), lambda x, i: ops.embedding(i, x), lambda x, i: ops.softmax(take(x, i)),
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=range(len(FUNCTIONS)))
def test_values(fn: Callable[..., Any]) -> None:
    check_program(fn, TABLE, PLACES)
    check(fn, TABLE, PLACES)


def test_random_shapes_and_layouts() -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        shape = [int(n) for n in draw.integers(1, 20, draw.integers(1, 4))]
        axis = int(draw.integers(-len(shape), len(shape)))
        x = draw.standard_normal([2 * n for n in shape]).astype("f4")[tuple(slice(None, None, 2) for _ in shape)]
        places = draw.integers(-2, 22, draw.integers(1, 9, draw.integers(0, 3))).astype(["i8", "i4", "i2"][seed % 3])
        check(ops.gather, x.T if seed % 4 == 0 else x, np.asarray(places), axis=axis)


@pytest.mark.parametrize("dtype", ["f2", "f8", "i1", "u1", "i2", "i8", "?"])
def test_elements_of_every_dtype(dtype: str) -> None:
    x = (TABLE * 10).astype(dtype) if dtype != "?" else TABLE > 0
    check(take, x, PLACES)
    check(take, x, PLACES.astype(np.uint8), axis=1)


def test_places_far_outside_are_clamped() -> None:
    ends = np.array([-(2**63), 2**63 - 1, -1, 37, 36, 0])
    check(take, TABLE, ends)
    np.testing.assert_array_equal(take(TABLE, ends), TABLE[[0, 36, 0, 36, 36, 0]])


def program_of(fn: Callable[..., Any] = take, rows: int = 37) -> TensorProgram:
    return trace(fn, (spec("f32", (rows, 24)), spec("i64", 50))).program


def test_one_load_and_kernels_that_gather_from_finished_arrays() -> None:
    program = program_of()
    assert len(program.computes) == 1 and len(list(gathers(program.computes[0].body))) == 1
    assert from_json(to_json(program)) == program
    assert program.digest != program_of(lambda x, i: take(x, i, 1)).digest
    made = program_of(lambda x, i: take(np.exp(x), i))
    assert len(made.computes) == 2, "what is gathered from is an array"
    parts = partition(made).kernels
    assert len(parts) == 2 and parts[1].inputs[0].name == parts[0].outputs[0]
    assert [c.shape for c in normal_form(program).computes] == [(50, 24)]


def rewritten(nest: Nest, change: Callable[[Op], Expr]) -> Nest:
    """The nest with its gather changed."""
    fn = lambda n: change(n) if isinstance(n, Op) and n.name == "gather" else None
    (outer,) = nest.body
    assert isinstance(outer, Loop) and isinstance(inner := outer.body[0], Loop)
    leaf = inner.body[0]
    assert isinstance(leaf, Store)
    changed = replace(leaf, value=transform(leaf.value, fn))
    return replace(nest, body=(replace(outer, body=(replace(inner, body=(changed,)),)),))


def _args(node: Op) -> tuple[Load, int, Expr]:
    return list(gathers(node))[-1]


def test_the_proofs_see_what_is_wrong() -> None:
    program = program_of()
    nest = lower(program)
    assert verify(program, nest, Limits()).ok and equivalent(program, Schedule()).ok
    one = Const(1, I64)

    def later(node: Op) -> Expr:
        source, dim, at = _args(node)
        return gather(source, dim, op("add", at, one))

    def turned(node: Op) -> Expr:
        source, _, at = _args(node)
        return gather(Load(source.buffer, source.index[::-1], source.dtype), 1, at)

    def beyond(node: Op) -> Expr:
        source, dim, at = _args(node)
        return gather(Load(source.buffer, (source.index[0], source.index[1] + 1), source.dtype), dim, at)

    def moved(node: Op) -> Expr:
        source, dim, at = _args(node)
        return gather(Load(source.buffer, (source.index[0] + 1, source.index[1]), source.dtype), dim, at)

    assert "differ" in difference(nest, rewritten(nest, later))
    assert difference(nest, rewritten(nest, turned)), "another dimension"
    assert "bounds" in str(verify(program, rewritten(nest, beyond), Limits()).violations[0])
    assert "gathered from" in str(verify(program, rewritten(nest, moved), Limits()).violations[0])


def test_a_kernel_does_not_gather_from_what_it_computes() -> None:
    program = program_of(lambda x, i: take(np.exp(x), i))
    found = verify(program, lower(program), Limits()).violations
    assert [v for v in found if "gathered from and no input" in str(v)]
    assert all(verify(part, lower(part), Limits()).ok for part in partition(program).kernels)


def test_malformed_gathers_are_refused() -> None:
    place = spec("i64", ()).dtype
    source = Load("x", (), spec("f32", ()).dtype)
    for args in ((source, Const(0, place), Const(0, place)), (Const(0, place),) * 3):
        with pytest.raises(ValueError, match="gather takes"):
            Op("gather", args, source.dtype)


@pytest.mark.parametrize("dialect", [CUDA, HIP], ids=lambda d: d.name)
def test_schedules_on_the_emulator(dialect: Any) -> None:
    try:
        compiler()
    except DeviceError as error:
        pytest.skip(str(error))
    machine = device("cuda:sm_80" if dialect is CUDA else "hip:gfx90a")
    functions: list[Callable[..., Any]] = [take, lambda x, i: take(x, i, 1) + 1, lambda x, i: take(x, i).sum(1)]
    for fn in functions:
        program = normal_form(program_of(fn))
        found = list(legal(program, machine, 3))
        run = Together(program, [nest for _, nest in found], dialect, warp=machine.warp)
        assert run.problems() == [""] * len(found)


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (lambda x, i: x[i], "ops.gather or np.take"), (lambda x, i: x[:, i], "ops.gather or np.take"),
    (lambda x, i: np.take(x, i, 0), 'mode="clip" only'), (lambda x, i: np.take(x, i, 0, mode="wrap"), "clip"),
    (lambda x, i: take(x, x), "no integers"), (lambda x, i: take(x, i, 2), "out of bounds"),
    (lambda x, i: take(x[:0], i), "empty axis"),
]  # fmt: skip


@pytest.mark.parametrize("fn, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(fn, (TABLE, PLACES))
