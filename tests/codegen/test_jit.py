"""LLVM text to code that runs: results, errors with their log, other targets, unloading; the small native language."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from autotune.codegen import jit
from autotune.codegen.native import translate
from autotune.ir.errors import BuildError

HOST = llvm.get_host_cpu_name()
SCALE = """
declare i64 @factor()
define void @scale(ptr %buffers, ptr %params, i64 %threads) {
  %local = alloca float
  %x = load ptr, ptr %buffers
  %n = call i64 @factor()
  %f = sitofp i64 %n to float
  store float %f, ptr %local
  %g = load float, ptr %local
  %v = load <8 x float>, ptr %x, align 4
  %s = insertelement <8 x float> poison, float %g, i32 0
  %m = shufflevector <8 x float> %s, <8 x float> poison, <8 x i32> zeroinitializer
  %w = fmul <8 x float> %v, %m
  store <8 x float> %w, ptr %x, align 4
  ret void
}
"""
FACTOR = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: 3)
SYMBOLS = {"factor": ctypes.cast(FACTOR, ctypes.c_void_p).value or 0}


def run(code: jit.Loaded, array: np.ndarray) -> None:
    buffers = (ctypes.c_void_p * 1)(array.ctypes.data)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(code.address)(buffers, None, 1)


def test_assemble_load_and_run() -> None:
    code = jit.load(jit.assemble(SCALE, HOST), "scale", SYMBOLS)
    array = np.arange(8, dtype=np.float32)
    run(code, array)
    np.testing.assert_array_equal(array, 3 * np.arange(8))


def test_the_stack_slot_is_lifted_into_a_register() -> None:
    text = SCALE.replace("%n = call i64 @factor()", "%n = ptrtoint ptr %params to i64")
    assert "rsp" not in jit.assembly(text, HOST), "sroa must have run"


def test_features_select_instructions() -> None:
    if not llvm.get_process_triple().startswith("x86_64"):
        pytest.skip("x86 instruction names")
    assert "ymm" in jit.assembly(SCALE, "x86-64", ("+avx2",))
    assert "ymm" not in jit.assembly(SCALE, "x86-64")


def test_another_kind_of_cpu() -> None:
    assert "fmul\tv" in jit.assembly(SCALE, "neoverse-n1", (), "aarch64-linux-gnu")
    assert jit.assemble(SCALE, "neoverse-n1", (), "aarch64-linux-gnu")[:4] == b"\x7fELF"


@pytest.mark.parametrize(
    "text",
    ["nonsense", "define void @f() { ret i32 0 }",
     "define i32 @f(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\nb:\n ret i32 %x\n}"],
    ids=["syntax", "type", "dominance"],
)  # fmt: skip
def test_bad_text_is_a_build_error_with_the_log(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        jit.assemble(text, HOST)
    assert caught.value.reason == "compile" and caught.value.log


def test_load_errors_name_the_symbol() -> None:
    obj = jit.assemble(SCALE, HOST)
    for data, symbol, symbols in ((obj, "scale", {}), (obj, "missing", SYMBOLS), (b"not an object", "scale", SYMBOLS)):
        with pytest.raises(BuildError, match=symbol) as caught:
            jit.load(data, symbol, symbols)
        assert caught.value.reason == "link"
    with pytest.raises(BuildError, match="no target"):
        jit.assemble(SCALE, HOST, (), "nowhere-unknown")


def test_code_of_one_load_outlives_another() -> None:
    obj = jit.assemble(SCALE, HOST)
    kept = [jit.load(obj, "scale", SYMBOLS) for _ in range(3)]
    del kept[0], kept[1]
    for _ in range(jit._GENERATION + 1):  # a new linker takes over; the old one stays for what it loaded
        jit.load(obj, "scale", SYMBOLS)
    array = np.ones(8, np.float32)
    run(kept[0], array)
    assert array.tolist() == [3.0] * 8


def used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_loads_and_builds_leave_nothing_behind() -> None:
    obj = jit.assemble(SCALE, HOST)
    work: list[Callable[[], object]] = [lambda: jit.load(obj, "scale", SYMBOLS), lambda: jit.assemble(SCALE, HOST)]
    for step in work:
        for _ in range(130):
            step()
        before = used()
        for _ in range(200):
            step()
        assert used() - before < 150, "pages of memory stay after unloading"


def test_the_process_ends_cleanly_with_code_loaded() -> None:
    code = f"""
from autotune.codegen import jit
text = {SCALE.replace("call i64 @factor()", "add i64 1, 2")!r}
kept = [jit.load(jit.assemble(text, ""), "scale") for _ in range(70)]
import importlib
importlib.reload(jit)  # an option of LLVM given twice would end the process
jit.assemble(text, "")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ---- the native language --------------------------------------------------------------------------------------------

PROGRAM = """
cell = 64

def twice(n):
    return n + n

def at_sum(n, limit):
    total = 0
    for i in range(n):
        if i == 3:
            continue
        if not (i < limit and total >= 0) or i == 1000:
            break
        total += twice(i) - (i >> 1)
    return total

def at_memory(value):
    block = stack(16)
    store(block, value)
    store(block + 8, 0)
    store32(block + 8, value)
    before = fetch_add(block, 5)
    changed = cas(block, value + 5, 7) + cas(block, value + 5, 9)
    old = swap(cell, load(block) | 16)
    fetch_and(cell, -2)
    return before * 1000000 + changed * 100000 + old * 1000 + aload(cell) * 10 + (load32(block + 8) == load(block + 8))

def at_call(address, n):
    while n > 3:
        n = n // 2
    return call(address, n, 4) * 10 + int32(4294967295)
"""


@pytest.fixture(scope="module")
def native() -> jit.Loaded:
    return jit.load(jit.assemble(translate(PROGRAM), HOST), "at_sum", {}, ("at_memory", "at_call"))


def call(code: jit.Loaded, name: str, *args: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(args))(code.addresses[name])(*args))


@pytest.mark.parametrize(("n", "limit"), [(0, 5), (1, 5), (4, 9), (20, 9), (20, -1)])
def test_native_control_flow(native: jit.Loaded, n: int, limit: int) -> None:
    expected = sum(2 * i - (i >> 1) for i in range(min(n, max(limit, 0))) if i != 3)
    assert call(native, "at_sum", n, limit) == expected


def test_native_memory_and_calls(native: jit.Loaded) -> None:
    assert call(native, "at_memory", 42) == 42 * 1000000 + 100000 + 0 + 22 * 10 + 1
    assert call(native, "at_memory", 42) == 42 * 1000000 + 100000 + 22 * 1000 + 22 * 10 + 1
    seen: list[tuple[int, int]] = []

    def remember(a: int, b: int) -> int:
        seen.append((a, b))
        return 8

    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(remember)
    assert call(native, "at_call", ctypes.cast(callback, ctypes.c_void_p).value or 0, 100) == 79
    assert seen == [(3, 4)]


@pytest.mark.parametrize(
    "line",
    [
        "return 1.5",
        "a.b = 1",
        "return [n]",
        "return -n",
        "with n: pass",
        "x: int = 1",
        "return 1 < n < 3",
        "return n ** 2",
        "n **= 2",
        "return n is 2",
    ],
)
def test_native_refuses_other_python(line: str) -> None:
    with pytest.raises(BuildError, match="not in the language"):
        translate(f"def at_f(n):\n    {line}\n")
