"""Values, addresses and types in a language of the C family: the part of a kernel's text that has no control flow.

A `Dialect` is a table: what differs between the languages. Knows which loops and guards stand around a value, for its
bounds; must not know blocks, threads or vectors.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ir.affine import Affine, FloorDiv, const
from ..ir.bounds import domain
from ..ir.dtypes import BOOL, F32, DType
from ..ir.errors import BuildError
from ..ir.expr import Const, Expr, Index, Load, Op, distinct
from ..ir.nest import Loop, Reduce, Store
from ..ir.program import COMBINERS, Buffer


@dataclass(frozen=True)
class Dialect:
    """A language. `types`: the C type of values by dtype; `functions`: formats of primitives that have no operator;
    `atoms`: kernel, argument, shared, barrier, restrict, unroll, block and thread numbers, infinity and NaN; `helpers`:
    functions of its own, by name, as texts."""

    name: str
    suffix: str
    prelude: str
    types: Mapping[str, str]
    functions: Mapping[str, str]
    atoms: Mapping[str, str]
    helpers: Mapping[str, str] = field(default_factory=dict)

    def storage(self, dtype: DType) -> str:
        """The C type of an array's elements: 16-bit floats are kept as their bits, booleans as bytes."""
        return self.types[_STORAGE.get(dtype.name, dtype.name)]


_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "eq": "==", "ne": "!=", "and": "&", "or": "|",
    "xor": "^",
}  # fmt: skip
_STORAGE = {"f16": "u16", "bf16": "u16", "bool": "u8"}


