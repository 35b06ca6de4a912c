"""Records to test with: a matrix product of any shape, schedules and keys that differ in one word."""

from __future__ import annotations

from typing import Any

from autotune.cache.records import Key, Record, canonical, digest
from autotune.devices.records import Measurement, Policy, Status
from autotune.devices.spec import DeviceSpec
from autotune.ir.affine import var
from autotune.ir.dtypes import F32
from autotune.ir.expr import Load, op
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram

HERE = DeviceSpec("cpu", "Sample", "Sample 1", "sample1")
VERSIONS = {"autotune": "0.1", "code": "c0ffee", "llvm": "20.1"}
BIG = "\n".join(["a long message of a compiler"] * 90)


def matmul(m: int, n: int, k: int, names: str = "ijk") -> TensorProgram:
    row, column, inner = tuple(names)
    body = op("mul", Load("a", (var(row), var(inner)), F32), Load("b", (var(inner), var(column)), F32))
    compute = Compute("c", F32, (Axis(row, m), Axis(column, n)), body, (Axis(inner, k),), "sum")
    return TensorProgram((Buffer("a", F32, (m, k)), Buffer("b", F32, (k, n))), (compute,), ("c",))


def key(
    shape: tuple[int, int, int] = (64, 64, 64), device: DeviceSpec = HERE, policy: Policy | None = None, **versions: str
) -> Key:
    return Key.of(matmul(*shape), device, VERSIONS | versions, policy or Policy())


def record(
    at: Key | None = None, factor: int = 8, seconds: float = 1e-5, status: str = "ok", created: float = 1e9,
    message: str = "", samples: tuple[float, ...] | None = None, **fields: Any,
) -> Record:  # fmt: skip
    schedule = canonical([{"factor": factor, "loop": "i", "stage": "t0", "step": "split"}])
    if status == "ok":
        measured = Measurement(seconds, seconds * 0.9, seconds * 0.01, samples or (seconds, seconds * 0.9), 2)
    else:
        measured = Measurement(status=Status(status), message=message or f"it ended with {status}")
    return Record(at or key(), digest(schedule), schedule, measured, created, **fields)
