"""CUDA and HIP text run on this CPU, unchanged, by the system's C++ compiler: a check that needs no GPU.

`execute` compiles the text with `codegen/cuda_host.h` around it, in which every thread is a fiber, and runs it on given
arrays: in order, in reverse or permuted, with or without AddressSanitizer. Slow by design, and independent of every
proof: it knows nothing of nests.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .ir.errors import BuildError, DeviceError, MeasureError, VerifyError
from .ir.program import Buffer
from .ir.spmd import Entry

ORDERS = ("forward", "reverse", "permuted")
TIMEOUT = 120  # seconds
_HEADER = Path(__file__).parent / "codegen" / "cuda_host.h"
_MAIN = """
static void *read(const char *name, size_t bytes) {
  void *memory = std::malloc(bytes ? bytes : 1);
  FILE *f = std::fopen(name, "rb");
  if (f) { if (std::fread(memory, 1, bytes, f) != bytes) std::exit(2); std::fclose(f); }
  else std::memset(memory, 0xff, bytes);
  return memory;
}
static void write(const char *name, const void *memory, size_t bytes) {
  FILE *f = std::fopen(name, "wb");
  if (std::fwrite(memory, 1, bytes, f) != bytes) std::exit(2);
  std::fclose(f);
}
int main(int, char **argv) {
  int how = std::atoi(argv[1]);
@BODY@
  return 0;
}
"""


@cache
def compiler() -> str:
    """The C++ compiler. Raises DeviceError where there is none."""
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return path
    raise DeviceError("no C++ compiler is here to run CUDA text with: apt-get install g++")


class Program:
    """A compiled text: kernels in the order of `entries` on `buffers`; `types` gives the C type of each."""

    def __init__(
        self, text: str, entries: Sequence[Entry], buffers: Sequence[Buffer], types: Mapping[str, str],
        sanitize: bool = False,
    ) -> None:  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        self.folder, self.buffers = Path(self._folder.name), list(buffers)
        number = {b.name: n for n, b in enumerate(self.buffers)}
        lines = [f'  void *p{n} = read("{n}.in", {b.bytes});' for n, b in enumerate(self.buffers)]
        for e in entries:
            given = ", ".join(f"({types[name]} *)p{number[name]}" for name in e.buffers)
            grid, block = (f"{{{', '.join(f'{n}u' for n in size)}}}" for size in (e.launch.grid, e.launch.block))
            lines.append(f"  at_host::launch({grid}, {block}, how, [&] {{ {e.symbol}({given}); }});")
        for n, b in enumerate(self.buffers):
            if b.scope == "output":
                lines.append(f'  write("{n}.out", p{n}, {b.bytes});')
            lines.append(f"  std::free(p{n});")
        source = self.folder / "kernel.cpp"
        source.write_text(f'#include "{_HEADER}"\n{text}\n{_MAIN.replace("@BODY@", chr(10).join(lines))}')
        flags = ["-fsanitize=address", "-fno-omit-frame-pointer"] if sanitize else []
        words = [compiler(), "-std=c++17", "-O1", "-g", "-w", *flags, str(source), "-o", str(self.folder / "kernel")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"the C++ compiler refused the text: {done.stderr.strip()[:2000]}", done.stderr)

    def __call__(self, inputs: Sequence[np.ndarray[Any, Any]], order: str = "forward") -> list[np.ndarray[Any, Any]]:
        """The outputs. Raises VerifyError where threads part at a barrier, or a sanitizer finds something, and
        MeasureError where it takes too long."""
        given = iter(inputs)
        for n, b in enumerate(self.buffers):
            if b.scope == "input":
                np.ascontiguousarray(next(given)).tofile(self.folder / f"{n}.in")
        words = [str(self.folder / "kernel"), str(ORDERS.index(order))]
        env = {"ASAN_OPTIONS": "detect_stack_use_after_return=0"}
        try:
            done = subprocess.run(words, cwd=self.folder, text=True, capture_output=True, check=False, env=env,
                                  timeout=TIMEOUT)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MeasureError(f"run on the CPU, {order}: not finished in {TIMEOUT} s; take a smaller case") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            told = next((line for line in lines if "ERROR" in line or "barrier" in line), lines[0])
            raise VerifyError(f"run on the CPU, {order}: {told}")
        return [np.fromfile(self.folder / f"{n}.out", b.dtype.numpy).reshape(b.shape)
                for n, b in enumerate(self.buffers) if b.scope == "output"]  # fmt: skip
