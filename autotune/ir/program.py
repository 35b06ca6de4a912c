"""TensorProgram: what a traced function means, before any decision about how to run it.

A program is a list of `Compute`s in dependency order. Each defines one array over its `axes`; with a combiner it
reduces its body over `reduce_axes`. There is no control flow: everything about a program is known before it runs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .affine import Affine, Atom, FloorDiv, var
from .dtypes import DType
from .expr import Const, Expr, Index, Load, Op, by_position, distinct, loads, substitute, transform, walk

INF = math.inf


@dataclass(frozen=True, slots=True)
class Combiner:
    """An associative, commutative operator: its primitive and its identity for a type."""

    name: str
    primitive: str

    def identity(self, dtype: DType) -> float | int | bool:
        if self.name in ("sum", "any"):
            return 0.0 if dtype.is_float else (False if dtype.kind == "b" else 0)
        if self.name in ("prod", "all"):
            return 1.0 if dtype.is_float else (True if dtype.kind == "b" else 1)
        low = self.name == "max"
        if dtype.is_float:
            return -INF if low else INF
        if dtype.kind == "b":
            return not low
        lowest = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
        highest = (1 << (dtype.bits - (dtype.kind == "i"))) - 1
        return lowest if low else highest


COMBINERS = {
    c.name: c
    for c in (
        Combiner("sum", "add"), Combiner("prod", "mul"), Combiner("max", "max"), Combiner("min", "min"),
        Combiner("any", "or"), Combiner("all", "and"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """A named loop dimension 0 <= name < extent."""

    name: str
    extent: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """An array: `shape` in elements; `scope` input | output | temp | scratch | register.

    `strides` (elements, one a dimension) are integers, or names of run-time arguments; None means C-contiguous. Only
    inputs and outputs may have strides.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    scope: str = "input"
    strides: tuple[int | str, ...] | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.bytes

    @property
    def contiguous_strides(self) -> tuple[int, ...]:
        out, step = [], 1
        for extent in reversed(self.shape):
            out.append(step)
            step *= max(extent, 1)
        return tuple(reversed(out))

    @property
    def element_strides(self) -> tuple[int | str, ...]:
        return self.contiguous_strides if self.strides is None else self.strides


@dataclass(frozen=True, slots=True)
class Compute:
    """name[axes] = combiner over reduce_axes of body (or just body). `name` is also the buffer that it defines."""

    name: str
    dtype: DType
    axes: tuple[Axis, ...]
    body: Expr
    reduce_axes: tuple[Axis, ...] = ()
    combiner: str | None = None

    def __post_init__(self) -> None:
        if (self.combiner is None) != (not self.reduce_axes):
            raise ValueError(f"{self.name}: a combiner and reduce axes come together")
        if self.combiner is not None and self.combiner not in COMBINERS:
            raise ValueError(f"{self.name}: unknown combiner {self.combiner!r}; known are {', '.join(COMBINERS)}")

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        return self.axes + self.reduce_axes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(a.extent for a in self.axes)

    @property
    def points(self) -> int:
        return math.prod(a.extent for a in self.all_axes)

    @property
    def index(self) -> tuple[Affine, ...]:
        return tuple(var(a.name) for a in self.axes)

    def renamed(self, names: Mapping[str, str]) -> Compute:
        """The same computation with its axes renamed (simultaneously)."""
        values = {old: var(new) for old, new in names.items()}
        axes = tuple(Axis(names.get(a.name, a.name), a.extent) for a in self.axes)
        reduce_axes = tuple(Axis(names.get(a.name, a.name), a.extent) for a in self.reduce_axes)
        return Compute(self.name, self.dtype, axes, substitute(self.body, values), reduce_axes, self.combiner)


