"""Operations on architectures that need not be here: what each kernel's real compiler says, and how many blocks fit.

`python benchmarks/archs.py` compiles the model's first choice of every operation for every architecture and prints
registers, spilled bytes, shared bytes, occupancy and the compiler's milliseconds; `--write` keeps them as
benchmarks/results/archs.json and docs/archs.md. Exits with 1 where a kernel spills or does not compile, with 3 where a
compiler is missing; never because of a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from autotune.cli.grid import Case, cases
from autotune.cli.run import program
from autotune.codegen import amdgpu, nvrtc, offline
from autotune.codegen.clike import source
from autotune.codegen.offload import dialect
from autotune.devices import DeviceSpec, device
from autotune.devices.cpu import default_threads
from autotune.devices.occupancy import occupancy
from autotune.ir.banks import conflicts
from autotune.ir.errors import AutotuneError, DeviceError
from autotune.shipping import texts

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "archs.json", ROOT / "docs" / "archs.md"
ARCHS = (*(f"cuda:{arch}" for arch in nvrtc.ARCHS), *(f"hip:{arch}" for arch in amdgpu.ARCHS))
OPERATIONS = (
    "elementwise n=1000003 expr=relu(a*b+c)", "elementwise n=1048576 expr=gelu(a*b+c)",
    "elementwise n=1048576 expr=silu(a)*b", "elementwise n=1048576 expr=tanh(a*b+c)",
    "reduce shape=1024x2048 axes=1", "reduce shape=1024x2048 axes=0", "reduce shape=64x128x96 axes=0,2 op=max",
    "reduce shape=1048576 axes=0 op=mean", "softmax m=1024 n=1024", "softmax m=1024 n=1000 axis=0",
    "logsumexp m=1024 n=1000", "layer_norm m=1024 n=1024", "rms_norm m=1024 n=1000",
    "gemm m=1024 n=1024 k=1024", "gemm m=1024 n=1024 k=1024 ta=1", "gemm m=1024 n=1024 k=1024 tb=1",
    "gemm m=1024 n=1024 k=1024 ta=1 tb=1", "gemm m=1000 n=1030 k=70 bias=1 act=gelu", "gemv m=4096 k=4096",
    "transpose shape=2048x1024 perm=1,0", "transpose shape=64x96x128 perm=2,0,1", "bmm b=16 m=128 n=128 k=64",
    "gemm m=1024 n=1024 k=1024 f16", "gemm m=1024 n=1024 k=1024 tb=1 bias=1 act=relu bf16",
    "gemm m=1024 n=1024 k=1024 i8", "gemm m=64 n=64 k=16384 f16",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One operation on one architecture; of several kernels or grids the most, `occupancy` of the largest grid.
    `error`: why there is nothing else."""

    operation: str
    arch: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    occupancy: float = 0.0
    limit: str = ""
    conflicts: float = 1.0
    compile_ms: float = 0.0
    error: str = ""

    @property
    def wrong(self) -> bool:
        return bool(self.spilled or self.error)

    def __str__(self) -> str:
        if self.error:
            return self.error.splitlines()[0][:40]
        spilled = f" spill {self.spilled}" if self.spilled else ""
        return f"{self.registers} / {self.shared / 1024:.3g} / {100 * self.occupancy:.0f}{spilled}"


def case(words: str) -> Case:
    """An operation with its parameters, and a dtype where it is not f32."""
    op, *pairs = words.split()
    dtype = pairs.pop() if "=" not in pairs[-1] else "f32"
    (found,) = cases(op, pairs, dtype)
    return found


