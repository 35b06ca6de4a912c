"""Lowering: one plain nest a stage, loops named so that stages can be fused, and nothing computed differently."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autotune.ir.affine import var
from autotune.ir.expr import op
from autotune.ir.interp import interpret
from autotune.ir.lower import lower, with_shared_axes
from autotune.ir.nest import Loop, Nest, Reduce, Store, leaves, walk
from autotune.ir.program import TensorProgram
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
    sound,
    transposed,
    unrelated,
    window,
)

PROGRAMS = {
    "scale": scale(10),
    "shifted": shifted(5, 6),
    "transposed": transposed(5, 6),
    "product": product(5, 6, 7),
    "biased": biased(5, 6, 7),
    "row_sum": row_sum(5, 22),
    "normalised": normalised(5, 7),
    "chained": chained(10),
    "window": window(9, 3),
}


def names(nest: Nest) -> list[list[str]]:
    """The loops of every stage, outermost first."""
    return [
        [b.name for b in path if isinstance(b, Loop)] for s, path in walk(nest.body) if isinstance(s, (Store, Reduce))
    ]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_lowered_nests(
    program: TensorProgram, golden: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    nest = sound(program, lower(program))
    golden(f"lower/{request.node.callspec.id}.txt", str(nest))
    assert [leaf.tag for leaf in leaves(nest.body)] == [c.name for c in program.computes]
    for leaf, c in zip(leaves(nest.body), program.computes):
        assert isinstance(leaf, (Store, Reduce)) and leaf.role == "compute"
        assert len(leaf.origin) == len(c.all_axes) and all(a.single() == n for n, a in leaf.origin)
        if isinstance(leaf, Reduce):
            assert [a.single() for a in leaf.first or ()] == [n for n, _ in leaf.origin[len(c.axes) :]]


def test_stages_share_the_names_of_their_axes() -> None:
    assert names(lower(biased(5, 6, 7))) == [["i", "j", "k"], ["i", "j"]]
    t0, t1, t2 = names(lower(normalised(5, 7)))
    assert t0[0] == t1[0] == t2[0] == "i", "rows are one loop in every stage"


def test_names_do_not_depend_on_the_names_of_the_program() -> None:
    plain = product(5, 6, 7)
    stage = plain.computes[0].renamed({"i": "rows", "j": "columns", "k": "i"})
    assert str(lower(TensorProgram(plain.inputs, (stage,), plain.outputs))) == str(lower(plain))


def test_axes_of_one_stage_stay_apart() -> None:
    """t1 = t0 @ t0.T reads one stage at two different axes."""
    first = compute("t0", axes(i=5, j=6), op("add", at("a", "i", "j"), number(1.0)))
    body = op("mul", at("t0", "i", "k"), at("t0", "j", "k"))
    program = TensorProgram((array("a", 5, 6),), (first, compute("t1", axes(i=5, j=5), body, axes(k=6))), ("t1",))
    nest = sound(program, lower(program))
    assert all(len(set(path)) == len(path) for path in names(nest)) and len(names(nest)[1]) == 3


def test_axes_of_different_extents_stay_apart() -> None:
    """t1[i] = t0[i] over the first elements only: no common loop."""
    first = compute("t0", axes(i=10), op("add", at("a", "i"), number(1.0)))
    program = TensorProgram((array("a", 10),), (first, compute("t1", axes(i=4), at("t0", "i"))), ("t1",))
    (outer,), (inner,) = names(sound(program, lower(program)))
    assert outer != inner


def test_a_transposed_reader_crosses_the_names() -> None:
    first = compute("t0", axes(i=5, j=5), op("add", at("a", "i", "j"), number(1.0)))
    program = TensorProgram((array("a", 5, 5),), (first, compute("t1", axes(i=5, j=5), at("t0", "j", "i"))), ("t1",))
    (a, b), second = names(sound(program, lower(program)))
    assert second == [b, a]


def test_many_axes_have_different_names() -> None:
    extents = {f"x{n}": 1 for n in range(14)}
    over = axes(**extents)
    program = TensorProgram((array("a", *[1] * 14),), (compute("t0", over, at("a", *extents)),), ("t0",))
    (path,) = names(sound(program, lower(program)))
    assert len(set(path)) == 14


def test_shared_axes_keep_the_program() -> None:
    for program in PROGRAMS.values():
        shared = with_shared_axes(program)
        assert shared.digest == program.digest and with_shared_axes(shared) == shared


def test_empty_arrays_have_no_statement() -> None:
    assert lower(scale(0)).body == ()


def test_an_empty_reduction_is_its_identity() -> None:
    for combiner, identity in (("sum", 0.0), ("prod", 1.0), ("max", float("-inf")), ("min", float("inf"))):
        stage = compute("t0", axes(i=3), at("a", "i", "j"), axes(j=0), combiner)
        nest = lower(TensorProgram((array("a", 3, 0),), (stage,), ("t0",)))
        assert not any(isinstance(leaf, Reduce) for leaf in leaves(nest.body))
        assert interpret(nest, {"a": [[], [], []]})["t0"].tolist() == [identity] * 3


def test_a_scalar_result_has_no_loop_of_its_own() -> None:
    program = TensorProgram((array("a", 7),), (compute("t0", (), at("a", "i"), axes(i=7)),), ("t0",))
    nest = sound(program, lower(program))
    assert interpret(nest, {"a": range(7)})["t0"] == 21
    (leaf,) = leaves(nest.body)
    assert isinstance(leaf, Reduce) and leaf.index == () and leaf.first == (var(names(nest)[0][0]),)


def test_parts_that_read_one_input_share_its_axes() -> None:
    both = with_shared_axes(unrelated(10))
    assert [c.axes[0].name for c in both.computes] == ["i", "i"]
    turned = (compute("t0", axes(i=4, j=4), at("a", "i", "j")), compute("t1", axes(i=4, j=4), at("a", "j", "i")))
    apart = with_shared_axes(TensorProgram((array("a", 4, 4),), turned, ("t0", "t1")))
    assert [[a.name for a in c.axes] for c in apart.computes] == [["j", "i"], ["i", "j"]]
