"""The worker on machine code: entries written in LLVM text, right and wrong ones; and the arrays of a program."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autotune import devices, worker
from autotune.codegen import jit
from autotune.devices import measure
from autotune.devices.client import WorkerClient
from autotune.devices.records import Policy, Status
from autotune.ir.dtypes import F32, F64, I8
from autotune.ir.errors import VerifyError
from autotune.ir.program import Buffer, TensorProgram, to_json
from autotune.worker import Arrays, Built, Worker, bound_strides

from .programs import elementwise, gemm

N = 64
PROGRAM = to_json(elementwise(N))
NAME = "tests.test_worker"
LOOP = """
define void @kernel(ptr %buffers, ptr %params, i64 %threads) {{
entry:
  %a = load ptr, ptr %buffers
  %b.at = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %b.at
  %c.at = getelementptr ptr, ptr %buffers, i64 2
  %c = load ptr, ptr %c.at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %pa = getelementptr <4 x float>, ptr %a, i64 %i
  %pb = getelementptr <4 x float>, ptr %b, i64 %i
  %pc = getelementptr <4 x float>, ptr %c, i64 %i
  %x = load <4 x float>, ptr %pa, align {align}
  %y = load <4 x float>, ptr %pb, align {align}
  %z = {op} <4 x float> %x, %y
  store <4 x float> %z, ptr %pc, align {align}
  %next = add i64 %i, {step}
  %more = icmp slt i64 %next, {end}
  br i1 %more, label %loop, label %end
end:
  ret void
}}
"""
GOOD = {"align": 4, "op": "fadd", "step": 1, "end": N // 4}


class Text(worker.Native):
    """The real worker, with LLVM text for a schedule."""

    def build(self, program: TensorProgram, schedule: Any, threads: int) -> Built:
        obj = jit.assemble(LOOP.format(**schedule), self.spec.arch, self.spec.features)
        loaded = jit.load(obj, "kernel")
        return Built(loaded.address, len(obj), loaded)


def main() -> None:
    worker.serve(Text, int(sys.argv[1]))


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient(devices.device(), module=NAME, limits={"launch": 0.4}) as made:
        yield made


@pytest.mark.parametrize(
    ("change", "check", "status", "message"),
    [
        ({}, "thorough", Status.OK, ""),
        ({"align": 16}, "quick", Status.OK, ""),
        ({"align": 16}, "thorough", Status.RUNTIME, "signal 11"),  # data is aligned to its elements only
        ({"op": "fsub"}, "quick", Status.CORRECTNESS, "t[0] is "),
        ({"end": N // 4 - 1}, "quick", Status.CORRECTNESS, "4 of 64 elements are never written"),
        ({"end": N // 4 + 1}, "quick", Status.RUNTIME, "signal 11"),  # beyond the last element is no memory
        ({"step": 0}, "quick", Status.TIMEOUT, "no sign of life"),
        ({"op": "fmod"}, "quick", Status.COMPILE, "expected instruction opcode"),
    ],
)
def test_machine_code(client: WorkerClient, change: dict[str, Any], check: str, status: Status, message: str) -> None:
    (report,) = client.build([(PROGRAM, {**GOOD, **change})], check=check)
    assert report.status is status and message in report.message
    assert report.code_bytes > 0 or not report.ok


def test_timing_of_machine_code(client: WorkerClient) -> None:
    one, two = client.build([(PROGRAM, GOOD), (PROGRAM, {**GOOD, "align": 8})])
    assert one.handle and two.handle
    for policy in (Policy(rounds=4), Policy(warm=False, rounds=2)):
        rows = client.time([one.handle, two.handle], policy)
        assert all(r.ok and 1e-9 < r.minimum < 1e-2 for r in rows)


class Counting:
    """A backend without a compiler."""

    def __init__(self) -> None:
        self.calls = 0

    def repeat(self, entry: int, data: int, params: int, threads: int, n: int) -> None:
        self.calls += n

    def build(self, program: TensorProgram, schedule: Any, threads: int) -> Built:
        return Built(1, 1, None)

    def timer(self, built: Built, data: int, params: int, threads: int) -> Any:
        return measure.timed(lambda n: self.repeat(built.address, data, params, threads, n))

    def sentinel(self) -> Any:
        return lambda n: n * 1e-5


def test_arrays_lie_elsewhere_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Worker(Counting(), lambda stage, handle: None)
    text = json.dumps(to_json(elementwise(4)))
    made.build(0, text, "{}", 1, "none")
    program, before, checker = made.cases[text]
    made.time([0], Policy().to_json(), 1.0)
    assert made.cases[text][1] is before
    made.time([0], Policy(moved=True).to_json(), 1.0)
    after = made.cases[text][1]
    assert after.inputs[0].ctypes.data != before.inputs[0].ctypes.data and made.cases[text][2] is checker
    assert after.timing and Policy(moved=True).id == Policy().id
    monkeypatch.setattr(worker, "MOVABLE", program.bytes - 1)
    made.time([0], Policy(moved=True).to_json(), 1.0)
    assert made.cases[text][1] is after


def test_kernels_and_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_KERNELS", 3)
    monkeypatch.setattr(worker, "MAX_BYTES", 64)
    made = Worker(Counting(), lambda stage, handle: None)
    texts = [json.dumps(to_json(elementwise(n))) for n in (4, 5, 6)]
    for handle in range(5):
        made.build(handle, texts[0], "{}", 1, "none")
    assert list(made.kernels) == [2, 3, 4]
    made.build(5, texts[1], "{}", 1, "none")
    made.build(6, texts[2], "{}", 1, "none")
    assert list(made.cases) == texts[1:] and list(made.kernels) == [5, 6]
    assert made.time([5, 2], Policy().to_json(), 1.0) == {"missing": [2]}
    made.drop([5, 99])
    assert list(made.kernels) == [6]


@pytest.mark.parametrize(
    ("shape", "strides", "bound"),
    [
        ((3, 5), None, (5, 1)),
        ((3, 5), ("s0", 1), (5, 1)),
        ((3, 5), (1, "s1"), (1, 3)),
        ((3, 5), ("s0", "s1"), (10, 2)),
        ((3, 5), (0, 1), (0, 1)),
        ((2, 3, 5), ("s0", "s1", 1), (15, 5, 1)),
        ((2, 3, 5), ("s0", 1, "s2"), (15, 1, 3)),
    ],
)
def test_strides_given_at_run_time(
    shape: tuple[int, ...], strides: tuple[int | str, ...] | None, bound: tuple[int, ...]
) -> None:
    assert bound_strides(Buffer("x", F32, shape, "input", strides)) == bound


def test_arrays_of_a_strided_program() -> None:
    plain = gemm(3, 2, 4)
    a, b = plain.inputs
    turned = TensorProgram((Buffer("a", F32, a.shape, "input", (1, "a.s1")), b), plain.computes, plain.outputs)
    arrays = Arrays(turned)
    values = np.arange(12, dtype="f4").reshape(3, 4)
    arrays.fill([values, np.ones((4, 2), "f4")])
    assert (arrays.inputs[0] == values).all() and arrays.inputs[0].strides == (4, 12)
    assert ctypes.c_int64.from_address(arrays.params).value == 3
    addresses = [ctypes.c_void_p.from_address(arrays.data + 8 * n).value for n in range(3)]
    assert addresses == [v.ctypes.data for v in (*arrays.inputs, *arrays.outputs)]
    assert [at % 64 for at in addresses if at] == [16, 16, 0]  # as NumPy's arrays lie, and as ours
    shifted = Arrays(elementwise(64, F64), shifted=True)
    assert [m.bytes.ctypes.data % 64 for m in shifted.memory] == [56] * 3


@pytest.mark.parametrize("dtype", [F32, I8])
def test_unwritten_elements_are_found_by_two_poisons(dtype: Any) -> None:
    arrays = Arrays(elementwise(8, dtype))

    def legitimate(data: int, params: int) -> None:
        arrays.outputs[0].view("u1")[:] = worker.POISON[0]

    assert (arrays.run(legitimate)[0].view("u1") == worker.POISON[0]).all()

    def partial(data: int, params: int) -> None:
        arrays.outputs[0][:5] = 1

    with pytest.raises(VerifyError, match="t: 3 of 8 elements are never written"):
        arrays.run(partial)


def test_empty_arrays() -> None:
    arrays = Arrays(gemm(0, 2, 4))
    arrays.fill([np.ones((0, 4), "f4"), np.ones((4, 2), "f4")])
    assert arrays.run(lambda data, params: None)[0].shape == (0, 2)
