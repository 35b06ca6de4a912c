"""Everything that is known about kernels for GPUs without one, at length: `make test-gpu-tools`.

Thirty schedules of every program, drawn at random, as CUDA and HIP text in the emulator, in every order and under both
sanitizers; OpenCL text under oclgrind; all planted bugs. What has passed is noted in `.gpu-tools/` under the digest of
the sources: a run that was stopped goes on where it was. Ends with 1 if a case fails; what the time did not suffice for
is listed and no failure.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path

from autotune.codegen.clike import Dialect
from autotune.codegen.cuda import CUDA
from autotune.codegen.hip import HIP
from autotune.devices import device
from autotune.hostrun import ORDERS, SANITIZERS
from autotune.ir.program import TensorProgram

from . import oclgrind, planted
from .emulated import SIZES, Together, legal
from .kernels import PROGRAMS, named
from .matrices import DTYPES, STRUCTURES, matrices

ROOT = Path(__file__).parent.parent
NOTES = ROOT / ".gpu-tools"
SCHEDULES, AT_ONCE = 30, 10
SMALL = (5, 9, 6)  # under ThreadSanitizer a barrier costs the square of the threads that meet there
MACHINES = ((CUDA, "cuda:sm_75"), (CUDA, "cuda:sm_80"), (HIP, "hip:gfx90a"), (HIP, "hip:gfx942"), (HIP, "hip:gfx1100"),
            (HIP, "hip:gfx1200"))  # fmt: skip
LONG = ("product", "epilogue", "everything", "sum", "norm")  # reductions that are long enough to be parted
Case = tuple[str, Callable[[], str]]  # a name, and what gives what is wrong: "" if nothing


def cases() -> Iterator[Case]:
    for name in PROGRAMS:
        for dialect, target in ((CUDA, "cuda:sm_80"), (HIP, "hip:gfx942")):
            for what, sizes, sanitizers in (("schedules", SIZES, ("", "address")), ("races", SMALL, ("thread",))):
                made = partial(named, name, sizes)
                yield f"{what}, {dialect.name}: {name}", partial(schedules, made, dialect, target, sanitizers)
    for name in STRUCTURES:
        for dialect, target in MACHINES:
            for dtype in DTYPES:
                made, sanitizers = partial(matrices, name, dtype), ("", "address")
                yield f"schedules, {target} {dtype}: {name}", partial(schedules, made, dialect, target, sanitizers)
    for name in LONG:
        made = partial(named, name, (4, 8, 8192))
        yield f"schedules, long: {name}", partial(schedules, made, CUDA, "cuda:sm_80", ("",))
    for name in PROGRAMS:
        yield f"oclgrind: {name}", partial(simulated, name)
    for name in planted.ALL:
        yield f"planted: {name}", partial(bugs, name)


def schedules(
    made: Callable[[], list[TensorProgram]], dialect: Dialect, target: str, sanitizers: Sequence[str]
) -> str:
    spec = device(target)
    for program in made():
        found = list(legal(program, spec, SCHEDULES))
        for start in range(0, len(found), AT_ONCE):
            some = found[start : start + AT_ONCE]
            for sanitize in sanitizers:
                run = Together(program, [nest for _, nest in some], dialect, sanitize, spec.warp)
                for order in ORDERS if sanitize != "thread" else ORDERS[:1]:
                    for (point, _), text in zip(some, run.problems(order)):
                        if text:
                            return f"{order} {SANITIZERS[sanitize]} {point}: {text}"
    return ""


def simulated(name: str) -> str:
    if missing := oclgrind.missing():
        return missing
    spec = device("opencl:generic")
    jobs = [oclgrind.Job(program, nest) for program in named(name, SMALL)
            for _, nest in legal(program, spec, 6)]  # fmt: skip
    return oclgrind.run(jobs)


def bugs(name: str) -> str:
    rows = list(planted.table(name, 12))
    print("\n".join(map(str, rows)), planted.summary(rows), sep="\n")
    return planted.wrong(rows, every=False)


def digest() -> str:
    """Of the commit, and of what is changed beside it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    changed = subprocess.run(["git", "diff", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    return head.strip()[:16] + (f"-{hashlib.sha256(changed).hexdigest()[:8]}" if changed else "")


def tried(name: str) -> tuple[str, str, float]:
    """A case by its name, what is wrong with it, and how long that took."""
    started = time.monotonic()
    try:
        problem = dict(cases())[name]()
    except Exception as error:  # one case that cannot be run is no reason to leave the others
        problem = f"{type(error).__name__}: {error}"
    return name, problem, time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="begin no case after so long (60)")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    given = parser.parse_args()
    NOTES.mkdir(exist_ok=True)
    notes = NOTES / digest()
    passed = set(notes.read_text().splitlines()) if notes.exists() else set()
    wanted = [case for case in cases() if given.only in case[0]]
    left = [case for case in wanted if case[0] not in passed]
    print(f"{len(wanted)} cases, {len(wanted) - len(left)} of them passed before ({notes.relative_to(ROOT)})")
    begun, failed, waiting = time.monotonic(), list[str](), [name for name, _ in left]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = set[Future[tuple[str, str, float]]]()
        while running or waiting and time.monotonic() - begun < 60 * given.minutes:
            while waiting and len(running) < (os.cpu_count() or 1) and time.monotonic() - begun < 60 * given.minutes:
                running.add(pool.submit(tried, waiting.pop(0)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for name, problem, seconds in (future.result() for future in done):
                print(f"{name}: {problem or 'ok'} ({seconds:.1f} s)", flush=True)
                if problem:
                    failed.append(name)
                    continue
                with notes.open("a") as f:
                    f.write(f"{name}\n")
    for what, names in (("not run for lack of time", waiting), ("failed", failed)):
        if names:
            print(f"{what}: {len(names)}: {'; '.join(names)}")
    print(f"{len(wanted) - len(waiting) - len(failed)} of {len(wanted)} cases passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
