"""Segment: a loop in parts between which conditions on it do not change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..affine import Affine, const, var
from ..bounds import lower, simplify, upper
from ..dtypes import BOOL
from ..expr import Const, Expr, Index, Load, Op, walk
from ..nest import Alloc, Guard, Loop, Nest, Prefetch, Stmt, substitute, with_body
from .base import Path, Step, enclosing, rewrite_loops

_COMPARED = ("lt", "le", "eq", "ne")


@dataclass(frozen=True)
class Segment(Step, kind="segment"):
    """for i < n: S(i)  -->  for i < c: S(i); for i < n - c: S(c + i), a loop for each part between `cuts`

    Selections that a part decides are gone from it, and remainders that do not wrap around in it are plain indices.
    Cuts outside of the loop are none.
    """

    loop: str
    cuts: tuple[int, ...]

    def apply(self, nest: Nest) -> Nest:
        return rewrite_loops(self, nest, self.loop, self._parts)

    def _parts(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        n = loop.constant
        if n is None or loop.kind != "serial":
            raise self.fail(f"{loop.name} is {loop.kind}, or its extent is no constant", "ragged")
        ends = sorted({0, n, *(c for c in self.cuts if 0 < c < n)})
        if len(ends) == 2 and not self.cuts:
            raise self.fail("names no point to cut at", "bad-factor")
        out: list[Stmt] = []
        for low, high in zip(ends, ends[1:]):
            body = substitute(loop.body, {loop.name: var(loop.name) + low}) if low else loop.body
            part = replace(loop, extents=(const(high - low),), body=())
            out.append(replace(part, body=decided(body, (*path, part))))
        return tuple(out)


def decided(body: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
    """The statements without what their loops decide."""
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, (Loop, Guard, Alloc)):
            out.append(with_body(stmt, decided(stmt.body, (*path, stmt))))
        elif isinstance(stmt, Prefetch):
            out.append(stmt)
        else:
            out.append(replace(stmt, value=folded(stmt.value, *enclosing(path))))
    return tuple(out)


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
    """Points of a loop at which a selection on it changes, or a remainder of it wraps around."""
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
                if not isinstance(atom, str) and atom.arg.names() == {axis} and atom.arg.coefficient(axis) == 1:
                    yield from range(-atom.arg.const % atom.divisor, extent, atom.divisor)
