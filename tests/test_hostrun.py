"""CUDA and HIP text run on the CPU: right in every order, clean under AddressSanitizer; and planted faults show."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autotune.codegen import clike
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.devices import device
from autotune.floatcheck import Checker
from autotune.hostrun import ORDERS, SANITIZERS, Program, compiler
from autotune.ir.errors import DeviceError, VerifyError
from autotune.ir.nest import Loop, Nest, walk
from autotune.ir.program import TensorProgram
from tests.emulated import SIZES, Together, legal
from tests.ir.test_spmd import LANGUAGES, NESTS, made
from tests.kernels import PROGRAMS, named

try:
    compiler()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)


def compiled(nest: Nest, dialect: clike.Dialect = CUDA, sanitize: str = "", change: Any = None) -> Program:
    text = clike.render(nest, dialect)
    source = clike.source([text], dialect)
    types = {b.name: dialect.storage(b.dtype) for b in text.buffers}
    return Program(change(source) if change else source, text.entries, text.buffers, types, sanitize)


def problem(program: TensorProgram, run: Program, order: str) -> str:
    """What is wrong with the results, or with the run; "" if nothing."""
    try:
        return Checker(program).check(lambda inputs: run(inputs, order), cases=("random", "integers")) or ""
    except VerifyError as error:
        return str(error)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_in_every_order(name: str) -> None:
    """The model's choice, and two schedules drawn at random (`tests/gpu_tools.py` runs thirty)."""
    spec = device("cuda:sm_80")
    for program in named(name, SIZES):
        found = list(legal(program, spec, 3))
        run = Together(program, [nest for _, nest in found], CUDA)
        for order in ORDERS:
            for (point, _), text in zip(found, run.problems(order)):
                assert text == "", f"{order}, {point}: {text}"


@pytest.mark.parametrize(
    ("name", "dialect"),
    [(n, d) for n in NESTS for d in (CUDA, HIP) if d.name in LANGUAGES.get(n, (d.name,))],
    ids=lambda value: getattr(value, "name", value),
)
def test_nests_with_barriers(name: str, dialect: clike.Dialect) -> None:
    program, nest = made(name)
    for sanitize in SANITIZERS:
        run = compiled(nest, dialect, sanitize)
        for order in ORDERS:
            assert problem(program, run, order) == "", (order, sanitize)


# ---- planted faults -------------------------------------------------------------------------------------------------


def once(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text, text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize("name", ["product", "row", "norm"])
def test_a_barrier_that_is_missing_shows(name: str) -> None:
    """Each by itself, in one of the orders; but for one: a softmax is the same whatever is taken as its maximum."""
    program, nest = made(name)
    text = clike.source([clike.render(nest, CUDA)], CUDA)
    count = text.count("__syncthreads();")
    assert count == sum(isinstance(s, Loop) and s.barrier for s, _ in walk(nest.body))
    missed = []
    for n in range(count):
        parts = text.split("__syncthreads();")
        mutant = "__syncthreads();".join(parts[: n + 1]) + "/* none */" + "__syncthreads();".join(parts[n + 1 :])
        run = compiled(nest, change=lambda _, mutant=mutant: mutant)
        if not any(problem(program, run, order) for order in ORDERS):
            missed.append(n)
    assert len(missed) <= (name == "norm"), f"barriers {missed} of {count} are not missed:\n{text}"


FAULTS: dict[str, tuple[Callable[[str], str], bool]] = {
    "a barrier for half of the threads": (once("__syncthreads();", "if (threadIdx.y < 2) __syncthreads();"), False),
    "a global read past the end": (once("= a[", "= a[192 + "), True),
    "a shared write past the end": (once("t0_load1[8 * t0_load1_a", "t0_load1[32 + 8 * t0_load1_a"), True),
    "a row of shared memory too far": (once("fmaf(t0_load0[", "fmaf(t0_load0[1 + "), True),
    "two threads write one element": (once("t0[128 * i_0", "t0[0 * i_0"), False),
    "an operand of another column": (once(", t0_load1[", ", t0_load1[7 - 7 + 0 * "), False),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_show(name: str) -> None:
    program, nest = made("product")
    change, sanitize = FAULTS[name]
    run = compiled(nest, sanitize="address" if sanitize else "", change=change)
    found = [problem(program, run, order) for order in ORDERS]
    assert any(found), name
    if sanitize:
        assert any("AddressSanitizer" in text or "is" in text for text in found)


RACES: dict[str, tuple[Callable[[str], str], str]] = {
    "no barrier before the first use": (once("__syncthreads();", ""), "data race: line .*t0_load"),
    "no barrier after the last use": (lambda t: "".join(t.rsplit("__syncthreads();", 1)), "data race: line .*t0_load"),
    "two threads write one element": (once("t0[128 * i_0", "t0[0 * threadIdx.x"), "data race: line .*= t0_acc"),
    "two threads write the same to one element": (
        once("t0_load1[8 * t0_load1_a", "t0_load1[0] = 1; t0_load1[8 * t0_load1_a"), "data race: .*t0_load1.0. = 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", RACES)
def test_races_show_with_their_line(name: str) -> None:
    program, nest = made("product")
    change, told = RACES[name]
    found = problem(program, compiled(nest, sanitize="thread", change=change), "forward")
    assert re.search(f"ThreadSanitizer: {told}", found), found


def test_an_unwritten_element_is_not_a_number() -> None:
    """Shared memory and results are poisoned: what was never written is seen."""
    program, nest = made("product")
    run = compiled(nest, change=once("t0_load1[8 * t0_load1_a", "if (threadIdx.x > 0) t0_load1[8 * t0_load1_a"))
    assert "is nan" in problem(program, run, "forward")


def test_launches_need_every_thread() -> None:
    program, nest = made("product")
    text = clike.render(nest, CUDA)
    few = [replace(e, launch=replace(e.launch, block=(4, 4, 1))) for e in text.entries]
    types = dict.fromkeys((b.name for b in nest.buffers), "float")
    run = Program(clike.source([text], CUDA), few, nest.buffers, types)
    assert problem(program, run, "forward")
