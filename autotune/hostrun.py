"""CUDA and HIP text run on this CPU, unchanged, by the system's C++ compiler: a check that needs no GPU.

`Program` compiles the text with `codegen/cuda_host.h` around it, in which every thread is a fiber, and runs it on
given arrays: in order, in reverse or permuted, by itself or under AddressSanitizer or ThreadSanitizer. Slow by design,
and independent of every proof: it knows nothing of nests.
"""

from __future__ import annotations

import re
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
SANITIZERS = {"": "", "address": "AddressSanitizer", "thread": "ThreadSanitizer"}
TIMEOUT = 120  # seconds
_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0",
    "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0",
}
_HEADER = Path(__file__).parent / "codegen" / "cuda_host.h"
_MAIN = """
static void *read(const char *name, size_t bytes) {
  void *memory = malloc(bytes ? bytes : 1);
  FILE *f = fopen(name, "rb");
  if (f) { if (fread(memory, 1, bytes, f) != bytes) exit(2); fclose(f); }
  else memset(memory, 0xff, bytes);
  return memory;
}
static void write(const char *name, const void *memory, size_t bytes) {
  FILE *f = fopen(name, "wb");
  if (fwrite(memory, 1, bytes, f) != bytes) exit(2);
  fclose(f);
}
int main(int, char **argv) {
  int how = atoi(argv[1]);
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


@cache
def _poison() -> list[str]:
    """Variables that were never written hold a pattern, not what lies there: compilers have learned that lately."""
    flag = "-ftrivial-auto-var-init=pattern"
    words = [compiler(), flag, "-E", "-x", "c++", "/dev/null"]
    return [flag] if subprocess.run(words, capture_output=True, check=False).returncode == 0 else []


class Program:
    """A compiled text: kernels in the order of `entries` on `buffers`; `types` gives the C type of each. `sanitize`:
    "address" sees accesses outside of arrays, "thread" accesses that no barrier orders. `warp`: lanes of a warp.

    Raises BuildError for a text that the compiler refuses, VerifyError for a launch with more threads than its kernel
    is declared for.
    """

    def __init__(
        self, text: str, entries: Sequence[Entry], buffers: Sequence[Buffer], types: Mapping[str, str],
        sanitize: str = "", warp: int = 32,
    ) -> None:  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        self.folder, self.buffers, self.text = Path(self._folder.name), list(buffers), text
        self.sanitizer = SANITIZERS[sanitize]
        number = {b.name: n for n, b in enumerate(self.buffers)}
        lines = [f'  void *p{n} = read("{n}.in", {b.bytes});' for n, b in enumerate(self.buffers)]
        for e in entries:
            declared = _declared(text, e.symbol)
            if declared is not None and declared < e.launch.threads:
                raise VerifyError(f"{e.symbol} is declared for {declared} threads, launched with {e.launch.threads}")
            given = ", ".join(f"({types[name]} *)p{number[name]}" for name in e.buffers)
            grid, block = (f"{{{', '.join(f'{n}u' for n in size)}}}" for size in (e.launch.grid, e.launch.block))
            lines.append(f"  at_host::launch({grid}, {block}, how, [&] {{ {e.symbol}({given}); }});")
        for n, b in enumerate(self.buffers):
            if b.scope == "output":
                lines.append(f'  write("{n}.out", p{n}, {b.bytes});')
            lines.append(f"  free(p{n});")
        source = self.folder / "run.cpp"
        body = _MAIN.replace("@BODY@", "\n".join(lines))
        source.write_text(f'#include "{_HEADER}"\n#line 1 "kernel"\n{text}\n#line 1 "run"\n{body}')
        flags = ["-O1", "-g", "-w", f"-DAT_WARP={warp}", *_poison()]
        flags += ["-fno-strict-aliasing"]  # texts move arrays as vectors
        if sanitize:
            flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
        words = [compiler(), "-std=c++17", *flags, str(source), "-o", str(self.folder / "run")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"the C++ compiler refused the text: {done.stderr.strip()[:2000]}", done.stderr)

    def __call__(self, inputs: Sequence[np.ndarray[Any, Any]], order: str = "forward") -> list[np.ndarray[Any, Any]]:
        """The outputs. Raises VerifyError where threads do not meet as they must, or a sanitizer finds something, and
        MeasureError where it takes too long."""
        given = iter(inputs)
        for n, b in enumerate(self.buffers):
            if b.scope == "input":
                np.ascontiguousarray(next(given)).tofile(self.folder / f"{n}.in")
        how = ORDERS.index(order)
        # Races of a block's threads, then those of blocks, which in the first run are one after another.
        for number in (how, how + 4) if self.sanitizer == "ThreadSanitizer" else (how,):
            words = [str(self.folder / "run"), str(number)]
            done = self._run(words, order)
            if "unexpected memory mapping" in done.stderr and (setarch := shutil.which("setarch")):
                done = self._run([setarch, "-R", *words], order)  # ThreadSanitizer's place was taken at random
            if done.returncode:
                raise VerifyError(f"run on the CPU, {order}: {self._told(done.stderr, done.returncode)}")
        return [np.fromfile(self.folder / f"{n}.out", b.dtype.numpy).reshape(b.shape)
                for n, b in enumerate(self.buffers) if b.scope == "output"]  # fmt: skip

    def _run(self, words: Sequence[str], order: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, cwd=self.folder, text=True, capture_output=True, check=False, env=_OPTIONS,
                                  timeout=TIMEOUT)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MeasureError(f"run on the CPU, {order}: not finished in {TIMEOUT} s; take a smaller case") from None

    def _told(self, log: str, status: int) -> str:
        """The first finding in a log, with the lines of the kernel that it is about."""
        lines = log.strip().splitlines()
        if status == 3 and lines:  # the emulator's own words
            return lines[-1]
        head = next((line for line in lines if re.search(r"(ERROR|WARNING|FATAL): \w+Sanitizer", line)), "")
        if not head:
            return f"{lines[0] if lines else 'it ended'} (exit status {status})"
        what = re.sub(r"^.*?(\w+Sanitizer:? ?)", r"\1", head).split(" on address")[0].split(" on unknown")[0]
        report = log[log.index(head) :]
        ends = report.find("\nSUMMARY")
        places = list(dict.fromkeys(re.findall(r"[\s/]kernel:(\d+)", report[: ends if ends > 0 else None])))
        source = self.text.splitlines()
        told = "; ".join(f"line {n}: {source[int(n) - 1].strip()}" for n in places[:2] if int(n) <= len(source))
        return f"{re.sub(r' [(]pid=.*', '', what)}{': ' if told else ''}{told}"


def _declared(text: str, symbol: str) -> int | None:
    """The most threads of a block, as the text declares a kernel."""
    found = re.search(rf"__launch_bounds__\((\d+)[^)]*\)\s+{symbol}\(", text)
    return int(found[1]) if found else None
