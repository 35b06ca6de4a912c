"""Choices by position: selections and remainders that loops, or positions that are known, decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .affine import Affine, const
from .bounds import lower, simplify, upper
from .dtypes import BOOL
from .expr import Const, Expr, Index, Load, Op, by_position, walk
from .nest import Loop

SELDOM = 8  # iterations: between remainders that wrap around more often nothing is gained
_COMPARED = ("lt", "le", "eq", "ne")


def chooses(value: Expr) -> bool:
    """Whether positions alone select somewhere in a value."""
    return any(map(by_position, walk(value)))


def folded(value: Expr, loops: tuple[Loop, ...] = (), guards: tuple[Affine, ...] = ()) -> Expr:
    """The value without selections that these loops, or positions that are known, decide."""

    def fold(node: Expr) -> Expr:
        if isinstance(node, Load):
            return node if all(a.is_linear for a in node.index) else replace(
                node, index=tuple(simplify(a, loops, guards) for a in node.index)
            )
        if not isinstance(node, Op):
            return node
        args = tuple(map(fold, node.args))
        if node.name == "where" and isinstance(args[0], Const):
            return args[1] if args[0].value else args[2]
        if node.name in ("and", "or") and node.dtype == BOOL:
            for one, two in (args, args[::-1]):
                if isinstance(one, Const):
                    return two if bool(one.value) == (node.name == "and") else one
        if node.name == "not" and isinstance(args[0], Const):
            return Const(not args[0].value, BOOL)
        if node.name in _COMPARED and (difference := apart(args)) is not None:
            least, most = lower(difference, loops, guards), upper(difference, loops, guards)
            if least is not None and most is not None and (known := _compared(node.name, least, most)) is not None:
                return Const(known, BOOL)
        return Op(node.name, args, node.dtype)

    return fold(value)


def apart(args: tuple[Expr, ...]) -> Affine | None:
    """The first less the second, where both are positions of loops or integers."""
    sides = [a.value if isinstance(a, Index) else const(int(a.value)) if isinstance(a, Const) and not a.dtype.is_float
             else None for a in args]  # fmt: skip
    one, two = sides
    return None if one is None or two is None else one - two


def _compared(name: str, least: int, most: int) -> bool | None:
    """Of a difference between these bounds: is it below 0, at most 0, 0, other than 0? None: that depends."""
    if name in ("lt", "le"):
        limit = 0 if name == "lt" else 1
        return True if most < limit else False if least >= limit else None
    never, always = least > 0 or most < 0, least == most == 0
    return (name == "eq") if always else (name == "ne") if never else None


def changes(value: Expr, axis: str, extent: int) -> Iterator[int]:
    """Points of a loop at which a selection on it changes, or a remainder of it wraps around that seldom does."""
    for node in walk(value):
        if isinstance(node, Op) and node.name in _COMPARED:
            difference = apart(node.args)
            if difference is not None and difference.names() == {axis} and abs(difference.coefficient(axis)) == 1:
                sign = difference.coefficient(axis)
                root = -difference.const * sign
                if node.name in ("eq", "ne") or (node.name == "lt") == (sign > 0):
                    yield root
                if node.name in ("eq", "ne") or (node.name == "lt") != (sign > 0):
                    yield root + 1
        for a in node.index if isinstance(node, Load) else ():
            for atom, _ in a.terms:
                if isinstance(atom, str) or atom.divisor < SELDOM:
                    continue
                if atom.arg.names() == {axis} and atom.arg.coefficient(axis) == 1:
                    yield from range(-atom.arg.const % atom.divisor, extent, atom.divisor)
