"""The loop that wires the rooms: a program comes in, a schedule is found, proved and built, and an entry comes out.

Program -> kernels -> (store | model) -> schedule -> verified nest -> object code -> loaded entry; `tune` adds
measurements. This file decides in which order things are asked, and nothing of how they are done.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .cache.objects import ObjectCache
from .cache.store import MemoryStore, Store, open_store
from .devices import DeviceSpec, device
from .devices.cpu import default_threads
from .ir.collapse import normal_form
from .ir.errors import AutotuneError, CacheError
from .ir.plan import Plan
from .ir.program import Buffer, TensorProgram
from .ir.schedule import Schedule
from .options import Options, user_directory
from .planning import decided, turned, way_of
from .workshop import Choice, PreparedKernel, Workshop

if TYPE_CHECKING:
    from .decorator import TuningResult
    from .search.tune import Outcome

LONG_SECONDS = 20e-6
LIMIT = 0.1  # `tune="auto"` runs a pick at once that is promised to be at most so much slower than the best
TRIED = 16  # candidates that it measures of each kernel otherwise


class Session:
    """Everything that lives as long as the process: devices, stores, measuring processes, loaded code."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str | None, bool], Store] = {}
        self._workers: dict[tuple[Any, ...], Any] = {}
        self.closing = False
        self._lock = threading.RLock()

    def prepare(
        self, program: TensorProgram, options: Options, said: Said | None = None, constants: Collection[str] = ()
    ) -> Prepared:  # fmt: skip
        """Make a program ready to run under these options; measures only if `tune` says so. `said`: for people.
        `constants`: inputs of which the caller keeps panels between calls, where kernels want them (`Prepared.code`).
        """
        return Prepared(self, program, options, said or Said(), constants)

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
        prepared.lock = threading.Lock()
        prepared.workshop.owner.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Said:
    """What a program is called, and the operations that each of its Computes stands for, by number and name."""

    title: str = "program"
    operations: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)

    def of(self, computes: Iterable[str]) -> list[str]:
        """The operations of these Computes together, in their order, those that occur twice twice."""
        return [name for _, name in sorted({op for c in computes for op in self.operations.get(c, ())})]


class Prepared:
    """A program ready to run: what the decorator and the command line hold. `entry` changes when tuning finds
    something better; subscribers are then told. `code` keeps the machine code loaded, and says in its last part which
    panels the entry takes after the inputs: of each the place of its source among them, dimension and width."""

    entry: int
    code: Any
    long: bool

    def __init__(
        self, owner: Session, program: TensorProgram, options: Options, said: Said, constants: Collection[str] = ()
    ) -> None:  # fmt: skip
        self.program, self.options, self.said = program, options, said
        self.watched = options.debug >= 2 or options.graph is not None
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
        self.lock = threading.Lock()
        _LIVE.add(self)
        if self.watched or not self._recall():
            self._link()
            sources = {k.choice.source for k in self.kernels}
            if options.tune == "first-call" and sources != {"cache"} or options.tune == "auto" and self._unsure():
                self.tune(trials=options.trials or (TRIED if options.tune == "auto" else None))
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

    def watch(self, on: bool) -> None:
        """Let each call note how long each kernel takes (`launched`), or no longer; by itself it does where debugging
        asks for it."""
        with self.lock:
            self.watched = on
            self._link()
        for changed in self._subscribers:
            changed()

    def launched(self) -> list[float]:
        """Seconds of each kernel in the last call of a watched program; said and drawn where debugging asks for it.
        Nothing where the code has just been exchanged for what was not called yet."""
        from .codegen.chain import TIMES
        from .report import launched

        count = 2 * len(self.kernels) + 2
        known = (ctypes.c_int64 * count).from_address(self.code[0].addresses[TIMES])
        if not known[count - 2]:
            return []
        at = [known[n] + known[n + 1] * 1e-9 for n in range(0, count, 2)]
        spent = [max(b - a, 1e-9) for a, b in zip(at, at[1:])]
        launched(self, spent)
        return spent

    def _unsure(self) -> bool:
        """Whether a kernel may be further from its best than is worth running without a measurement."""
        guesses = [k.choice for k in self.kernels if k.choice.source != "cache"]
        return any(c.promise is None or c.promise.bound > LIMIT for c in guesses)

    def _link(self) -> None:
        loaded = [k.loaded for k in self.kernels]
        places = {b.name: n for n, b in enumerate(self.inputs)}
        panels = tuple((places[p.source], p.dim, p.width) for p in self.plan.panels)
        alone = len(loaded) == 1 and not panels and not self.watched
        last = loaded[0] if alone else self.workshop.chained(self.program, self.kernels, self.watched)
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
        from .tuning import together

        def told(part: Prepared, trials: int, best: float) -> None:
            if progress is not None:
                progress(trials, best)

        (result,) = together([self], budget, trials, told, first)
        return result

    def adopt(self, done: dict[str, Outcome], code: Mapping[str, Any], start: float, end: float) -> TuningResult:
        """Run what tuning found since `start`, by the digests of kernels; `code`: what of it is loaded. Ways of a
        region are timed until `end`. The caller holds the `lock`."""
        from .decorator import TuningResult

        before, self.outcomes = self.plan, done
        known = self._paired(done, end)
        self.plan = decided(self.plans, lambda k: known.get(k.digest) or self.workshop.seconds(k))
        self.kernels = [self._tuned(k, done, code) for k in self.plan.kernels]
        self._link()
        outcomes = [*done.values()]
        rejections: Counter[str] = Counter()
        for outcome in outcomes:
            rejections.update(outcome.rejections)
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
            sum(len(o.trials) for o in outcomes), time.monotonic() - start, "tuned" if tuned else "default",
            choices, dict(rejections), history,
        )  # fmt: skip
        return self.result

    def announce(self) -> None:
        """Tell subscribers that `entry` has changed."""
        for changed in self._subscribers:
            changed()

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

    def loaded(self, program: TensorProgram, schedule: Schedule) -> Any:
        """Machine code of one of the kernels; what runs now is not loaded again."""
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
        claim = f", {outcome.claim} times the default's time" if outcome.claim else ""
        many = len(outcome.trials) + len(outcome.reused)
        choice = Choice(
            outcome.winner.schedule, "tuned", f"best of {many} trials{claim}", outcome.winner.predicted,
            outcome.seconds, outcome.winner.terms,
        )  # fmt: skip
        loaded = code.get(program.digest) or self.loaded(program, choice.schedule)
        return PreparedKernel(original, program, choice, loaded)

    def explain(self) -> str:
        from .report import explain

        return explain(self)

    def operations(self, n: int) -> list[str]:
        """What kernel n computes, in the words of the function or graph that was traced."""
        return self.said.of(self.plan.groups[n].names)

    def source(self, target: str = "llvm") -> str:
        """The text of every kernel for a target. Raises UsageError for a target that does not exist."""
        from .shipping import file, texts

        if target != "llvm":
            return file(texts(self.program, target), target)
        many = len(self.kernels) > 1
        return "\n".join(self.workshop.text(k, f"kernel{n}" if many else "kernel") for n, k in enumerate(self.kernels))
