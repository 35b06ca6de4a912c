"""Kernels for devices that need not be here: the model's choice of a schedule, proved, as text in their language.

What a stranger with such a device needs comes from here: texts, and how each kernel is launched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .codegen import build
from .codegen.clike import Dialect, Text, render, source
from .codegen.offload import dialect
from .devices import DeviceSpec, device
from .devices.gpu import DEFAULT
from .ir.collapse import normal_form
from .ir.equiv import prove
from .ir.errors import DeviceError
from .ir.nest import Nest
from .ir.partition import partition
from .ir.program import Buffer, TensorProgram
from .ir.schedule import Schedule
from .search.ranking import Candidate, Ranking, first_valid

T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """One kernel of a program: what it computes under the user's names, the schedule, the nest, and its text; every
    grid's name begins with `symbol`."""

    symbol: str
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
        """The user's name of each buffer in the text; what grids hand on has one of its own."""
        named = dict(zip((b.name for b in self.program.buffers), (b.name for b in self.original.buffers)))
        return {b.name: f"{self.symbol}.{b.name}" for b in self.handed} | named

    @property
    def handed(self) -> list[Buffer]:
        """Arrays that one grid of the kernel hands to the next."""
        known = {b.name for b in self.nest.buffers}
        return [b for b in self.text.buffers if b.name not in known]


def usual(target: str, name: str = "") -> DeviceSpec:
    """The device that texts are for: `name` where it is one of the target's, else the usual one: of OpenCL the first
    one here, if there is any."""
    if name.partition(":")[0] == target:
        return device(name)
    try:
        return device(target if target == "opencl" else f"{target}:{DEFAULT[target]}")
    except DeviceError:
        return device(f"{target}:{DEFAULT[target]}")


def texts(program: TensorProgram, target: str, spec: DeviceSpec | None = None) -> list[Made]:
    """Every kernel of a program for a target, in the order in which they run. `spec`: the device, else the target's
    usual one."""
    language = dialect(target)
    spec = spec or usual(target)
    kernels = partition(program).kernels
    return [_made(k, spec, language, f"kernel{n}") for n, k in enumerate(kernels)]


def file(made: Sequence[Made], target: str) -> str:
    """One file with the text of all kernels."""
    return source([k.text for k in made], dialect(target))


def modelled(
    program: TensorProgram, spec: DeviceSpec, threads: int, make: Callable[[Nest], T]
) -> tuple[Candidate, Nest, T]:
    """The model's first choice whose nest is proved and that `make` accepts, with what that made of the nest."""
    made: list[tuple[Nest, T]] = []

    def valid(candidate: Candidate) -> None:
        nest = build.plan(program, candidate.schedule, spec)
        prove(program, candidate.schedule, nest)
        made.append((nest, make(nest)))

    candidate = first_valid(Ranking(program, spec, threads), valid)
    return (candidate, *made[-1])


def _made(original: TensorProgram, spec: DeviceSpec, language: Dialect, symbol: str) -> Made:
    program = normal_form(original)
    candidate, nest, text = modelled(program, spec, 1, lambda nest: render(nest, language, symbol))
    return Made(symbol, original, program, candidate, nest, text)
