"""One kernel on one device: which schedule to run, and machine code that is proved before its first use.

Keys, the chain of stored, transferred and predicted schedules, proofs, builds and measurements come together here.
Knows nothing of functions, signatures or how kernels are called.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache import lookup
from .cache.records import BROKEN, Key, Record, canonical
from .cache.records import digest as text_digest
from .codegen import build, jit, runtime
from .codegen.chain import TIMES
from .codegen.chain import chain as chain_text
from .codegen.offload import dialect
from .devices import device
from .devices.records import Measurement, Policy, Status
from .ir.collapse import normal_form
from .ir.errors import AutotuneError, CacheError, DeviceError, FrozenError, VerifyError
from .ir.nest import Nest
from .ir.plan import Plan
from .ir.plan import from_json as plan_from_json
from .ir.program import TensorProgram, to_json
from .ir.schedule import Schedule
from .ir.schedule import from_json as schedule_from_json
from .options import Options, user_directory

if TYPE_CHECKING:
    from .search.correction import Correction
    from .search.ranking import Ranking
    from .search.regret import Promise
    from .search.tune import Outcome, Tuner
    from .session import Session

FAR = 1.5  # a schedule travels to shapes whose extents are within this factor of its own
LEAST_ROUNDS = 5  # in turn, below which nothing is known of the ways of a region
Widths = tuple[tuple[str, int], ...]
Panels = tuple[tuple[int, int, int], ...]
Code = tuple[jit.Loaded, list[jit.Loaded], Panels]
_CHECK_BYTES = 1 << 30  # of arrays above which a first call does not make a second set of them for the float check


@dataclass(frozen=True)
class Choice:
    """The schedule that a kernel runs and where it came from: cache | transfer | model | tuned. `promise`: how far from
    the best one that nobody measured may be; None where nothing can be said."""

    schedule: Schedule
    source: str
    reason: str
    predicted: float | None = None
    seconds: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    promise: Promise | None = None


@dataclass
class PreparedKernel:
    """One kernel of a prepared program: `original` with the axes and names of the user's function, `program` with
    canonical names and as few axes as there can be."""

    original: TensorProgram
    program: TensorProgram
    choice: Choice
    loaded: jit.Loaded


class Workshop:
    """What one kernel program needs on one device: keys, the chain of schedules to try, and proved machine code."""

    def __init__(self, owner: Session, options: Options) -> None:
        self.owner, self.options = owner, options
        self.spec = owner.spec(options)
        self.threads = self.spec.cores if self.spec.blocks else owner.threads(options)
        here = self.spec.here if self.spec.blocks else self.spec.arch == device("cpu", user_directory("config")).arch
        if not here:
            more = f"; one that is has a number: {self.spec.kind}:0" if self.spec.blocks else ""
            raise DeviceError(f"{self.spec.id} is not in this machine: kernels can be emitted for it, not run{more}")
        self.policy, self.turn = Policy(threads=self.threads), Policy.in_turn(self.threads)
        self.store = owner.store(options)
        self.objects = owner.objects(options)
        self._here: dict[str, jit.Loaded] = {}

    def key(self, program: TensorProgram) -> Key:
        return Key.of(program, self.spec, build.versions(), self.policy)

    def ranking(self, program: TensorProgram) -> Ranking:
        from .search.ranking import Ranking

        return Ranking(program, self.spec, self.threads, correction=self.correction)

    @functools.cached_property
    def correction(self) -> Correction | None:
        """What was fitted for this machine, if anything."""
        from .calibrate import correction

        return None if self.spec.blocks else correction(self.spec)

    def plans(self, program: TensorProgram) -> list[Plan]:
        """How the program may be cut into kernels: the model's choice, then what it is unsure about. They are kept
        beside the code, under the names of this program: reasons name its arrays."""
        digest = self._digest("plans", canonical(to_json(program)), repr(self.spec), _own_source("search"))
        kept = self.objects.get(digest)
        if kept is not None:
            return [plan_from_json(program, row) for row in json.loads(kept)]
        from .search.plans import plans

        made = plans(program, self.spec, self.threads)
        self.objects.put(digest, canonical([plan.to_json() for plan in made]).encode())
        return made

    def seconds(self, program: TensorProgram) -> float | None:
        """What this installation has measured of a kernel in normal form, in turn with others."""
        here = {"device": self.spec.id, "device_digest": self.spec.digest, "toolchain": self._toolchain}
        try:
            kept = self.store.best(program=program.digest, policy=self.turn.id, **here)
        except CacheError:
            return None  # who asks for its schedule says so
        return kept.measurement.seconds if kept and kept.local else None

    @functools.cached_property
    def _toolchain(self) -> str:
        return text_digest(canonical(sorted(build.versions().items())))

    def kernel(self, original: TensorProgram) -> PreparedKernel:
        """The best that is known for a kernel now: a stored schedule, else the model's first choice that is valid."""
        program = normal_form(original)
        if self.options.tune != "off":
            key = self.key(program)
            for found in self._stored(key):
                here = found.record.key
                if here.program != key.program and (self.options.frozen or not near(here.extents, key.extents)):
                    continue  # another shape's schedule is a guess, and a poor one from far away
                try:
                    schedule = schedule_from_json(json.loads(found.record.schedule_json))
                    loaded = self.load(program, schedule)
                except DeviceError:
                    raise
                except AutotuneError as error:
                    self._debug(f"a stored schedule does not hold here ({found.reason}): {error}")
                    continue
                mine = found.source == "cache"
                choice = Choice(
                    schedule, found.source, found.reason, None, found.record.measurement.seconds if mine else None,
                    promise=None if mine else self.promise(found.source),
                )  # fmt: skip
                return PreparedKernel(original, program, choice, loaded)
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

    def promise(self, source: str, terms: Mapping[str, float] | None = None) -> Promise | None:
        """How far from the best a pick may be that comes from `source`. Nothing is known of devices with blocks."""
        from .search import regret

        return None if self.spec.blocks else regret.of(regret.shipped(), regret.kind(source, terms or {}))

    def modelled(self, original: TensorProgram, program: TensorProgram) -> PreparedKernel:
        """The model's first choice. It is a pure function of program, device and toolchain: it is kept beside the
        code."""
        digest = self._digest("model", program.digest, repr(self.spec), _own_source("search"), repr(self.correction))
        kept = self.objects.get(digest)
        if kept is not None:
            row = json.loads(kept)
            schedule = schedule_from_json(row["schedule"])
            return PreparedKernel(original, program, self._first(schedule, row), self.load(program, schedule))
        from .search.ranking import first_valid

        made: list[jit.Loaded] = []
        candidate = first_valid(self.ranking(program), lambda c: made.append(self.load(program, c.schedule)))
        predicted = candidate.predicted if candidate.predicted < float("inf") else None
        row = {"schedule": candidate.schedule.to_json(), "predicted": predicted, "terms": candidate.terms}
        self.objects.put(digest, canonical(row).encode())
        return PreparedKernel(original, program, self._first(candidate.schedule, row), made[-1])

    def _first(self, schedule: Schedule, row: Mapping[str, Any]) -> Choice:
        promise = self.promise("model", row["terms"]) if row["predicted"] else None
        return Choice(schedule, "model", "the model's first choice", row["predicted"], None, row["terms"], promise)

    def nest(self, kernel: PreparedKernel) -> Nest:
        """What a kernel's schedule makes of its program."""
        return build.plan(kernel.program, kernel.choice.schedule, self.spec)

    def text(self, kernel: PreparedKernel, symbol: str, target: str = "llvm") -> str:
        """A kernel as it runs, in the language of a target: "llvm" or one of codegen.offload's."""
        nest = self.nest(kernel)
        if target == "llvm":
            from .codegen.llvm import render

            return render(nest, self.spec, symbol, self.threads).text
        from .codegen.clike import render as render_text
        from .codegen.clike import source

        return source([render_text(nest, dialect(target), symbol)], dialect(target))

    def trials(self, program: TensorProgram) -> list[Record]:
        """What this installation has measured of a kernel in normal form, or tried to, in that order."""
        key = self.key(program)
        same = {"program": key.program, "device_digest": key.device_digest, "toolchain": key.toolchain}
        rows = [r for r in self.store.records(**same, policy=key.policy) if r.local]
        return sorted(rows, key=lambda r: r.created)

    def widths(self, program: TensorProgram, constants: Collection[str]) -> tuple[tuple[str, int], ...]:
        """Of the panels of inputs that do not change between calls: two vectors, what one tile of results reads."""
        if self.spec.blocks:
            return ()
        return tuple((b.name, 2 * self.spec.lanes(b.dtype)) for b in program.inputs if b.name in constants)

    def remember(
        self, program: TensorProgram, widths: Widths, kernels: Sequence[PreparedKernel], panels: Panels, long: bool
    ) -> None:  # fmt: skip
        """Keep which machine code a program's kernels are, for `remembered`."""
        digest = None if self.spec.blocks else self._linked(program, widths)
        if digest is not None:
            codes = [self._code(k.program, k.choice.schedule) for k in kernels]
            chained = len(kernels) > 1 or panels
            chain = self._chain(chain_text(program, [k.original for k in kernels])) if chained else None
            row = {"kernels": codes, "chain": chain, "panels": panels, "long": long}
            self.objects.put(digest, canonical(row).encode())

    def remembered(self, program: TensorProgram, widths: Widths) -> tuple[Code, bool] | None:
        """The entry, the kernels and the panels that choice, proof and linking led to before, and whether they take
        long; None where that is not known, or something has been stored since."""
        digest = None if self.spec.blocks else self._linked(program, widths)
        kept = self.objects.get(digest) if digest is not None else None
        if kept is None:
            return None
        row = json.loads(kept)
        loaded = {code: self._loaded(code) for code in row["kernels"]}
        kernels = [k for code in row["kernels"] if (k := loaded[code]) is not None]
        binary = self.objects.get(row["chain"]) if row["chain"] is not None else None
        if len(kernels) < len(row["kernels"]) or row["chain"] is not None and binary is None:
            return None
        entry = kernels[0] if binary is None else self._chained(binary, kernels)
        return (entry, kernels, tuple(map(tuple, row["panels"]))), row["long"]

    def _linked(self, program: TensorProgram, widths: Widths) -> str | None:
        """Names all that a program's machine code depends on, measurements included."""
        try:
            known = self.store.state()
        except CacheError:
            return None
        options = f"{self.options.tune} {self.options.frozen} {known} {widths}"
        sources = (_own_source("search"), _own_source("."))
        about = (canonical(to_json(program)), repr(self.spec), repr(self.correction), options)
        return self._digest("linked", *about, *sources)

    def load(self, program: TensorProgram, schedule: Schedule) -> jit.Loaded:
        """Machine code in this process. On this installation's first use of a schedule it is proved: the nest by the
        verifier, the function by the equivalence check, the machine code against float64. Raises the AutotuneError of
        what failed."""
        digest = self._code(program, schedule)
        if self.spec.blocks:
            return self._offloaded(program, schedule, digest, proved=self.objects.get(digest) is not None)
        if (known := self._loaded(digest)) is not None:
            return known
        from .ir.equiv import prove

        kernel = build.build(program, schedule, self.spec, self.threads)
        prove(program, schedule, kernel.nest)
        loaded = jit.load(kernel.binary, kernel.symbol, runtime.runtime(self.objects).symbols)
        self._check(program, loaded)
        self.objects.put(digest, kernel.binary)
        self._here[digest] = loaded
        return loaded

    def _code(self, program: TensorProgram, schedule: Schedule) -> str:
        return self._digest("kernel", program.digest, schedule.digest)

    def _loaded(self, digest: str) -> jit.Loaded | None:
        """Proved machine code, loaded once however many kernels it is."""
        if digest not in self._here and (binary := self.objects.get(digest)) is not None:
            self._here[digest] = jit.load(binary, "kernel", runtime.runtime(self.objects).symbols)
        return self._here.get(digest)

    def _offloaded(self, program: TensorProgram, schedule: Schedule, digest: str, proved: bool) -> jit.Loaded:
        """The same on a device with a driver of its own, which compiles the text; kept is only that it was proved."""
        from .ir.equiv import prove
        from .worker import offload

        nest, runner = offload(program, schedule, self.spec)
        loaded = jit.Loaded(runner.address, {}, runner)
        if proved:
            return loaded
        prove(program, schedule, nest)
        self._check(program, loaded)
        self.objects.put(digest, b"proved")
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

        def call(data: int, params: int) -> None:
            entry(data, params, self.threads)
            if self.spec.blocks:
                loaded.keep.settle()

        def run(inputs: list[Any]) -> list[Any]:
            arrays.fill(inputs)
            return arrays.run(call)

        problem = Checker(program, self.options.seed, 0.01).check(run, cases=("random",))
        if problem:
            raise VerifyError(f"the machine code disagrees with float64: {problem}")

    def chained(self, program: TensorProgram, kernels: Sequence[PreparedKernel], timed: bool = False) -> jit.Loaded:
        """One entry for all kernels. `timed`: it notes when it comes to each, in its export `chain.TIMES`."""
        clock = time.CLOCK_MONOTONIC if timed else None
        text = chain_text(program, [k.original for k in kernels], clock=clock)
        digest = self._chain(text)
        binary = self.objects.get(digest)
        if binary is None:
            target = ("", ()) if self.spec.blocks else (self.spec.arch, self.spec.features)
            binary = jit.assemble(text, *target)
            self.objects.put(digest, binary)
        return self._chained(binary, [k.loaded for k in kernels], timed)

    def _chain(self, text: str) -> str:
        return self._digest("chain", hashlib.sha256(text.encode()).hexdigest(), "")

    def _chained(self, binary: bytes, kernels: Sequence[jit.Loaded], timed: bool = False) -> jit.Loaded:
        symbols = {f"kernel{n}": k.address for n, k in enumerate(kernels)}
        symbols |= jit.library_symbols("clock_gettime") if timed else {}
        symbols |= runtime.runtime(self.objects).symbols
        return jit.load(binary, "chain", symbols, (TIMES,) if timed else ())

    def _digest(self, *parts: str) -> str:
        rows = (*parts, self.spec.digest, canonical(sorted(build.versions().items())), str(self.threads))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def _debug(self, message: str) -> None:
        if self.options.debug >= 1:
            import sys

            print(f"autotune: {message}", file=sys.stderr)

    def tuning(
        self, program: TensorProgram, deadline: float, trials: int | None,
        progress: Callable[[int, float], None] | None = None, first: Sequence[Schedule] = (),
    ) -> Tuner:  # fmt: skip
        """A search of one kernel, begun: its default is measured. What the store has of it is not measured again.
        `first`: proved schedules to try before all others."""
        from .search import strategies
        from .search.ranking import Candidate, first_valid
        from .search.tune import Tuner

        worker = self.owner.worker(self.spec, self.threads, self.options)
        worker.start()
        ranking, known = self.ranking(program), self._known(program)
        default = first_valid(ranking, lambda c: build.plan(program, c.schedule, self.spec))
        stored = self._hypotheses(program, self.key(program))
        seeds = [Candidate(schedule, float("inf"), "seed") for schedule in [*first, *stored]]
        strategy = strategies.make(self.options.strategy, ranking, seeds, self.options.seed, self.options.study)
        tuner = Tuner(
            ranking, program.canonical, worker, self.policy, deadline, trials, strategy, progress, known=known
        )  # fmt: skip
        best = next((s.digest for s in stored if (row := known.get(s.digest)) and row.ok), None)
        return tuner.begin(default, next((c for c in seeds if c.schedule.digest == best), None), deadline)

    def _known(self, program: TensorProgram) -> dict[str, Measurement]:
        """By digest, what was measured here of each schedule of a program, the latest; a failure that may pass, and a
        time that was disturbed, are as good as unknown."""
        key, found = self.key(program), dict[str, Record]()
        try:
            rows = list(self.store.records(
                program=key.program, device_digest=key.device_digest, toolchain=key.toolchain, policy=key.policy
            ))  # fmt: skip
        except CacheError:
            return {}  # `_stored` says so
        for r in sorted((r for r in rows if r.local), key=lambda r: (r.measurement.status in BROKEN, r.created)):
            if not r.measurement.noisy and r.measurement.status not in (Status.INTERRUPTED, Status.TIMEOUT):
                found[r.schedule] = r
        return {schedule: r.measurement for schedule, r in found.items()}

    def paired(self, kernels: Sequence[tuple[TensorProgram, Schedule]], end: float) -> list[float]:
        """Seconds of proved kernels, timed in turn, and stored; [] where one could not be."""
        worker = self.owner.worker(self.spec, self.threads, self.options)
        built = worker.build([(program.canonical, schedule.to_json()) for program, schedule in kernels], end, "none")
        handles = [report.handle for report in built if report.ok]
        try:
            if len(handles) < len(kernels):
                return []
            rows = worker.time(handles, self.turn, self.turn.rounds, end)
        finally:
            worker.drop(handles)
        if not all(row.ok and len(row.samples) >= LEAST_ROUNDS for row in rows):
            return []
        records = []
        for (program, schedule), row in zip(kernels, rows):
            key = replace(self.key(program), policy=self.turn.id)
            records.append(Record(key, schedule.digest, canonical(schedule.to_json()), row, time.time(), 0))
        self._put(records)
        return [row.seconds for row in rows]

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

    def record(self, program: TensorProgram, outcome: Outcome) -> None:
        """Store every measurement of a tuning, and its choice."""
        key, begun = self.key(program), time.time() - outcome.elapsed
        rows: list[Record] = []
        places = {c.schedule.digest: n for n, (c, _) in enumerate(outcome.finals)}
        chosen = outcome.winner.schedule.digest
        finals = {c.schedule.digest: row for c, row in outcome.finals}
        again = [t for t in outcome.reused if t.candidate.schedule.digest in finals]
        for trial in (*outcome.trials, *again):
            schedule = trial.candidate.schedule
            place = places.get(schedule.digest)
            if place is not None or schedule.digest == chosen:
                place = 0 if schedule.digest == chosen else (place or 0) + 1
            measurement = finals.get(schedule.digest, trial.measurement)
            text, at = canonical(schedule.to_json()), begun + trial.elapsed
            rows.append(Record(key, schedule.digest, text, measurement, at, place))
        self._put(rows)

    def _put(self, rows: Iterable[Record]) -> None:
        if getattr(self.store, "readonly", False):
            return
        try:
            self.store.put_many(rows)
        except CacheError as error:  # the result holds all the same; what was stored before is untouched
            warnings.warn(f"the measurements could not be stored: {error}", stacklevel=2)


@functools.cache
def _own_source(room: str) -> str:
    """A digest of the package's own files in a room: what was derived by them holds for them only."""
    files = sorted((Path(__file__).parent / room).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def near(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a schedule tuned for extents `a` is a better guess for `b` than the model's: no extent is far from its
    own."""
    return len(a) == len(b) and all(max(x, y) <= FAR * min(x, y) for x, y in zip(a, b))
