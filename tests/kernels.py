"""Programs as machine code, for tests: built under a schedule, run on memory between pages that cannot be touched."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import autotune
from autotune.codegen import build, jit
from autotune.codegen.runtime import runtime
from autotune.devices import device
from autotune.devices.cpu import detect
from autotune.devices.spec import DeviceSpec
from autotune.floatcheck import QUICK, THOROUGH, Checker
from autotune.ir.equiv import equivalent
from autotune.ir.partition import partition
from autotune.ir.program import TensorProgram, canonical_names
from autotune.ir.schedule import Schedule
from autotune.search.ranking import Candidate, Ranking
from autotune.tracer import trace
from autotune.worker import Arrays

Array = np.ndarray[Any, Any]
HERE = device("cpu")
# The same machine with vectors of 256 bits and no masks, where it has more.
NARROW = detect("znver3", tuple(f for f in HERE.features if "avx512" not in f)) if HERE.vector_bits > 256 else HERE
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def spec(*shape: int, dtype: str = "f32") -> Any:
    return autotune.spec(dtype, shape)


def kernels(fn: Callable[..., Any], *args: Any) -> list[TensorProgram]:
    """The kernels of a function of specs, with canonical names."""
    return [canonical_names(k) for k in partition(trace(fn, args, {}).program)]


class Machine:
    """Machine code of a program under a schedule."""

    def __init__(self, program: TensorProgram, schedule: Schedule, threads: int = 1, target: DeviceSpec = HERE) -> None:
        self.kernel, self.threads = build.build(program, schedule, target, threads), threads
        self.loaded = jit.load(self.kernel.binary, self.kernel.symbol, runtime().symbols)
        self.entry, self.arrays = ENTRY(self.loaded.address), Arrays(program)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs. Raises VerifyError where memory outside of an array was written, or an element was not."""
        self.arrays.fill(inputs)
        return self.arrays.run(lambda data, params: self.entry(data, params, self.threads))


def problem(
    program: TensorProgram, schedule: Schedule, threads: int = 1, target: DeviceSpec = HERE, thorough: bool = True
) -> str:
    """What is wrong with a program under a schedule, as the equivalence check or float64 has it; "" if nothing."""
    machine = Machine(program, schedule, threads, target)
    report = equivalent(program, schedule, nest=machine.kernel.nest)
    if not report.ok:
        return report.message
    return Checker(program).check(machine, cases=THOROUGH if thorough else QUICK) or ""


def choices(
    program: TensorProgram, threads: int, count: int, seed: int = 0, target: DeviceSpec = HERE
) -> Iterator[tuple[str, Candidate]]:
    """The model's first choice, and `count` points of every sketch, drawn at random, with the name of the sketch."""
    ranking, rng = Ranking(program, target, threads), np.random.default_rng(seed)
    yield "first", next(ranking.best())
    for n, (sketch, priced) in enumerate(zip(ranking.sketches, ranking.priced, strict=True)):
        for row in rng.permutation(len(priced.seconds))[:count]:
            yield sketch.name, ranking.candidate(n, int(row), "random")
