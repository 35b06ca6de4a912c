"""Contributions to a reduction that change nothing, because a choice of positions makes them the combiner's identity.

`where(m <= j, x, -inf)` is -inf wherever m > j: a maximum over m may stop at j. `where(m <= j, x, 0) * y` is taken to
be 0 there, whatever y is: in a sum, a factor that positions make 0 leaves its product out. Knows expressions and
indices only; which loops end early is said by `clip` and proved by the verifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .affine import Affine, const, var
from .expr import Const, Expr, Index, Load, Op
from .nest import Loop, Reduce, Store
from .points import Space
from .program import COMBINERS, Compute


def needed(reduction: Compute | Reduce, made: Mapping[str, Compute | Store]) -> tuple[Affine, ...]:
    """Affines in the axes (of a statement: in its loops): where one of them is negative, the reduction's contribution
    is idle. `made`: the stores that it may read."""
    body = reduction.body if isinstance(reduction, Compute) else reduction.value
    name = reduction.combiner
    if name is None or not body.dtype.is_float:
        return ()
    identity = COMBINERS[name].identity(body.dtype)
    return tuple(dict.fromkeys(a for a, value in _constant_below(body, made) if value == identity))


def _constant_below(value: Expr, made: Mapping[str, Compute | Store]) -> Iterator[tuple[Affine, float]]:
    """(a, c): where a < 0 the value is c."""
    match value:
        case Op(name="where", args=(test, inner, Const(value=c))):
            yield from ((a, float(c)) for a in _conjuncts(test))
            yield from ((a, d) for a, d in _constant_below(inner, made) if d == float(c))
        case Op(name="mul", args=args):
            yield from ((a, 0.0) for arg in args for a, c in _constant_below(arg, made) if c == 0.0)
        case Op(name="cast", args=(inner,), dtype=dtype) if dtype.is_float and inner.dtype.is_float:
            yield from ((a, c) for a, c in _constant_below(inner, made) if c in (0.0, float("-inf"), float("inf")))
        case Load(buffer=buffer, index=index) if buffer in made:
            source = made[buffer]
            body, at = (source.body, source.index) if isinstance(source, Compute) else (source.value, source.index)
            for a, c in _constant_below(body, made):
                moved = _moved(a, at, index)
                if moved is not None:
                    yield moved, c


def _conjuncts(test: Expr) -> Iterator[Affine]:
    """Affines that are all >= 0 where the test holds."""
    match test:
        case Op(name="and", args=args):
            for arg in args:
                yield from _conjuncts(arg)
        case Op(name="le" | "lt" as name, args=(Index(value=a), Index(value=b))):
            yield b - a - (name == "lt")


def _moved(a: Affine, written: tuple[Affine, ...], read: tuple[Affine, ...]) -> Affine | None:
    """An affine in the loops of an element's writer, for the reader of that element; None if it is more than a sum of
    the element's indices."""
    out = const(0)
    for at, to in zip(written, read):
        name, c = next(((n, c) for n, c in reversed(at.terms) if isinstance(n, str)), ("", 0))
        if name and a.coefficient(name) % c == 0:
            times = a.coefficient(name) // c
            a, out = a - at * times, out + to * times
    return out + a.const if a.is_const else None


def last(a: Affine, loop: str, inside: Iterable[Loop]) -> Affine | None:
    """The end of `loop` for which `a` >= 0 may hold at any iteration of the loops `inside`, as an extent."""
    if not a.is_linear or a.coefficient(loop) != -1:
        return None
    end = a + var(loop) + 1
    for lp in inside:
        if c := end.coefficient(lp.name):
            if lp.constant is None and not any(e.is_const for e in lp.extents):
                return None
            most = min(e.const for e in lp.extents if e.is_const) - 1 if c > 0 else 0
            end = end - var(lp.name) * c + c * most
    return end


def idle_points(c: Compute, made: Mapping[str, Compute | Store]) -> Iterator[tuple[tuple[Affine, ...], Space]]:
    """Points of a stage that need no evaluation, as coordinates over loops."""
    for a in needed(c, made):
        for axis in reversed(c.reduce_axes):
            if a.is_linear and a.coefficient(axis.name) == -1:
                rest = a + var(axis.name)  # idle: axis = rest + 1 + beyond
                loops = [(x.name, (const(x.extent),)) for x in c.all_axes if x is not axis]
                beyond = (f"{axis.name}'", (const(axis.extent - 1) - rest,))
                at = tuple(rest + 1 + var(beyond[0]) if x is axis else var(x.name) for x in c.all_axes)
                below = rest.const < -1 or any(k < 0 for _, k in rest.terms)  # may the axis begin after that point?
                yield at, Space((*loops, beyond), (rest + 1,) if below else ()).normal()
                break


__all__ = ["idle_points", "last", "needed"]
