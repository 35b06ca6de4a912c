"""Scalar expressions to LLVM instructions, on one value or on a vector of lanes at once.

A value that does not depend on the vector loop stays scalar until an operation mixes it with a vector. Knows
primitives and types; nothing of loops or stages.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

from ..ir.affine import Affine, FloorDiv, var
from ..ir.dtypes import BF16, BOOL, F32, I64, DType
from ..ir.expr import COMPARISONS, Const, Expr, Index, Load, Op, substitute
from ..ir.program import COMBINERS, Buffer
from . import vecmath
from .function import Bytes, Flat, Function, Value, plus

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor", "shl": "shl"}
_FCMP = {"lt": "olt", "le": "ole", "eq": "oeq", "ne": "une"}
_ICMP = {"lt": "lt", "le": "le", "eq": "eq", "ne": "ne"}
_INTRINSIC = {"sqrt": "sqrt", "floor": "floor", "rint": "roundeven", "abs": "fabs"}


SPACED = 4  # elements: vectors of every so-manieth one are picked from whole vectors


@dataclass(frozen=True)
class Lanes:
    """The vector loop being evaluated: its name, how many of `width` lanes are active, and the mask where not all
    are."""

    name: str
    width: int
    active: int | None
    mask: str


def scalar_type(dtype: DType) -> str:
    if dtype.is_float:
        return {"f16": "half", "bf16": "i16", "f32": "float", "f64": "double"}[dtype.name]
    return "i1" if dtype == BOOL else f"i{dtype.bits}"


def memory_type(dtype: DType) -> str:
    return "i8" if dtype == BOOL else scalar_type(dtype)


def wide(element: str, lanes: int) -> str:
    return element if lanes == 1 else f"<{lanes} x {element}>"


def literal(value: float | int | bool, dtype: DType) -> str:
    if dtype.is_float:
        if dtype.bits == 16:
            raise ValueError("16-bit floats are storage types; constants are f32 or f64")
        number = float(value)
        if dtype.bits == 32 and math.isfinite(number):
            try:
                number = struct.unpack("f", struct.pack("f", number))[0]
            except OverflowError:
                number = math.copysign(math.inf, number)
        return "0x" + struct.pack(">d", number).hex().upper()
    return str(int(value)) if dtype != BOOL else ("true" if value else "false")


class Evaluator:
    """Turns expressions into instructions of one Function."""

    def __init__(self, function: Function, buffers: dict[str, Buffer], features: tuple[str, ...] = ()) -> None:
        self.fn = function
        self.buffers = buffers
        self.scales = "+avx512vl" in features
        self.lanes: Lanes | None = None
        self.whole_rows, self.kept_rows = set[str](), set[str]()  # of registers, by what lies beyond the lanes
        # Divisors that are one number for the loop being written; True: far from overflow, so that `quotient` is exact.
        self.divisors: dict[Expr, bool] = {}

    # ---- operands ----

    def widen(self, value: Value, lanes: int) -> str:
        """The operand text with the given number of lanes."""
        if value.lanes == lanes:
            return value.text
        kind = scalar_type(value.dtype)
        if not value.text.startswith("%"):
            return f"splat ({kind} {value.text})"
        known = self.fn.recall(("splat", value.text, lanes), value.level)
        if known is None:
            vector = wide(kind, lanes)
            one = self.fn.emit(f"insertelement {vector} poison, {kind} {value.text}, i64 0", value.level)
            text = self.fn.emit(
                f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer", value.level
            )
            known = self.fn.remember(("splat", value.text, lanes), Value(text, value.dtype, lanes, value.level))
        return known.text

    def apply(self, template: str, dtype: DType, *args: Value, pinned: bool = False) -> Value:
        """An instruction on operands brought to one width: `{0}`, `{1}` are operands, `{t}` the type of the first."""
        lanes = max(a.lanes for a in args)
        level = self.fn.level if pinned else max(a.level for a in args)
        texts = [self.widen(a, lanes) for a in args]
        text = template.format(*texts, t=wide(scalar_type(args[0].dtype), lanes), r=wide(scalar_type(dtype), lanes),
                               b=wide("i1", lanes))  # fmt: skip
        key = ("op", text)
        return self.fn.recall(key, level) or self.fn.remember(
            key, Value(self.fn.emit(text, level), dtype, lanes, level)
        )

    def intrinsic(self, name: str, dtype: DType, *args: Value) -> Value:
        lanes = max(a.lanes for a in args)
        kind = wide(scalar_type(args[0].dtype), lanes)
        suffix = (f"v{lanes}" if lanes > 1 else "") + _mangled(args[0].dtype)
        self.fn.declarations.add(f"declare {kind} @llvm.{name}.{suffix}({', '.join([kind] * len(args))})")
        operands = ", ".join(f"{{t}} {{{n}}}" for n in range(len(args)))
        return self.apply(f"call {{t}} @llvm.{name}.{suffix}({operands})", dtype, *args)

    # ---- expressions ----

    def value(self, expr: Expr) -> Value:
        match expr:
            case Const(value=value, dtype=dtype):
                return Value(literal(value, dtype), dtype, 1, 0)
            case Load(buffer=buffer, index=index):
                return self.load(self.buffers[buffer], index)
            case Index(value=a):
                return self._index(a)
            case Op(name="gather", args=(Load(buffer=buffer, index=index), Const(value=dim), at)):
                return self.gather(self.buffers[buffer], index, int(dim), self.value(at))
            case Op(name="cast", args=(arg,), dtype=dtype):
                return self.cast(self.value(arg), dtype)
            case Op(name="add", args=(a, b), dtype=dtype) if dtype.is_float:
                for product, other in ((a, b), (b, a)):
                    if isinstance(product, Op) and product.name == "mul":
                        return self.fma(self.value(product.args[0]), self.value(product.args[1]), self.value(other))
                return self.operation("add", dtype, self.value(a), self.value(b))
            case Op(name="div", args=(a, b), dtype=dtype) if dtype.is_float and self.divisors.get(b):
                return self.quotient(self.value(a), self.value(b))
            case Op(name=name, args=args, dtype=dtype):
                return self.operation(name, dtype, *map(self.value, args))
        raise AssertionError(expr)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self.intrinsic("fma", a.dtype, a, b, c)

    def quotient(self, a: Value, b: Value) -> Value:
        """a / b by the reciprocal y of a divisor that is far from overflow and underflow: q + y (a - q b) with q = a y
        is the correctly rounded quotient (P. Markstein), but for the last bit at the ends of the range: of quotients
        about to over- or underflow, and of dividends whose own last bits lie below the smallest number. Where a or q
        is infinite or NaN the sum is NaN, and where a is a zero the sum may lose its sign: q already is the quotient.
        """
        one, zero = (Value(literal(number, b.dtype), b.dtype, 1, 0) for number in (1.0, 0.0))
        y = self.apply("fdiv {t} {0}, {1}", b.dtype, one, b)
        q = self.operation("mul", a.dtype, a, y)
        rest = self.fma(self.operation("neg", a.dtype, q), b, a)
        refined = self.fma(rest, y, q)
        better = self.apply("fcmp one {t} {0}, {1}", BOOL, refined, zero)
        return self.operation("where", a.dtype, better, refined, q)

    def combine(self, combiner: str, old: Value, value: Expr) -> Value:
        """combiner(old, value); a sum of products is a fused multiply-add."""
        if combiner == "sum" and old.dtype.is_float and isinstance(value, Op) and value.name == "mul":
            return self.fma(self.value(value.args[0]), self.value(value.args[1]), old)
        return self.operation(COMBINERS[combiner].primitive, old.dtype, old, self.value(value))

    def operation(self, name: str, dtype: DType, *args: Value) -> Value:
        kind = args[0].dtype if name != "where" else args[1].dtype
        if name == "where":
            lanes = max(a.lanes for a in args)
            if args[0].lanes == lanes:
                return self.apply("select {b} {0}, {r} {1}, {r} {2}", dtype, *args)
            one = Value(self.widen(args[0], lanes), BOOL, lanes, args[0].level)
            return self.apply("select {b} {0}, {r} {1}, {r} {2}", dtype, one, *args[1:])
        if kind.is_float:
            return self._float(name, kind, dtype, args)
        return self._integer(name, kind, dtype, args)

    def _float(self, name: str, kind: DType, dtype: DType, args: tuple[Value, ...]) -> Value:
        if name in _FLOAT:
            return self.apply(f"{_FLOAT[name]} {{t}} {{0}}, {{1}}", dtype, *args)
        if name in COMPARISONS:
            return self.apply(f"fcmp {_FCMP[name]} {{t}} {{0}}, {{1}}", BOOL, *args)
        if name in _INTRINSIC:
            return self.intrinsic(_INTRINSIC[name], dtype, *args)
        if name == "fma":
            return self.fma(*args)
        if name == "neg":
            return self.apply("fneg {t} {0}", dtype, *args)
        if name == "recip":
            return self.apply("fdiv {t} {0}, {1}", dtype, Value(literal(1.0, kind), kind, 1, 0), *args)
        if name == "mod":
            # NumPy's remainder: the sign of the divisor; a - floor(a / b) * b would lose digits for large quotients.
            rest = self.apply("frem {t} {0}, {1}", dtype, *args)
            zero = Value(literal(0.0, kind), kind, 1, 0)
            signs = (self.operation("lt", BOOL, v, zero) for v in (rest, args[1]))
            uneven = self.operation("ne", BOOL, rest, zero)
            differs = self.operation("and", BOOL, uneven, self.operation("xor", BOOL, *signs))
            return self.operation("where", dtype, differs, self.operation("add", dtype, rest, args[1]), rest)
        if name in ("max", "min"):
            return self._extreme(name, dtype, args)
        return self._expanded(name, args[0])

    def _builder(self, dtype: DType, lanes: int, level: int) -> vecmath.VectorBuilder:
        def emit(text: str) -> str:
            key = ("op", text)
            known = self.fn.recall(key, level)
            if known is None:
                known = self.fn.remember(key, Value(self.fn.emit(text, level), dtype, lanes, level))
            return known.text

        builder = vecmath.VectorBuilder(emit, dtype, lanes)
        builder.declarations, builder.scales = self.fn.declarations, self.scales and dtype == F32
        return builder

    def _expanded(self, name: str, x: Value) -> Value:
        return Value(vecmath.expand(name, x.text, self._builder(x.dtype, x.lanes, x.level)), x.dtype, x.lanes, x.level)

    def _extreme(self, name: str, dtype: DType, args: tuple[Value, ...]) -> Value:
        a, b = args
        lanes, level = max(a.lanes, b.lanes), max(a.level, b.level)
        build = self._builder(dtype, lanes, level)
        fn = vecmath.maximum if name == "max" else vecmath.minimum
        known = [not v.text.startswith("%") and v.text not in ("0x7FF8000000000000",) for v in (a, b)]
        texts = [self.widen(v, lanes) for v in (a, b)]
        text = fn(texts[0], texts[1], build, a_may_be_nan=not known[0], b_may_be_nan=not known[1])
        return Value(text, dtype, lanes, level)

    def _integer(self, name: str, kind: DType, dtype: DType, args: tuple[Value, ...]) -> Value:
        signed = kind.kind == "i"
        if kind == BOOL:
            name = {"add": "or", "max": "or", "mul": "and", "min": "and", "sub": "xor"}.get(name, name)
        if name in _INTEGER:
            return self.apply(f"{_INTEGER[name]} {{t}} {{0}}, {{1}}", dtype, *args)
        if name in COMPARISONS:
            sign = "" if name in ("eq", "ne") else ("s" if signed else "u")
            return self.apply(f"icmp {sign}{_ICMP[name]} {{t}} {{0}}, {{1}}", BOOL, *args)
        if name in ("max", "min"):
            return self.intrinsic(("s" if signed else "u") + name, dtype, *args)
        zero, minus = Value(literal(0, kind), kind, 1, 0), Value("-1" if kind != BOOL else "true", kind, 1, 0)
        if name == "neg":
            return self.apply("sub {t} {0}, {1}", dtype, zero, *args)
        if name == "abs":
            return self.intrinsic("smax", dtype, args[0], self.operation("neg", dtype, *args)) if signed else args[0]
        if name == "not":
            return self.apply("xor {t} {0}, {1}", dtype, args[0], minus)
        if name == "shr":
            return self.apply(f"{'ashr' if signed else 'lshr'} {{t}} {{0}}, {{1}}", dtype, *args)
        if name in ("div", "mod"):
            return self._divided(name, kind, args[0], args[1], zero, minus)
        if name in ("floor", "rint"):
            return args[0]
        raise AssertionError(f"{name} on {kind}")

    def _divided(self, name: str, kind: DType, a: Value, b: Value, zero: Value, minus: Value) -> Value:
        """NumPy's floor division and remainder: division by zero gives 0, and the lowest integer over -1 wraps."""
        one = Value("1", kind, 1, 0)
        no = self.operation("eq", BOOL, b, zero)
        if kind.kind != "i":
            safe = self.operation("where", kind, no, one, b)
            out = self.apply(f"{'udiv' if name == 'div' else 'urem'} {{t}} {{0}}, {{1}}", kind, a, safe)
            return self.operation("where", kind, no, zero, out)
        flip = self.operation("eq", BOOL, b, minus)
        safe = self.operation("where", kind, self.operation("or", BOOL, no, flip), one, b)
        rest = self.apply("srem {t} {0}, {1}", kind, a, safe)
        uneven = self.operation("and", BOOL, self.operation("ne", BOOL, rest, zero), self.operation(
            "lt", BOOL, self.operation("xor", kind, rest, safe), zero))  # fmt: skip
        if name == "mod":
            out = self.operation("where", kind, uneven, self.operation("add", kind, rest, safe), rest)
            return self.operation("where", kind, self.operation("or", BOOL, no, flip), zero, out)
        whole = self.apply("sdiv {t} {0}, {1}", kind, a, safe)
        out = self.operation("where", kind, uneven, self.operation("sub", kind, whole, one), whole)
        out = self.operation("where", kind, flip, self.operation("neg", kind, a), out)
        return self.operation("where", kind, no, zero, out)

    def cast(self, x: Value, to: DType) -> Value:
        frm = x.dtype
        if frm == to:
            return x
        if frm == BF16:
            wider = Value(vecmath.bf16_to_f32(x.text, self._builder(F32, x.lanes, x.level)), F32, x.lanes, x.level)
            return self.cast(wider, to)
        if to == BF16:
            x = self.cast(x, F32)
            return Value(vecmath.f32_to_bf16(x.text, self._builder(F32, x.lanes, x.level)), BF16, x.lanes, x.level)
        if frm.is_float and to.is_float:
            return self.apply(f"{'fpext' if to.bits > frm.bits else 'fptrunc'} {{t}} {{0}} to {{r}}", to, x)
        if to == BOOL:
            zero = Value(
                literal(0.0, frm) if frm.is_float and frm.bits > 16 else ("0.0" if frm.is_float else "0"), frm, 1, 0
            )
            return self.apply(f"{'fcmp une' if frm.is_float else 'icmp ne'} {{t}} {{0}}, {{1}}", BOOL, x, zero)
        if frm.is_float:
            if frm.bits == 16:
                return self.cast(self.cast(x, F32), to)
            text = vecmath.float_to_int(x.text, to, self._builder(frm, x.lanes, x.level))
            return Value(text, to, x.lanes, x.level)
        if to.is_float:
            if to.bits == 16:
                return self.cast(self.cast(x, F32), to)
            return self.apply(f"{'sitofp' if frm.kind == 'i' else 'uitofp'} {{t}} {{0}} to {{r}}", to, x)
        if to.bits == frm.bits and frm != BOOL:
            return Value(x.text, to, x.lanes, x.level)
        if to.bits < frm.bits:
            return self.apply("trunc {t} {0} to {r}", to, x)
        return self.apply(f"{'sext' if frm.kind == 'i' else 'zext'} {{t}} {{0}} to {{r}}", to, x)

    def _index(self, a: Affine) -> Value:
        lanes = self.lanes
        if lanes is None or lanes.name not in a.names():
            return self.fn.integer(a)
        if a.is_linear:
            c = a.coefficient(lanes.name)
            start = self.fn.integer(a - var(lanes.name) * c)
            ramp = ", ".join(f"i64 {n * c}" for n in range(lanes.width))
            ramp_value = Value(f"<{ramp}>", I64, lanes.width, 0)
            return self.apply("add {t} {0}, {1}", I64, start, ramp_value)
        kind = wide("i64", lanes.width)
        text, level = "poison", 0
        for n in range(lanes.width if lanes.active is None else lanes.active):
            one = self.fn.integer(a.substitute({lanes.name: Affine((), n)}))
            level = max(level, one.level)
            text = self.fn.emit(f"insertelement {kind} {text}, i64 {one.text}, i64 {n}", None)
        return Value(text, I64, lanes.width, self.fn.level)

    # ---- memory ----

    def load(self, buffer: Buffer, index: tuple[Affine, ...]) -> Value:
        fn, lanes = self.fn, self.lanes
        flat = fn.flat(buffer, index)
        step = self.lane_step(flat)
        if lanes is None or step == 0:
            return self._load_one(buffer, flat, "")
        if step != memory_bytes(buffer) or not isinstance(step, int):
            apart = step // memory_bytes(buffer) if isinstance(step, int) else 0
            if 1 < apart <= SPACED and lanes.active is not None and lanes.active > apart and buffer.dtype != BOOL:
                return self._spaced(buffer, flat, apart, lanes.active)
            return self._gather(buffer, index, flat, step)
        return self._load_row(buffer, *fn.address(buffer, flat, lanes.name))

    def words(self, buffer: Buffer, flat: Flat, dtype: DType) -> Value:
        """Neighbours in memory seen as one number of `dtype`, in each lane those that are its own."""
        seen, align = replace(buffer, dtype=dtype), memory_bytes(buffer)
        if self.lanes is not None and self.lane_step(flat):
            return self._load_row(seen, *self.fn.address(buffer, flat, self.lanes.name), align)
        return self._load_element(seen, *self.fn.address(buffer, flat), align)

    def _load_row(self, buffer: Buffer, pointer: str, shift: Bytes, level: int, align: int = 0) -> Value:
        """Neighbours in memory, one a lane."""
        fn, lanes = self.fn, self.lanes
        assert lanes is not None
        level = max(level, fn.load_level(buffer.name))
        masked = lanes.mask and buffer.name not in self.whole_rows | self.kept_rows
        key = (pointer, shift, lanes.width, lanes.mask if masked else "", buffer.dtype)
        if known := fn.recall_load(buffer.name, key, level):
            return known
        kind, align = wide(memory_type(buffer.dtype), lanes.width), align or memory_bytes(buffer)
        place = fn.place(pointer, shift, level)
        if masked:
            level = fn.level
            name = f"llvm.masked.load.v{lanes.width}{_mangled(buffer.dtype, memory=True)}.p0"
            fn.declarations.add(f"declare {kind} @{name}(ptr, i32, <{lanes.width} x i1>, {kind})")
            mask = f"<{lanes.width} x i1> {lanes.mask}"
            text = fn.emit(f"call {kind} @{name}(ptr {place}, i32 {align}, {mask}, {kind} zeroinitializer)", level)
        else:
            text = fn.emit(f"load {kind}, ptr {place}, align {align}", level)
        if buffer.dtype == BOOL:
            text = fn.emit(f"trunc {kind} {text} to <{lanes.width} x i1>", level)
        return fn.remember_load(buffer.name, key, Value(text, buffer.dtype, lanes.width, level))

    def _spaced(self, buffer: Buffer, flat: Flat, apart: int, count: int) -> Value:
        """Every `apart`-th element of a run: whole vectors, the last of which ends with the last element that is
        wanted, and the lanes picked from them."""
        fn, lanes = self.fn, self.lanes
        assert lanes is not None
        pointer, shift, level = fn.address(buffer, flat, lanes.name)
        level = max(level, fn.load_level(buffer.name))
        key = (pointer, shift, lanes.width, f"{apart} apart, {count}")
        if known := fn.recall_load(buffer.name, key, level):
            return known
        run = (count - 1) * apart + 1
        width = 1 << min(lanes.width, run).bit_length() - 1
        kind, size = scalar_type(buffer.dtype), memory_bytes(buffer)
        text, done = "poison", 0
        for start in dict.fromkeys(min(n, run - width) for n in range(0, run, width)):
            place = fn.place(pointer, plus(shift, start * size), level)
            row = fn.emit(f"load <{width} x {kind}>, ptr {place}, align {size}", level)
            here = range(done, min(count, (start + width - 1) // apart + 1))  # lanes whose elements are in this row
            picks = [lanes.width + n * apart - start if n in here else n for n in range(lanes.width)]
            if width != lanes.width:
                whole = ", ".join(f"i32 {n}" if n < width else "i32 poison" for n in range(lanes.width))
                row = fn.emit(f"shufflevector <{width} x {kind}> {row}, <{width} x {kind}> poison, "
                              f"<{lanes.width} x i32> <{whole}>", level)  # fmt: skip
            mask = ", ".join(f"i32 {p}" if n < here.stop else "i32 poison" for n, p in enumerate(picks))
            vector = f"<{lanes.width} x {kind}>"
            text = fn.emit(f"shufflevector {vector} {text}, {vector} {row}, <{lanes.width} x i32> <{mask}>", level)
            done = here.stop
        return fn.remember_load(buffer.name, key, Value(text, buffer.dtype, lanes.width, level))

    def gather(self, buffer: Buffer, index: tuple[Affine, ...], dim: int, at: Value) -> Value:
        """A load whose index along `dim` is a value, clamped to the extent."""
        fn, lanes = self.fn, self.lanes
        at = self.cast(at, I64)
        at = self.operation("max", I64, at, Value("0", I64, 1, 0))
        at = self.operation("min", I64, at, Value(str(buffer.shape[dim] - 1), I64, 1, 0))
        flat = fn.flat(buffer, index)
        step = self.lane_step(flat)
        stride = fn.step(buffer, dim)
        if at.lanes == 1 and (lanes is None or step in (0, memory_bytes(buffer))):
            offset = fn.arithmetic("mul", at, Value(stride, I64, 1, 0))
            pointer, shift, level = fn.address(buffer, flat, lanes.name if lanes and step else "")
            pointer, level = fn.beyond(pointer, offset, level)
            return (self._load_row if lanes and step else self._load_element)(buffer, pointer, shift, level)
        assert lanes is not None
        kind = wide(scalar_type(buffer.dtype), lanes.width)
        text, vector = "poison", self.widen(at, lanes.width)
        for n in range(lanes.width if lanes.active is None else lanes.active):
            one = fn.emit(f"extractelement {wide('i64', lanes.width)} {vector}, i64 {n}")
            offset = fn.arithmetic("mul", Value(one, I64, 1, fn.level), Value(stride, I64, 1, 0))
            here = fn.flat(buffer, tuple(a.substitute({lanes.name: Affine((), n)}) for a in index))
            pointer, shift, level = fn.address(buffer, here)
            pointer, level = fn.beyond(pointer, offset, level)
            element = self._load_element(buffer, pointer, shift, level)
            text = fn.emit(f"insertelement {kind} {text}, {scalar_type(buffer.dtype)} {element.text}, i64 {n}")
        return Value(text, buffer.dtype, lanes.width, fn.level)

    def lane_step(self, flat: Flat) -> int | tuple[tuple[str, int], ...]:
        """Bytes between neighbouring lanes; -1 where the index is not linear in the vector loop."""
        if self.lanes is None:
            return 0
        if any(self.lanes.name in Affine(((atom, 1),)).names() for atom, _ in flat.odd):
            return -1
        return next((s for n, s in flat.terms if n == self.lanes.name), 0)

    def _load_one(self, buffer: Buffer, flat: Flat, skip: str, lane: tuple[str, int] | None = None) -> Value:
        fn = self.fn
        if lane is not None:
            fn.fixed[lane[0]] = lane[1]
        pointer, shift, level = fn.address(buffer, flat, skip)
        if lane is not None:
            del fn.fixed[lane[0]]
        return self._load_element(buffer, pointer, shift, level)

    def _load_element(self, buffer: Buffer, pointer: str, shift: Bytes, level: int, align: int = 0) -> Value:
        fn = self.fn
        level = max(level, fn.load_level(buffer.name))
        key = (pointer, shift, 1, "", buffer.dtype)
        if known := fn.recall_load(buffer.name, key, level):
            return known
        place = fn.place(pointer, shift, level)
        align = align or memory_bytes(buffer)
        text = fn.emit(f"load {memory_type(buffer.dtype)}, ptr {place}, align {align}", level)
        if buffer.dtype == BOOL:
            text = fn.emit(f"trunc i8 {text} to i1", level)
        return fn.remember_load(buffer.name, key, Value(text, buffer.dtype, 1, level))

    def _gather(self, buffer: Buffer, index: tuple[Affine, ...], flat: Flat, step: object) -> Value:
        """Lanes that are not neighbours in memory, one load each; inactive lanes are not touched."""
        lanes = self.lanes
        assert lanes is not None
        if lanes.active is None:
            raise AssertionError("a strided vector access needs a constant number of lanes")
        kind = wide(scalar_type(buffer.dtype), lanes.width)
        text, level = "poison", 0
        ones = []
        for n in range(lanes.active):
            if step == -1:
                at = self.fn.flat(buffer, tuple(a.substitute({lanes.name: Affine((), n)}) for a in index))
                ones.append(self._load_one(buffer, at, ""))
            else:
                ones.append(self._load_one(buffer, flat, "", (lanes.name, n)))
            level = max(level, ones[-1].level)
        for n, one in enumerate(ones):
            text = self.fn.emit(f"insertelement {kind} {text}, {scalar_type(buffer.dtype)} {one.text}, i64 {n}", level)
        return Value(text, buffer.dtype, lanes.width, level)


def memory_bytes(buffer: Buffer) -> int:
    return 1 if buffer.dtype == BOOL else buffer.dtype.bytes


def _mangled(dtype: DType, memory: bool = False) -> str:
    if dtype.is_float and dtype != BF16:
        return f"f{dtype.bits}"
    return memory_type(dtype) if memory else scalar_type(dtype)


__all__ = [
    "Evaluator",
    "FloorDiv",
    "Lanes",
    "literal",
    "memory_bytes",
    "memory_type",
    "scalar_type",
    "substitute",
    "wide",
]
