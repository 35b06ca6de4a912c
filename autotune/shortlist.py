"""A shortlist: the model's first candidates for a device that need not be here, proved, compiled, and ranked again by
what the compiler and exact counts say.

Knows candidates, compilers and the arithmetic of residency; must not know cases, files or how lists are shown. What
fails is a candidate with a status.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from .codegen import build, jit, offline
from .codegen import llvm as native
from .codegen.clike import render, source
from .codegen.offline import Report
from .codegen.offload import dialect
from .devices import DeviceSpec
from .devices.occupancy import Occupancy, occupancy
from .devices.records import Status
from .ir.banks import Conflicts, conflicts
from .ir.collapse import normal_form
from .ir.equiv import prove
from .ir.errors import AutotuneError, BuildError, ScheduleError, VerifyError
from .ir.nest import Nest
from .ir.program import TensorProgram
from .ir.schedule import Schedule
from .ir.spmd import Entry
from .search.plans import plans
from .search.ranking import Candidate, Ranking

TOP = 8  # candidates of a kernel
FAIL = 3  # times as many may fail a proof before the list is short
FULL = 512  # threads on a multiprocessor that hide latency: the model's own figure
_LLVM = threading.Lock()  # the native compiler is one for the whole process


@dataclass(frozen=True)
class Grid:
    """One grid of a candidate: how it is launched, what its compiler reports and how many blocks are resident."""

    entry: Entry
    report: Report = field(default_factory=Report)
    resident: Occupancy | None = None

    @property
    def blocks(self) -> int:
        x, y, z = self.entry.launch.grid
        return x * y * z


@dataclass(frozen=True)
class Listed:
    """A candidate and what is known of it. `expected`: seconds, the model's with what it cannot know: passes of shared
    memory with their conflicts, and threads that are really resident."""

    candidate: Candidate
    status: Status = Status.OK
    reason: str = ""
    message: str = ""
    expected: float = float("inf")
    memory: Conflicts | None = None
    grids: tuple[Grid, ...] = ()

    @property
    def schedule(self) -> Schedule:
        return self.candidate.schedule

    def most(self, name: str) -> int | None:
        """Of all grids the most `registers`, `spilled` or `shared`; None where the compiler does not say."""
        found = [getattr(g.report.resources, name) for g in self.grids if g.report.resources is not None]
        return max(found, default=None)

    @property
    def resident(self) -> Occupancy | None:
        """Of the largest grid."""
        return max(self.grids, key=lambda g: g.blocks).resident if self.grids else None

    @property
    def order(self) -> tuple[bool, bool, float]:
        """What works is before what does not, what spills behind what does not."""
        return self.status is not Status.OK, bool(self.most("spilled")), self.expected

    def failed(self, error: AutotuneError) -> Listed:
        status = Status.RUNTIME
        if isinstance(error, BuildError):
            status = Status.TIMEOUT if error.reason == "timeout" else Status.COMPILE
        if isinstance(error, ScheduleError):
            status = Status.CONSTRAINTS
        reason = getattr(error, "reason", "verifier")
        return replace(self, status=status, reason=reason, message=str(error))


def ready(spec: DeviceSpec) -> str:
    """What compiles for a device. Raises DeviceError with the way to get it where that is missing."""
    return offline.toolchain(spec) if spec.blocks else "llvm"


def shortlists(
    program: TensorProgram, spec: DeviceSpec, threads: int = 1, top: int = TOP, jobs: int = 1
) -> list[tuple[TensorProgram, list[Listed]]]:  # fmt: skip
    """Each kernel of a program with its candidates, best first; those that failed are last. `jobs` compilers run at a
    time. Raises DeviceError for a missing toolchain."""
    threads = spec.cores if spec.blocks else threads
    kernels = [normal_form(k) for k in plans(program, spec, threads)[0].kernels]
    proved = [list(_proved(k, spec, threads, top)) for k in kernels]
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            tasks = [[pool.submit(_compiled, *row, spec, threads) for row in found] for found in proved]
            done = [[task.result() for task in row] for row in tasks]
        finally:  # where one fails, or the user interrupts, what has not begun never does
            pool.shutdown(wait=False, cancel_futures=True)
    return [(k, sorted(found, key=lambda row: row.order)) for k, found in zip(kernels, done)]


def _proved(program: TensorProgram, spec: DeviceSpec, threads: int, top: int) -> Iterator[tuple[Listed, Nest | None]]:
    """The model's candidates in its order, until `top` of them are proved; with their nests, None where a proof
    failed."""
    good, seen = 0, set[str]()
    for tried, candidate in enumerate(Ranking(program, spec, threads).best()):
        late = tried >= top * (1 + FAIL) and (good or candidate.origin != "plain")
        if good == top or candidate.schedule.digest in seen or late:
            if good == top:
                return
            continue
        seen.add(candidate.schedule.digest)
        listed, nest = Listed(candidate), None
        try:
            nest = build.plan(program, candidate.schedule, spec)
        except ScheduleError as error:
            listed = listed.failed(error)
        except VerifyError as error:
            listed = replace(listed, status=Status.CONSTRAINTS, reason="verifier", message=str(error))
        if nest is not None:
            try:
                prove(program, candidate.schedule, nest)
                good += 1
            except VerifyError as error:
                nest = None
                listed = replace(listed, status=Status.CORRECTNESS, reason="equivalence", message=str(error))
        yield listed, nest


def _compiled(listed: Listed, nest: Nest | None, spec: DeviceSpec, threads: int) -> Listed:
    if nest is None:
        return listed
    try:
        if not spec.blocks:
            with _LLVM:
                jit.assemble(native.render(nest, spec, "kernel", threads).text, spec.arch, spec.features)
            return replace(listed, expected=listed.candidate.predicted)
        language = dialect(spec.kind)
        text = render(nest, language)
        reports = offline.compiled(source([text], language), spec)
        grids = tuple(_grid(entry, reports[entry.symbol], spec) for entry in text.entries)
    except (ScheduleError, BuildError) as error:
        return listed.failed(error)
    listed = replace(listed, memory=conflicts(nest, spec.memory()), grids=grids)
    if (resident := listed.resident) is not None and resident.blocks == 0:
        return replace(listed, status=Status.CONSTRAINTS, reason=resident.limit,
                       message=f"not one block fits a multiprocessor: it needs more {resident.limit}")  # fmt: skip
    return replace(listed, expected=_expected(listed, spec))


def _grid(entry: Entry, report: Report, spec: DeviceSpec) -> Grid:
    used = report.resources
    if used is None or spec.core is None:
        return Grid(entry, report)
    return Grid(entry, report, occupancy(spec, entry.launch.threads, used.registers, used.shared))


def _expected(listed: Listed, spec: DeviceSpec) -> float:
    """The model's seconds, stretched where fewer threads are resident than it takes for granted, and at least what the
    passes of shared memory take: one a multiprocessor and cycle."""
    seconds = listed.candidate.predicted
    if (resident := listed.resident) is not None:
        grid = max(listed.grids, key=lambda g: g.blocks)
        offered = max(grid.blocks / spec.cores, 1.0)
        threads = grid.entry.launch.threads
        taken, real = (min(1.0, threads * b / FULL) for b in (offered, min(offered, resident.blocks)))
        seconds *= taken / real
    if listed.memory is not None and spec.warp > 1:
        passes = sum(row.taken for row in listed.memory.of("shared"))
        seconds = max(seconds, passes / (spec.cores * spec.frequency_hz) + spec.launch_seconds)
    return seconds
