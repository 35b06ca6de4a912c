"""Elementary functions as LLVM text: exp, exp2, log, log2 and sin by polynomials; max and min that propagate NaN,
saturating casts to integers, and bf16 bits. Of a scalar, or of a vector of any power of two lanes.

Knows floating point and LLVM's instructions, not where they go: `emit` appends each one and names its result. The
text is final (no LLVM pass tidies it), without branches, has the same bits for every lane count and is never poison:
nothing out of range is converted. Subnormals, infinities, NaN and signed zeros come out right. The CPU must have FMA.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable

from ..ir.dtypes import F32, F64, DType
from ..ir.errors import BuildError

# The largest error in units in the last place, which the tests hold the code to; of sin for |x| <= 1e13 (see `_sin`).
MAX_ULP: dict[tuple[str, str], float] = {
    ("exp", "f32"): 0.9, ("exp", "f64"): 1.0,
    ("exp2", "f32"): 0.9, ("exp2", "f64"): 1.1,
    ("log", "f32"): 1.0, ("log", "f64"): 1.2,
    ("log2", "f32"): 1.2, ("log2", "f64"): 1.2,
    ("sin", "f32"): 1.8, ("sin", "f64"): 1.9,
}  # fmt: skip

_SCALARS = {"f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double"}


class VectorBuilder:
    """Instructions on `lanes` values of `dtype`, a scalar when lanes is 1. Operands and results are SSA operand texts.

    `emit("fadd <16 x float> %a, %b")` appends the instruction and returns the name of its result; `declarations`
    collects the intrinsics that the module must declare.
    """

    def __init__(self, emit: Callable[[str], str], dtype: DType, lanes: int) -> None:
        self.emit, self.dtype, self.lanes = emit, dtype, lanes
        self.declarations: set[str] = set()
        self.scales = False  # the machine multiplies by powers of two in one instruction (AVX-512's vscalef)
        self.ftype = self.vector(_SCALARS.get(dtype.name, f"i{dtype.bits}"))  # the type of the values
        self.itype = self.vector(f"i{dtype.bits}")  # the integer of the same width
        self.btype = self.vector("i1")
        # bits of the stored significand and the exponent's bias
        self.mantissa, self.bias = (52, 1023) if dtype.bits == 64 else (23, 127)

    def like(self, dtype: DType) -> VectorBuilder:
        """A builder of another type for the same place, with the same set of declarations."""
        other = VectorBuilder(self.emit, dtype, self.lanes)
        other.declarations, other.scales = self.declarations, self.scales
        return other

    def vector(self, scalar: str) -> str:
        return scalar if self.lanes == 1 else f"<{self.lanes} x {scalar}>"

    # Constants: floats in hexadecimal, so that they are exact.
    def const(self, value: float) -> str:
        if self.dtype.bits == 32:
            value = ctypes.c_float(value).value  # LLVM writes a float as the double of the same value
        text = f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
        return text if self.lanes == 1 else f"splat ({_SCALARS[self.dtype.name]} {text})"

    def iconst(self, value: int) -> str:
        return str(value) if self.lanes == 1 else f"splat (i{self.dtype.bits} {value})"

    # Floating point
    def fadd(self, a: str, b: str) -> str:
        return self.emit(f"fadd {self.ftype} {a}, {b}")

    def fsub(self, a: str, b: str) -> str:
        return self.emit(f"fsub {self.ftype} {a}, {b}")

    def fmul(self, a: str, b: str) -> str:
        return self.emit(f"fmul {self.ftype} {a}, {b}")

    def fdiv(self, a: str, b: str) -> str:
        return self.emit(f"fdiv {self.ftype} {a}, {b}")

    def neg(self, a: str) -> str:
        return self.emit(f"fneg {self.ftype} {a}")

    def intrinsic(self, name: str, *args: str) -> str:
        """`llvm.<name>` on values of the builder's type: fma, fabs, sqrt, floor, copysign..."""
        symbol = f"@llvm.{name}.{'' if self.lanes == 1 else f'v{self.lanes}'}f{self.dtype.bits}"
        self.declarations.add(f"declare {self.ftype} {symbol}({', '.join([self.ftype] * len(args))})")
        return self.emit(f"call {self.ftype} {symbol}({', '.join(f'{self.ftype} {a}' for a in args)})")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.intrinsic("fma", a, b, c)

    def ldexp(self, a: str, n: str) -> str:
        """a 2^n for integers n; one instruction only where `scales` says so, library calls elsewhere."""
        wide = "" if self.lanes == 1 else f"v{self.lanes}"
        symbol = f"@llvm.ldexp.{wide}f{self.dtype.bits}.{wide}i{self.dtype.bits}"
        self.declarations.add(f"declare {self.ftype} {symbol}({self.ftype}, {self.itype})")
        return self.emit(f"call {self.ftype} {symbol}({self.ftype} {a}, {self.itype} {n})")

    def rint(self, a: str) -> str:
        return self.intrinsic("roundeven", a)

    def fcmp(self, predicate: str, a: str, b: str) -> str:
        return self.emit(f"fcmp {predicate} {self.ftype} {a}, {b}")

    def select(self, condition: str, a: str, b: str, type: str | None = None) -> str:
        type = type or self.ftype
        return self.emit(f"select {self.btype} {condition}, {type} {a}, {type} {b}")

    def max(self, a: str, b: str) -> str:
        """The larger; `b` where either is NaN: one instruction on x86."""
        return self.select(self.fcmp("ogt", a, b), a, b)

    def min(self, a: str, b: str) -> str:
        """The smaller; `b` where either is NaN: one instruction on x86."""
        return self.select(self.fcmp("olt", a, b), a, b)

    def clamp(self, x: str, low: float, high: float) -> str:
        """`x` inside [low, high]; NaN stays."""
        return self.min(self.const(high), self.max(self.const(low), x))

    def horner(self, x: str, coefficients: tuple[float, ...]) -> str:
        """c0 + c1 x + c2 x^2 + ..."""
        *rest, value = map(self.const, coefficients)
        for c in reversed(rest):
            value = self.fma(value, x, c)
        return value

    # Integers of the same width
    def iadd(self, a: str, b: str) -> str:
        return self.emit(f"add {self.itype} {a}, {b}")

    def isub(self, a: str, b: str) -> str:
        return self.emit(f"sub {self.itype} {a}, {b}")

    def shl(self, a: str, count: int) -> str:
        return self.emit(f"shl {self.itype} {a}, {self.iconst(count)}")

    def lshr(self, a: str, count: int) -> str:
        return self.emit(f"lshr {self.itype} {a}, {self.iconst(count)}")

    def ashr(self, a: str, count: int) -> str:
        return self.emit(f"ashr {self.itype} {a}, {self.iconst(count)}")

    def and_(self, a: str, b: str) -> str:
        return self.emit(f"and {self.itype} {a}, {b}")

    def or_(self, a: str, b: str) -> str:
        return self.emit(f"or {self.itype} {a}, {b}")

    def xor(self, a: str, b: str) -> str:
        return self.emit(f"xor {self.itype} {a}, {b}")

    def icmp(self, predicate: str, a: str, b: str) -> str:
        return self.emit(f"icmp {predicate} {self.itype} {a}, {b}")

    # Between the two
    def bits(self, x: str) -> str:
        return self.emit(f"bitcast {self.ftype} {x} to {self.itype}")

    def floats(self, i: str) -> str:
        return self.emit(f"bitcast {self.itype} {i} to {self.ftype}")

    def sitofp(self, i: str) -> str:
        return self.emit(f"sitofp {self.itype} {i} to {self.ftype}")

    def convert(self, instruction: str, x: str, source: str, target: str) -> str:
        """`instruction` (fpext, trunc...) from one scalar type name to another."""
        return self.emit(f"{instruction} {self.vector(source)} {x} to {self.vector(target)}")