@dataclass(frozen=True)
class TensorProgram:
    """inputs (scope "input"), computes in dependency order, and the names of the computes that are results, in
    order."""

    inputs: tuple[Buffer, ...]
    computes: tuple[Compute, ...]
    outputs: tuple[str, ...]

    @cached_property
    def _computes(self) -> dict[str, Compute]:
        return {c.name: c for c in self.computes}

    def compute(self, name: str) -> Compute:
        return self._computes[name]

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """Inputs, then temporaries, then outputs in the order of `outputs`: the order in which a kernel takes them."""
        temps = (Buffer(c.name, c.dtype, c.shape, "temp") for c in self.computes if c.name not in self.outputs)
        results = (self.compute(name) for name in dict.fromkeys(self.outputs))
        return (*self.inputs, *temps, *(Buffer(c.name, c.dtype, c.shape, "output") for c in results))

    @cached_property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """By Compute, the buffers that its body loads from, in order."""
        return {c.name: tuple(dict.fromkeys(ld.buffer for ld in loads(c.body))) for c in self.computes}

    @cached_property
    def readers(self) -> dict[str, frozenset[str]]:
        """By buffer, the Computes that load from it."""
        found: dict[str, set[str]] = {b.name: set() for b in self.buffers}
        for name, read in self.reads.items():
            for buffer in read:
                found[buffer].add(name)
        return {name: frozenset(names) for name, names in found.items()}

    def consumers(self, name: str) -> tuple[Compute, ...]:
        return tuple(c for c in self.computes if any(ld.buffer == name for ld in loads(c.body)))

    @cached_property
    def flops(self) -> int:
        """Scalar operations on floats or integers that the program asks for; fma counts two, casts and selections
        none. Of a choice by position only the branch that takes more counts."""
        total = 0
        for c in self.computes:
            each = _flops(_longest(c.body)) + (1 if c.combiner else 0)
            total += each * c.points
        return total

    @cached_property
    def bytes(self) -> int:
        """Bytes that any execution must move: each input and each output once."""
        return sum(b.bytes for b in self.inputs) + sum(b.bytes for b in self.buffers if b.scope == "output")

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """A JSON value that depends on no name: two functions that compute the same thing the same way have the same
        one."""
        return to_json(canonical_names(self))

    @cached_property
    def digest(self) -> str:
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _flops(body: Expr) -> int:
    return sum(map(operation_flops, distinct(body)))


def _longest(body: Expr) -> Expr:
    """The body with the longer branch in place of each choice that positions alone decide."""
    if not any(isinstance(node, Index) for node in walk(body)):
        return body

    def branch(node: Expr) -> Expr | None:
        return max(map(_longest, node.args[1:]), key=_flops) if isinstance(node, Op) and by_position(node) else None

    return transform(body, branch)


def operation_flops(node: Expr) -> int:
    """Floating or integer operations that one expression node stands for."""
    if not isinstance(node, Op) or node.name in ("cast", "where", "neg", "gather"):
        return 0
    return 2 if node.name == "fma" else 1


def canonical_names(program: TensorProgram) -> TensorProgram:
    """Rename inputs to x0.., computes to t0.. and their axes to a0.. in order of appearance."""
    buffers = {b.name: f"x{i}" for i, b in enumerate(program.inputs)}
    buffers |= {c.name: f"t{i}" for i, c in enumerate(program.computes)}

    def rename(node: Expr) -> Expr | None:
        return Load(buffers[node.buffer], node.index, node.dtype) if isinstance(node, Load) else None

    computes = []
    for c in program.computes:
        c = c.renamed({a.name: f"a{i}" for i, a in enumerate(c.all_axes)})
        computes.append(Compute(buffers[c.name], c.dtype, c.axes, transform(c.body, rename), c.reduce_axes, c.combiner))
    inputs = []
    for b in program.inputs:
        strides = None if b.strides is None else tuple(
            s if isinstance(s, int) else f"{buffers[b.name]}.s{d}" for d, s in enumerate(b.strides)
        )  # fmt: skip
        inputs.append(Buffer(buffers[b.name], b.dtype, b.shape, b.scope, strides))
    return TensorProgram(tuple(inputs), tuple(computes), tuple(buffers[o] for o in program.outputs))


# ---- JSON -----------------------------------------------------------------------------------------------------------


