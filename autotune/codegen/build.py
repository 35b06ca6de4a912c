"""Program and schedule to verified machine code: lower, apply, verify, render, assemble. The only way to a binary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..devices.spec import DeviceSpec
from ..ir.errors import VerifyError
from ..ir.lower import lower
from ..ir.nest import Nest
from ..ir.program import TensorProgram
from ..ir.schedule import Schedule
from ..ir.verify import verify
from . import jit
from .llvm import Source, render


@dataclass(frozen=True)
class Kernel:
    """One kernel of one program: the nest that was verified, its text, and the object code whose entry is `symbol`."""

    program: TensorProgram
    schedule: Schedule
    nest: Nest
    source: Source
    binary: bytes
    symbol: str


def plan(program: TensorProgram, schedule: Schedule, spec: DeviceSpec) -> Nest:
    """The scheduled nest, verified. Raises ScheduleError, or VerifyError with the first violations."""
    nest = schedule.apply(lower(program))
    report = verify(program, nest, spec.limits())
    if report.violations:
        shown = "; ".join(f"{v.kind}: {v.message}" for v in report.violations[:3])
        raise VerifyError(f"the scheduled nest is not valid: {shown}\nschedule:\n{schedule}")
    return nest


def build(
    program: TensorProgram, schedule: Schedule, spec: DeviceSpec, threads: int = 1, symbol: str = "kernel"
) -> Kernel:
    """Machine code for a program under a schedule. Raises ScheduleError, VerifyError or BuildError."""
    nest = plan(program, schedule, spec)
    source = render(nest, spec, symbol, threads)
    binary = jit.assemble(source.text, spec.arch, spec.features)
    return Kernel(program, schedule, nest, source, binary, symbol)


@cache
def versions() -> Mapping[str, str]:
    """Every component whose change may change the machine code: LLVM, and this package's own ir/ and codegen/."""
    import llvmlite
    import llvmlite.binding as llvm

    root = Path(__file__).resolve().parents[1]
    own = hashlib.sha256()
    for room in ("ir", "ir/steps", "codegen"):
        for file in sorted((root / room).glob("*.py")):
            own.update(file.name.encode() + file.read_bytes())
    return {
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "llvmlite": llvmlite.__version__,
        "autotune": own.hexdigest()[:16],
    }
