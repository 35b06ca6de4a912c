"""Kernels for devices that need not be here: the model's choice of a schedule, proved, as text in their language.

What a stranger with such a device needs comes from here: texts, and how each kernel is launched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .codegen import build
from .codegen.clike import Dialect, Text, render, source
from .devices import DeviceSpec, device
from .devices.gpu import DEFAULT
from .ir.collapse import collapse
from .ir.equiv import equivalent
from .ir.errors import DeviceError, UsageError, VerifyError
from .ir.nest import Nest
from .ir.partition import partition
from .ir.program import TensorProgram, canonical_names
from .ir.schedule import Schedule
from .search.ranking import Candidate, Ranking, first_valid

TARGETS = ("llvm", "cuda", "hip", "opencl")


@dataclass(frozen=True)
class Made:
    """One kernel of a program: what it computes under the user's names, the schedule, the nest, and its text."""

    original: TensorProgram
    program: TensorProgram
    candidate: Candidate
    nest: Nest
    text: Text

    @property
    def schedule(self) -> Schedule:
        return self.candidate.schedule

    @property
    def names(self) -> dict[str, str]:
        """The user's name of each buffer in the text."""
        return dict(zip((b.name for b in self.program.buffers), (b.name for b in self.original.buffers)))


def dialect(target: str) -> Dialect:
    """The language of a target. Raises UsageError for one that does not exist."""
    if target == "cuda":
        from .codegen.cuda import CUDA

        return CUDA
    if target == "hip":
        from .codegen.hip import HIP

        return HIP
    if target == "opencl":
        from .codegen.opencl import OPENCL

        return OPENCL
    raise UsageError(f"target {target!r}: the targets are {', '.join(TARGETS)}")


def usual(target: str, name: str = "") -> DeviceSpec:
    """The device that texts are for: `name` where it is one of the target's, else the usual one: of OpenCL the first
    one here, if there is any."""
    if name.partition(":")[0] == target:
        return device(name)
    try:
        return device(target)
    except DeviceError:
        return device(f"{target}:{DEFAULT[target]}")


def texts(program: TensorProgram, target: str, spec: DeviceSpec | None = None) -> list[Made]:
    """Every kernel of a program for a target, in the order in which they run. `spec`: the device, else the target's
    usual one."""
    language = dialect(target)
    spec = spec or usual(target)
    kernels = partition(program)
    return [_made(k, spec, language, f"kernel{n}") for n, k in enumerate(kernels)]


def file(made: Sequence[Made], target: str) -> str:
    """One file with the text of all kernels."""
    return source([k.text for k in made], dialect(target))


def _made(original: TensorProgram, spec: DeviceSpec, language: Dialect, symbol: str) -> Made:
    program = canonical_names(collapse(original))
    nests: list[Nest] = []

    def valid(candidate: Candidate) -> None:
        nest = build.plan(program, candidate.schedule, spec)
        if not (report := equivalent(program, candidate.schedule, nest=nest)).ok:
            raise VerifyError(f"the schedule computes another function: {report.message}")
        nests.append(nest)

    candidate = first_valid(Ranking(program, spec, 1), valid)
    return Made(original, program, candidate, nests[-1], render(nests[-1], language, symbol))
