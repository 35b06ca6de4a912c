"""The loop that wires the rooms: a program comes in, a schedule is found, proved and built, and an entry comes out.

Program -> kernels -> (store | model) -> schedule -> verified nest -> object code -> loaded entry; `tune` adds
measurements. This file decides in which order things are asked, and nothing of how they are done.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache import lookup
from .cache.objects import ObjectCache
from .cache.records import Key, Record, canonical
from .cache.store import MemoryStore, Store, open_store
from .codegen import build, jit, runtime
from .devices import DeviceSpec, device
from .devices.cpu import default_threads
from .devices.records import Policy
from .ir.errors import AutotuneError, CacheError, DeviceError, FrozenError, UsageError, VerifyError
from .ir.partition import partition
from .ir.program import Buffer, TensorProgram, canonical_names
from .ir.schedule import Schedule
from .ir.schedule import from_json as schedule_from_json
from .options import Options, user_directory

if TYPE_CHECKING:
    from .search.ranking import Ranking
    from .search.tune import Outcome

DEFAULT_BUDGET = 2.0
LONG_SECONDS = 20e-6
FAR = 1.5  # a schedule travels to shapes whose extents are within this factor of its own
_CHECK_BYTES = 1 << 30  # of arrays above which a first call does not make a second set of them for the float check


@dataclass(frozen=True)
class Choice:
    """The schedule that a kernel runs and where it came from: cache | transfer | model | tuned."""

    schedule: Schedule
    source: str
    reason: str
    predicted: float | None = None
    seconds: float | None = None
    terms: dict[str, float] = field(default_factory=dict)


@dataclass
class PreparedKernel:
    """One kernel of a prepared program. `program` has canonical names; `original` those of the user's function."""

    original: TensorProgram
    program: TensorProgram
    choice: Choice
    loaded: jit.Loaded


