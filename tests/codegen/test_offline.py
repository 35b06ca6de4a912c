"""Real compilers without their devices: what they report, and whatever may become of one is told with a reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from autotune.codegen import amdgpu, instructions, nvrtc, offline, ptxas, tools
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.codegen.instructions import Line, counted, hottest
from autotune.codegen.offload import dialect
from autotune.devices import device
from autotune.ir.errors import BuildError, DeviceError
from autotune.shipping import file, texts
from tests.ir.programs import product
from tests.kernels import named

STUB = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static const char *log_ = LOG;
int nvrtcCreateProgram(void **p, const char *s, const char *n, int a, void *b, void *c) { *p = NULL; return 0; }
int nvrtcCompileProgram(void *p, int n, const char **o) { ACTION; return 0; }
int nvrtcGetProgramLogSize(void *p, size_t *n) { *n = strlen(log_) + 1; return 0; }
int nvrtcGetProgramLog(void *p, char *out) { strcpy(out, log_); return 0; }
int nvrtcGetCUBINSize(void *p, size_t *n) { *n = 4; return 0; }
int nvrtcGetCUBIN(void *p, char *out) { memcpy(out, BINARY, 4); return 0; }
int nvrtcDestroyProgram(void **p) { return 0; }
"""
USED = "Compiling entry function 'k' for 'x'\\n Used 3 registers, 64 bytes smem\\n"


