"""The other commands: explain, bench, emit, devices, doctor, and what the top does with errors."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autotune import calibrate
from autotune.cli import machine
from autotune.cli.run import FIELDS
from autotune.ir.errors import AutotuneError
from autotune.shipping import file
from tests.cli.conftest import QUICK, Done, Run
from tests.codegen.test_clike import queue

ROOT = Path(__file__).parent.parent.parent
GEMM = ("gemm", "m=8", "n=12", "k=16")


def wrong(done: Done, code: int, told: str) -> None:
    assert done.code == code and done.out == "" and told in done.err
    assert len(done.err.splitlines()) == 1 and done.err.startswith("error: ")


# ---- the top --------------------------------------------------------------------------------------------------------


def test_help_and_version(run: Run) -> None:
    assert run("--help").code == 0 and run("sweep", "-h").code == 0 and run("cache", "--help").code == 0
    assert "0.1.0" in run("--version").out
    done = run()
    assert done.code == 2 and "sweep" in done.err and done.out == ""


def test_an_unknown_command(run: Run) -> None:
    wrong(run("swep", "gemm"), 2, "'swep'")
    wrong(run("cache", "list"), 2, "'list'")


def test_a_wrong_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_DEBUG", "loud")
    wrong(run("explain", *GEMM), 2, "AUTOTUNE_DEBUG='loud'")


def test_the_module_is_the_command(place: Path) -> None:
    words = [sys.executable, "-m", "autotune", "sweep", "gem"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: no operation 'gem'")


# ---- explain --------------------------------------------------------------------------------------------------------


def test_explain(run: Run) -> None:
    done = run("explain", *GEMM, "--threads", "1")
    assert done.code == 0 and done.out.startswith("gemm m=8 n=12 k=16 f32\n")
    assert "counts: 3,072 flops" in done.out and "roofline" in done.out
    wrong(run("explain", *GEMM, "--spaces", "nowhere"), 2, "goes with --counterfactual")
    wrong(run("explain", *GEMM, "--counterfactual", "--spaces", "nowhere"), 2, "no recorded space")
    wrong(run("explain", "functions_here:branch", "x=f32[4]"), 1, "in branch")
    wrong(run("explain", *GEMM, "--device", "opencl:99"), 3, "penCL")


# ---- verify ---------------------------------------------------------------------------------------------------------


def test_verify(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("verify", "gemm", "m=19", "n=1:3:2", "k=7")
    assert done.code == 0 and done.err == "" and done.out.count("free of races") == 2 and "AddressSan" not in done.out
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    for target in ("cuda", "hip"):
        done = run("verify", "functions_here:dense", "x=f32[9,8]", "w=f32[8,17]", "b=f32[17]", "--target", target,
                   "--execute")  # fmt: skip
        rows = done.out.splitlines()
        assert done.code == 0 and len(rows) == 10 and all(row.endswith(": right") for row in (rows[1], *rows[3:]))
        assert rows[2].startswith("  kernel0: shared memory: ")
    monkeypatch.setattr("autotune.cli.verify.file", lambda made, target: file(made, target).replace(" + ", " - "))
    done = run("verify", *GEMM, "--execute")
    assert done.code == 1 and "kernel0: runs reverse under AddressSanitizer: " in done.out and done.err == ""
    wrong(run("verify", *GEMM, "--target", "metal"), 2, "metal")


# ---- bench ----------------------------------------------------------------------------------------------------------


def test_bench(run: Run) -> None:
    done = run("bench", *GEMM, "--against", "numpy", "--rounds", "3", "--format", "jsonl", *QUICK)
    (record,) = done.records
    assert done.code == 0 and list(record) == [*FIELDS, "peers"] and list(record["peers"]) == ["numpy"]
    assert record["status"] == "ok" and record["seconds"] > 0
    assert set(record["peers"]["numpy"]) == {"seconds", "ratio"} and record["peers"]["numpy"]["ratio"] > 0


def test_bench_tunes_only_what_is_not_stored(run: Run) -> None:
    words = ("bench", *GEMM, "--against", "numpy", "--rounds", "3", "--threads", "1", "--format", "jsonl")
    assert run(*words, "--trials", "2").records[0]["source"] == "tuned"
    assert run(*words).records[0]["source"] == "cache"


def test_bench_shows_ratios(run: Run) -> None:
    done = run("bench", "softmax", "m=4", "n=32", "--against", "numpy", "--rounds", "3", *QUICK)
    head, line = done.out.splitlines()
    assert head.split()[-2:] == ["numpy", "ratio"] and line.endswith("x")
    how = ("--against", "numpy", "--rounds", "3", *QUICK)
    assert run("bench", "functions_here:dense", "x=f32[8,8]", "w=f32[8,8]", "b=f32[8]", *how).code == 0
    assert run("bench", "functions_here:both", "x=f32[8,8]", *how).code == 0


def test_bench_fails_where_a_peer_is_faster(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("bench", *GEMM, "--against", "numpy", "--rounds", "3", *QUICK)
    for factor, code in ((0.5, 1), (0.97, 0), (2.0, 0)):
        monkeypatch.setattr("autotune.cli.bench.ratio", lambda theirs, ours, factor=factor: factor)
        done = run(*words, "--fail-slower", "5%")
        assert done.code == code and ("slower: gemm m=8 n=12 k=16: 0.500x numpy" in done.err) == (code == 1)
    monkeypatch.setattr("autotune.cli.bench.ratio", lambda theirs, ours: 0.5)
    assert run(*words).code == 0


def test_bench_says_when_the_result_is_another(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.cli.bench.agree", lambda ours, theirs: False)
    done = run("bench", *GEMM, "--against", "numpy", "--format", "jsonl", *QUICK)
    assert done.code == 4 and done.records[0]["status"] == "correctness" and done.records[0]["peers"] == {}


def test_wrong_words_for_bench(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(run("bench", *GEMM, "--against", "mkl"), 2, "compare with numpy, torch")
    wrong(run("bench", *GEMM, "--fail-slower", "much"), 2, "5% or 0.05")
    monkeypatch.setattr("autotune.cli.bench.find_spec", lambda name: None if name == "torch" else True)
    wrong(run("bench", *GEMM, "--against", "torch"), 3, "not installed")
    monkeypatch.setattr("autotune.cli.bench.find_spec", lambda name: True)
    wrong(run("bench", "functions_here:scaled", "x=f32[4]", "--against", "numpy,torch"), 2, "--against numpy")


# ---- emit -----------------------------------------------------------------------------------------------------------


def test_emit(run: Run, place: Path) -> None:
    words = ("gemm", "m=9", "n=20", "k=16", "bias=1", "act=relu")
    done = run("emit", *words, "--target", "llvm", "-o", "out", "--threads", "1")
    assert done.code == 0
    assert [Path(line).name for line in done.out.splitlines()] == ["kernel.ll", "launch.c", "meta.json", "README.md"]
    meta = json.loads((place / "out" / "meta.json").read_text())
    assert meta["target"] == "llvm" and meta["device"].startswith("cpu:") and meta["params"]["bias"] == 1
    (entry,) = meta["entry_points"]
    assert [(a["role"], a["dtype"], a["shape"]) for a in entry["arguments"]] == [
        ("input", "f32", [9, 16]), ("input", "f32", [16, 20]), ("input", "f32", [20]), ("output", "f32", [9, 20]),
    ]  # fmt: skip
    assert meta["kernels"][0]["counts"]["flops"] >= 2 * 9 * 20 * 16 and isinstance(meta["kernels"][0]["schedule"], list)
    assert f"define void @{entry['name']}(" in (place / "out" / "kernel.ll").read_text()


EMITTED = {
    "cuda": ["kernel.cu", "launch.cpp"], "hip": ["kernel.hip", "launch.cpp"], "opencl": ["kernel.cl", "launch.c"]
}  # fmt: skip
WHOLE = (
    ("gemm", "m=20", "n=33", "k=17", "bias=1", "act=relu"), ("softmax", "m=9", "n=70"), ("transpose", "shape=9x20"),
    ("functions_here:both", "x=f32[16,32]"),
)  # fmt: skip


@pytest.mark.parametrize("target", EMITTED)
def test_emit_for_blocks_and_threads(run: Run, place: Path, target: str) -> None:
    done = run("emit", "gemm", "m=20", "n=33", "k=17", "--target", target, "-o", "out")
    assert done.code == 0, done.err
    assert [Path(line).name for line in done.out.splitlines()] == [*EMITTED[target], "meta.json", "README.md"]
    meta = json.loads((place / "out" / "meta.json").read_text())
    assert meta["target"] == target and meta["device"].startswith(f"{target}:")
    assert [(a["role"], a["shape"]) for a in meta["arrays"]] == [
        ("input", [20, 17]), ("input", [17, 33]), ("output", [20, 33])
    ]  # fmt: skip
    text = (place / "out" / EMITTED[target][0]).read_text()
    for entry in meta["entry_points"]:
        assert f" {entry['name']}(" in text and len(entry["grid"]) == len(entry["block"]) == 3
        assert entry["shared_bytes"] >= 0 and set(entry["arguments"]) <= {a["name"] for a in meta["arrays"]}
    assert meta["kernels"][0]["counts"]["flops"] >= 2 * 20 * 33 * 17 and meta["kernels"][0]["schedule"]
    assert {row["scope"] for row in meta["kernels"][0]["memory"]["accesses"]} >= {"global"}
    wrong(run("emit", *GEMM, "--target", target, "--device", f"{target}:none", "-o", "out"), 3, "none")


@pytest.mark.parametrize("words", WHOLE, ids=lambda words: words[0])
def test_an_emitted_opencl_program_checks_itself(run: Run, place: Path, words: tuple[str, ...]) -> None:
    queue()
    header = subprocess.run(["cc", "-E", "-x", "c", "-"], input="#include <CL/cl.h>", capture_output=True, text=True)
    if header.returncode:
        pytest.skip("no OpenCL headers: apt-get install ocl-icd-opencl-dev")
    assert run("emit", *words, "--target", "opencl", "-o", "out").code == 0
    build = ["cc", "-O2", "-Wall", "-Werror", "launch.c", "-lOpenCL", "-lm", "-o", "launch"]
    subprocess.run(build, cwd=place / "out", check=True, capture_output=True, text=True)
    done = subprocess.run(["./launch"], cwd=place / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("right, "), done.stdout + done.stderr
    source = place / "out" / "kernel.cl"
    source.write_text(re.sub(r"(\bout\w*|t\d+)\[([^\]]*)\] = ", r"\1[\2] = 1 + ", source.read_text()))
    done = subprocess.run(["./launch"], cwd=place / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.startswith("WRONG, "), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile the launcher with")
@pytest.mark.parametrize("words", WHOLE, ids=lambda words: words[0])
def test_an_emitted_cuda_program_compiles(run: Run, place: Path, words: tuple[str, ...]) -> None:
    assert run("emit", *words, "--target", "cuda", "-o", "out").code == 0
    build = ["nvcc", "-arch=sm_80", "-x", "cu", "launch.cpp", "-o", "launch"]
    subprocess.run(build, cwd=place / "out", check=True, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the launcher with")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_was_emitted_runs_without_the_package(run: Run, place: Path, threads: str) -> None:
    import llvmlite.binding as llvm

    words = ("x=f32[37,50]", "w=f32[50,64]", "b=f32[64]")
    assert run("emit", "functions_here:dense", *words, "-o", "out", "--threads", threads).code == 0
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly((place / "out" / "kernel.ll").read_text())
    cpu = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten()}
    target = llvm.Target.from_default_triple().create_target_machine(**cpu, opt=2, reloc="pic")
    (place / "kernel.o").write_bytes(target.emit_object(module))
    build = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", "k.so", "out/launch.c", "kernel.o"]
    subprocess.run([*build, "-lm"], cwd=place, check=True, capture_output=True, text=True)
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((37, 50), (50, 64), (64,)))
    out = np.full((37, 64), np.nan, np.float32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, w, b, out)]
    ctypes.CDLL(str(place / "k.so")).launch(*pointers)
    assert np.array_equal(out, np.maximum(x @ w + b, 0))


def test_several_kernels_are_one_module(run: Run, place: Path) -> None:
    import llvmlite.binding as llvm

    assert run("emit", "functions_here:both", "x=f32[16,32]", "-o", "out", "--threads", "1").code == 0
    meta = json.loads((place / "out" / "meta.json").read_text())
    text = (place / "out" / "kernel.ll").read_text()
    llvm.parse_assembly(text).verify()
    assert f"@{meta['entry_points'][0]['name']}(" in text
    assert [a["role"] for a in meta["entry_points"][0]["arguments"]] == ["input", "output", "output"]


def test_emit_for_a_cpu_that_is_not_here(run: Run, place: Path) -> None:
    name = next(n for n in ("cpu:haswell", "cpu:znver2") if n != calibrate.device("cpu").id)
    assert run("emit", "softmax", "m=4", "n=64", "--device", name, "-o", "out", "--threads", "1").code == 0
    meta = json.loads((place / "out" / "meta.json").read_text())
    assert meta["device"] == name and meta["kernels"][0]["source"] == "model"


def test_wrong_words_for_emit(run: Run, place: Path) -> None:
    wrong(run("emit", *GEMM, "--target", "metal", "-o", "out"), 2, "metal")
    wrong(run("emit", *GEMM), 2, "-o")
    wrong(run("emit", "gemm", "m=8,16", "n=8", "k=8", "-o", "out"), 2, "these are 2")
    (place / "file").write_text("")
    wrong(run("emit", *GEMM, "-o", "file/out"), 2, "-o file/out")
    assert not (place / "out").exists()


# ---- devices and doctor ---------------------------------------------------------------------------------------------


def test_devices(run: Run) -> None:
    done = run("devices")
    spec = calibrate.device("cpu")
    assert done.code == 0 and done.out.startswith(f"{spec.id}: {spec.name}") and "peak f32" in done.out
    row, *others = json.loads(run("devices", "--format", "json").out)
    assert all(other["kind"] == "opencl" for other in others) and row["id"] == spec.id and row["cores"] == spec.cores


def test_calibration_is_kept(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", lambda spec, threads, say: (say("clock 3 GHz"), spec)[1])
    monkeypatch.setattr(calibrate, "save", lambda spec: place / f"{spec.arch}.json")
    done = run("devices", "--calibrate", "--threads", "2")
    assert done.code == 0 and "clock 3 GHz" in done.err and f"{calibrate.device('cpu').arch}.json" in done.err


def test_doctor_finds_everything_well(run: Run) -> None:
    done = run("doctor")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[-1] == "everything works" and all(line.startswith("ok ") for line in lines[:10])
    drivers = ("opencl (pyopencl)", "cuda (cuda.core)", "cuda (pycuda)", "hip (hip)")
    assert [line[8:].partition(":")[0] for line in lines[10:-1]] == [*drivers]
    assert all(line.startswith("ok ") or "install" in line for line in lines[10:-1])


def test_doctor_says_what_to_do(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "taken").write_text("")
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(place / "taken"))

    def broken() -> str:
        raise AutotuneError("it stands still\nfor a reason")

    checks = (machine._CHECKS[4], ("clock", broken, "wind it"))
    monkeypatch.setattr(machine, "_CHECKS", checks)
    done = run("doctor")
    first, second, *_, last = done.out.splitlines()
    assert done.code == 1 and first.startswith("failed  cache directory: ") and "AUTOTUNE_CACHE_DIR" in first
    assert second == "failed  clock: it stands still; wind it" and last == "2 of 2 checks failed"
