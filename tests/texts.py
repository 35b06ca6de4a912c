"""CUDA texts written by hand, for tests of the emulator: run on arrays, with what they should give beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autotune.hostrun import Program
from autotune.ir.dtypes import F32, I32
from autotune.ir.program import Buffer
from autotune.ir.spmd import Entry, Launch

Array = np.ndarray[Any, Any]
KINDS = {"f": (F32, "float"), "i": (I32, "int"), "u": (I32, "unsigned")}


def program(
    kernels: Sequence[tuple[str, Sequence[str]]], arrays: Mapping[str, tuple[str, int]], text: str,
    threads: int = 32, blocks: int = 1, sanitize: str = "", warp: int = 32,
) -> Program:  # fmt: skip
    """`kernels`: symbols with the names of their arguments. `arrays`: kind (of KINDS) and number of elements by name; a
    name that begins with "out" is a result."""
    buffers = [Buffer(name, KINDS[kind][0], (size,), "output" if name.startswith("out") else "input")
               for name, (kind, size) in arrays.items()]  # fmt: skip
    types = {name: KINDS[kind][1] for name, (kind, _) in arrays.items()}
    shape = Launch((blocks, 1, 1), (threads, 1, 1), 0)
    entries = [Entry(symbol, shape, tuple(names), ()) for symbol, names in kernels]
    return Program(text, entries, buffers, types, sanitize, warp)


def kernel(body: str, arguments: str = "const float* x, float* out", name: str = "k") -> str:
    return f'extern "C" __global__ void {name}({arguments}) {{\n{body}\n}}\n'
