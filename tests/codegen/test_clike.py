"""OpenCL, CUDA and HIP: golden texts, real compilers, and the OpenCL text run by a real runtime, beside float64.

Compilers and runtimes are looked for; a test whose tool is missing says which one, and how to get it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
from autotune import ops
from autotune.codegen import amdgpu, clike, nvrtc
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.codegen.opencl import OPENCL
from autotune.devices import device
from autotune.floatcheck import Checker
from autotune.ir.equiv import equivalent
from autotune.ir.errors import BuildError, DeviceError
from autotune.ir.lower import lower
from autotune.ir.program import TensorProgram
from autotune.ir.schedule import Schedule
from autotune.ir.verify import verify
from autotune.search.ranking import Candidate, Ranking
from tests.ir.test_spmd import LANGUAGES, NESTS, made
from tests.kernels import PROGRAMS, kernels, named, softmax, spec

DIALECTS = {"cuda": CUDA, "hip": HIP, "opencl": OPENCL}
GENERIC = device("opencl:generic")
SHAPES = ((16, 24, 8), (37, 53, 21), (64, 64, 64))
TYPED: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "f64": (lambda x, y: x @ y, [spec(9, 20, dtype="f64"), spec(20, 17, dtype="f64")]),
    "f16": (lambda x, y: x * y + x, [spec(100, dtype="f16")] * 2),
    "bf16": (lambda x, y: x * y + x, [spec(100, dtype="bf16")] * 2),
    "i8": (lambda x, y: np.maximum(x, y) * 3, [spec(100, dtype="i8")] * 2),
    "i32": (lambda x, y: x // y + x % y, [spec(100, dtype="i32")] * 2),
    "i64": (lambda x: (x * x).sum(), [spec(100, dtype="i64")]),
    "bool": (lambda x, y: (x > y) & ~(x < 0), [spec(100)] * 2),
    "casts": (lambda x: x.astype(np.int32), [spec(100)]),
    "functions": (lambda x: np.exp(-np.abs(x)) + np.log1p(x * x) + np.sqrt(np.abs(x)) + np.floor(x), [spec(300)]),
    "extremes": (lambda x: np.maximum(np.minimum(x, 1), -1), [spec(100)]),
    "gelu": (lambda x, w, b: ops.gelu(x @ w + b), [spec(33, 20), spec(20, 40), spec(40)]),
    "rows of three": (lambda x: x.sum((0, 2)), [spec(5, 6, 7)]),
}  # fmt: skip


@cache
def queue() -> Any:
    """An OpenCL queue on a CPU; skips the test where there is none."""
    cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed: pip install pyopencl")
    try:
        platforms = cl.get_platforms()
    except cl.LogicError:
        platforms = []
    pocl = [p for p in platforms if p.name == "Portable Computing Language" and "PoCL 3.0" not in p.version]
    if not pocl:  # PyPI's build of PoCL 3.0 ends the process on some of these texts
        pytest.skip("no PoCL from 3.1 on: apt-get install pocl-opencl-icd")
    return cl.CommandQueue(cl.Context(pocl[0].get_devices()[:1]))


def run(program: TensorProgram, schedule: Schedule) -> str:
    """What is wrong with the OpenCL text of a program under a schedule, run and compared; "" if nothing."""
    import pyopencl as cl

    q = queue()
    nest = schedule.apply(lower(program))
    text = clike.render(nest, OPENCL)
    built = cl.Program(q.context, clike.source([text], OPENCL)).build(cache_dir=False)
    ready = {e.symbol: getattr(built, e.symbol) for e in text.entries}
    size = {b.name: max(b.bytes, 16) for b in text.buffers}
    memory = {name: cl.Buffer(q.context, cl.mem_flags.READ_WRITE, n) for name, n in size.items()}

    def call(inputs: list[Any]) -> list[Any]:
        for b in nest.buffers:
            cl.enqueue_copy(q, memory[b.name], np.full(size[b.name], 0xAB, np.uint8))
        for b, array in zip(program.inputs, inputs):
            cl.enqueue_copy(q, memory[b.name], np.ascontiguousarray(array).view(np.uint8).ravel())
        for e in text.entries:
            threads = tuple(g * b for g, b in zip(e.launch.grid, e.launch.block))
            ready[e.symbol](q, threads, e.launch.block, *(memory[name] for name in e.buffers))
        found = []
        for name in program.outputs:
            b = next(b for b in program.buffers if b.name == name)
            raw = np.empty(size[name], np.uint8)
            cl.enqueue_copy(q, raw, memory[name])
            found.append(raw[: b.bytes].view(b.dtype.numpy).reshape(b.shape))
        return found

    return Checker(program).check(call, cases=("random", "integers", "special")) or ""


def choices(program: TensorProgram, count: int) -> Iterator[tuple[str, Candidate]]:
    """The model's first choice, and points of every sketch drawn at random."""
    ranking, rng = Ranking(program, GENERIC, 1), np.random.default_rng(0)
    yield "first", next(ranking.best())
    for n, (sketch, priced) in enumerate(zip(ranking.sketches, ranking.priced, strict=True)):
        for row in rng.permutation(len(priced.seconds))[:count]:
            yield sketch.name, ranking.candidate(n, int(row), "random")


