"""Bounds against enumeration: always sound; exact on what blockings and tails produce."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.ir.affine import Affine, FloorDiv, Mod, affine, var
from autotune.ir.bounds import Domain, domain, is_empty, lower, prove_nonnegative, simplify, upper
from autotune.ir.nest import Loop

NAMES = ("a", "b", "c")


def loop(name: str, *extents: Affine | int) -> Loop:
    return Loop(name, tuple(affine(e) for e in extents), ())


def points(loops: tuple[Loop, ...], guards: tuple[Affine, ...] = ()) -> Iterator[dict[str, int]]:
    def visit(depth: int, env: dict[str, int]) -> Iterator[dict[str, int]]:
        if depth == len(loops):
            if all(g.evaluate(env) >= 0 for g in guards):
                yield dict(env)
            return
        for value in range(min(e.evaluate(env) for e in loops[depth].extents)):
            yield from visit(depth + 1, {**env, loops[depth].name: value})

    return visit(0, {})


def affines(names: tuple[str, ...], depth: int = 2) -> st.SearchStrategy[Affine]:
    linear = st.builds(
        lambda cs, k: sum((var(n) * c for n, c in zip(names, cs)), Affine()) + k,
        st.lists(st.integers(-4, 6), min_size=len(names), max_size=len(names)), st.integers(-9, 9),
    )  # fmt: skip
    if depth == 0:
        return linear
    inner = affines(names, depth - 1)
    divided = st.builds(
        lambda a, d, floor, c, rest: (a // d if floor else a % d) * c + rest,
        inner, st.integers(1, 7), st.booleans(), st.integers(-5, 5), linear,
    )  # fmt: skip
    return st.one_of(linear, divided)


@st.composite
def domains(draw: st.DrawFn) -> tuple[tuple[Loop, ...], tuple[Affine, ...]]:
    loops: list[Loop] = []
    for i, name in enumerate(NAMES):
        extents = draw(st.lists(affines(NAMES[:i], 1), min_size=0, max_size=2))
        loops.append(loop(name, draw(st.integers(0, 6)), *extents))
    return tuple(loops), tuple(draw(st.lists(affines(NAMES, 1), max_size=2)))


@settings(max_examples=150, deadline=None)
@given(domains(), affines(NAMES))
def test_sound(where: tuple[tuple[Loop, ...], tuple[Affine, ...]], a: Affine) -> None:
    loops, guards = where
    values = [a.evaluate(env) for env in points(loops, guards)]
    low, high = lower(a, loops, guards), upper(a, loops, guards)
    if not values:
        assert not is_empty(loops, guards) or (low is None and high is None and prove_nonnegative(a, loops, guards))
        return
    assert not is_empty(loops, guards)
    assert low is not None and low <= min(values) and high is not None and high >= max(values)
    assert not prove_nonnegative(a, loops, guards) or min(values) >= 0
    simple = simplify(a, loops, guards)
    assert all(simple.evaluate(env) == value for env, value in zip(points(loops, guards), values))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), affines(NAMES, 0))
def test_exact_on_boxes(extents: list[int], a: Affine) -> None:
    loops = tuple(loop(n, e) for n, e in zip(NAMES, extents))
    values = [a.evaluate(env) for env in points(loops)]
    assert (lower(a, loops), upper(a, loops)) == (min(values), max(values))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_exact_on_clipped_blocks_and_tails(n: int, tiles: int, tile: int) -> None:
    block = tile * tiles
    o, i, u, x = var("o"), var("i"), var("u"), var("x")
    rest = -block * o + n
    blocks = loop("o", -(-n // block))
    whole = (blocks, loop("i", block // tile, rest // tile), loop("u", tile))
    ragged = (blocks, loop("x", block, rest))
    main, clipped = block * o + tile * i + u, block * o + x
    for loops, a in ((whole, main), (ragged, clipped), (whole, rest - tile * i), (ragged, rest - x)):
        values = [a.evaluate(env) for env in points(loops)]
        if values:
            assert (lower(a, loops), upper(a, loops)) == (min(values), max(values))
        else:
            assert prove_nonnegative(n - 1 - a, loops)


@settings(max_examples=60, deadline=None)
@given(affines(("a",), 1), st.integers(1, 30), st.integers(1, 9))
def test_exact_on_one_division(a: Affine, extent: int, divisor: int) -> None:
    loops = (loop("a", extent),)
    if a.is_linear:
        values = [v // divisor for v in (a.evaluate({"a": k}) for k in range(extent))]
        assert (lower(a // divisor, loops), upper(a // divisor, loops)) == (min(values), max(values))


def test_tail_panel_is_in_bounds_only_because_of_its_guard() -> None:
    # The last, partial panel of 100 columns: panel 100//16 inside blocks of 64 columns.
    o = var("o")
    panel = 100 // 16 - 4 * o
    assert upper(panel, (loop("o", 2),)) == 6
    assert upper(panel, (loop("o", 2),), (64 - (100 - 64 * o),)) == 2
    assert lower(panel, (loop("o", 2),), (64 - (100 - 64 * o),)) == 2


def test_an_empty_loop_is_a_fact_about_the_outer_ones() -> None:
    # Inside a body of extent 20 - 12*o with tiles of 8, o = 1 runs none: 20 - 12 = 8 -> one tile; 19 - 12 = 7 -> none.
    inner = loop("i", (19 - 12 * var("o")) // 8)
    assert upper(var("o"), (loop("o", 2), inner)) == 0
    assert not is_empty((loop("o", 2), inner))
    assert is_empty((loop("o", 2), inner), (var("o") - 1,))
    assert is_empty((loop("o", 0),)) and is_empty((loop("o", 4),), (var("o") - 4,))


def test_unknown_names_have_no_bound() -> None:
    assert upper(var("n"), ()) is None and lower(var("n") + var("i"), (loop("i", 3),)) is None
    assert upper(var("n"), (), (7 - var("n"),)) == 7
    assert not prove_nonnegative(var("n"), ())


@pytest.mark.parametrize(
    ("a", "extent", "expected"),
    [
        ((var("x") + 4) % 8, 3, var("x") + 4),
        ((var("x") + 8) // 8 + var("x"), 8, var("x") + 1),
        (var("x") % 8, 9, var("x") % 8),
        ((16 * var("y") + var("x")) // 16, 16, var("y")),
        (((var("x") % 8) // 8 + 3) % 2, 99, affine(1)),
    ],
)
def test_simplify(a: Affine, extent: int, expected: Affine) -> None:
    assert simplify(a, (loop("y", 5), loop("x", extent))) == expected


def test_rebuilt_by_hand_divisions() -> None:
    q, m = Affine(((FloorDiv(var("x"), 4), 1),)), Affine(((Mod(var("x"), 4), 1),))
    loops = (loop("x", 11),)
    assert (lower(q, loops), upper(q, loops), lower(m, loops), upper(m, loops)) == (0, 2, 0, 3)
    assert (lower(4 * q - var("x"), loops), upper(var("x") - m, loops)) == (-3, 8)


def test_many_guards_stay_bounded_work() -> None:
    names = [f"x{i}" for i in range(9)]
    loops = tuple(loop(n, 10) for n in names)
    guards = tuple(
        sum((var(n) * c for n, c in zip(names, row)), affine(30))
        for row in itertools.islice(itertools.product((-1, 2, -3), repeat=9), 0, 19683, 997)
    )
    total = sum((var(n) for n in names), Affine())
    assert 0 <= (upper(total, loops, guards) or -1) <= 81


def test_domains_are_shared() -> None:
    assert domain((loop("i", 4),)) is domain([loop("i", 4)])
    assert Domain((("i", (affine(4),)),)).upper(3 * var("i") + 1) == 10
