"""A session without search or machine code: its kernels evaluate their program naively on the buffers given."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autotune.decorator import Kernel, TuningResult
from autotune.ir.program import TensorProgram
from autotune.options import Options

from .evaluation import evaluate

ENTRY = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int64), ctypes.c_int64)


class Prepared:
    """A program whose entry evaluates it on the buffers that it is given; `scale` marks a version."""

    long, runners = False, ()

    def __init__(self, program: TensorProgram, options: Options) -> None:
        self.program, self.options, self.calls = program, options, 0
        self.subscribers: list[Callable[[], None]] = []
        self.inputs, self.threads = program.inputs, options.threads or 1
        self.outputs = tuple(next(b for b in program.buffers if b.name == name) for name in program.outputs)
        strides = [(i, d, s) for i, b in enumerate(self.inputs) for d, s in enumerate(b.strides or ())]
        self.params = tuple((i, d) for i, d, s in strides if isinstance(s, str))
        self.launches, self.watched = 0, options.debug >= 2 or options.graph is not None
        self.install(1)

    def install(self, scale: int) -> None:
        def run(buffers: Any, params: Any, threads: int) -> None:
            self.calls += 1
            arrays = []
            for i, b in enumerate(self.inputs):
                steps = [
                    params[self.params.index((i, d))] if isinstance(s, str) else s
                    for d, s in enumerate(b.element_strides)
                ]
                size = 1 + sum(s * (e - 1) for s, e in zip(steps, b.shape, strict=True))
                memory: Any = (ctypes.c_char * (size * b.dtype.bytes)).from_address(buffers[i])
                flat = np.frombuffer(memory, b.dtype.numpy)
                arrays.append(np.lib.stride_tricks.as_strided(flat, b.shape, [s * b.dtype.bytes for s in steps]))
            results = evaluate(self.program, arrays, wide=False)
            for i, (b, result) in enumerate(zip(self.outputs, results, strict=True), len(arrays)):
                data = np.ascontiguousarray((result * scale).astype(b.dtype.numpy))
                ctypes.memmove(buffers[i], data.ctypes.data, data.nbytes)

        self.code = ENTRY(run)
        self.entry = ctypes.cast(self.code, ctypes.c_void_p).value or 0
        for changed in self.subscribers:
            changed()

    def settle(self) -> None:
        """Nothing goes wrong here."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.subscribers.append(changed)

    def explain(self) -> str:
        return f"{len(self.program.computes)} computes"

    def source(self, target: str) -> str:
        return f"; {target}"

    def tune(self, budget: float | None = None, trials: int | None = None) -> TuningResult:
        self.install(2)
        return TuningResult(
            1e-6, 2e-6, trials or 0, budget or 0.0, "tuned", ["steps"], {"slow": 1}, [{"seconds": 1e-6}]
        )

    def launched(self) -> list[float]:
        self.launches += 1
        return [1e-6]


class Fake:
    """A session that remembers what it prepared."""

    def __init__(self) -> None:
        self.prepared: list[Prepared] = []

    def prepare(self, program: TensorProgram, options: Options, said: Any = None) -> Prepared:
        self.prepared.append(Prepared(program, options))
        return self.prepared[-1]


def check(kernel: Kernel, *args: Any, **kwargs: Any) -> Any:
    """Three calls (the first makes the plan, the others may be native) equal to NumPy's; the last result."""
    expected = kernel._fn(*args, **kwargs)
    for _ in range(3):
        result = kernel(*args, **kwargs)
        flat = result if isinstance(expected, tuple) else (result,)
        for got, want in zip(flat, expected if isinstance(expected, tuple) else (expected,), strict=True):
            assert type(got) is np.ndarray and got.dtype == np.asarray(want).dtype and got.shape == np.shape(want)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            assert got.flags.c_contiguous and got.flags.writeable and (not got.size or got.ctypes.data % 64 == 0)
    return result


def pages() -> int:
    """Memory of this process in use, in pages; 0 where there is no /proc."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) if statm.exists() else 0
