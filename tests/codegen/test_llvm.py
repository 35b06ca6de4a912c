"""Nest to machine code: the text of tiny kernels, random programs under random schedules, and what the code keeps."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autotune
from autotune.codegen import jit
from autotune.codegen.llvm import render
from autotune.devices.spec import DeviceSpec
from autotune.ir.errors import ScheduleError
from autotune.ir.lower import lower
from autotune.ir.program import TensorProgram
from autotune.ir.schedule import Schedule
from autotune.ir.steps import RegisterTile, Split, Step, Unroll, Vectorize
from autotune.worker import Guarded
from tests.ir.programs import product, row_sum, scale
from tests.kernels import HERE, NARROW, PROGRAMS, Array, Machine, choices, kernels, named, problem, softmax, spec

MASKED = DeviceSpec("cpu", "test", "test", "znver4", ("+avx512f", "+avx512vl"), vector_bits=512, vector_registers=32)
PLAIN = replace(MASKED, arch="znver3", features=("+avx2", "+fma"))
GOLDEN: dict[str, tuple[TensorProgram, tuple[Step, ...]]] = {
    "scale": (scale(10), (Split("t0", "i", 8), Vectorize("t0", "i.1", 8))),
    "product": (product(2, 4, 3), (RegisterTile("t0", (("i", 2), ("j", 4))), Unroll("t0", "i.1"),
                                   Vectorize("t0", "j.1", 4))),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    program, steps = GOLDEN[name]
    source = render(Schedule(steps).apply(lower(program)), MASKED)
    golden(f"llvm/{name}.ll", source.text)
    assert (*source.buffers, *source.strides) == tuple(b.name for b in program.buffers)
    assert problem(program, Schedule(steps)) == problem(program, Schedule(steps), target=NARROW) == ""


# ---- random programs ------------------------------------------------------------------------------------------------

SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 48, 65)
OTHERS = {"i32": ("product", "second turned", "sum", "turned"), "i8": ("sum", "chosen", "turned"),
          "f16": ("product", "rows", "chain"), "i64": ("column sum", "everything")}  # fmt: skip
KINDS = [(name, t) for name in PROGRAMS for t in ("f32", "f32", "f64")]
KINDS += [(name, t) for t, names in OTHERS.items() for name in names]
tried: Counter[str] = Counter()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), st.tuples(*[st.sampled_from(SIZES)] * 3), st.sampled_from((1, 2)),
       st.sampled_from((HERE, NARROW)), st.integers(0, 1 << 30))  # fmt: skip
def check_random_programs(
    kind: tuple[str, str], sizes: tuple[int, int, int], threads: int, target: DeviceSpec, seed: int
) -> None:
    for program in named(kind[0], sizes, kind[1]):
        for sketch, candidate in choices(program, threads, 2, seed, target):
            try:
                found = problem(program, candidate.schedule, threads, target, thorough=seed % 4 == 0)
            except ScheduleError as error:
                assert sketch != "first" or candidate.sketch < 0, error
                tried[f"refused: {error.reason}"] += 1
                continue
            tried[sketch] += 1
            assert not found, f"{found}\n{candidate.point}\n{candidate.schedule}"


def test_random_programs_under_random_schedules() -> None:
    """Interpreter and machine code: at least 300 schedules, and few that a sketch draws are refused."""
    tried.clear()
    check_random_programs()
    refused = sum(n for kind, n in tried.items() if kind.startswith("refused"))
    assert tried.total() - refused >= 300 and refused < 0.1 * tried.total(), tried


# ---- what the code keeps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [MASKED, PLAIN], ids=lambda target: target.arch)
def test_a_register_tile_stays_in_registers(target: DeviceSpec) -> None:
    """No memory of the stack is left in the assembly, and the innermost loop is loads and multiplications only."""
    rows, columns, lanes = (6, 64, 16) if target is MASKED else (4, 16, 8)
    steps = (RegisterTile("t0", (("i", rows), ("j", columns))), Unroll("t0", "i.1"), Split("t0", "j.1", lanes),
             Unroll("t0", "j.1.0"), Vectorize("t0", "j.1.1", lanes))  # fmt: skip
    source = render(Schedule(steps).apply(lower(product(2 * rows, columns, 40))), target)
    assert "alloca" in source.text, "accumulators begin as slots of the stack"
    whole = jit.assembly(source.text, target.arch, target.features, "x86_64-unknown-linux-gnu")
    part = whole[whole.index("kernel.part0:") : whole.index(".cfi_endproc")]
    assert "(%rsp" not in part and "(%rbp" not in part, part
    (loop,) = re.findall(r"^(\.LBB\w+):((?:(?!^\.LBB).)*?)j\w+\s+\1$", part, re.MULTILINE | re.DOTALL)
    work = [line.split()[0] for line in loop[1].splitlines() if line.strip() and "cfi" not in line]
    vectors = columns // lanes
    assert Counter(w[:6] for w in work if w[0] == "v") == {
        "vfmadd": rows * vectors, "vmovup": vectors, "vbroad": rows}, loop[1]  # fmt: skip


@pytest.mark.parametrize("rest", [1, 3, 7, 12, 15])
@pytest.mark.parametrize("target", [MASKED, PLAIN], ids=lambda target: target.arch)
def test_accumulators_stay_in_registers_whatever_is_left_over(target: DeviceSpec, rest: int) -> None:
    """A sum whose last lanes are missing: those keep what they have summed, and no memory is accessed by masks."""
    lanes = 16 if target is MASKED else 8
    program = row_sum(6, 4 * lanes + rest % lanes)
    steps = (RegisterTile("t0", (("i", 2), ("k", lanes))), Unroll("t0", "i.1"), Split("t0", "k.1", lanes),
             Unroll("t0", "k.1.0"), Vectorize("t0", "k.1.1", lanes))  # fmt: skip
    source = render(Schedule(steps).apply(lower(program)), target)
    whole = jit.assembly(source.text, target.arch, target.features, "x86_64-unknown-linux-gnu")
    part = whole[whole.index("kernel.part0:") : whole.index(".cfi_endproc")]
    assert "(%rsp" not in part and "(%rbp" not in part, part
    for there in (HERE, NARROW):
        assert problem(program, Schedule(steps), target=there) == ""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_divisor_for_many_is_exact_division(dtype: type[Any]) -> None:
    """A uniform divisor becomes a reciprocal where that is exact; elsewhere and at the ends it is a division."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    far = 2.0 ** (100 if dtype is np.float32 else 900)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, 1.0]
    x = np.concatenate([rng.standard_normal(500) * 2.0 ** rng.integers(-40, 40, 500), special]).astype(dtype)[None]
    divisors = [*special, info.smallest_subnormal, far, 1 / far, np.nextafter(far, np.inf), 1 / 3, -7.0, 1e10, 2.0**-20]
    divisors += [float(v) for v in rng.standard_normal(20) * 2.0 ** rng.integers(-50, 50, 20)]
    (program,) = kernels(lambda x, y: x / y, *(spec(*s, dtype=np.dtype(dtype).name) for s in (x.shape, (1, 1))))
    machine = Machine(program, next(choices(program, 1, 0))[1].schedule)
    for divisor in divisors:
        y = np.array([[divisor]], dtype)
        with np.errstate(all="ignore"):
            want = x / y
        (got,) = machine([x, y])
        ordinary = (np.abs(want) >= info.tiny) | (want == 0) | np.isnan(want)
        np.testing.assert_array_equal(got[ordinary], want[ordinary], err_msg=str(divisor))
        np.testing.assert_allclose(got, want, rtol=0, atol=info.smallest_subnormal, err_msg=str(divisor))
        assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all(), divisor


