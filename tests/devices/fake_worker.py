"""A worker whose "compiler" makes entries out of Python functions: right, wrong, crashing, hanging and slow ones."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autotune.devices.measure import Run, timed
from autotune.ir.errors import BuildError, ScheduleError
from autotune.ir.program import TensorProgram
from autotune.worker import Built, serve

OUTSIDE: dict[str, Callable[[int], int]] = {"overrun": lambda n: n, "underrun": lambda n: -1, "far": lambda n: n + 4096}


class Fake:
    def __init__(self, spec: object) -> None:
        self.entries: dict[int, Callable[[int], None]] = {}

    def repeat(self, entry: int, data: int, params: int, threads: int, n: int) -> None:
        for _ in range(n):
            self.entries[entry](data)

    def timer(self, built: Built, data: int, params: int, threads: int) -> Run:
        return timed(lambda n: self.repeat(built.address, data, params, threads, n))

    def sentinel(self) -> Run:
        return timed(lambda n: [None for _ in range(20 * n)])

    def build(self, program: TensorProgram, schedule: Any, threads: int) -> Built:
        kind, sizes = schedule["kind"], [b.size for b in (*program.inputs, program.buffers[-1])]
        if kind == "refused":
            raise ScheduleError("split: 3 does not divide 8", "split-exact")
        if kind == "broken":
            raise BuildError("LLVM refused the text", reason="render")
        if kind == "nonsense-of-the-compiler":
            raise KeyError(kind)
        if kind == "compiler-dies":
            os._exit(3)
        calls = [0]

        def entry(data: int) -> None:
            calls[0] += 1
            pointers = np.frombuffer(ctypes.string_at(data, 8 * len(sizes)), np.int64).tolist()
            arrays = [
                np.frombuffer(memoryview((ctypes.c_float * n).from_address(p)), np.float32)
                for n, p in zip(sizes, pointers)
            ]
            if kind == "crash" or (kind == "crash-later" and calls[0] > 6):
                ctypes.memset(0, 0, 1)
            while kind == "hang" or (kind == "hang-later" and calls[0] > 6):
                time.sleep(1)
            if kind == "chatty":
                print("noise on standard output", flush=True)
            time.sleep(schedule.get("seconds", 0))
            out, total = arrays[-1], np.zeros(sizes[-1], np.float32)
            if kind in OUTSIDE:
                ctypes.memset(pointers[-1] + OUTSIDE[kind](out.nbytes), 0, 1)
            with np.errstate(all="ignore"):
                for a in arrays[:-1]:
                    total += a
            out[: out.size - (kind == "unwritten")] = total[: out.size - (kind == "unwritten")]
            if kind == "wrong":
                out[-1] += 1

        self.entries[len(self.entries) + 1] = entry
        return Built(len(self.entries), 100, entry)


def main() -> None:
    serve(Fake, int(sys.argv[1]))
