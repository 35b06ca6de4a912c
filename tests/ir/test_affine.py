"""Affines against plain integers: every operation means what it says, and equal values have one form."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.ir.affine import Affine, FloorDiv, Mod, affine, const, var
from autotune.ir.program import affine_from_json, affine_to_json

NAMES = ("i", "i.0", "j", "k")
ENVS = st.fixed_dictionaries({name: st.integers(-20, 20) for name in NAMES})
NUMBERS = st.integers(-12, 12)
DIVISORS = st.integers(1, 9)


def affines() -> st.SearchStrategy[Affine]:
    leaf = st.one_of(st.sampled_from(NAMES).map(var), NUMBERS.map(const))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: a - b, inner, inner),
            st.builds(lambda a, c: a * c, inner, NUMBERS),
            st.builds(lambda a, d: a // d, inner, DIVISORS),
            st.builds(lambda a, d: a % d, inner, DIVISORS),
        ),
        max_leaves=8,
    )


Env = Mapping[str, int]


@settings(max_examples=300)
@given(affines(), affines(), NUMBERS, DIVISORS, ENVS)
def test_arithmetic(a: Affine, b: Affine, c: int, d: int, env: Env) -> None:
    x, y = a.evaluate(env), b.evaluate(env)
    assert (a + b).evaluate(env) == x + y
    assert (a - b).evaluate(env) == x - y
    assert (a + c).evaluate(env) == (c + a).evaluate(env) == x + c
    assert (c - a).evaluate(env) == c - x
    assert (a * c).evaluate(env) == (c * a).evaluate(env) == x * c
    assert (-a).evaluate(env) == -x
    assert (a // d).evaluate(env) == x // d
    assert (a % d).evaluate(env) == x % d


@settings(max_examples=300)
@given(affines(), st.dictionaries(st.sampled_from(NAMES), affines(), max_size=3), ENVS)
def test_substitution_is_simultaneous(a: Affine, values: dict[str, Affine], env: Env) -> None:
    inner = {**env, **{name: value.evaluate(env) for name, value in values.items()}}
    assert a.substitute(values).evaluate(env) == a.evaluate(inner)


@settings(max_examples=300)
@given(affines(), affines(), affines())
def test_one_form_for_equal_values(a: Affine, b: Affine, c: Affine) -> None:
    assert a + b == b + a and hash(a + b) == hash(b + a)
    assert (a + b) + c == a + (b + c)
    assert a - a == const(0) and a + b - b == a
    assert a * 2 - a == a and a * 0 == const(0)
    assert all(coefficient for _, coefficient in a.terms), "no zero coefficient is kept"


@settings(max_examples=300)
@given(affines(), DIVISORS, ENVS)
def test_quotient_and_remainder_belong_together(a: Affine, d: int, env: Env) -> None:
    rest = (a % d).evaluate(env)
    assert 0 <= rest < d and d * (a // d).evaluate(env) + rest == a.evaluate(env)


@settings(max_examples=300)
@given(affines(), ENVS, st.integers(-20, 20))
def test_names_are_what_the_value_depends_on(a: Affine, env: dict[str, int], other: int) -> None:
    for name in NAMES:
        if name not in a.names():
            assert a.evaluate({**env, name: other}) == a.evaluate(env)
    assert a.evaluate({name: env[name] for name in a.names()}) == a.evaluate(env)


@given(affines(), ENVS)
def test_json_round_trip(a: Affine, env: Env) -> None:
    again = affine_from_json(json.loads(json.dumps(affine_to_json(a))))
    assert again == a and again.evaluate(env) == a.evaluate(env)


@given(affines())
def test_arrays_evaluate_elementwise(a: Affine) -> None:
    grid = {
        name: np.arange(-3, 3).reshape([-1 if n == d else 1 for d in range(len(NAMES))]) for n, name in enumerate(NAMES)
    }
    values = np.broadcast_to(a.evaluate(grid), (6,) * len(NAMES))
    for at in ((0, 0, 0, 0), (5, 1, 2, 3), (2, 4, 0, 5)):
        assert values[at] == a.evaluate({name: n - 3 for name, n in zip(NAMES, at)})


@given(affines())
def test_map_atoms_keeps_what_it_is_given(a: Affine) -> None:
    assert a.map_atoms(lambda atom: Affine(((atom, 1),))) == a


def test_the_pair_that_fusing_leaves_behind_disappears() -> None:
    x = var("x")
    assert 6 * (x // 6) + x % 6 == x
    assert 12 * (x // 6) + 2 * (x % 6) + 1 == 2 * x + 1
    assert (x // 6) + x % 6 != x


def test_divisible_terms_leave_the_division() -> None:
    i, j = var("i"), var("j")
    assert (8 * i + j) // 4 == 2 * i + j // 4
    assert (8 * i + j) % 4 == j % 4
    assert (8 * i + 6) // 4 == 2 * i + 1 and (8 * i + 6) % 4 == const(2)
    assert (-i) // 1 == -i and i % 1 == const(0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (const(0), "0"),
        (const(-3), "-3"),
        (var("i"), "i"),
        (-var("i") + 4, "-i + 4"),
        (2 * var("i.0") - 3 * var("j") - 1, "2*i.0 - 3*j - 1"),
        ((var("i") + 1) // 3, "(i + 1)//3"),
        (5 * (var("i") % 4), "5*(i)%4"),
    ],
)
def test_text(value: Affine, text: str) -> None:
    assert str(value) == text


def test_parts() -> None:
    a = 2 * var("i") + 3 * (var("j") // 4) + 5
    assert a.coefficient("i") == 2 and a.coefficient("k") == 0
    assert a.coefficient(FloorDiv(var("j"), 4)) == 3 and a.coefficient(Mod(var("j"), 4)) == 0
    assert not a.is_linear and (2 * var("i")).is_linear and not a.is_const and const(3).is_const
    assert var("i").single() == "i"
    assert all(other.single() is None for other in (a, const(1), 2 * var("i"), var("i") + 1, var("i") // 2))
    assert affine("i") == var("i") and affine(3) == const(3) and affine(a) is a
