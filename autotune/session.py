"""The loop that wires the rooms: a program comes in, a schedule is found, proved and built, and an entry comes out.

Program -> kernels -> (store | model) -> schedule -> verified nest -> object code -> loaded entry; `tune` adds
measurements. This file decides in which order things are asked, and nothing of how they are done.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .cache.objects import ObjectCache
from .cache.store import MemoryStore, Store, open_store
from .codegen import build
from .devices import DeviceSpec, device
from .devices.cpu import default_threads
from .ir.collapse import normal_form
from .ir.errors import AutotuneError, CacheError, MeasureError
from .ir.plan import Plan
from .ir.program import Buffer, TensorProgram
from .ir.schedule import Schedule
from .options import Options, user_directory
from .planning import LEAST, PAIRED, decided, jobs, turned, way_of
from .workshop import Choice, PreparedKernel, Workshop

if TYPE_CHECKING:
    from .decorator import TuningResult
    from .search.tune import Outcome

DEFAULT_BUDGET = 2.0
LONG_SECONDS = 20e-6


class Session:
    """Everything that lives as long as the process: devices, stores, measuring processes, loaded code."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str | None, bool], Store] = {}
        self._workers: dict[tuple[Any, ...], Any] = {}
        self.closing = False
        self._lock = threading.RLock()

    def prepare(self, program: TensorProgram, options: Options, constants: Collection[str] = ()) -> Prepared:
        """Make a program ready to run under these options; measures only if `tune` says so. `constants`: inputs of
        which the caller keeps panels between calls, where kernels want them (`Prepared.panels`)."""
        return Prepared(self, program, options, constants)

    def spec(self, options: Options) -> DeviceSpec:
        return device(options.device, user_directory("config"))

    def threads(self, options: Options) -> int:
        return options.threads or default_threads()

    def store(self, options: Options) -> Store:
        if options.tune == "off":
            return MemoryStore()
        key = (options.store(), options.cache == "readonly")
        with self._lock:
            if key not in self._stores:
                try:
                    self._stores[key] = open_store(*key)
                except CacheError as error:
                    warnings.warn(f"nothing is remembered in this process: {error}", stacklevel=2)
                    self._stores[key] = MemoryStore()
            return self._stores[key]

    def objects(self, options: Options) -> ObjectCache:
        directory = options.directory()
        return ObjectCache(directory / "objects" if directory else None)

    def worker(self, spec: DeviceSpec, threads: int, options: Options) -> Any:
        from .devices.client import WorkerClient

        key = (spec.digest, spec.number, threads, options.directory())
        with self._lock:
            if key not in self._workers:
                self._workers[key] = WorkerClient(spec, threads, options.directory())
            return self._workers[key]

    def unlock(self) -> None:
        """Fresh locks, in a forked child."""
        self._lock = threading.RLock()
        for worker in self._workers.values():
            worker.unlock()

    def close(self) -> None:
        """End the measuring processes and close the stores."""
        self.closing = True
        for worker in self._workers.values():
            worker.close()
        for store in self._stores.values():
            store.close()
        self._workers.clear()
        self._stores.clear()


@functools.cache
def session() -> Session:
    """The process's own session."""
    import atexit

    made = Session()
    atexit.register(made.close)
    return made


_LIVE: weakref.WeakSet[Prepared] = weakref.WeakSet()