def accepted(program: TensorProgram, schedule: Schedule) -> str:
    """Whether verifier and equivalence check take it; a launch may ask for more threads than the device has."""
    nest = schedule.apply(lower(program))
    violations = verify(program, nest, GENERIC.limits()).violations
    if violations and all(v.kind == "limit" for v in violations):
        return "limit"
    assert not violations, f"{violations[0]}\n{schedule}"
    report = equivalent(program, schedule, nest=nest)
    assert report.ok, f"{report.message}\n{schedule}"
    return ""


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", DIALECTS)
@pytest.mark.parametrize("name", NESTS)
def test_golden(language: str, name: str, golden: Callable[[str, str], None]) -> None:
    dialect = DIALECTS[language]
    if language not in LANGUAGES.get(name, DIALECTS):
        with pytest.raises(BuildError, match=f"{language} has no "):
            clike.render(made(name)[1], dialect)
        return
    text = clike.source([clike.render(made(name)[1], dialect)], dialect)
    golden(f"{language}/{name.replace(' ', '-')}{dialect.suffix}", text)


def test_a_language_is_a_short_table() -> None:
    for module in ("cuda", "hip", "opencl"):
        lines = Path(clike.__file__).with_name(f"{module}.py").read_text("utf-8").splitlines()
        assert len(lines) <= 120, f"{module}.py has {len(lines)} lines"


def test_a_text_has_only_the_helpers_that_it_calls() -> None:
    (program,) = kernels(lambda x, y: np.maximum(x, y) % 2, spec(8, dtype="i32"), spec(8, dtype="i32"))
    text = clike.source([clike.render(lower(program), CUDA)], CUDA)
    assert "at_imax(I" not in text and text.count("at_imax(") == 2 and "at_as_f16" not in text


def test_sources_of_a_function_with_several_kernels() -> None:
    """One prelude, and every kernel under a name of its own."""
    kernel = autotune.kernel(lambda x, w, v: softmax(x @ w) @ v)
    shapes = autotune.spec("f32", (20, 30)), autotune.spec("f32", (30, 40)), autotune.spec("f32", (40, 50))
    for target in DIALECTS:
        text = kernel.source(*shapes, target=target)
        assert "kernel0" in text and "kernel2" in text and text.count("AT_BLOCK(a) ((int)__builtin") <= 1
    with pytest.raises(autotune.UsageError, match="'metal': the targets are llvm, cuda, hip, opencl"):
        kernel.source(*shapes, target="metal")


# ---- compilers ------------------------------------------------------------------------------------------------------


def _nvrtc() -> None:
    try:
        nvrtc.library()
    except DeviceError as error:
        pytest.skip(str(error))


def _clang() -> None:
    try:
        amdgpu.compiler()
    except DeviceError as error:
        pytest.skip(str(error))


