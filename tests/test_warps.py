"""What the emulator does for the lanes of a warp: shuffles, matrix instructions and copies that are waited for, in
texts written by hand. Layouts of fragments stand here a second time, as the vendors' documents print them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from autotune.hostrun import ORDERS, SANITIZERS, compiler
from autotune.ir.errors import DeviceError, VerifyError

from .texts import Array, kernel, program

try:
    compiler()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)

X = np.arange(1, 65, dtype=np.float32) ** 2
LANES = np.arange(64)


def run(text: str, given: Array = X, out: int = 64, threads: int = 64, order: str = "forward", **more: Any) -> Array:
    """The result of the kernel k(x, out)."""
    made = program([("k", ("x", "out"))], {"x": ("f", len(given)), "out": ("f", out)}, text, threads, **more)
    return made([given], order)[0]


# ---- shuffles -------------------------------------------------------------------------------------------------------

SUM = """  int t = threadIdx.x;
  float v = x[t];
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  out[t] = v;"""
SHUFFLES: dict[str, tuple[str, Array]] = {
    "xor": (SUM, np.repeat(X.reshape(2, 32).sum(1), 32)),
    "down": ("out[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 3);",
             X[np.where(LANES % 32 < 29, LANES + 3, LANES)]),
    "up": ("out[threadIdx.x] = __shfl_up_sync(0xffffffffu, x[threadIdx.x], 5);",
           X[np.where(LANES % 32 >= 5, LANES - 5, LANES)]),
    "one lane": ("out[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 7);", X[LANES // 32 * 32 + 7]),
    "another of each": ("out[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 31 - threadIdx.x % 32);",
                        X[LANES // 32 * 32 + 31 - LANES % 32]),
    "parts of a warp": ("out[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1, 8);",
                        X[np.where(LANES % 8 < 7, LANES + 1, LANES)]),
    "around a part": ("out[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 13, 8);", X[LANES // 8 * 8 + 5]),
    "xor beyond a part": ("out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 8, 8);",
                          X[np.where(LANES % 16 < 8, LANES, LANES - 8)]),
    "hip": ("out[threadIdx.x] = __shfl_xor(x[threadIdx.x], 1) + __shfl(x[threadIdx.x], 0);",
            X[LANES ^ 1] + X[LANES // 32 * 32]),
    "half a warp": ("float v = 0; if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffu, x[threadIdx.x], 1);\n"
                    "out[threadIdx.x] = v;", np.where(LANES % 32 < 16, X[LANES ^ 1], 0)),
    "one warp": ("float v = 0; if (threadIdx.x < 32) v = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);\n"
                 "__syncthreads(); out[threadIdx.x] = v;", np.where(LANES < 32, X[LANES ^ 1], 0)),
    "double": ("out[threadIdx.x] = (float)__shfl_xor_sync(~0u, (double)x[threadIdx.x], 1);", X[LANES ^ 1]),
    "int": ("out[threadIdx.x] = __shfl_xor_sync(~0u, (int)x[threadIdx.x], 1);", X[LANES ^ 1]),
    "long": ("out[threadIdx.x] = __shfl_xor_sync(~0u, (long long)x[threadIdx.x] << 40, 1) >> 40;", X[LANES ^ 1]),
    "ended lanes": ("if (threadIdx.x % 32 >= 30) { out[threadIdx.x] = 1; return; }\n"
                    "out[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 1);",
                    np.where(LANES % 32 >= 30, 1, X[LANES ^ 1])),
}  # fmt: skip


@pytest.mark.parametrize("sanitize", SANITIZERS)
def test_shuffles(sanitize: str) -> None:
    text = "".join(kernel(body, "const float* x, float* out", f"k{n}") for n, (body, _) in enumerate(SHUFFLES.values()))
    kernels = [(f"k{n}", ("x", f"out{n}")) for n in range(len(SHUFFLES))]
    arrays = {"x": ("f", 64)} | {f"out{n}": ("f", 64) for n in range(len(SHUFFLES))}
    made = program(kernels, arrays, text, 64, sanitize=sanitize)
    for order in ORDERS:
        for (name, (_, wanted)), found in zip(SHUFFLES.items(), made([X], order)):
            assert np.array_equal(found, wanted.astype(np.float32)), (name, order, found)


def test_a_warp_of_64() -> None:
    found = run(kernel("out[threadIdx.x] = __shfl_xor(x[threadIdx.x], 32);"), warp=64)
    assert np.array_equal(found, X[LANES ^ 32])


APART: dict[str, tuple[str, str]] = {
    "one branch": ("float v = x[threadIdx.x];\nif (threadIdx.x < 7) v = __shfl_xor_sync(~0u, v, 1);\n"
                   "__syncthreads(); out[threadIdx.x] = v;",
                   "lanes 0 and 7 of warp 0 part: .* line 3, .* barrier in line 4"),
    "two branches": ("float v = x[threadIdx.x];\nif (threadIdx.x & 1)\nv = __shfl_xor_sync(~0u, v, 1);\nelse "
                     "v = __shfl_xor_sync(~0u, v, 1);\nout[threadIdx.x] = v;", "part: .* line 5, .* that in line 4"),
    "another mask": ("float v = __shfl_xor_sync(threadIdx.x ? ~0u : 1u, x[threadIdx.x], 1);\n__syncthreads();\n"
                     "out[threadIdx.x] = v;", "lanes 1 and 0 of warp 0 part"),
    "not in the mask": ("out[threadIdx.x] = __shfl_xor_sync(1u, x[threadIdx.x], 1);", "lane [1-9]+ is not in the mask"),
    "barriers": ("if (threadIdx.x < 7) __syncthreads();\nelse\n__syncthreads();\nout[threadIdx.x] = 1;",
                 "different barriers: lines 2 and 4"),
    "ended": ("if (threadIdx.x > 7) return;\n__syncthreads();\nout[threadIdx.x] = 1;", "56 of 64 threads never reach"),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_lanes_that_part(name: str) -> None:
    body, told = APART[name]
    for order in ORDERS if name == "one branch" else ORDERS[:1]:
        with pytest.raises(VerifyError, match=told):
            run(kernel(body), order=order)


def test_a_lane_that_takes_no_part_gives_nothing() -> None:
    body = "float v = 1; if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffu, x[threadIdx.x], 16);\nout[threadIdx.x] = v;"
    found = run(kernel(body), threads=32, out=32)
    assert np.isnan(found[:16]).all() and (found[16:] == 1).all()


def test_atomic_additions() -> None:
    body = "atomicAdd(out, x[threadIdx.x]); if (threadIdx.x < 3) atomicAdd((int*)out + 1, 5);"
    text = kernel("if (!blockIdx.x && threadIdx.x < 2) out[threadIdx.x] = 0;", name="k0") + kernel(body)
    kernels = [("k0", ("x", "out")), ("k", ("x", "out"))]
    for sanitize in ("", "thread"):
        made = program(kernels, {"x": ("f", 64), "out": ("f", 2)}, text, 64, blocks=3, sanitize=sanitize)
        (found,) = made([X])
        assert found[0] == 3 * X.sum() and found.view(np.int32)[1] == 45


# ---- copies that are waited for -------------------------------------------------------------------------------------

STAGED = """  __shared__ __align__(16) float s[2][64];
  int t = threadIdx.x;
  for (int n = 0; n < 4; ++n) {
    if (t < 16) at_copy_async16(&s[n % 2][4 * t], x + 64 * n + 4 * t);
    at_copy_wait();
    __syncthreads();
    out[64 * n + t] = s[n % 2][63 - t];
  }"""
AHEAD = """  __shared__ __align__(16) float s[2][64];
  int t = threadIdx.x;
  at_copy_async4(&s[0][t], x + t);
  for (int n = 0; n < 4; ++n) {
    at_copy_wait();
    __syncthreads();
    if (n < 3) at_copy_async4(&s[(n + 1) % 2][t], x + 64 * (n + 1) + t);
    out[64 * n + t] = s[n % 2][63 - t];
  }"""
TWO_AHEAD = """  __shared__ __align__(16) float s[3][64];
  int t = threadIdx.x;
  at_copy_async4(&s[0][t], x + t);
  at_copy_wait1();
  at_copy_async4(&s[1][t], x + 64 + t);
  for (int n = 0; n < 4; ++n) {
    at_copy_wait1();
    __syncthreads();
    if (n < 2) at_copy_async4(&s[(n + 2) % 3][t], x + 64 * (n + 2) + t);
    out[64 * n + t] = s[n % 3][63 - t];
  }"""
LONG = np.arange(256, dtype=np.float32)
TURNED = LONG.reshape(4, 64)[:, ::-1].ravel()


@pytest.mark.parametrize("sanitize", SANITIZERS)
@pytest.mark.parametrize("body", [STAGED, AHEAD, TWO_AHEAD], ids=["staged", "ahead", "two ahead"])
def test_copies(body: str, sanitize: str) -> None:
    text = kernel(body)
    made = program([("k", ("x", "out"))], {"x": ("f", 256), "out": ("f", 256)}, text, 64, sanitize=sanitize)
    for order in ORDERS:
        assert np.array_equal(made([LONG], order)[0], TURNED), order


COPIES: dict[str, tuple[str, str, str, str]] = {
    "no wait": (STAGED, "at_copy_wait();", "", ""), "no wait ahead": (AHEAD, "at_copy_wait();", "", ""),
    "no barrier": (STAGED, "__syncthreads();", "", ""), "no barrier ahead": (AHEAD, "__syncthreads();", "", ""),
    "no barrier, threads": (STAGED, "__syncthreads();", "", "thread"),
    "the wait after the barrier": (
        AHEAD, "at_copy_wait();\n    __syncthreads();", "__syncthreads();\n    at_copy_wait();", ""),
    "no wait, two ahead": (TWO_AHEAD, "  at_copy_wait1();\n    __sync", "__sync", ""),
    "no wait before the second": (TWO_AHEAD, "at_copy_wait1();\n  at_copy", "at_copy", ""),
    "one wait too few": (TWO_AHEAD, "at_copy_wait1();\n    __sync", "at_copy_wait2();\n    __sync", ""),
    "no barrier, two ahead": (TWO_AHEAD, "__syncthreads();", "", ""),
    "too few parts": (TWO_AHEAD, "% 3", "% 2", ""),
    "into what is read": (AHEAD, "s[(n + 1) % 2][t]", "s[n % 2][t]", ""),
    "past the end": (AHEAD, "n < 3", "n < 4", "address"),
    "askew": (STAGED, "&s[n % 2][4 * t]", "&s[n % 2][4 * t + 1]", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_copies_that_are_wrong(name: str) -> None:
    body, old, new, sanitize = COPIES[name]
    assert old in body
    made = program(
        [("k", ("x", "out"))], {"x": ("f", 256), "out": ("f", 256)}, kernel(body.replace(old, new, 1)), 64,
        sanitize=sanitize,
    )  # fmt: skip
    told = []
    for order in ORDERS:
        try:
            told.append("" if np.array_equal(made([LONG], order)[0], TURNED) else "wrong")
        except VerifyError as error:
            told.append(str(error))
    assert any(told), name
    if sanitize:
        assert any("Sanitizer" in text and "line " in text for text in told), told
    if name == "askew":
        assert "does not begin at a multiple" in told[0]


# ---- matrix instructions --------------------------------------------------------------------------------------------

Place = Callable[[int, int], tuple[int, int]]  # of a lane and the number of an element among its own: row and column


@dataclass(frozen=True)
class Instruction:
    """m, n, k; the kind of the operands; how many elements of A, B and C a lane has, and where they are."""

    sizes: tuple[int, int, int]
    kind: str
    a: tuple[int, Place]
    b: tuple[int, Place]
    c: tuple[int, Place]
    lanes: int = 32


# PTX ISA, matrix fragments: g is groupID = lane >> 2, t is threadID_in_group = lane % 4.
C16: tuple[int, Place] = (4, lambda lane, i: ((lane >> 2) + (0 if i < 2 else 8), 2 * (lane % 4) + (i & 1)))
A16: tuple[int, Place] = (
    8,
    lambda lane, i: (
        (lane >> 2) + (0 if 0 <= i < 2 or 4 <= i < 6 else 8),
        2 * (lane % 4) + (i & 1) + (0 if i < 4 else 8),
    ),
)
B16: tuple[int, Place] = (4, lambda lane, i: (2 * (lane % 4) + (i & 1) + (0 if i < 2 else 8), lane >> 2))
# CDNA: a wave of 64 in quarters, each of which has some neighbours along k; four rows of C each.
QUARTERS: tuple[int, Place] = (4, lambda lane, i: (4 * (lane // 16) + i, lane % 16))


def quarter(count: int) -> tuple[tuple[int, Place], tuple[int, Place]]:
    return (
        (count, lambda lane, i: (lane % 16, count * (lane // 16) + i)),
        (count, lambda lane, i: (count * (lane // 16) + i, lane % 16)),
    )


# RDNA3: lane and lane + 16 have the same row of A and column of B; C's even rows in the lower half. RDNA4: halves.
W11 = ((16, lambda lane, i: (lane % 16, i)), (16, lambda lane, i: (i, lane % 16)),
       (8, lambda lane, i: (2 * i + (lane >= 16), lane % 16)))  # fmt: skip
W12 = ((8, lambda lane, i: (lane % 16, i + (8 if lane >= 16 else 0))),
       (8, lambda lane, i: (i + (8 if lane >= 16 else 0), lane % 16)),
       (8, lambda lane, i: (i + (8 if lane >= 16 else 0), lane % 16)))  # fmt: skip
CUBE = (16, 16, 16)
INSTRUCTIONS: dict[str, Instruction] = {
    "at_mma_m16n8k16_f16": Instruction((16, 8, 16), "f16", A16, B16, C16),
    "at_mma_m16n8k16_bf16": Instruction((16, 8, 16), "bf16", A16, B16, C16),
    "at_mma_m16n8k8_f16": Instruction(
        (16, 8, 8), "f16", (4, lambda lane, i: ((lane >> 2) + (0 if i < 2 else 8), 2 * (lane % 4) + (i & 1))),
        (2, lambda lane, i: (2 * (lane % 4) + i, lane >> 2)), C16,
    ),
    "at_mma_m16n8k8_tf32": Instruction(
        (16, 8, 8), "tf32",
        (4, lambda lane, i: ((lane >> 2) + (0 if i in (0, 2) else 8), lane % 4 + (0 if i in (0, 1) else 4))),
        (2, lambda lane, i: (lane % 4 + (4 if i else 0), lane >> 2)), C16,
    ),
    "at_mma_m16n8k32_s8": Instruction(
        (16, 8, 32), "s8",
        (16, lambda lane, i: ((lane >> 2) + (0 if 0 <= i < 4 or 8 <= i < 12 else 8),
                              4 * (lane % 4) + (i & 3) + (0 if i < 8 else 16))),
        (8, lambda lane, i: (4 * (lane % 4) + (i & 3) + (0 if i < 4 else 16), lane >> 2)), C16,
    ),
    "at_mma_m8n8k16_s8": Instruction(
        (8, 8, 16), "s8", (4, lambda lane, i: (lane >> 2, 4 * (lane % 4) + i)),
        (4, lambda lane, i: (4 * (lane % 4) + i, lane >> 2)), (2, lambda lane, i: (lane >> 2, 2 * (lane % 4) + i)),
    ),
    "at_mfma_16x16x16_f16": Instruction(CUBE, "f16", *quarter(4), QUARTERS, 64),
    "at_mfma_16x16x16_bf16": Instruction(CUBE, "bf16", *quarter(4), QUARTERS, 64),
    "at_mfma_16x16x16_s8": Instruction(CUBE, "s8", *quarter(4), QUARTERS, 64),
    "at_mfma_16x16x32_s8": Instruction((16, 16, 32), "s8", *quarter(8), QUARTERS, 64),
    **{f"at_wmma_16x16x16_{kind}": Instruction(CUBE, kind, *W11) for kind in ("f16", "bf16", "s8")},
    **{f"at_wmma12_16x16x16_{kind}": Instruction(CUBE, kind, *W12) for kind in ("f16", "bf16", "s8")},
}  # fmt: skip


def bits(values: Array, kind: str) -> Array:
    """Elements as numbers of their own width, little end first."""
    if kind == "f16":
        return values.astype(np.float16).view(np.uint16)
    if kind == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float32).view(np.uint32) if kind == "tf32" else values.astype(np.int8).view(np.uint8)


def registers(matrix: Array, kind: str, lanes: int, count: int, place: Place) -> Array:
    """The registers of all lanes, one lane after another."""
    own = np.array([[matrix[place(lane, i)] for i in range(count)] for lane in range(lanes)])
    return bits(own, kind).view(np.uint32).view(np.int32).ravel()


def drawn(kind: str, rng: np.random.Generator, *shape: int) -> Array:
    """Numbers that the kind has exactly."""
    if kind == "s8":
        return rng.integers(-128, 128, shape).astype(np.int64)
    x = rng.integers(-127, 128, shape) * 2.0 ** rng.integers(-14, 3, shape)
    if kind == "f16":
        x.ravel()[:4] = [2.0**-24, -(2.0**-15), 65504.0, -(1023 * 2.0**-24)]  # some of them below the normal ones
    return x


@pytest.mark.parametrize("lanes", [32, 64])
def test_matrix_instructions(lanes: int) -> None:
    rng, text = np.random.default_rng(5), ""
    arrays: dict[str, tuple[str, int]] = {}
    kernels: list[tuple[str, tuple[str, ...]]] = []
    given: list[Array] = []
    wanted: dict[str, Array] = {}
    for name, it in ((name, it) for name, it in INSTRUCTIONS.items() if it.lanes == lanes):
        m, n, k = it.sizes
        a, b = drawn(it.kind, rng, m, k), drawn(it.kind, rng, k, n)
        kind, number = ("i", np.int32) if it.kind == "s8" else ("f", np.float32)
        drawn_c: Array = rng.integers(-(2**31), 2**31, (m, n)) if it.kind == "s8" else rng.standard_normal((m, n))
        ra, rb = (registers(x, it.kind, lanes, *where) for x, where in ((a, it.a), (b, it.b)))
        c: Array = drawn_c.astype(number)
        rc = np.array([[c[it.c[1](lane, i)] for i in range(it.c[0])] for lane in range(lanes)])
        wanted[name] = (a @ b + c.astype(np.int64 if it.kind == "s8" else np.float64)).astype(number)
        na, nb, nc, sort = len(ra) // lanes, len(rb) // lanes, it.c[0], "int" if kind == "i" else "float"
        body = f"""  unsigned ra[{na}], rb[{nb}];
  {sort} rc[{nc}];
  int lane = threadIdx.x;
  for (int i = 0; i < {na}; ++i) ra[i] = a[{na} * lane + i];
  for (int i = 0; i < {nb}; ++i) rb[i] = b[{nb} * lane + i];
  for (int i = 0; i < {nc}; ++i) rc[i] = c[{nc} * lane + i];
  {name}(rc, ra, rb);
  for (int i = 0; i < {nc}; ++i) out[{nc} * lane + i] = rc[i];"""
        text += kernel(body, f"const unsigned* a, const unsigned* b, const {sort}* c, {sort}* out", f"k_{name}")
        names = tuple(f"{p}_{name}" for p in ("a", "b", "c", "out"))
        arrays |= dict(zip(names, (("u", len(ra)), ("u", len(rb)), (kind, rc.size), (kind, rc.size))))
        kernels.append((f"k_{name}", names))
        given += [ra, rb, rc.ravel()]
    for sanitize in ("", "address", "thread"):
        made = program(kernels, arrays, text, lanes, sanitize=sanitize, warp=lanes)
        for name, found in zip(wanted, made(given, "permuted")):
            it = INSTRUCTIONS[name]
            m, n, _ = it.sizes
            result = np.full((m, n), -1, wanted[name].dtype)
            for lane in range(lanes):
                for i in range(it.c[0]):
                    result[it.c[1](lane, i)] = found.reshape(lanes, -1)[lane, i]
            if it.kind == "s8":
                assert np.array_equal(result, wanted[name]), name
            else:
                assert np.allclose(result, wanted[name], rtol=1e-6, atol=1e-5), name


def test_places_cover_the_matrices() -> None:
    """Every element is some lane's; and one lane's alone, but for the copies of RDNA3."""
    for name, it in INSTRUCTIONS.items():
        m, n, k = it.sizes
        copies = 2 if name.startswith("at_wmma_") else 1
        for (count, place), size, times in ((it.a, m * k, copies), (it.b, k * n, copies), (it.c, m * n, 1)):
            places = [place(lane, i) for lane in range(it.lanes) for i in range(count)]
            assert len(places) == times * size and len(set(places)) == size, name


TF32 = "  unsigned a[4] = {0x3f801fffu, 0, 0, 0}, b[2] = {0x3f800000u, 0}; float c[4] = {};\n"
CALLS: dict[str, tuple[str, str]] = {
    "copies that differ": (
        "  unsigned a[8] = {threadIdx.x}, b[8] = {}; float c[8] = {};\n"
        "  at_wmma_16x16x16_f16(c, a, b);\n  out[0] = c[0];",
        "lanes 0 and 16 hold different copies for the matrix instruction in line 3",
    ),
    "half of the warp": (
        f"{TF32}  if (threadIdx.x < 16) at_mma_m16n8k8_tf32(c, a, b);\n  else return;\n  out[0] = c[0];",
        "line 3 without all lanes",
    ),
    "of another device": (
        "  unsigned a[2] = {}, b[2] = {}; float c[4] = {};\n  at_mfma_16x16x16_f16(c, a, b);\n  out[0] = c[0];",
        "line 3 is one of 64 lanes, and a warp has 32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_are_wrong(name: str) -> None:
    body, told = CALLS[name]
    with pytest.raises(VerifyError, match=told):
        run(kernel(body), threads=32)


def test_tf32_has_ten_bits() -> None:
    body = f"{TF32}  at_mma_m16n8k8_tf32(c, a, b);\n  out[threadIdx.x] = c[0];"
    found = run(kernel(body), threads=32, out=32)
    assert (found == 4).all(), "of 1.00097 only 1 is seen, in each of four lanes of k"


def test_too_few_registers_show() -> None:
    body = "  unsigned a[4] = {}, b[2] = {}; float c[2] = {};\n  at_mma_m16n8k16_f16(c, a, b);\n  out[0] = c[1];"
    with pytest.raises(VerifyError, match="stack-buffer-overflow.*line 3"):
        run(kernel(body), threads=32, out=32, sanitize="address")
