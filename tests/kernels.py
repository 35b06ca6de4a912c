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
    return [canonical_names(k) for k in partition(trace(fn, args, {}).program).kernels]


def softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def centred(x: Any, w: Any, b: Any) -> Any:
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + 1e-5) * w + b


# Functions of every structure, with the shapes of their arguments in sizes a, b, c and what `named` derives of them.
PROGRAMS: dict[str, tuple[Callable[..., Any], str]] = {
    "product": (lambda x, y: x @ y, "ac cb"), "first turned": (lambda x, y: x.T @ y, "ca cb"),
    "second turned": (lambda x, y: x @ y.T, "ac bc"), "batch": (lambda x, y: x @ y, "dbc dca"),
    "epilogue": (lambda x, y, v: np.maximum(x @ y + v, 0), "ac cb b"),
    "heavy epilogue": (lambda x, y, v: np.tanh(x @ y.T + v), "ac bc b"),
    "prologue": (lambda x, y: np.maximum(x, 0) @ y, "ac cb"), "scaled rows": (lambda x, s, y: (x * s) @ y, "ac a1 cb"),
    "packed prologue": (lambda x, y, d: x @ np.maximum(y * d + 1, 0), "ac cb b"),
    "two layers": (lambda x, u, v: np.maximum(x @ u, 0) @ v, "ab bc ca"),
    "rows": (softmax, "ab"), "columns": (lambda x: softmax(x, 0), "ab"), "centred": (centred, "ab b b"),
    "sum": (lambda x: x.sum(axis=1), "ab"), "column sum": (lambda x: x.sum(axis=0), "ab"),
    "column mean": (lambda x: x.mean(axis=0), "ab"), "two axes": (lambda x: x.max(axis=(0, 2)), "dbe"),
    "everything": (lambda x, y: (x * y).sum(), "ab ab"), "norm": (lambda x: np.sqrt((x * x).sum(axis=1)), "ab"),
    "column norm": (lambda x: np.sqrt((x * x).sum(axis=0)), "ab"), "deviation": (lambda x: (x - x.mean()) ** 2, "ab"),
    "turned": (lambda x: x.T + 0, "ab"), "permuted": (lambda x: np.transpose(x, (2, 0, 1)) * 2, "dbc"),
    "chain": (lambda x, y, z: np.maximum(x * y + z, 0), "ab ab b"), "map": (lambda x: np.exp(x) * 2, "ab"),
    "outer": (lambda x, y: x[:, None] / y[None, :], "a b"), "quotient": (lambda x, y: x / y, "ab a1"),
    "sliced": (lambda x: x[1:, ::2] * 3, "fb"), "reshaped": (lambda x: (x.reshape(-1) + 1).reshape(x.T.shape), "ab"),
    "chosen": (lambda x, y: np.where(x > y, x, y * 2), "ab ab"), "any": (lambda x: (x > 0).any(axis=1), "ab"),
}  # fmt: skip


def named(name: str, sizes: tuple[int, int, int], dtype: str = "f32") -> list[TensorProgram]:
    """The kernels of an entry of PROGRAMS."""
    fn, shapes = PROGRAMS[name]
    a, b, c = sizes
    extents = {"a": a, "b": b, "c": c, "d": a % 4 + 1, "e": c % 12 + 1, "f": a + 1, "1": 1}
    return kernels(fn, *(spec(*map(extents.__getitem__, shape), dtype=dtype) for shape in shapes.split()))


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