OPERATIONS = (
    "product", "second turned", "first turned", "batch", "epilogue", "heavy epilogue", "rows", "columns", "centred",
    "sum", "column sum", "everything", "chain", "map", "turned", "permuted", "quotient", "any",
)  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_cuda_compiles_without_spills(name: str) -> None:
    _nvrtc()
    for program in named(name, (37, 53, 21)):
        schedule = next(Ranking(program, device("cuda:sm_80"), 1).best()).schedule
        text = clike.source([clike.render(schedule.apply(lower(program)), CUDA)], CUDA)
        for arch in nvrtc.ARCHS if name in ("epilogue", "rows") else ("sm_80",):
            binary, used = nvrtc.compile(text, arch)
            assert binary[:4] == b"\x7fELF" and used and not any(r.spilled for r in used.values()), (arch, used)


@pytest.mark.parametrize("name", OPERATIONS)
def test_hip_compiles_without_spills(name: str) -> None:
    _clang()
    for program in named(name, (37, 53, 21)):
        schedule = next(Ranking(program, device("hip:gfx942"), 1).best()).schedule
        text = clike.source([clike.render(schedule.apply(lower(program)), HIP)], HIP)
        for arch in amdgpu.ARCHS if name in ("epilogue", "rows") else ("gfx942",):
            assembly, used = amdgpu.compile(text, arch)
            assert "s_endpgm" in assembly and used and not any(r.spilled for r in used.values()), (arch, used)


def test_a_code_object_for_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AMD's driver loads: a shared ELF file with the kernel and its descriptor."""
    _clang()
    (program,) = named("product", (16, 16, 16))
    text = clike.source([clike.render(lower(program), HIP)], HIP)
    for arch in amdgpu.ARCHS[:2]:
        code = amdgpu.link(text, arch)
        assert code[:4] == b"\x7fELF" and code[16] == 3 and b"kernel0.kd" in code
    monkeypatch.setattr(amdgpu, "linker", lambda: ("false",))
    with pytest.raises(BuildError, match="false cannot make a code object for gfx942"):
        amdgpu.link(text, "gfx942")


def test_no_linker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(amdgpu, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="apt-get install lld-19, or pip install ziglang"):
        amdgpu.linker.__wrapped__()


def test_what_compilers_refuse_says_so() -> None:
    _nvrtc()
    with pytest.raises(BuildError, match='identifier "y" is undefined') as caught:
        nvrtc.compile('extern "C" __global__ void k(float *x) { x[0] = y; }', "sm_80")
    assert caught.value.reason == "compile" and caught.value.log
    with pytest.raises(BuildError, match="sm_1") as caught:
        nvrtc.compile('extern "C" __global__ void k(float *x) { }', "sm_1")
    assert caught.value.reason == "arch"


def test_what_clang_refuses_says_so() -> None:
    _clang()
    with pytest.raises(BuildError, match="use of undeclared identifier"):
        amdgpu.compile(f"{HIP.prelude}\nextern \"C\" __global__ void k(float *x) {{ x[0] = y; }}", "gfx942")
    with pytest.raises(BuildError, match="gfx1"):
        amdgpu.compile(f"{HIP.prelude}\nextern \"C\" __global__ void k(float *x) {{ }}", "gfx1")


# ---- execution ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_sketch_is_accepted_and_runs(name: str) -> None:
    """Proved at three sizes; run by PoCL at one, the model's choice and a random point of every sketch."""
    for n, shape in enumerate(SHAPES):
        for program in named(name, shape):
            for sketch, candidate in choices(program, 2 if n else 1):
                if accepted(program, candidate.schedule) or n != 1 or sketch == "first":
                    continue
                problem = run(program, candidate.schedule)
                assert not problem, f"{sketch} {candidate.point}: {problem}"


@pytest.mark.parametrize("name", TYPED)
def test_types_and_functions(name: str) -> None:
    fn, args = TYPED[name]
    for program in kernels(fn, *args):
        candidate = next(c for _, c in choices(program, 0))
        assert accepted(program, candidate.schedule) == ""
        problem = run(program, candidate.schedule)
        assert not problem, problem


@pytest.mark.parametrize("name", [n for n in NESTS if n not in LANGUAGES])
def test_nests_with_barriers_run(name: str) -> None:
    program, steps = NESTS[name]
    assert run(program, Schedule(steps)) == ""