def stub(place: Path, action: str = "", log: str = "", binary: str = "none") -> str:
    """A library in NVRTC's place."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: apt-get install gcc")
    path = place / "libstub.so"
    given = [f"-DACTION={action}", f'-DLOG="{log}"', f'-DBINARY="{binary}"']
    words = ["gcc", "-shared", "-fPIC", "-w", *given, "-x", "c", "-", "-o", str(path)]
    subprocess.run(words, input=STUB, text=True, check=True)
    return str(path)


def script(place: Path, body: str) -> str:
    path = place / "tool"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def present(kind: str) -> None:
    try:
        offline.toolchain(device(kind))
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("action", "log", "binary", "reason", "told"),
    [("abort()", "", "none", "crash", "SIGABRT"), ("*(volatile int *)0 = 1", "", "none", "crash", "SIGSEGV"),
     ("sleep(60)", "", "none", "timeout", "did not finish within"), ("_exit(0)", "", "none", "garbage", "no answer"),
     ("", "well done", "none", "garbage", "well done"), ("", USED, "none", "garbage", "no binary"),
     ("", "nothing said", "\\177ELF", "garbage", "figures"),
     ("return 7", "line 3: no", "none", "compile", "line 3: no"),
     ("return 5", "invalid value for --gpu-architecture (-arch)", "none", "arch", "gpu-architecture")],
    ids=["aborts", "segfaults", "hangs", "vanishes", "prints", "no binary", "no figures", "refuses", "arch"],
)  # fmt: skip
def test_nvrtc_that_fails(tmp_path: Path, action: str, log: str, binary: str, reason: str, told: str) -> None:
    library = stub(tmp_path, action, log, binary)
    with pytest.raises(BuildError, match=told.replace("no answer", "without an answer")) as caught:
        offline.compiled("", device("cuda:sm_80"), 0.2 if action.startswith("sleep") else 30.0, library)
    assert caught.value.reason == reason


def test_a_binary_from_the_drivers_cache_is_compiled_again_for_its_figures(tmp_path: Path) -> None:
    action = 'if (!strcmp(o[n - 1], "--no-cache")) log_ = "Compiling entry function \'k\'\\n Used 5 registers\\n"'
    library = stub(tmp_path, action, "", "\\177ELF")
    assert nvrtc.compile("", "sm_90", library)[1]["k"].registers == 5


@pytest.mark.parametrize(
    ("body", "reason", "told"),
    [("kill -SEGV $$", "crash", "SIGSEGV"), ("sleep 60; echo", "timeout", "did not finish within 0.5 s"),
     ("echo gibberish", "garbage", "gibberish"), ("", "garbage", "no kernel"),
     ("echo no such thing >&2; exit 1", "compile", "no such thing"),
     ("echo unknown target gfx942: not an arch >&2; exit 1", "arch", "gfx942")],
)  # fmt: skip
def test_clang_that_fails(tmp_path: Path, body: str, reason: str, told: str) -> None:
    with pytest.raises(BuildError, match=told) as caught:
        amdgpu.compile("", "gfx942", 0.5 if "sleep" in body else 30.0, (script(tmp_path, body),))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [("kill -BUS $$", "crash"), ("sleep 60; echo", "timeout"), ("echo x", "garbage"), ("exit 3", "compile")],
)
def test_a_disassembler_that_fails(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(BuildError) as caught:
        instructions.sass(b"", script(tmp_path, body), 0.5 if "sleep" in body else 30.0)
    assert caught.value.reason == reason


def test_tools_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="pip install nvidia-cuda-nvrtc"):
        offline.compiled("", device("cuda:sm_80"), given=str(tmp_path / "none.so"))
    with pytest.raises(DeviceError, match="cannot be run"):
        amdgpu.compile("", "gfx942", given=(str(tmp_path / "none"),))
    with pytest.raises(DeviceError, match="cannot be run"):
        tools.run([str(tmp_path)])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(amdgpu, "find_spec", lambda name: None)
    amdgpu.compiler.cache_clear()
    with pytest.raises(DeviceError, match="apt-get install clang-19"):
        offline.toolchain(device("hip:gfx942"))
    amdgpu.compiler.cache_clear()
    with pytest.raises(DeviceError, match="opencl:generic"):
        offline.toolchain(device("opencl:generic"))
    monkeypatch.setattr(instructions, "Path", lambda *_: tmp_path / "none")
    instructions.disassembler.cache_clear()
    with pytest.raises(DeviceError, match="pip install nvidia-cuda-nvdisasm"):
        instructions.disassembler()
    instructions.disassembler.cache_clear()


# ---- instructions ---------------------------------------------------------------------------------------------------


def lines(text: str) -> list[Line]:
    """label: opcode >target, word by word."""
    out, labels = list[Line](), list[str]()
    for word in text.split():
        if word.endswith(":"):
            labels.append(word[:-1])
        elif word.startswith(">"):
            out[-1] = Line(out[-1].opcode, "", out[-1].labels, word[1:])
        else:
            out.append(Line(word, "", tuple(labels)))
            labels = []
    return out


def test_the_hottest_loop_is_an_innermost_one() -> None:
    code = lines("MOV a: LDG b: FFMA FFMA LDS BRA >b STS c: FFMA BRA >c BRA >a EXIT d: BRA >d")
    whole, hot = counted(code), hottest(code)
    assert (whole.total, whole.multiply, whole.shared) == (12, 3, 2)
    assert hot is not None and (hot.total, hot.multiply, hot.shared, hot.share) == (4, 2, 1, 0.5)
    assert dict(hot.mix) == {"FFMA": 2, "LDS": 1, "BRA": 1}
    assert hottest(lines("a: MOV MOV BRA >a")) is None and hottest(lines("FFMA")) is None
    assert counted([]).share == 0


@pytest.mark.parametrize(
    ("opcode", "operands", "counts"),
    [("FFMA", "R0, R1, R2, R0", 1), ("HFMA2.MMA", "R118, -RZ, RZ, 0, 0", 0), ("HFMA2", "R0, R1, R2, R3", 1),
     ("DFMA", "", 1),
     ("HMMA.16816.F32", "", 1), ("FADD", "", 0), ("FMUL", "", 0), ("v_dual_fmac_f32", "", 1), ("v_pk_fma_f32", "", 1),
     ("v_mfma_f32_32x32x8_f16", "", 1), ("v_wmma_f32_16x16x16_f16", "", 1), ("v_add_f32_e32", "", 0),
     ("v_mul_f32", "", 0)],
)  # fmt: skip
def test_what_multiplies_and_adds(opcode: str, operands: str, counts: int) -> None:
    assert counted([Line(opcode, operands)]).multiply == counts


# ---- real compilers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda:sm_80", "hip:gfx942", "hip:gfx1100"])
def test_a_product(name: str) -> None:
    present(name)
    spec = device(name)
    made = texts(product(512, 512, 512), spec.kind, spec)
    (report,) = offline.compiled(file(made, spec.kind), spec).values()
    assert report.resources is not None and report.resources.spilled == 0 and report.resources.registers > 16
    assert report.resources.shared == made[0].text.entries[0].launch.shared_bytes
    again = offline.Report.from_json(report.to_json())
    assert again == report
    if report.code is None:
        pytest.skip("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    hot = report.hot
    assert hot is not None and 0 < hot.multiply < hot.total < report.code.total and hot.share > 0.3 and hot.shared > 0


def clang_and_ptxas() -> None:
    try:
        ptxas.programs()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["epilogue", "rows", "map"])
def test_llvm_s_ptx_through_ptxas(name: str) -> None:
    clang_and_ptxas()
    spec = device("cuda:sm_80")
    text = file(texts(named(name, (64, 96, 32))[0], "cuda", spec), "cuda")
    binary, used = ptxas.compile(text, "sm_80")
    assert binary.startswith(b"\x7fELF") and all(row.spilled == 0 and row.registers > 8 for row in used.values())
    present("cuda:sm_80")
    if offline.toolchain(spec) == "nvrtc":
        _, beside = nvrtc.compile(text, "sm_80")
        for symbol, row in used.items():  # but for what lies between arrays
            assert abs(row.shared - beside[symbol].shared) < 128


def test_ptxas_stands_in_for_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    clang_and_ptxas()

    def missing(given: str = "") -> None:
        raise DeviceError("pip install nvidia-cuda-nvrtc")

    monkeypatch.setattr(nvrtc, "library", missing)
    spec = device("cuda:sm_80")
    assert offline.toolchain(spec).endswith("and ptxas")
    text = file(texts(product(64, 64, 64), "cuda", spec), "cuda")
    (report,) = offline._here(text, spec, "", 60.0).values()
    assert report.resources is not None and report.resources.spilled == 0
    monkeypatch.setattr(ptxas, "assembler", missing)
    with pytest.raises(DeviceError, match="nvrtc"):
        offline.toolchain(spec)


@pytest.mark.parametrize(
    ("body", "reason"),
    [("kill -SEGV $$", "crash"), ("echo x", "garbage"), ("echo bad gpu-name >&2; exit 1", "arch"),
     ("exit 1", "compile"), ("sleep 60; echo", "timeout")],
)  # fmt: skip
def test_ptxas_that_fails(tmp_path: Path, body: str, reason: str) -> None:
    clang_and_ptxas()
    text = 'extern "C" __global__ void k(float *x) { x[0] = 1; }'
    with pytest.raises(BuildError) as caught:
        ptxas.compile(text, "sm_80", 0.8 if "sleep" in body else 30.0, script(tmp_path, body))
    assert caught.value.reason == reason


@pytest.mark.parametrize("arch", ["sm_1", "sm_999"])
def test_clang_s_own_refusal(arch: str) -> None:
    clang_and_ptxas()
    with pytest.raises(BuildError, match="clang refused") as caught:
        ptxas.compile("", arch)
    assert caught.value.reason == "arch"


@pytest.mark.parametrize("name", ["cuda:sm_80", "hip:gfx942"])
def test_a_text_that_is_wrong(name: str) -> None:
    present(name)
    spec = device(name)
    text = (dialect(spec.kind).prelude) + '\nextern "C" __global__ void k(float *x) { x[0] = y; }'
    with pytest.raises(BuildError, match="y") as caught:
        offline.compiled(text, spec)
    assert caught.value.reason == "compile" and caught.value.log


def test_dialects_have_a_prelude_for_the_compilers_that_need_one() -> None:
    assert not CUDA.prelude and "AT_THREAD" in HIP.prelude and nvrtc.ARCHS and amdgpu.ARCHS
