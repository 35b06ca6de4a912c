"""The polynomials against wider floats over the whole range; casts, max and min against NumPy; code size."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from autotune.codegen import vecmath
from autotune.codegen.jit import assemble, assembly, load
from autotune.codegen.vecmath import MAX_ULP, VectorBuilder
from autotune.ir import dtypes as D
from autotune.ir.errors import BuildError

Array = np.ndarray[Any, np.dtype[Any]]
Body = Callable[[list[str], VectorBuilder], str]

NAMES = ("exp", "exp2", "log", "log2", "sin")
FLOATS = (D.F32, D.F64)
FEATURES = tuple(llvm.get_host_cpu_features().flatten().split(","))
X86 = "x86_64" in llvm.get_process_triple()
pytestmark = pytest.mark.skipif(X86 and "+fma" not in FEATURES, reason="this CPU has no FMA")


def module(body: Body, dtype: D.DType, lanes: int, source: str, target: str, inputs: int) -> str:
    """`void f(ptr dst, ptr src0, ptr src1, i64 n)`: the body on each of n vectors."""
    lines: list[str] = []

    def emit(text: str) -> str:
        lines.append(f"  %v{len(lines)} = {text}")
        return f"%v{len(lines) - 1}"

    b = VectorBuilder(emit, dtype, lanes)
    source, target = source and b.vector(source) or b.ftype, target and b.vector(target) or b.ftype
    operands = []
    for i in range(inputs):
        address = emit(f"getelementptr {source}, ptr %src{i}, i64 %i")
        operands.append(emit(f"load {source}, ptr {address}, align 1"))
    result = body(operands, b)
    address = emit(f"getelementptr {target}, ptr %dst, i64 %i")
    return "\n".join(
        [
            *sorted(b.declarations),
            "define void @f(ptr %dst, ptr %src0, ptr %src1, i64 %n) {",
            "entry:\n  br label %loop",
            "loop:\n  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
            *lines,
            f"  store {target} {result}, ptr {address}, align 1",
            "  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, %n\n  br i1 %more, label %loop, label %exit",
            "exit:\n  ret void\n}",
        ]
    )


def run(
    body: Body, dtype: D.DType, lanes: int, *inputs: Array, source: str = "", target: str = "", out: Any = None
) -> Array:
    text = module(body, dtype, lanes, source, target, len(inputs))
    loaded = load(_object(text), "f")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(loaded.address)
    inputs = tuple(np.pad(x, (0, -len(x) % lanes), mode="edge") for x in inputs)
    result = np.empty(inputs[0].shape, out or inputs[0].dtype)
    call(result.ctypes.data, inputs[0].ctypes.data, inputs[-1].ctypes.data, len(result) // lanes)
    return result


@cache
def _object(text: str) -> bytes:
    return assemble(text, llvm.get_host_cpu_name(), FEATURES)


def elementary(name: str, x: Array, lanes: int = 0) -> Array:
    dtype = D.dtype(x.dtype)
    y = run(lambda a, b: vecmath.expand(name, a[0], b), dtype, lanes or 64 // dtype.bytes, x)
    return y[: len(x)]


def reference(name: str, x: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(getattr(np, name)(x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)))


def ulps(y: Array, exact: Array) -> Array:
    """The distance in units in the last place of the exact value, as the format of `y` has them there."""
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, info.minexp)
        distance = np.abs(y - exact) / np.ldexp(np.ones_like(exact), exponent - info.nmant)
        same = (y == exact) | (np.isnan(y) & np.isnan(exact)) | (np.isinf(y) & (np.abs(exact) > info.max))
    return np.where(same, 0.0, distance)


def samples(name: str, dtype: D.DType) -> Array:
    """Every bit pattern of f32 in steps, random ones of f64, and more where the function is hard."""
    rng = np.random.default_rng(5)
    if dtype == D.F32:
        whole: Array = np.arange(0, 1 << 32, 1499).astype(np.uint32).view(np.float32)
        count = 1 << 19
    else:
        whole = rng.integers(0, 1 << 64, 1 << 17, dtype=np.uint64).view(np.float64)
        count = 1 << 17
    reach = 2.0 * np.log2(float(np.finfo(dtype.numpy).max))
    zones = {
        "exp": ((-reach, reach), (-1.0, 1.0)),
        "exp2": ((-reach, reach), (-1.0, 1.0)),
        "log": ((0.5, 2.0), (0.99, 1.01), (0.0, 1e3)),
        "log2": ((0.5, 2.0), (0.99, 1.01), (0.0, 1e3)),
        "sin": ((1.3, 1.9), (-10.0, 10.0), (-1e5, 1e5), (-1e13, 1e13)),
    }[name]
    parts: list[Array] = [rng.uniform(low, high, count) for low, high in zones]
    if name == "sin":  # the numbers nearest to multiples of pi/2 have the hardest remainders
        parts.append(np.arange(1 << 16) * (np.pi / 2))
        whole = whole[np.abs(whole) <= 1e13]
    return np.concatenate([whole, *(part.astype(dtype.numpy) for part in parts)])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_error_is_within_the_stated_bound(name: str, dtype: D.DType) -> None:
    if dtype == D.F64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than f64 here: nothing to compare with")
    x = samples(name, dtype)
    error = ulps(elementary(name, x), reference(name, x))
    worst = int(np.argmax(error))
    assert error[worst] <= MAX_ULP[name, dtype.name], f"{error[worst]} ulp at {x[worst]!r}"


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, dtype: D.DType, lanes: int) -> None:
    inf, nan, info = float("inf"), float("nan"), np.finfo(dtype.numpy)
    largest, tiny, huge = float(info.max), float(info.smallest_subnormal), 2.0 * info.maxexp
    least, top = float(info.minexp - info.nmant), float(info.maxexp)  # exponents: of `tiny`, of what overflows
    pairs = {
        "exp": [
            (0.0, 1.0),
            (-0.0, 1.0),
            (inf, inf),
            (-inf, 0.0),
            (huge, inf),
            (-huge, 0.0),
            (largest, inf),
            (tiny, 1.0),
        ],
        "exp2": [(0.0, 1.0), (inf, inf), (-inf, 0.0), (top, inf), (least, tiny), (least - 1, 0.0), (-largest, 0.0)],
        "log": [(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-tiny, nan), (-1.0, nan)],
        "log2": [(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-tiny, nan), (tiny, least)],
        "sin": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (tiny, tiny), (-tiny, -tiny), (1e-30, 1e-30)],
    }[name]
    x, expected = np.array([*pairs, (nan, nan)], dtype.numpy).T
    y = elementary(name, np.ascontiguousarray(x), lanes)
    np.testing.assert_array_equal(y, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_powers_of_two_are_exact(dtype: D.DType) -> None:
    info = np.finfo(dtype.numpy)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    powers = np.ldexp(dtype.numpy.type(1), exponents).astype(dtype.numpy)
    np.testing.assert_array_equal(elementary("exp2", exponents.astype(dtype.numpy)), powers)
    np.testing.assert_array_equal(elementary("log2", powers), exponents)


@pytest.mark.parametrize("name", NAMES)
def test_every_lane_count_gives_the_same_bits(name: str) -> None:
    rng = np.random.default_rng(3)
    x: Array = rng.integers(0, 1 << 32, 4096, dtype=np.uint64).astype(np.uint32).view(np.float32)
    expected = elementary(name, x, 1)
    for lanes in (2, 4, 8, 16, 32, 64):
        np.testing.assert_array_equal(elementary(name, x, lanes), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sine_of_large_arguments(dtype: D.DType) -> None:
    rng = np.random.default_rng(4)
    x = (10.0 ** rng.uniform(13, 15, 1 << 14)).astype(dtype.numpy)
    error = np.abs(elementary("sin", x) - np.sin(x.astype(np.longdouble)))
    assert error.max() <= (2e-7 if dtype == D.F32 else 2e-16)
    x = (10.0 ** rng.uniform(15, 38, 1 << 14)).astype(dtype.numpy)
    assert np.abs(elementary("sin", np.append(x, np.finfo(dtype.numpy).max))).max() <= 1


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("a_nan", [False, True])
@pytest.mark.parametrize("b_nan", [False, True])
def test_max_and_min_propagate_nan(dtype: D.DType, a_nan: bool, b_nan: bool) -> None:
    inf, nan = float("inf"), float("nan")
    plain = [-inf, -2.0, -1.0, 1.0, 2.0, inf]
    a, b = np.meshgrid(plain + [nan] * a_nan, plain + [nan] * b_nan)
    x, y = a.ravel().astype(dtype.numpy), b.ravel().astype(dtype.numpy)
    for lanes in (1, 8):
        got = run(lambda v, b: vecmath.maximum(v[0], v[1], b, a_nan, b_nan), dtype, lanes, x, y)
        np.testing.assert_array_equal(got[: len(x)], np.maximum(x, y))
        got = run(lambda v, b: vecmath.minimum(v[0], v[1], b, a_nan, b_nan), dtype, lanes, x, y)
        np.testing.assert_array_equal(got[: len(x)], np.minimum(x, y))


INTEGERS = (D.I8, D.U8, D.I16, D.I32, D.I64)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("to", INTEGERS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_casts_to_integers_saturate(dtype: D.DType, to: D.DType, lanes: int) -> None:
    rng = np.random.default_rng(6)
    info = np.iinfo(to.numpy)
    edges = [float(edge) + step for edge in (info.min, info.max) for step in (-1.0, -0.6, -0.5, 0.0, 0.5, 0.6, 1.0)]
    scaled = rng.uniform(-1, 1, 4096) * 2.0 ** rng.integers(0, to.bits + 3, 4096)
    special = [0.0, -0.0, 0.99, -0.99, float("inf"), float("-inf"), float("nan"), 1e30, -1e30, 1e-45]
    x = np.concatenate([edges, scaled, special]).astype(dtype.numpy)
    got = run(lambda a, b: vecmath.float_to_int(a[0], to, b), dtype, lanes, x, target=f"i{to.bits}", out=to.numpy)
    expected = [0 if v != v else int(max(min(v, 2.0**70), -(2.0**70))) for v in x.tolist()]
    assert got[: len(x)].tolist() == [max(min(v, info.max), info.min) for v in expected]


@pytest.mark.parametrize("lanes", [1, 16])
def test_bf16_bits(lanes: int) -> None:
    bits = np.arange(0, 1 << 32, 997).astype(np.uint32)
    ties = (np.arange(1 << 12, dtype=np.uint32) << 20) | 0x8000
    bits = np.concatenate([bits, ties, ties + 0x10000, ties + 1, ties - 1])
    bits = bits[: len(bits) // lanes * lanes]
    x: Array = bits.view(np.float32)
    got = run(lambda a, b: vecmath.f32_to_bf16(a[0], b), D.F32, lanes, x, target="i16", out=np.uint16)
    wide = bits.astype(np.uint64)
    rounded = (wide + 0x7FFF + (wide >> 16 & 1)) >> 16
    np.testing.assert_array_equal(got, np.where(np.isnan(x), wide >> 16 | 0x40, rounded).astype(np.uint16))

    back = run(lambda a, b: vecmath.bf16_to_f32(a[0], b), D.F32, lanes, got, source="i16", out=np.uint32)
    np.testing.assert_array_equal(back, got.astype(np.uint32) << 16)


def test_bf16_agrees_with_ml_dtypes() -> None:
    bf16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is the other oracle of bf16").bfloat16
    x = np.random.default_rng(8).standard_normal(4096).astype(np.float32)
    got = run(lambda a, b: vecmath.f32_to_bf16(a[0], b), D.F32, 16, x, target="i16", out=np.uint16)
    np.testing.assert_array_equal(got, x.astype(bf16).view(np.uint16))


def test_constants_are_exact() -> None:
    values = (0.1, -1 / 3, 5e-324, 1e-45, 1e300, float("inf"), -0.0, float("nan"))
    for dtype in FLOATS:
        for lanes in (1, 2):
            for value in values:
                got = run(constant(value), dtype, lanes, np.zeros(lanes, dtype.numpy))
                with np.errstate(over="ignore"):
                    assert got.tobytes() == np.full(lanes, value).astype(dtype.numpy).tobytes()


def constant(value: float) -> Body:
    return lambda _, b: b.select("true" if b.lanes == 1 else "splat (i1 true)", b.const(value), b.const(1.0))


# Vector instructions of the loop, loads, stores and copies left out: what each function costs.
BUDGET = {"exp": 18, "exp2": 17, "log": 29, "log2": 31, "sin": 28}


@pytest.mark.parametrize("name", NAMES)
def test_machine_code_is_short_and_calls_nothing(name: str) -> None:
    text = module(lambda a, b: vecmath.expand(name, a[0], b), D.F32, 16, "", "", 1)
    code = assembly(text, "znver4", triple="x86_64-linux-gnu")
    loop = code[code.index("LBB0_1:") : code.index("jl\t")]
    mnemonics = [line.split()[0] for line in loop.splitlines()[1:] if line.strip()]
    vector = [m for m in mnemonics if m.startswith("v") and not m.startswith("vmov")]
    assert len(vector) <= BUDGET[name], vector
    for dtype in FLOATS:
        for arch, lanes in (("znver3", 32 // dtype.bytes), ("znver4", 64 // dtype.bytes), ("znver4", 1)):
            text = module(lambda a, b: vecmath.expand(name, a[0], b), dtype, lanes, "", "", 1)
            assert "call" not in assembly(text, arch, triple="x86_64-linux-gnu")


@pytest.mark.parametrize(("a_nan", "b_nan", "count"), [(False, True, 1), (True, False, 1), (True, True, 3)])
def test_max_is_one_instruction_where_a_side_is_no_nan(a_nan: bool, b_nan: bool, count: int) -> None:
    text = module(lambda v, b: vecmath.maximum(v[0], v[1], b, a_nan, b_nan), D.F32, 8, "", "", 2)
    code = assembly(text, "znver3", triple="x86_64-linux-gnu")
    assert sum(code.count(f"\t{m}") for m in ("vmaxps", "vcmp", "vblend")) == count


def test_unknown_function_or_type_is_refused() -> None:
    with pytest.raises(BuildError, match="no expansion of tan for f32"):
        vecmath.expand("tan", "%x", VectorBuilder(str, D.F32, 8))
    with pytest.raises(BuildError, match="no expansion of exp for f16: cast"):
        vecmath.expand("exp", "%x", VectorBuilder(str, D.F16, 8))
