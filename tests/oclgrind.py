"""OpenCL texts run by oclgrind: it simulates a device, and sees races, accesses out of bounds and unwritten values.

A process of its own (`python -m tests.oclgrind FOLDER`), for the OpenCL loader is told of the simulator by its
environment. Texts are not optimised: the simulator has no `freeze`, which LLVM's passes leave behind. Its exit status
is 0 whatever it finds: what it found is in its log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autotune.codegen import clike
from autotune.codegen.opencl import OPENCL
from autotune.floatcheck import Checker
from autotune.ir.nest import Nest
from autotune.ir.program import TensorProgram

LIBRARY = Path("/usr/lib/oclgrind/liboclgrind-rt-icd.so")
ROOT = Path(__file__).parent.parent
TIMEOUT = 300  # seconds


def missing() -> str:
    """Why there is no oclgrind; "" if there is."""
    if not LIBRARY.exists():
        return "oclgrind is not installed: apt-get install oclgrind"
    try:
        import pyopencl  # noqa: F401
    except ImportError:
        return "pyopencl is not installed: pip install pyopencl"
    return ""


class Job:
    """A nest of a program, as a text of its own; `change` makes another text of it."""

    def __init__(self, program: TensorProgram, nest: Nest, change: Any = None) -> None:
        self.program, self.nest, self.made = program, nest, clike.render(nest, OPENCL)
        text = clike.source([self.made], OPENCL)
        self.text = change(text) if change else text

    def described(self) -> Mapping[str, Any]:
        return {
            "text": self.text,
            "sizes": {b.name: b.bytes for b in self.made.buffers},
            "inputs": [b.name for b in self.program.inputs], "outputs": list(self.program.outputs),
            "entries": [[e.symbol, e.launch.grid, e.launch.block, e.buffers] for e in self.made.entries],
        }  # fmt: skip


def run(jobs: Sequence[Job], case: str = "integers") -> str:
    """What oclgrind finds, or what is wrong with a result; "" if nothing. One process runs all jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.json").write_text(json.dumps([job.described() for job in jobs]))
        checkers = [Checker(job.program) for job in jobs]
        for n, (job, checker) in enumerate(zip(jobs, checkers)):
            for b, array in zip(job.program.inputs, checker.inputs(case)):
                np.ascontiguousarray(array).tofile(folder / f"{n}.{b.name}")
        env = os.environ | {
            "OCL_ICD_VENDORS": str(LIBRARY), "OCLGRIND_DATA_RACES": "1", "OCLGRIND_UNINITIALIZED": "1",
            "OCLGRIND_MAX_ERRORS": "1", "OCLGRIND_LOG": str(folder / "log"), "PYOPENCL_NO_CACHE": "1",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-m", "tests.oclgrind", name], env=env, cwd=ROOT, text=True,
                              capture_output=True, check=False, timeout=TIMEOUT)  # fmt: skip
        log = (folder / "log").read_text() if (folder / "log").exists() else ""
        if log.strip():
            return told(log)
        if done.returncode:
            return f"exit status {done.returncode}: {done.stderr.strip()[-500:]}"
        for n, (job, checker) in enumerate(zip(jobs, checkers)):
            shapes = {b.name: b for b in job.program.buffers}
            found = [np.fromfile(folder / f"{n}.{o}", shapes[o].dtype.numpy).reshape(shapes[o].shape)
                     for o in job.program.outputs]  # fmt: skip
            if problem := checker.check(partial(_given, found), cases=(case,)):
                return f"job {n}: {problem}"
    return ""


def _given(found: list[Any], inputs: Sequence[Any]) -> list[Any]:
    return found


def told(log: str) -> str:
    """The first finding, in a line."""
    lines = [line.strip() for line in log.strip().splitlines() if line.strip()]
    place = re.search(r"line (\d+)[^:\n]*:\s*(.*)", log)
    return f"oclgrind: {lines[0]}" + (f": line {place[1]}: {place[2].strip()}" if place else "")


def _simulate(folder: Path) -> None:
    import pyopencl as cl

    (platform,) = (p for p in cl.get_platforms() if "clgrind" in p.name)
    queue = cl.CommandQueue(cl.Context(platform.get_devices()))
    flags = cl.mem_flags.READ_WRITE
    for n, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        built = cl.Program(queue.context, job["text"]).build(options=["-cl-opt-disable"], cache_dir=False)
        memory = {name: cl.Buffer(queue.context, flags, max(size, 1)) for name, size in job["sizes"].items()}
        for name in job["inputs"]:
            if job["sizes"][name]:
                cl.enqueue_copy(queue, memory[name], np.fromfile(folder / f"{n}.{name}", np.uint8))
        for symbol, grid, block, names in job["entries"]:
            threads = tuple(g * b for g, b in zip(grid, block))
            getattr(built, symbol)(queue, threads, tuple(block), *(memory[name] for name in names))
        for name in job["outputs"]:
            out = np.empty(job["sizes"][name], np.uint8)
            cl.enqueue_copy(queue, out, memory[name])
            out.tofile(folder / f"{n}.{name}")


if __name__ == "__main__":
    _simulate(Path(sys.argv[1]))