def _after_fork() -> None:
    """A thread of the parent may have held these locks, and is not here to release them."""
    for prepared in list(_LIVE):
        prepared._lock = threading.Lock()
        prepared.workshop.owner.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Prepared:
    """A program ready to run: what the decorator and the command line hold. `entry` changes when tuning finds
    something better; subscribers are then told. `code` keeps the machine code loaded, and says in its last part which
    panels the entry takes after the inputs: of each the place of its source among them, dimension and width."""

    entry: int
    code: Any
    long: bool

    def __init__(
        self, owner: Session, program: TensorProgram, options: Options, constants: Collection[str] = ()
    ) -> None:  # fmt: skip
        self.program, self.options = program, options
        self.workshop = Workshop(owner, options)
        self.widths = self.workshop.widths(program, constants)
        self.inputs: tuple[Buffer, ...] = program.inputs
        by_name = {b.name: b for b in program.buffers}
        self.outputs = tuple(by_name[name] for name in program.outputs)
        self.params = tuple(
            (n, d) for n, b in enumerate(program.inputs) for d, s in enumerate(b.strides or ()) if isinstance(s, str)
        )
        self.threads = self.workshop.threads
        self._subscribers: list[Callable[[], None]] = []
        self.outcomes: dict[str, Outcome] = {}  # of the last tuning, by the digest of a kernel's program
        self.result: TuningResult | None = None
        self.runners: list[Any] = []
        self._lock = threading.Lock()
        _LIVE.add(self)
        if not self._recall():
            self._link()
            sources = {k.choice.source for k in self.kernels}
            if (
                options.tune == "first-call"
                and sources != {"cache"}
                or options.tune == "auto"
                and sources & {"model", "transfer"}
            ):
                self.tune()
            elif options.tune == "background" and sources != {"cache"}:
                threading.Thread(target=self._tune_behind, daemon=True, name="autotune").start()
            else:
                self.workshop.remember(program, self.widths, self.kernels, self.code[2], self.long)

    @functools.cached_property
    def plans(self) -> list[Plan]:
        """The model's plan, then what it is unsure about."""
        plans = [replace(plan, widths=self.widths) for plan in self.workshop.plans(self.program)]
        for n in plans[0].open if self.widths else ():
            here, there = plans[0].ways[n], plans[0].turned(n).ways[n]
            more = len(plans[0].panels_of(there)) > len(plans[0].panels_of(here))
            if more and self._expected(plans[0].kernels_of(there)) < self._expected(plans[0].kernels_of(here)):
                plans = [plan.turned(n) for plan in plans]
        return plans

    def _expected(self, kernels: Sequence[TensorProgram]) -> float:
        """Seconds, known or predicted."""
        choices = [self.workshop.kernel(k).choice for k in kernels]
        return sum(c.seconds or c.predicted or float("inf") for c in choices)

    @functools.cached_property
    def plan(self) -> Plan:
        return self._chosen[0]

    @functools.cached_property
    def kernels(self) -> list[PreparedKernel]:
        return self._chosen[1]

    @functools.cached_property
    def _chosen(self) -> tuple[Plan, list[PreparedKernel]]:
        """The plan, and its kernels with the best that is known for each."""
        plan = decided(self.plans, self.workshop.seconds, self.options.frozen)
        made = [[self.workshop.kernel(k) for k in plan.kernels_of(way)] for way in plan.ways]
        for n in plan.open:
            if any(k.choice.source == "model" and k.choice.predicted is None for k in made[n]):  # no schedule holds
                plan = plan.turned(n)
                made[n] = [self.workshop.kernel(k) for k in plan.kernels_of(plan.ways[n])]
        return plan, [k for way in made for k in way]

    def _recall(self) -> bool:
        """Run what was chosen and linked before, if nothing has been learned since; plan and kernels are made when they
        are asked for."""
        found = self.workshop.remembered(self.program, self.widths)
        if found is None:
            return False
        self.code, self.long = found
        self.entry = found[0][0].address
        return True

    def _link(self) -> None:
        loaded = [k.loaded for k in self.kernels]
        places = {b.name: n for n, b in enumerate(self.inputs)}
        panels = tuple((places[p.source], p.dim, p.width) for p in self.plan.panels)
        alone = len(loaded) == 1 and not panels
        last = loaded[0] if alone else self.workshop.chained(self.program, self.kernels)
        # In this order: whoever sees the new code sees its entry, and the old code lives until both are replaced.
        self.entry = last.address
        self.code = (last, loaded, panels)
        self.runners = [k.keep for k in loaded] if self.workshop.spec.blocks else []
        known = [k.choice.seconds or k.choice.predicted or 1.0 for k in self.kernels]
        self.long = sum(known) > LONG_SECONDS

    def settle(self) -> None:
        """Raise what went wrong on a device with a driver of its own in this thread's last call: an entry cannot."""
        for runner in self.runners:
            runner.settle()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `entry` has changed."""
        self._subscribers.append(changed)

    def _tune_behind(self) -> None:
        try:
            self.tune()
        except (AutotuneError, ValueError, OSError) as error:
            # While the process ends, its pipes go first, and that is no failure.
            if threading.main_thread().is_alive() and not self.workshop.owner.closing:
                warnings.warn(f"tuning in the background failed: {error}", stacklevel=1)

    def tune(
        self,
        budget: float | None = None,
        trials: int | None = None,
        progress: Callable[[int, float], None] | None = None,
        first: Mapping[str, Sequence[Schedule]] | None = None,
    ) -> Any:
        """Measure, keep what is faster, and run it from now on. Returns the TuningResult of all kernels together.

        A kernel that cannot be measured stays as it was; raises MeasureError where none can be. `first`: by the digest
        of a kernel's program, proved schedules to try before all others.
        """
        from .decorator import TuningResult

        with self._lock:
            start = time.monotonic()
            total = next(b for b in (budget, self.options.budget, DEFAULT_BUDGET) if b is not None)
            expected = {k.program.digest: k.choice.seconds or k.choice.predicted or 1e-6 for k in self.kernels}
            wanted = jobs(self.plan, self.plans, expected)
            done: dict[str, Outcome] = {}
            code: dict[str, Any] = {}  # loaded within the budget
            failed: MeasureError | None = None
            for n, (digest, job) in enumerate(wanted.items()):
                left = total * (1 - PAIRED * (len(self.plans) > 1)) - (time.monotonic() - start)
                if not job.needed and left < LEAST * total:
                    break
                later = sum(j.weight for j in [*wanted.values()][n:])
                try:
                    done[digest] = self.workshop.tune(
                        job.program, left * job.weight / later, trials or self.options.trials, progress,
                        (first or {}).get(digest, ()),
                    )  # fmt: skip
                except MeasureError as error:
                    failed = error if job.needed else failed
                    continue  # the kernel stays as it was; the other way of a region stays unknown
                if job.needed:
                    code[digest] = self._code(job.program, done[digest].winner.schedule)
                if done[digest].interrupted:
                    break
            if failed is not None:
                if not code:
                    raise failed
                warnings.warn(f"a kernel stays as it was: {failed}", stacklevel=2)
            before, self.outcomes = self.plan, done
            known = self._paired(done, start + total)
            self.plan = decided(self.plans, lambda k: known.get(k.digest) or self.workshop.seconds(k))
            self.kernels = [self._tuned(k, done, code) for k in self.plan.kernels]
            self._link()
        for changed in self._subscribers:
            changed()
        outcomes = [*done.values()]
        rejections: dict[str, int] = {}
        for outcome in outcomes:
            for reason, count in outcome.rejections.items():
                rejections[reason] = rejections.get(reason, 0) + count
        history = [
            {"kernel": n, "origin": t.candidate.origin, "point": t.candidate.point, "predicted": t.candidate.predicted,
             "seconds": t.measurement.seconds, "status": str(t.measurement.status if t.build.ok else t.build.status),
             "elapsed": t.elapsed}
            for n, outcome in enumerate(outcomes) for t in outcome.trials
        ]  # fmt: skip
        choices = [
            {"schedule": [str(s) for s in c.schedule.steps], "source": c.source, "reason": c.reason}
            for c in (k.choice for k in self.kernels)
        ]
        mine = [k.program.digest for k in self.kernels if k.program.digest in done]
        default = [k.digest for k in map(normal_form, before.kernels) if k.digest in done]
        tuned = self.plan != before or any(
            done[d].winner.schedule.digest != done[d].default.schedule.digest for d in mine
        )  # fmt: skip
        self.result = TuningResult(
            sum(done[d].seconds for d in mine), sum(done[d].default_seconds for d in default),
            sum(len(o.trials) for o in outcomes), time.monotonic() - start, "tuned" if tuned else "default", choices,
            rejections, history,
        )  # fmt: skip
        if any(o.interrupted for o in outcomes):
            raise KeyboardInterrupt
        return self.result

    def _paired(self, done: Mapping[str, Outcome], end: float) -> dict[str, float]:
        """Seconds by digest, taken in turn, of the kernels of both ways of each region in question: times that were
        taken apart, each kernel with the caches for itself, do not add up to what a way takes."""
        found: dict[str, float] = {}
        for other in self.plans[1:]:
            region = turned(other, self.plans[0])
            both = {k.digest: k for plan in (self.plans[0], other) for k in way_of(plan, region)}
            if both.keys() <= done.keys() and not any(done[d].interrupted for d in both) and time.monotonic() < end:
                rows = self.workshop.paired([(k, done[d].winner.schedule) for d, k in both.items()], end)
                found |= dict(zip(both, rows))
        return found

    def _code(self, program: TensorProgram, schedule: Schedule) -> Any:
        here = (k for k in self.kernels if k.program.digest == program.digest and k.choice.schedule == schedule)
        return next((k.loaded for k in here), None) or self.workshop.load(program, schedule)

    def _tuned(
        self, original: TensorProgram, done: Mapping[str, Outcome], code: Mapping[str, Any]
    ) -> PreparedKernel:  # fmt: skip
        """A kernel with what tuning found for it; one that it did not come to stays as it was."""
        program = normal_form(original)
        outcome = done.get(program.digest)
        if outcome is None:
            before = next((k for k in self.kernels if k.program.digest == program.digest), None)
            return replace(before, original=original) if before else self.workshop.kernel(original)
        choice = Choice(
            outcome.winner.schedule, "tuned", f"best of {len(outcome.trials)} trials", outcome.winner.predicted,
            outcome.seconds, outcome.winner.terms,
        )  # fmt: skip
        loaded = code.get(program.digest) or self._code(program, choice.schedule)
        return PreparedKernel(original, program, choice, loaded)

    def explain(self) -> str:
        from .report import explain

        return explain(self)

    def source(self, target: str = "llvm") -> str:
        """The text of every kernel for a target. Raises UsageError for a target that does not exist."""
        if target != "llvm":
            from .shipping import file, texts

            return file(texts(self.program, target), target)
        parts = []
        for n, k in enumerate(self.kernels):
            nest = build.plan(k.program, k.choice.schedule, self.workshop.spec)
            from .codegen.llvm import render

            parts.append(
                render(nest, self.workshop.spec, f"kernel{n}" if len(self.kernels) > 1 else "kernel", self.threads).text
            )
        return "\n".join(parts)

    def launched(self, seconds: float) -> None:
        """Say what was launched, where debugging asks for it."""
        from .report import launched

        launched(self, seconds)
