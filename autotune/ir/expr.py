"""Scalar expressions: what one point of a computation evaluates. About thirty primitives; everything else is composed
of them.

Arithmetic happens in `DType.compute` types only: f16 and bf16 values are cast on load and on store, explicitly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from .affine import Affine
from .dtypes import BOOL, I64, DType

# name -> number of arguments. `div` is true division on floats and floor division on integers, `mod` its remainder
# with the sign of the divisor (NumPy's // and %). max and min propagate NaN. A `cast` from float to integer truncates
# and saturates; integers wrap; a cast to bool is x != 0. `rint` rounds half to even. Comparisons give bool;
# and/or/xor/not work bitwise on integers and logically on bool; shl and shr (arithmetic for signed) take counts inside
# the type's width. `gather` is a load whose index along one dimension is data: its arguments are a Load that has 0
# there, the dimension as an integer constant, and the index, which is clamped to the extent.
PRIMITIVES: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "mod": 2, "max": 2, "min": 2, "fma": 3,
    "neg": 1, "abs": 1, "exp": 1, "exp2": 1, "log": 1, "log2": 1, "sqrt": 1, "sin": 1, "recip": 1, "floor": 1,
    "rint": 1, "cast": 1, "lt": 2, "le": 2, "eq": 2, "ne": 2, "where": 3,
    "and": 2, "or": 2, "xor": 2, "not": 1, "shl": 2, "shr": 2, "gather": 3,
}  # fmt: skip

COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
# Primitives that cost tens of cycles a vector: never recomputed to save a trip to memory.
HEAVY = frozenset({"exp", "exp2", "log", "log2", "sin"})


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. Floats may be infinities or NaN."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load:
    """The element of `buffer` at `index` (one Affine a dimension)."""

    buffer: str
    index: tuple[Affine, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Index:
    """The value of an affine of loop names, as i64 (np.arange and masks come from it)."""

    value: Affine

    @property
    def dtype(self) -> DType:
        return I64


@dataclass(frozen=True, slots=True)
class Op:
    """A primitive applied to expressions; `dtype` is the result's type."""

    name: str
    args: tuple[Expr, ...]
    dtype: DType

    def __post_init__(self) -> None:
        if PRIMITIVES.get(self.name) != len(self.args):
            raise ValueError(f"{self.name} is no primitive of {len(self.args)} arguments")
        if self.name == "gather":
            source, dim, at = self.args
            known = isinstance(source, Load) and isinstance(dim, Const) and 0 <= int(dim.value) < len(source.index)
            if not known or not at.dtype.is_integer or self.dtype != source.dtype:
                raise ValueError("gather takes a Load, one of its dimensions, and an integer")


Expr = Union[Const, Load, Index, Op]


def op(name: str, *args: Expr) -> Op:
    """A primitive on arguments that already share one type; comparisons give bool, `where` the type of its branches."""
    result = BOOL if name in COMPARISONS else args[-1].dtype
    return Op(name, args, result)


def cast(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype == dtype else Op("cast", (value,), dtype)


def gather(source: Load, dim: int, at: Expr) -> Op:
    """The element of an array at the Load's index, but at `at` along dimension `dim`."""
    return Op("gather", (source, Const(dim, I64), at), source.dtype)


def gathers(expr: Expr) -> Iterator[tuple[Load, int, Expr]]:
    """Source, dimension and index of every gather."""
    for node in walk(expr):
        if isinstance(node, Op) and node.name == "gather" and isinstance(node.args[0], Load):
            yield node.args[0], int(node.args[1].value) if isinstance(node.args[1], Const) else 0, node.args[2]


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node, arguments before the operation that uses them, left to right."""
    if isinstance(expr, Op):
        for arg in expr.args:
            yield from walk(arg)
    yield expr


def distinct(expr: Expr) -> list[Expr]:
    """The different nodes of an expression: a shared subexpression once, however often it is written out."""
    numbers: dict[object, int] = {}
    known: dict[int, int] = {}
    found: list[Expr] = []

    def visit(node: Expr) -> int:
        if id(node) in known:
            return known[id(node)]
        key: object = node
        if isinstance(node, Op):
            key = (node.name, node.dtype, *(visit(arg) for arg in node.args))
        if key not in numbers:
            numbers[key] = len(found)
            found.append(node)
        known[id(node)] = numbers[key]
        return numbers[key]

    visit(expr)
    return found


def loads(expr: Expr) -> tuple[Load, ...]:
    """Left to right. Asked for hundreds of thousands of times in a program of a hundred computes: no generators."""
    found: list[Load] = []
    pending = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, Op):
            pending.extend(reversed(node.args))
        elif isinstance(node, Load):
            found.append(node)
    return tuple(found)


def by_position(node: Expr) -> bool:
    """A selection that positions alone decide."""
    return isinstance(node, Op) and node.name == "where" and not loads(node.args[0])


def transform(expr: Expr, fn: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuild top down: where `fn` returns an expression it replaces the node and is not entered again."""
    new = fn(expr)
    if new is not None:
        return new
    if isinstance(expr, Op):
        args = tuple(transform(arg, fn) for arg in expr.args)
        if any(a is not b for a, b in zip(args, expr.args)):
            return Op(expr.name, args, expr.dtype)
    return expr


def substitute(expr: Expr, values: Mapping[str, Affine]) -> Expr:
    """Replace loop names by affines in every index."""

    def leaf(node: Expr) -> Expr | None:
        if isinstance(node, Load):
            index = tuple(a.substitute(values) for a in node.index)
            return node if index == node.index else Load(node.buffer, index, node.dtype)
        if isinstance(node, Index):
            return Index(node.value.substitute(values))
        return None

    return transform(expr, leaf)


def names(expr: Expr) -> frozenset[str]:
    """Every loop name that the value depends on."""
    found: frozenset[str] = frozenset()
    for node in walk(expr):
        if isinstance(node, Load):
            for a in node.index:
                found |= a.names()
        elif isinstance(node, Index):
            found |= node.value.names()
    return found


_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}


MAX_SHOWN = 48  # nodes; a longer expression names what occurs in it several times


def show(expr: Expr) -> str:
    """One line of text for people and golden files: `value`, or `value with u0 = ..., u1 = ...` where it is long."""
    names: dict[Expr, str] = {}
    if sum(1 for _ in walk(expr)) > MAX_SHOWN:
        nodes = distinct(expr)
        uses = Counter(arg for node in nodes if isinstance(node, Op) for arg in node.args)
        names = {node: f"u{n}" for n, node in enumerate(n for n in nodes if isinstance(n, Op) and uses[n] > 1)}
    shared = ", ".join(f"{name} = {_text(node, {k: v for k, v in names.items() if v != name})}"
                       for node, name in names.items())  # fmt: skip
    return _text(expr, names) + (f" with {shared}" if shared else "")


def _text(expr: Expr, names: Mapping[Expr, str]) -> str:
    if expr in names:
        return names[expr]
    match expr:
        case Const(value=value):
            return f"{value:g}" if isinstance(value, float) else str(value)
        case Load(buffer=buffer, index=index):
            return f"{buffer}[{', '.join(map(str, index))}]"
        case Index(value=value):
            return f"index({value})"
        case Op(name=name, args=args, dtype=dtype):
            texts = [_text(arg, names) for arg in args]
            if name in _INFIX:
                return f"({texts[0]} {_INFIX[name]} {texts[1]})"
            return f"{f'cast_{dtype}' if name == 'cast' else name}({', '.join(texts)})"