class Session:
    """Everything that lives as long as the process: devices, stores, measuring processes, loaded code."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str | None, bool], Store] = {}
        self._workers: dict[tuple[Any, ...], Any] = {}
        self.closing = False
        self._lock = threading.RLock()

    def prepare(self, program: TensorProgram, options: Options) -> Prepared:
        """Make a program ready to run under these options; measures only if `tune` says so."""
        return Prepared(self, program, options)

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

        key = (spec.digest, threads, options.directory())
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


class Workshop:
    """What one kernel program needs on one device: keys, the chain of schedules to try, and proved machine code."""

    def __init__(self, owner: Session, options: Options) -> None:
        self.owner, self.options = owner, options
        self.spec = owner.spec(options)
        self.threads = owner.threads(options)
        if self.spec.kind != "cpu" or self.spec.arch != device("cpu", user_directory("config")).arch:
            raise DeviceError(f"{self.spec.id} is not in this machine: kernels can be emitted for it, not run")
        self.policy = Policy(threads=self.threads)
        self.store = owner.store(options)
        self.objects = owner.objects(options)

    def key(self, program: TensorProgram) -> Key:
        return Key.of(program, self.spec, build.versions(), self.policy)

    def ranking(self, program: TensorProgram) -> Ranking:
        from .search.ranking import Ranking

        return Ranking(program, self.spec, self.threads)

    def kernel(self, original: TensorProgram) -> PreparedKernel:
        """The best that is known for a kernel now: a stored schedule, else the model's first choice that is valid."""
        program = canonical_names(original)
        if self.options.tune != "off":
            key = self.key(program)
            for found in self._stored(key):
                here = found.record.key
                if here.program != key.program and (self.options.frozen or not _near(here.extents, key.extents)):
                    continue  # another shape's schedule is a guess, and a poor one from far away
                try:
                    schedule = schedule_from_json(json.loads(found.record.schedule_json))
                    loaded = self.load(program, schedule)
                except AutotuneError as error:
                    self._debug(f"a stored schedule does not hold here ({found.reason}): {error}")
                    continue
                seconds = found.record.measurement.seconds if found.source == "cache" else None
                return PreparedKernel(
                    original, program, Choice(schedule, found.source, found.reason, None, seconds), loaded
                )
        if self.options.frozen:
            miss = lookup.find(self.store, self.key(program))
            why = getattr(miss, "reason", "")
            raise FrozenError(f"nothing is stored for this kernel, and AUTOTUNE_FROZEN forbids anything else: {why}")
        return self.modelled(original, program)

    def _stored(self, key: Key) -> list[lookup.Found]:
        """What the store has to try for a key; nothing, with a warning, where it cannot be read."""
        try:
            return list(lookup.candidates(self.store, key))
        except CacheError as error:
            warnings.warn(f"stored results are out of reach: {error}", stacklevel=2)
            return []

    def modelled(self, original: TensorProgram, program: TensorProgram) -> PreparedKernel:
        """The model's first choice. It is a pure function of program, device and toolchain: it is kept beside the
        code."""
        digest = self._digest("model", program.digest, repr(self.spec), _own_source("search"))
        kept = self.objects.get(digest)
        if kept is not None:
            row = json.loads(kept)
            schedule = schedule_from_json(row["schedule"])
            choice = Choice(schedule, "model", "the model's first choice", row["predicted"], None, row["terms"])
            return PreparedKernel(original, program, choice, self.load(program, schedule))
        from .search.ranking import first_valid

        made: list[jit.Loaded] = []
        candidate = first_valid(self.ranking(program), lambda c: made.append(self.load(program, c.schedule)))
        predicted = candidate.predicted if candidate.predicted < float("inf") else None
        choice = Choice(candidate.schedule, "model", "the model's first choice", predicted, None, candidate.terms)
        row = {"schedule": choice.schedule.to_json(), "predicted": predicted, "terms": choice.terms}
        self.objects.put(digest, canonical(row).encode())
        return PreparedKernel(original, program, choice, made[-1])

    def load(self, program: TensorProgram, schedule: Schedule) -> jit.Loaded:
        """Machine code in this process. On this installation's first use of a schedule it is proved: the nest by the
        verifier, the function by the equivalence check, the machine code against float64. Raises the AutotuneError of
        what failed."""
        digest = self._digest("kernel", program.digest, schedule.digest)
        binary = self.objects.get(digest)
        if binary is not None:
            return jit.load(binary, "kernel", runtime.runtime(self.objects).symbols)
        from .ir.equiv import equivalent

        kernel = build.build(program, schedule, self.spec, self.threads)
        report = equivalent(program, schedule, nest=kernel.nest)
        if not report.ok:
            raise VerifyError(f"the schedule computes another function: {report.message}\nschedule:\n{schedule}")
        loaded = jit.load(kernel.binary, kernel.symbol, runtime.runtime(self.objects).symbols)
        self._check(program, loaded)
        self.objects.put(digest, kernel.binary)
        return loaded

    def _check(self, program: TensorProgram, loaded: jit.Loaded) -> None:
        """The machine code against float64 on ordinary numbers."""
        import ctypes

        from .floatcheck import Checker
        from .worker import Arrays

        if sum(b.bytes for b in program.buffers) > _CHECK_BYTES:
            return  # the proofs stand alone here; tuning checks such arrays too
        arrays = Arrays(program)
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(loaded.address)

        def run(inputs: list[Any]) -> list[Any]:
            arrays.fill(inputs)
            return arrays.run(lambda data, params: entry(data, params, self.threads))

        problem = Checker(program, self.options.seed, 0.01).check(run, cases=("random",))
        if problem:
            raise VerifyError(f"the machine code disagrees with float64: {problem}")

    def chained(self, program: TensorProgram, kernels: Sequence[PreparedKernel]) -> jit.Loaded:
        from .codegen.chain import chain

        text = chain(program, [k.original for k in kernels])
        digest = self._digest("chain", hashlib.sha256(text.encode()).hexdigest(), "")
        binary = self.objects.get(digest)
        if binary is None:
            binary = jit.assemble(text, self.spec.arch, self.spec.features)
            self.objects.put(digest, binary)
        symbols = {f"kernel{n}": k.loaded.address for n, k in enumerate(kernels)}
        return jit.load(binary, "chain", runtime.runtime(self.objects).symbols | symbols)

    def _digest(self, *parts: str) -> str:
        rows = (*parts, self.spec.digest, canonical(sorted(build.versions().items())), str(self.threads))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def _debug(self, message: str) -> None:
        if self.options.debug >= 1:
            import sys

            print(f"autotune: {message}", file=sys.stderr)

    def tune(
        self,
        program: TensorProgram,
        budget: float,
        trials: int | None,
        progress: Callable[[int, float], None] | None = None,
    ) -> Outcome:
        """Search one kernel within `budget` seconds, and store every measurement."""
        from .search.ranking import Candidate, first_valid
        from .search.tune import Tuner

        deadline = time.monotonic() + budget
        worker = self.owner.worker(self.spec, self.threads, self.options)
        worker.start()
        ranking, key = self.ranking(program), self.key(program)
        default = first_valid(ranking, lambda c: build.plan(program, c.schedule, self.spec))
        seeds = [Candidate(schedule, float("inf"), "seed") for schedule in self._hypotheses(program, key)]
        program_json = program.canonical
        outcome = Tuner(ranking, program_json, worker, self.policy, deadline, trials, progress).run(default, seeds)
        self._record(key, outcome)
        return outcome

    def _hypotheses(self, program: TensorProgram, key: Key) -> list[Schedule]:
        """Stored schedules that are proved to compute this program, whoever measured them and for whichever shape."""
        from .ir.equiv import equivalent

        proved = []
        for found in self._stored(key):
            try:
                schedule = schedule_from_json(json.loads(found.record.schedule_json))
                if equivalent(program, schedule, nest=build.plan(program, schedule, self.spec)).ok:
                    proved.append(schedule)
            except AutotuneError as error:
                self._debug(f"a stored schedule does not fit ({found.reason}): {error}")
        return proved

    def _record(self, key: Key, outcome: Outcome) -> None:
        if getattr(self.store, "readonly", False):
            return
        now = time.time()
        rows: list[Record] = []
        places = {c.schedule.digest: n for n, (c, _) in enumerate(outcome.finals)}
        chosen = outcome.winner.schedule.digest
        finals = {c.schedule.digest: row for c, row in outcome.finals}
        for trial in outcome.trials:
            schedule = trial.candidate.schedule
            place = places.get(schedule.digest)
            if place is not None or schedule.digest == chosen:
                place = 0 if schedule.digest == chosen else (place or 0) + 1
            measurement = finals.get(schedule.digest, trial.measurement)
            rows.append(Record(key, schedule.digest, canonical(schedule.to_json()), measurement, now, place))
        try:
            self.store.put_many(rows)
        except CacheError as error:  # the result holds all the same; what was stored before is untouched
            warnings.warn(f"the measurements could not be stored: {error}", stacklevel=2)


