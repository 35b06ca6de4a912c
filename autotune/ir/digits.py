"""Loops over threads written as the digits that their nest looks at: a nest without the divisions that lanes bring.

Where a lane only occurs as lane // 4 and lane % 4, it is two independent loops; what is then linear is counted and
compared exactly at any size. A view for proofs: what is rendered keeps its loops.
"""

from __future__ import annotations

from dataclasses import replace

from .affine import Affine, Atom, const, var
from .bounds import domain_of
from .expr import Expr, Index, Load, transform
from .nest import THREAD_KINDS, Alloc, Guard, Loop, Nest, Prefetch, Reduce, Stmt, Store, reads, walk, with_body

_CUT = (*THREAD_KINDS, "tensor", "unroll")


def digits(nest: Nest) -> Nest:
    """The same statements over the same points in the same order."""
    found: dict[str, set[int]] = {}
    for s, _ in walk(nest.body):
        if isinstance(s, (Loop, Alloc, Guard)):
            continue
        for _, index in ((s.buffer, s.index), *reads(s)):
            for a in index:
                for atom, _ in a.terms:
                    if not isinstance(atom, str) and (name := atom.arg.single()):
                        found.setdefault(name, set()).add(atom.divisor)
    return Nest(nest.buffers, _visit(nest.body, found, {}, {})) if found else nest


def _visit(
    body: tuple[Stmt, ...], found: dict[str, set[int]], values: dict[str, Affine], sizes: dict[str, int]
) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, Loop) and (radix := _radix(stmt, found.get(stmt.name, set()))):
            names = [f"{stmt.name}'{n}" for n in range(len(radix))]
            total, step = Affine(), 1
            for name, size in reversed(list(zip(names, radix))):
                total, step = total + var(name) * step, step * size
            inner = _visit(stmt.body, found, {**values, stmt.name: total}, {**sizes, **dict(zip(names, radix))})
            for name, size in reversed(list(zip(names, radix))):
                inner = (replace(stmt, name=name, extents=(const(size),), body=inner, instruction=""),)
            out += inner
        elif isinstance(stmt, Loop):
            extents = tuple(_resolved(e, values, sizes) for e in stmt.extents)
            out.append(replace(stmt, extents=extents, body=_visit(stmt.body, found, values, sizes)))
        elif isinstance(stmt, Guard):
            conditions = tuple(_resolved(c, values, sizes) for c in stmt.conditions)
            out.append(Guard(conditions, _visit(stmt.body, found, values, sizes)))
        elif isinstance(stmt, Alloc):
            out.append(with_body(stmt, _visit(stmt.body, found, values, sizes)))
        else:
            out.append(_leaf(stmt, values, sizes) if values else stmt)
    return tuple(out)


def _radix(loop: Loop, divisors: set[int]) -> list[int]:
    """Sizes of the digits, the first digit slowest; none where the divisors do not chain or do not divide."""
    n = loop.constant
    if loop.kind not in _CUT or n is None or not divisors:
        return []
    chain = sorted(d for d in divisors if d < n)
    sizes, low = [], 1
    for d in [*chain, n]:
        if d % low:
            return []
        sizes.append(d // low)
        low = d
    return list(reversed(sizes)) if len(sizes) > 1 else []


def _leaf(stmt: Store | Reduce | Prefetch, values: dict[str, Affine], sizes: dict[str, int]) -> Stmt:
    def expression(node: Expr) -> Expr | None:
        if isinstance(node, Load):
            return Load(node.buffer, tuple(_resolved(a, values, sizes) for a in node.index), node.dtype)
        if isinstance(node, Index):
            return replace(node, value=_resolved(node.value, values, sizes))
        return None

    index = tuple(_resolved(a, values, sizes) for a in stmt.index)
    if isinstance(stmt, Prefetch):
        return replace(stmt, index=index)
    origin = tuple((n, _resolved(a, values, sizes)) for n, a in stmt.origin)
    value = transform(stmt.value, expression)
    if isinstance(stmt, Store):
        return replace(stmt, index=index, origin=origin, value=value)
    first = None if stmt.first is None else tuple(_resolved(a, values, sizes) for a in stmt.first)
    return replace(stmt, index=index, origin=origin, value=value, first=first)


def _resolved(a: Affine, values: dict[str, Affine], sizes: dict[str, int]) -> Affine:
    """The affine in digits; divisions that they decide are gone."""
    if not a.names() & values.keys():
        return a
    where = domain_of(tuple((n, (const(size),)) for n, size in sizes.items()), ())

    def known(atom: Atom) -> Affine:
        if isinstance(atom, str) or not atom.arg.names() <= sizes.keys():
            return Affine(((atom, 1),))
        return where.simplify(Affine(((atom, 1),)))

    return a.substitute(values).map_atoms(known)


__all__ = ["digits"]