def expand(name: str, x: str, b: VectorBuilder) -> str:
    """The operand that holds exp, exp2, log, log2 or sin of `x`, of b.dtype: f32 or f64. `MAX_ULP` has the errors."""
    if (name, b.dtype.name) not in MAX_ULP:
        known = ", ".join(f"{n} of {t}" for n, t in MAX_ULP)
        raise BuildError(f"no expansion of {name} for {b.dtype}: cast to a type that has one ({known})")
    return _EXPANSIONS[name](x, b)


# Coefficients, lowest power first: minimax by the Remez exchange in 60 digits on the reduced range, for the relative
# error of the function's value; then rounded, those of f32 from the lowest on with the higher ones fitted again.
_COEFFICIENTS: dict[tuple[str, str], tuple[float, ...]] = {
    # e^r = c0 + c1 r + ..., c0 = c1 = 1, on |r| <= ln(2)/2
    ("exp", "f32"): (1.0, 1.0, 0.49999994, 0.166665167, 0.0416681021, 0.00836919714, 0.0013839053),
    ("exp", "f64"): (
        1.0, 1.0, 0.5000000000000011, 0.16666666666666408, 0.041666666666530454, 0.008333333333496817,
        0.001388888894357436, 0.00019841269501951584, 2.4801493141642724e-05, 2.7557590127739424e-06,
        2.76302369276783e-07, 2.499897593417247e-08,
    ),
    # 2^r = c0 + c1 r + ..., c0 = 1, on |r| <= 1/2
    ("exp2", "f32"): (1.0, 0.693147242, 0.240226537, 0.0555027761, 0.00961797778, 0.00134163979, 0.000154569731),
    ("exp2", "f64"): (
        1.0, 0.6931471805599457, 0.24022650695910097, 0.05550410866479049, 0.009618129107607006, 0.0013333558153419867,
        0.00015403530441566914, 1.5252727402893523e-05, 1.321544267790061e-06, 1.0180640796319581e-07,
        7.072570023653803e-09, 4.079045111723812e-10,
    ),
    # log((1 + s) / (1 - s)) = 2 s + s z (c0 + c1 z + ...) with z = s^2, on s <= (sqrt(2) - 1) / (sqrt(2) + 1)
    ("log", "f32"): (0.666667759, 0.399775952, 0.298703879),
    ("log", "f64"): (
        0.6666666666666734, 0.39999999999417024, 0.28571428741892546, 0.22222198620680778, 0.18183562044376939,
        0.1531410412253057, 0.14795460094636015,
    ),
    # the same times log2(e)
    ("log2", "f32"): (0.961798251, 0.576756537, 0.430900455),
    ("log2", "f64"): (
        0.9617966939259853, 0.5770780163471748, 0.4121985855704077, 0.3205985574770572, 0.2623333478711939,
        0.22093582073232082, 0.2134533690620193,
    ),
    # sin(r) = r + r z (c0 + c1 z + ...) with z = r^2, on |r| <= pi/2
    ("sin", "f32"): (-0.166666597, 0.00833306927, -0.000198097754, 2.60608863e-06),
    ("sin", "f64"): (
        -0.16666666666666666, 0.008333333333333194, -0.0001984126984120921, 2.7557319211134654e-06,
        -2.5052106872454298e-08, 1.60589396830565e-10, -7.642990759602944e-13, 2.72116591498402e-15,
    ),
}  # fmt: skip