def run_tails() -> None:
    """Every length around a vector, with arrays that end where the next page begins: another byte is a fault."""
    kinds = [("f32", HERE), ("f32", NARROW), ("f64", NARROW), ("i8", HERE), ("f16", HERE), ("bool", NARROW)]
    for (dtype, target), n in ((kind, n) for kind in kinds for n in (1, 3, 7, 9, 15, 16, 17, 33, 65)):
        for fn, shape in ((np.abs, (n,)), (np.abs, (3, n)), (np.transpose, (n, 5)), (np.transpose, (7, n))):
            (program,) = kernels(fn, spec(*shape, dtype=dtype))
            machine = Machine(program, next(choices(program, 1, 0, target=target))[1].schedule, 1, target)
            memory = [Guarded(b.bytes, b.bytes - -(-b.bytes // 64) * 64) for b in program.buffers]
            for m in memory:
                m.bytes[:] = 1
            machine.entry((ctypes.c_void_p * len(memory))(*[m.bytes.ctypes.data for m in memory]), None, 1)
            assert not any(m.disturbed() for m in memory), (dtype, target.arch, fn, shape)


def test_masked_tails_touch_nothing_outside() -> None:
    code = "from tests.codegen.test_llvm import run_tails; run_tails()"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stderr}"


# ---- run-time strides -----------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
BIG = rng.standard_normal((70, 90)).astype(np.float32)
VIEWS: dict[str, Callable[[Array], Array]] = {
    "whole": lambda a: a, "turned": lambda a: a.T, "some rows": lambda a: a[::3], "some columns": lambda a: a[:, ::2],
    "block": lambda a: a[3:40, 5:77], "turned block": lambda a: a[5:, 7:].T,
    "equal rows": lambda a: np.broadcast_to(a[0], a.shape), "one number": lambda a: np.broadcast_to(a[0, 0], (9, 11)),
    "equal columns": lambda a: np.broadcast_to(a[:, :1], a.shape),
}  # fmt: skip
FUNCTIONS: list[Callable[..., Any]] = [
    lambda x: x * 2 + x, lambda x: x.sum(axis=0), lambda x: x.max(axis=1), softmax,
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("threads", [1, 2])
def test_strides_are_arguments(view: str, threads: int) -> None:
    options: dict[str, Any] = {"threads": threads, "cache": "off", "tune": "off"}
    x = VIEWS[view](BIG)
    for fn in FUNCTIONS:
        np.testing.assert_allclose(autotune.kernel(fn, **options)(x), fn(x), rtol=2e-5, atol=1e-5)
    product = autotune.kernel(lambda x, y: np.maximum(x @ y, 0), **options)
    for other in (BIG[:, :33], BIG.T[:, ::2], VIEWS["equal rows"](BIG.T)):
        n = min(x.shape[1], len(other))
        want = np.maximum(x[:, :n] @ other[:n], 0)
        np.testing.assert_allclose(product(x[:, :n], other[:n]), want, rtol=1e-4, atol=1e-4)


def test_one_kernel_serves_every_stride_of_a_layout() -> None:
    double = autotune.kernel(lambda x: x * 2, threads=1, cache="off", tune="off")
    for width in (90, 77, 60):
        wide = rng.standard_normal((20, width)).astype(np.float32)
        np.testing.assert_array_equal(double(wide[:, :50]), wide[:, :50] * 2)