def cell(words: str, spec: DeviceSpec) -> Cell:
    """Compiled, one kernel after another."""
    try:
        made = texts(program(case(words)), spec.kind, spec)
        registers = spilled = shared = largest = 0
        share, limit, milliseconds, least, taken = 1.0, "", 0.0, 0, 0
        for kernel in made:
            reports = offline.compiled(source([kernel.text], dialect(spec.kind)), spec)
            milliseconds += 1e3 * max(report.seconds for report in reports.values())
            rows = conflicts(kernel.nest, spec.memory()).of("shared")
            least, taken = least + sum(r.least for r in rows), taken + sum(r.taken for r in rows)
            for entry in kernel.text.entries:
                used, asked = reports[entry.symbol].resources, entry.launch
                assert used is not None
                registers, shared = max(registers, used.registers), max(shared, used.shared)
                spilled += used.spilled
                x, y, z = asked.grid
                if x * y * z >= largest:
                    found = occupancy(spec, asked.threads, used.registers, used.shared)
                    largest, share, limit = x * y * z, found.share, found.limit
        ratio = round(taken / least, 3) if least else 1.0
        return Cell(words, spec.id, registers, spilled, shared, round(share, 4), limit, ratio, round(milliseconds, 1))
    except DeviceError:
        raise
    except AutotuneError as error:
        return Cell(words, spec.id, error=str(error) or type(error).__name__)


def measure(operations: Sequence[str], archs: Sequence[str], jobs: int) -> Iterator[Cell]:
    """Every cell, operation after operation; `jobs` compilers run at a time."""
    specs = [device(name) for name in archs]
    for spec in specs:
        offline.toolchain(spec)
    with ThreadPoolExecutor(jobs) as pool:
        for words in operations:
            yield from pool.map(partial(cell, words), specs)


def table(cells: Sequence[Cell]) -> str:
    """Markdown: a row an operation, a column an architecture."""
    archs = list(dict.fromkeys(c.arch for c in cells))
    by = {(c.operation, c.arch): c for c in cells}
    lines = [f"| f32 where no other type stands | {' | '.join(archs)} |", "|---" * (1 + len(archs)) + "|"]
    for words in dict.fromkeys(c.operation for c in cells):
        shown = words.replace("|", "\\|")
        lines.append(f"| `{shown}` | {' | '.join(str(by[words, arch]) for arch in archs)} |")
    medians = [statistics.median(c.compile_ms for c in cells if c.arch == arch) for arch in archs]
    lines.append(f"| compile, median ms | {' | '.join(f'{ms:.0f}' for ms in medians)} |")
    return "\n".join(lines) + "\n"


def page(cells: Sequence[Cell]) -> str:
    bad = sum(c.wrong for c in cells)
    return f"""# Kernels on architectures that are not here

The model's first choice of each operation, compiled by NVRTC or clang: registers a thread / KiB of shared memory a
block / % of a multiprocessor's warps that are resident. {len(cells)} cells, {bad} of them with spills or errors.
Nothing here was run on a GPU; the milliseconds are those of a shared machine. `python benchmarks/archs.py --write`
makes this page and [archs.json](../benchmarks/results/archs.json), which has bank conflicts and what limits the
residency, too.

{table(cells)}"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operations", default="", help="only those that contain one of these words, a,b")
    parser.add_argument("--archs", default="", help="only these, such as cuda:sm_80,hip:gfx942")
    parser.add_argument("--jobs", type=int, default=default_threads(), help="compilers at a time")
    parser.add_argument("--write", action="store_true", help="keep the results")
    given = parser.parse_args(arguments)
    wanted = given.operations.split(",")
    operations = [words for words in OPERATIONS if any(part in words for part in wanted)]
    try:
        cells = []
        for c in measure(operations, given.archs.split(",") if given.archs else ARCHS, max(given.jobs, 1)):
            cells.append(c)
            print(f"{c.arch} {c.operation}: {c}, {c.compile_ms:.0f} ms", file=sys.stderr, flush=True)
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(table(cells), end="")
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        rows = ",\n ".join(json.dumps(asdict(c)) for c in cells)
        RESULTS.write_text(f'{{"schema": 1, "cells": [\n {rows}\n]}}\n', encoding="utf-8")
        PAGE.write_text(page(cells), encoding="utf-8")
    for c in cells:
        if c.wrong:
            print(f"wrong: {c.operation} on {c.arch}: {c.error or f'{c.spilled} bytes spilled'}", file=sys.stderr)
    return int(any(c.wrong for c in cells))


if __name__ == "__main__":
    sys.exit(main())