@functools.cache
def _own_source(room: str) -> str:
    """A digest of the package's own files in a room: what was derived by them holds for them only."""
    files = sorted((Path(__file__).parent / room).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _near(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a schedule tuned for extents `a` is a better guess for `b` than the model's: no extent is far from its
    own."""
    return len(a) == len(b) and all(max(x, y) <= FAR * min(x, y) for x, y in zip(a, b))


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
    something better; subscribers are then told. `code` keeps the machine code loaded."""

    def __init__(self, owner: Session, program: TensorProgram, options: Options) -> None:
        self.program, self.options = program, options
        self.workshop = Workshop(owner, options)
        self.inputs: tuple[Buffer, ...] = program.inputs
        by_name = {b.name: b for b in program.buffers}
        self.outputs = tuple(by_name[name] for name in program.outputs)
        self.params = tuple(
            (n, d) for n, b in enumerate(program.inputs) for d, s in enumerate(b.strides or ()) if isinstance(s, str)
        )
        self.threads = self.workshop.threads
        self._subscribers: list[Callable[[], None]] = []
        self.outcomes: list[Outcome] = []
        self._lock = threading.Lock()
        _LIVE.add(self)
        self.kernels = [self.workshop.kernel(k) for k in partition(program)]
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

    def _link(self) -> None:
        if len(self.kernels) == 1:
            last = self.kernels[0].loaded
        else:
            last = self.workshop.chained(self.program, self.kernels)
        # In this order: whoever sees the new code sees its entry, and the old code lives until both are replaced.
        self.entry = last.address
        self.code: Any = (last, [k.loaded for k in self.kernels])
        known = [k.choice.seconds or k.choice.predicted or 1.0 for k in self.kernels]
        self.long = sum(known) > LONG_SECONDS

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
    ) -> Any:
        """Measure, keep what is faster, and run it from now on. Returns the TuningResult of all kernels together."""
        from .decorator import TuningResult

        with self._lock:
            start = time.monotonic()
            total = next(b for b in (budget, self.options.budget, DEFAULT_BUDGET) if b is not None)
            kernels = list(self.kernels)
            weights = [k.choice.seconds or k.choice.predicted or 1e-6 for k in self.kernels]
            outcomes: list[Outcome] = []
            for n, kernel in enumerate(self.kernels):
                left = total - (time.monotonic() - start)
                share = 0.5 / len(self.kernels) + 0.5 * weights[n] / sum(weights)
                later = sum(0.5 / len(self.kernels) + 0.5 * w / sum(weights) for w in weights[n + 1 :])
                outcome = self.workshop.tune(
                    kernel.program, left * share / (share + later), trials or self.options.trials, progress
                )
                outcomes.append(outcome)
                schedule = outcome.winner.schedule
                choice = Choice(
                    schedule, "tuned", f"best of {len(outcome.trials)} trials", outcome.winner.predicted,
                    outcome.seconds, outcome.winner.terms,
                )  # fmt: skip
                kernels[n] = PreparedKernel(
                    kernel.original, kernel.program, choice, self.workshop.load(kernel.program, schedule)
                )
                if outcome.interrupted:
                    break
            self.outcomes, self.kernels = outcomes, kernels
            self._link()
        for changed in self._subscribers:
            changed()
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
        tuned = any(o.winner.schedule.digest != o.default.schedule.digest for o in outcomes)
        choices = [
            {"schedule": [str(s) for s in c.schedule.steps], "source": c.source, "reason": c.reason}
            for c in (k.choice for k in self.kernels)
        ]
        result = TuningResult(
            sum(o.seconds for o in outcomes), sum(o.default_seconds for o in outcomes),
            sum(len(o.trials) for o in outcomes), time.monotonic() - start, "tuned" if tuned else "default", choices,
            rejections, history,
        )  # fmt: skip
        if any(o.interrupted for o in outcomes):
            raise KeyboardInterrupt
        return result

    def explain(self) -> str:
        from .report import explain

        return explain(self)

    def source(self, target: str = "llvm") -> str:
        """The text of every kernel for a target. Raises UsageError for a target that does not exist here."""
        if target != "llvm":
            raise UsageError(f"target {target!r}: this version renders llvm")
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