class Values:
    """Lines of one kernel so far, and what its names stand for."""

    def __init__(self, dialect: Dialect) -> None:
        self.d = dialect
        self.lines: list[str] = []
        self.depth = 1
        self.path: list[Loop] = []
        self.guards: list[Affine] = []
        self.dropped: dict[str, set[int]] = {}  # dimensions of registers that are the threads' own
        self.buffers: dict[str, Buffer] = {}
        self.lent: dict[tuple[str, tuple[Affine, ...]], str] = {}  # elements of other lanes
        self.count = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def type(self, dtype: DType) -> str:
        """Of a value: 16-bit floats are their bits, booleans are integers."""
        return self.d.types["i32"] if dtype == BOOL else self.d.storage(dtype)

    # ---- values -----------------------------------------------------------------------------------------------------

    def leaf(self, leaf: Store | Reduce) -> None:
        b = self.buffers[leaf.buffer]
        target = self.element(leaf.buffer, leaf.index)
        if isinstance(leaf, Store):
            self.line(f"{target} = {self.value(leaf.value)};")
            return
        value = self.combined(leaf, self.loaded(target, b.dtype))
        first = [a for a in leaf.first or () if a != const(0)]
        if leaf.first is not None:
            where = domain(tuple(self.path), tuple(self.guards))
            begins = not any((where.lower(a) or 0) > 0 for a in first)
            plain = self.value(leaf.value) if begins else value
            if not first:
                value = plain
            elif begins:
                value = f"({' && '.join(f'{self.affine(a)} == 0' for a in first)}) ? {plain} : {value}"
        self.line(f"{target} = {value};")

    def combined(self, leaf: Reduce, old: str) -> str:
        value, b = leaf.value, self.buffers[leaf.buffer]
        product = isinstance(value, Op) and value.name == "mul" and b.dtype.is_float and b.dtype.bits > 16
        if leaf.combiner == "sum" and product and isinstance(value, Op):
            return self.d.functions[f"fma.{b.dtype.name}"].format(*map(self.value, value.args), old)
        return self.operation(COMBINERS[leaf.combiner].primitive, b.dtype.compute, [old, self.value(value)], b.dtype)

    def value(self, expr: Expr, known: Mapping[Load, str] | None = None) -> str:
        """The text of an expression; what occurs several times gets a name on a line of its own."""
        nodes = distinct(expr)
        uses = Counter(arg for node in nodes if isinstance(node, Op) for arg in node.args)
        texts: dict[Expr, str] = {}
        for node in nodes:
            match node:
                case Const(value=value, dtype=dtype):
                    text = self.literal(value, dtype)
                case Load():
                    text = (known or {}).get(node) or self.loaded(self.element(node.buffer, node.index), node.dtype)
                case Index(value=at):
                    text = f"(({self.d.types['i64']})({self.affine(at)}))"
                case Op(name="gather", args=(Load() as source, Const(value=dim), at)):
                    text = self.gathered(source, int(dim), f"(({self.d.types['i64']})({texts[at]}))", node.dtype)
                case Op():
                    text = self.operation(node.name, node.dtype, [texts[a] for a in node.args], node.args[-1].dtype)
            if uses[node] > 1 and isinstance(node, (Op, Load)) and not (known and node in known):
                name = self.fresh()
                self.line(f"const {self.type(node.dtype)} {name} = {text};")
                text = name
            texts[node] = text
        return texts[nodes[-1]]

    def operation(self, name: str, dtype: DType, args: list[str], kind: DType) -> str:
        """A primitive on texts; `kind` is the type of its (last) operands."""
        if name == "where":
            return f"({args[0]} ? {args[1]} : {args[2]})"
        if name == "cast":
            return self.cast(args[0], kind, dtype)
        if kind == BOOL:
            name = {"add": "or", "max": "or", "mul": "and", "min": "and", "sub": "xor"}.get(name, name)
        if name == "not":
            return f"(!{args[0]})" if kind == BOOL else f"(({self.type(dtype)})~{args[0]})"
        if name in ("lt", "le", "eq", "ne"):
            return f"({args[0]} {_INFIX[name]} {args[1]})"
        if name in _INFIX and (kind.is_float or kind == BOOL or name in ("and", "or", "xor")):
            return f"({args[0]} {_INFIX[name]} {args[1]})"
        if name in _INFIX or name == "neg" and not kind.is_float:  # integers wrap around
            wide = self.d.types["u64" if kind.bits == 64 else "u32"]
            left, right = (args if len(args) == 2 else ["0", args[0]])
            sign = _INFIX.get(name, "-")
            return f"(({self.type(dtype)})(({wide}){left} {sign} ({wide}){right}))"
        key = f"{name}.{kind.name}" if f"{name}.{kind.name}" in self.d.functions else f"{name}.{kind.kind}"
        text = self.d.functions.get(key) or self.d.functions.get(name)
        if text is None:
            raise BuildError(f"{self.d.name} has no {name} of {kind}", reason="no-function")
        return text.format(*args, type=self.type(dtype))

    def cast(self, text: str, frm: DType, to: DType) -> str:
        if frm.is_float and frm.bits == 16:
            text, frm = f"at_from_{frm.name}({text})", F32
        if to == BOOL:
            return f"({text} != 0)"
        if to.is_float and to.bits == 16:
            return f"at_as_{to.name}((float){text})"
        if frm.is_float and not to.is_float:
            return f"at_to_{to.name}({text})"
        return f"(({self.type(to)}){text})"

    def loaded(self, text: str, dtype: DType) -> str:
        return f"({text} != 0)" if dtype == BOOL else text

    def literal(self, value: float | int | bool, dtype: DType) -> str:
        if not dtype.is_float:
            text = str(int(value))
            return f"({self.type(dtype)})({text}{self.d.atoms['long'] if dtype.bits == 64 else ''})" if value < 0 or \
                dtype.bits == 64 else text  # fmt: skip
        value = float(value)
        if value != value or value in (float("inf"), float("-inf")):
            special = self.d.atoms["nan" if value != value else "inf"]
            return f"(({self.type(dtype)}){'-' if value < 0 else ''}{special})"
        if dtype.bits <= 32:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
            return f"{value!r}f"
        return repr(value)

    # ---- addresses --------------------------------------------------------------------------------------------------

    def element(self, name: str, index: tuple[Affine, ...]) -> str:
        return self.lent.get((name, index)) or f"{c_name(name)}[{self.offset(name, index)}]"

    def gathered(self, source: Load, dim: int, at: str, dtype: DType) -> str:
        """An element whose index along `dim` is a value, clamped to the extent."""
        buffer = self.buffers[source.buffer]
        name, stride = self.fresh(), buffer.element_strides[dim]
        self.line(f"const {self.d.types['i64']} {name} = {at};")
        last = buffer.shape[dim] - 1
        inside = f"({name} < 0 ? 0 : {name} > {last} ? {last} : {name})"
        step = stride if isinstance(stride, int) else c_name(stride)
        text = f"{c_name(source.buffer)}[{self.offset(source.buffer, source.index)} + {inside} * {step}]"
        return self.loaded(text, dtype)

    def place(self, name: str, index: tuple[Affine, ...]) -> str:
        return f"{c_name(name)} + {self.offset(name, index)}"

    def flat(self, name: str, index: tuple[Affine, ...]) -> Affine | None:
        """The offset in elements, where all strides are numbers."""
        b, total, step = self.buffers[name], Affine(), 1
        kept = [d for d in range(len(b.shape)) if d not in self.dropped.get(name, ())]
        given = b.element_strides if b.scope in ("input", "output", "temp") else None
        for d in reversed(kept):
            stride = given[d] if given is not None else step
            if not isinstance(stride, int):
                return None
            total, step = total + index[d] * stride, step * b.shape[d]
        return total

    def offset(self, name: str, index: tuple[Affine, ...]) -> str:
        flat = self.flat(name, index)
        if flat is not None:
            where = domain(tuple(self.path), tuple(self.guards))
            return self.affine(where.simplify(flat), wide=self.buffers[name].size >= 1 << 31)
        strides = self.buffers[name].element_strides
        parts = [f"({self.d.types['i64']})({self.affine(a)}) * {s if isinstance(s, int) else c_name(s)}"
                 for a, s in zip(index, strides)]  # fmt: skip
        return " + ".join(parts) or "0"

    def minimum(self, terms: tuple[Affine, ...]) -> str:
        text = self.affine(terms[0])
        for t in terms[1:]:
            text = f"at_min({text}, {self.affine(t)})"
        return text

    def affine(self, a: Affine, wide: bool = False) -> str:
        head = f"({self.d.types['i64']})" if wide else ""
        parts = []
        for atom, c in a.terms:
            if isinstance(atom, str):
                text = c_name(atom)
            else:
                inner = self.affine(atom.arg)
                low = domain(tuple(self.path), tuple(self.guards)).lower(atom.arg)
                division = isinstance(atom, FloorDiv)
                if low is not None and low >= 0:
                    text = f"(({inner}) {'/' if division else '%'} {atom.divisor})"
                else:
                    text = f"{'at_floordiv' if division else 'at_floormod'}({inner}, {atom.divisor})"
            parts.append(f"{head}{text}" if c == 1 else f"{c} * {head}{text}")
        if a.const or not parts:
            parts.append(str(a.const))
        return " + ".join(parts)


def c_name(name: str) -> str:
    """A name of a nest as one of C."""
    return name.replace(".", "_")
