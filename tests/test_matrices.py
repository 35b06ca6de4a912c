"""Matrix instructions and the shared-memory product: proved, run by the emulator, compiled, and counted in SASS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autotune.codegen import amdgpu, clike, instructions, nvrtc
from autotune.codegen.clike import Dialect
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.devices import device
from autotune.hostrun import ORDERS, SANITIZERS, compiler
from autotune.ir.banks import conflicts
from autotune.ir.equiv import prove
from autotune.ir.errors import DeviceError
from autotune.ir.instructions import INSTRUCTIONS
from autotune.ir.lower import lower
from autotune.ir.nest import Nest, Store, walk
from autotune.ir.program import TensorProgram
from autotune.ir.verify import verify
from autotune.search.ranking import Candidate, Ranking
from tests.emulated import Together, legal
from tests.kernels import kernels, spec
from tests.matrices import DTYPES, STRUCTURES, matrices

MACHINES = ("cuda:sm_75", "cuda:sm_80", "hip:gfx90a", "hip:gfx942", "hip:gfx1100", "hip:gfx1200")


def language(target: str) -> Dialect:
    return CUDA if target.startswith("cuda") else HIP


def available(find: Callable[[], object]) -> None:
    """Skips the test, with the way to get it, where a tool is missing."""
    try:
        find()
    except DeviceError as error:
        pytest.skip(str(error))


def first(program: TensorProgram, target: str, **holes: int) -> tuple[Candidate, Nest]:
    """The model's first choice, of those with these holes, proved."""
    ranking, machine = Ranking(program, device(target), 1), device(target)
    for candidate in ranking.best(apart=0, limit=100_000):
        if all(candidate.point.get(hole) == value for hole, value in holes.items()):
            nest = candidate.schedule.apply(lower(program))
            assert not verify(program, nest, machine.limits()).violations
            prove(program, candidate.schedule, nest)
            return candidate, nest
    raise AssertionError(f"no candidate has {holes}")


def instruction(nest: Nest) -> str:
    return next((getattr(s, "instruction", "") for s, _ in walk(nest.body) if getattr(s, "instruction", "")), "")


@pytest.mark.parametrize("target", MACHINES)
def test_the_model_takes_the_instruction_of_the_device(target: str) -> None:
    known = [name for name, _ in device(target).matrix if "tf32" not in name]
    sizes = (256, 256, 256)  # of smaller ones latency decides
    found = {instruction(first(p, target)[1]) for dtype in DTYPES for p in matrices("product", dtype, sizes)}
    assert found - {""} == set(known), "each exact one is somebody's first choice"


def test_no_operand_is_rounded() -> None:
    """A product of f32 is no product of tf32, though the device has one."""
    (program,) = kernels(lambda x, y: x @ y, spec(64, 128), spec(128, 128))
    assert not any(instruction(c.schedule.apply(lower(program))) for c in list(Ranking(
        program, device("cuda:sm_80"), 1).best())[:20])  # fmt: skip


@pytest.mark.parametrize("target", MACHINES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_products_run_right(name: str, target: str) -> None:
    available(compiler)
    machine = device(target)
    for dtype in DTYPES if name == "product" else DTYPES[:1]:
        for program in matrices(name, dtype):
            found = list(legal(program, machine, 3))
            for sanitize in SANITIZERS if name == "product" and target == "cuda:sm_80" else ("",):
                run = Together(program, [nest for _, nest in found], language(target), sanitize, machine.warp)
                for order in ORDERS[:1] if sanitize else ORDERS:
                    for (point, _), text in zip(found, run.problems(order)):
                        assert text == "", f"{dtype} {order} {sanitize} {point}: {text}"


def test_tensor_cores_and_copies_under_way_are_in_the_machine_code() -> None:
    available(nvrtc.library)
    available(instructions.disassembler)
    program = matrices("product", "f16", (512, 512, 512))[0]
    for arch in ("sm_75", "sm_80", "sm_90a"):
        _, nest = first(program, f"cuda:{arch}", ahead=1)
        cubin, used = nvrtc.compile(clike.source([clike.render(nest, CUDA)], CUDA), arch)
        (lines,) = instructions.sass(cubin).values()
        opcodes = {line.opcode.split(".")[0] for line in lines}
        assert "HMMA" in opcodes and ("LDGSTS" in opcodes) == (arch != "sm_75"), arch
        assert not any(r.spilled for r in used.values())
        assert any(isinstance(s, Store) and s.asynchronous for s, _ in walk(nest.body))


@pytest.mark.parametrize(("arch", "opcode"), [
    ("gfx90a", "v_mfma_f32_16x16x16f16"), ("gfx942", "v_mfma_f32_16x16x16_f16"), ("gfx1100", "v_wmma_f32_16x16x16_f16"),
    ("gfx1200", "v_wmma_f32_16x16x16_f16"),
])  # fmt: skip
def test_matrix_cores_are_in_the_machine_code(arch: str, opcode: str) -> None:
    available(amdgpu.compiler)
    for dtype in DTYPES:
        (program,) = matrices("product", dtype, (512, 512, 512))[:1]
        _, nest = first(program, f"hip:{arch}")
        assembly, used = amdgpu.compile(clike.source([clike.render(nest, HIP)], HIP), arch)
        assert ("v_mfma" if "mfma" in opcode else "v_wmma") in assembly and not any(r.spilled for r in used.values())
        assert dtype != "f16" or opcode in assembly


def test_the_inner_loop_of_a_product_multiplies() -> None:
    """A 128 x 128 tile: nine issue slots of ten are FFMA, operands come 16 bytes at a time, and no bank is asked
    twice."""
    available(nvrtc.library)
    available(instructions.disassembler)
    (program,) = kernels(lambda x, y: x @ y, spec(1024, 1024), spec(1024, 1024))
    for arch in ("sm_80", "sm_90a"):
        machine = device(f"cuda:{arch}")
        _, nest = first(program, f"cuda:{arch}", ty=16, tx=16, tm=8, tn=8, ahead=1, parts=1)
        cubin, used = nvrtc.compile(clike.source([clike.render(nest, CUDA)], CUDA), arch)
        (lines,) = instructions.sass(cubin).values()
        loop = instructions.hottest(lines)
        assert loop is not None and loop.share >= 0.9 and dict(loop.mix).get("LDS.128") == loop.shared, loop
        assert not any(r.spilled for r in used.values())
        assert conflicts(nest, machine.memory()).worst("shared") is None


def test_an_instruction_means_what_its_fragments_say() -> None:
    """Every element of an operand is some lane's, as many times as the layout has copies."""
    for known in INSTRUCTIONS.values():
        m, n, k = known.shape
        for fragment, shape in ((known.a, (m, k)), (known.b, (k, n)), (known.c, (m, n))):
            seen = np.zeros(shape, int)
            for lane in range(known.lanes):
                for e in range(fragment.elements):
                    seen[fragment.row.evaluate({"lane": lane, "e": e}), fragment.column.evaluate(
                        {"lane": lane, "e": e})] += 1  # fmt: skip
            assert (seen == fragment.copies).all(), (known.name, shape)