# Constants as sums of numbers of the type, the largest first. Those of pi are positive so that sin(-0) is -0.
_LN2 = {"f32": (0.693147182, -1.90465421e-09), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
_LOG2E = {"f32": (1.44269502, 1.92596303e-08), "f64": (1.4426950408889634, 2.0355273740931033e-17)}
_PI = (3.141592653589793, 1.224646799147353e-16, 2.165713347843828e-32)


def _exp(x: str, b: VectorBuilder) -> str:
    """e^x = 2^n e^r with r = x - n ln(2), in two steps. At most 0.9 ulp in f32, 1.0 in f64."""
    low, high = (-104.0, 89.0) if b.dtype == F32 else (-746.0, 710.0)  # beyond them the result is 0 or infinity
    r = b.clamp(x, low, high)
    magic = b.const(_exponent_magic(b))
    shifted = b.fma(r, b.const(_LOG2E[b.dtype.name][0]), magic)
    n = b.fsub(shifted, magic)
    for part in _LN2[b.dtype.name]:
        r = b.fma(n, b.const(-part), r)
    return _scaled(b.horner(r, _COEFFICIENTS["exp", b.dtype.name]), shifted, b)


def _exp2(x: str, b: VectorBuilder) -> str:
    """2^x = 2^n 2^r; r = x - n is exact. At most 0.9 ulp in f32, 1.1 in f64."""
    x = b.clamp(x, -b.bias - b.mantissa - 1.0, b.bias + 1.0)
    magic = b.const(_exponent_magic(b))
    shifted = b.fadd(x, magic)
    r = b.fsub(x, b.fsub(shifted, magic))
    return _scaled(b.horner(r, _COEFFICIENTS["exp2", b.dtype.name]), shifted, b)


def _exponent_magic(b: VectorBuilder) -> float:
    """Added to x it leaves rint(x) + 2 bias in the low bits of the sum; taken off again, rint(x)."""
    return 1.5 * 2.0**b.mantissa + 2 * b.bias


def _scaled(p: str, shifted: str, b: VectorBuilder) -> str:
    """p 2^n, with n + 2 bias in the low bits of `shifted`: times 2^floor(n/2), then 2^ceil(n/2).

    Neither factor overflows, and where the result is subnormal only the last product rounds. A machine that scales by
    powers of two does it in one instruction.
    """
    total = b.bits(shifted)
    if b.scales:
        magic = int.from_bytes(struct.pack("<f" if b.dtype == F32 else "<d", _exponent_magic(b)), "little")
        return b.ldexp(p, b.isub(total, b.iconst(magic)))
    half = b.lshr(total, 1)
    p = b.fmul(p, b.floats(b.shl(half, b.mantissa)))
    return b.fmul(p, b.floats(b.shl(b.isub(total, half), b.mantissa)))


def _log(x: str, b: VectorBuilder) -> str:
    """log(x) = e ln(2) + log(1 + f). At most 1.0 ulp in f32, 1.2 in f64."""
    e, f = _split(x, b)
    s, inner = _log1p(f, f, "log", b)
    value = b.fma(b.neg(s), inner, f)
    for part in reversed(_LN2[b.dtype.name]):
        value = b.fma(e, b.const(part), value)
    return _log_edges(x, value, b)


def _log2(x: str, b: VectorBuilder) -> str:
    """log2(x) = e + log2(1 + f), the leading term f log2(e) in two parts. At most 1.2 ulp in f32 and in f64."""
    e, f = _split(x, b)
    high, low = map(b.const, _LOG2E[b.dtype.name])
    s, inner = _log1p(f, b.fmul(f, high), "log2", b)
    value = b.fma(b.neg(s), inner, b.fmul(f, low))
    return _log_edges(x, b.fadd(e, b.fma(f, high, value)), b)


def _split(x: str, b: VectorBuilder) -> tuple[str, str]:
    """x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), for positive finite x."""
    root, one = (0x3FE6A09E667F3BCD, 0x3FF << 52) if b.dtype == F64 else (0x3F3504F3, 0x7F << 23)
    unit = 2.0**b.mantissa  # or-ing an integer into its bits adds the integer: a conversion without instructions
    tiny = b.fcmp("olt", x, b.const(2.0 ** (1 - b.bias)))
    x = b.select(tiny, b.fmul(x, b.const(4 * unit)), x)
    offset = b.select(tiny, b.const(unit + b.bias + b.mantissa + 2), b.const(unit + b.bias))
    i = b.iadd(b.bits(x), b.iconst(one - root))
    biased = b.or_(b.lshr(i, b.mantissa), b.iconst(b.bias + b.mantissa << b.mantissa))
    significand = b.iadd(b.and_(i, b.iconst((1 << b.mantissa) - 1)), b.iconst(root))
    return b.fsub(b.floats(biased), offset), b.fsub(b.floats(significand), b.const(1.0))


def _log1p(f: str, linear: str, name: str, b: VectorBuilder) -> tuple[str, str]:
    """s and t with c log(1 + f) = linear - s t, where linear = c f: from 2 s = f - s f for s = f / (2 + f)."""
    s = b.fdiv(f, b.fadd(f, b.const(2.0)))
    z = b.fmul(s, s)
    return s, b.fma(b.neg(z), b.horner(z, _COEFFICIENTS[name, b.dtype.name]), linear)


def _log_edges(x: str, value: str, b: VectorBuilder) -> str:
    """`value`, but infinity of infinity, -infinity of zero, NaN of anything less and of NaN."""
    value = b.select(b.fcmp("olt", x, b.const(math.inf)), value, x)
    edge = b.select(b.fcmp("oeq", x, b.const(0.0)), b.const(-math.inf), b.const(math.nan))
    return b.select(b.fcmp("ogt", x, b.const(0.0)), value, edge)


def _sin(x: str, b: VectorBuilder) -> str:
    """sin(x) = (-1)^n sin(r) with r = x - n pi, found in f64 for f32 too.

    For |x| <= 1e13 at most 1.8 ulp in f32, 1.9 in f64. Up to 1e15 the absolute error is at most 2e-7 in f32, 2e-16 in
    f64; it grows to 6e-6 and 1e-13 at 7e15 (2^51 pi). Beyond, the result is some number in [-1, 1].
    """
    w = b.like(F64)
    r = x if b.dtype == F64 else b.convert("fpext", x, "float", "double")
    magic = w.const(1.5 * 2.0**52)
    shifted = w.fma(r, w.const(1 / math.pi), magic)  # n is in the low bits
    n = w.fsub(shifted, magic)
    for part in _PI if b.dtype == F64 else _PI[:2]:
        r = w.fma(n, w.const(-part), r)
    r = w.floats(w.xor(w.bits(r), w.shl(w.bits(shifted), 63)))
    if b.dtype == F32:
        r = b.convert("fptrunc", r, "double", "float")
    z = b.fmul(r, r)
    value = b.fma(r, b.fmul(z, b.horner(z, _COEFFICIENTS["sin", b.dtype.name])), r)
    return b.intrinsic("copysign", b.clamp(value, -1.0, 1.0), r)  # for the sign of zero


_EXPANSIONS = {"exp": _exp, "exp2": _exp2, "log": _log, "log2": _log2, "sin": _sin}


def maximum(a: str, b: str, builder: VectorBuilder, a_may_be_nan: bool = True, b_may_be_nan: bool = True) -> str:
    """The larger, NaN where either is NaN: three instructions on x86, one where a side is known to be no NaN."""
    return _extremum(builder.max, a, b, builder, a_may_be_nan, b_may_be_nan)


def minimum(a: str, b: str, builder: VectorBuilder, a_may_be_nan: bool = True, b_may_be_nan: bool = True) -> str:
    """The smaller, NaN where either is NaN: three instructions on x86, one where a side is known to be no NaN."""
    return _extremum(builder.min, a, b, builder, a_may_be_nan, b_may_be_nan)


def _extremum(
    choose: Callable[[str, str], str], a: str, b: str, builder: VectorBuilder, a_may_be_nan: bool, b_may_be_nan: bool
) -> str:
    if not b_may_be_nan:
        return choose(b, a)
    value = choose(a, b)
    return builder.select(builder.fcmp("uno", a, a), a, value) if a_may_be_nan else value


def float_to_int(x: str, to: DType, b: VectorBuilder) -> str:
    """`x`, of b.dtype, truncated to an integer type of 8 to 64 bits: saturated at its ends, 0 for NaN.

    What llvm.fptosi.sat means; LLVM takes that apart into scalars.
    """
    magnitude = to.bits - (to.kind == "i")
    low, end = -(2.0**magnitude) if to.kind == "i" else 0.0, 2.0**magnitude
    exact = magnitude <= b.mantissa + 1  # whether the largest integer is a value of the float type
    high = end - 1.0 if exact else end * (1.0 - 2.0 ** -(b.mantissa + 1))
    held = max(32, to.bits)
    wide = b.vector(f"i{held}")
    inside = b.min(b.const(high), b.max(x, b.const(low)))  # in this order NaN becomes `low`, not poison
    value = b.convert("fptosi", inside, _SCALARS[b.dtype.name], f"i{held}")
    value = b.select(b.fcmp("ord", x, x), value, "0" if b.lanes == 1 else "zeroinitializer", wide)
    if not exact:
        largest = str((1 << magnitude) - 1)
        largest = largest if b.lanes == 1 else f"splat (i{held} {largest})"
        value = b.select(b.fcmp("oge", x, b.const(end)), largest, value, wide)
    return value if held == to.bits else b.convert("trunc", value, f"i{held}", f"i{to.bits}")


def f32_to_bf16(x: str, b: VectorBuilder) -> str:
    """The bf16 nearest to `x`, ties to even, as i16 bits; NaN stays NaN, made quiet, with the top of its payload."""
    i = b.bits(x)
    odd = b.and_(b.lshr(i, 16), b.iconst(1))
    rounded = b.iadd(b.iadd(i, b.iconst(0x7FFF)), odd)
    quiet = b.or_(i, b.iconst(1 << 22))
    i = b.select(b.fcmp("uno", x, x), quiet, rounded, b.itype)
    return b.convert("trunc", b.lshr(i, 16), "i32", "i16")


def bf16_to_f32(i: str, b: VectorBuilder) -> str:
    """The f32 of i16 bits that are a bf16: exact."""
    return b.floats(b.shl(b.convert("zext", i, "i16", "i32"), 16))