def affine_to_json(a: Affine) -> Any:
    """An int, or [const, [coefficient, atom], ...] with atom a name or ["//" | "%", affine, divisor]."""
    if not a.terms:
        return a.const

    def atom(t: Atom) -> Any:
        if isinstance(t, str):
            return t
        return ["//" if isinstance(t, FloorDiv) else "%", affine_to_json(t.arg), t.divisor]

    return [a.const, *([c, atom(t)] for t, c in a.terms)]


def affine_from_json(value: Any) -> Affine:
    """The affine that `affine_to_json` wrote. Raises ValueError on anything else."""
    if type(value) is int:
        return Affine((), value)
    if not isinstance(value, list) or not value or not all(isinstance(v, list) and len(v) == 2 for v in value[1:]):
        raise ValueError(f"not an affine: {value!r}")
    total = Affine((), _integer(value[0]))
    for c, atom in value[1:]:
        if isinstance(atom, str):
            total = total + var(atom) * _integer(c)
            continue
        kind, arg, divisor = atom
        if kind not in ("//", "%") or _integer(divisor) < 1:
            raise ValueError(f"not a floor division or remainder by a positive constant: {atom!r}")
        inner = affine_from_json(arg)
        total = total + (inner // divisor if kind == "//" else inner % divisor) * _integer(c)
    return total


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"expected an integer, got {value!r}")
    return value


def expr_to_json(expr: Expr) -> Any:
    match expr:
        case Const(value=value, dtype=dtype):
            text = repr(value) if isinstance(value, float) and not math.isfinite(value) else value
            return ["const", text, dtype.name]
        case Load(buffer=buffer, index=index, dtype=dtype):
            return ["load", buffer, [affine_to_json(a) for a in index], dtype.name]
        case Index(value=value):
            return ["index", affine_to_json(value)]
        case Op(name=name, args=args, dtype=dtype):
            return [name, [expr_to_json(a) for a in args], dtype.name]


def expr_from_json(value: Any) -> Expr:
    from .dtypes import dtype as parse

    kind = value[0]
    if kind == "const":
        return Const(float(value[1]) if isinstance(value[1], str) else value[1], parse(value[2]))
    if kind == "load":
        return Load(str(value[1]), tuple(affine_from_json(a) for a in value[2]), parse(value[3]))
    if kind == "index":
        return Index(affine_from_json(value[1]))
    return Op(str(kind), tuple(expr_from_json(a) for a in value[1]), parse(value[2]))


def to_json(program: TensorProgram) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": b.name, "dtype": b.dtype.name, "shape": list(b.shape)}
            | ({} if b.strides is None else {"strides": list(b.strides)})
            for b in program.inputs
        ],
        "computes": [
            {"name": c.name, "dtype": c.dtype.name, "axes": [[a.name, a.extent] for a in c.axes],
             "reduce_axes": [[a.name, a.extent] for a in c.reduce_axes], "combiner": c.combiner,
             "body": expr_to_json(c.body)}
            for c in program.computes
        ],
        "outputs": list(program.outputs),
    }  # fmt: skip


def from_json(value: Mapping[str, Any]) -> TensorProgram:
    """The program that `to_json` wrote. Raises KeyError, ValueError or TypeError on anything else."""
    from .dtypes import dtype as parse


    def axes(rows: Iterable[Any]) -> tuple[Axis, ...]:
        return tuple(Axis(str(n), int(e)) for n, e in rows)

    inputs = tuple(
        Buffer(str(b["name"]), parse(b["dtype"]), tuple(int(e) for e in b["shape"]), "input",
               tuple(b["strides"]) if "strides" in b else None)
        for b in value["inputs"]
    )  # fmt: skip
    computes = tuple(
        Compute(
            str(c["name"]),
            parse(c["dtype"]),
            axes(c["axes"]),
            expr_from_json(c["body"]),
            axes(c["reduce_axes"]),
            c["combiner"],
        )
        for c in value["computes"]
    )
    return TensorProgram(inputs, computes, tuple(str(o) for o in value["outputs"]))
