"""One case run: traced, prepared, tuned, and written down as a record. What fails is a status of the case, no error.

Knows the fields of a record, which error is which status, and what a sweep notes to go on later; must not know how
records are shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices.records import Status
from ..ir import errors
from ..options import Options
from ..report import moved, roofline_seconds
from .grid import Case

if TYPE_CHECKING:
    from ..ir.program import TensorProgram
    from ..ir.schedule import Schedule
    from ..session import Prepared
    from ..tracer import Traced

Record = dict[str, Any]
Progress = Callable[[int, float], None]
Listing = Mapping[str, Sequence["Schedule"]]
FIELDS = (
    "op", "params", "dtype", "device", "threads", "status", "source", "winner", "seconds", "default_seconds", "gflops",
    "gbytes_per_s", "roofline_fraction", "trials", "tuning_seconds", "program", "schedule", "message",
)  # fmt: skip
_STATUS = {
    errors.TraceError: Status.UNSUPPORTED, errors.SignatureError: Status.UNSUPPORTED, errors.BuildError: Status.COMPILE,
    errors.FrozenError: Status.UNSUPPORTED, errors.ScheduleError: Status.CONSTRAINTS,
    errors.VerifyError: Status.CORRECTNESS,
}  # fmt: skip
_SOURCES = ("model", "transfer", "cache", "tuned")


def program(case: Case) -> TensorProgram:
    """The case's program. Raises TraceError for whatever the user's function raises, too."""
    return _traced(case).program


def _traced(case: Case) -> Traced:
    from ..tracer import trace

    fn, args, kwargs = case.make()
    try:
        traced = trace(fn, args, kwargs)
    except errors.AutotuneError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise errors.TraceError(f"{type(error).__name__}: {error}") from error
    made = traced.program
    if not made.outputs:
        raise errors.TraceError("the function returns no array")
    if any(b.size == 0 for b in made.buffers) or any(c.points == 0 for c in made.computes):
        raise errors.TraceError("an extent is zero: there is nothing to compute")
    return traced


def prepare(case: Case, options: Options) -> Prepared:
    """The case ready to run with the best that is known now."""
    from ..session import Said, session

    traced = _traced(case)
    return session().prepare(traced.program, options, Said(str(case), traced.operations))


def status_of(error: errors.AutotuneError) -> Status:
    return next((s for kind, s in _STATUS.items() if isinstance(error, kind)), Status.RUNTIME)


def run(
    case: Case, options: Options, progress: Progress | None = None, tune: bool | None = True,
    first: Listing | None = None, done: Callable[[Prepared], None] | None = None,
) -> Record:  # fmt: skip
    """The record of one case; `options.threads` and `budget` are set. Where `tune` is False a stored winner is taken if
    there is one; where it is None nothing is tuned. `first`: schedules to try before all others, by the digest of a
    kernel's program; `done` is told what was made.
    An interrupt is a status too, after what was measured has been stored."""
    record: Record = dict.fromkeys(FIELDS) | {
        "op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": options.device,
        "threads": options.threads, "status": str(Status.OK), "trials": 0, "program": "", "schedule": "", "message": "",
    }  # fmt: skip
    prepared: Prepared | None = None
    begun = math.inf
    try:
        prepared = prepare(case, options)
        known = all(k.choice.source == "cache" for k in prepared.kernels)
        if not options.frozen and tune is not None and (tune or not known):
            shop = prepared.workshop
            shop.owner.worker(shop.spec, shop.threads, options).wait()  # no case's budget pays for its start
            begun = time.monotonic()
            prepared.tune(progress=progress, first=first)
    except KeyboardInterrupt:
        record |= {"status": str(Status.INTERRUPTED), "message": "what was measured until then is stored"}
    except errors.AutotuneError as error:
        if type(error) in (errors.DeviceError, errors.UsageError):
            raise  # of the whole sweep
        late = isinstance(error, errors.MeasureError) and time.monotonic() - begun >= (options.budget or 0)
        record |= {"status": str(Status.TIMEOUT if late else status_of(error)), "message": str(error)}
    record["tuning_seconds"] = round(max(0.0, time.monotonic() - begun), 3)
    if prepared is not None:
        _describe(record, prepared)
        if done is not None:
            done(prepared)
    return record


def _describe(record: Record, prepared: Prepared) -> None:
    """What is known of all kernels together: digests, where the schedules came from, and times."""
    kernels, result = prepared.kernels, prepared.result
    record["program"] = _digest([k.program.digest for k in kernels])
    record["schedule"] = _digest([k.choice.schedule.digest for k in kernels])
    record["source"] = min((k.choice.source for k in kernels), key=_SOURCES.index)
    record["trials"] = result.trials if result else 0
    if result:
        whole = all(k.program.digest in prepared.outcomes for k in kernels)
        record["winner"] = result.winner
        record["default_seconds"] = _total([result.default_seconds if whole else None], 1)
    timed(record, prepared, _total([k.choice.seconds for k in kernels], len(kernels)))


def timed(record: Record, prepared: Prepared, seconds: float | None) -> None:
    """Fill in `seconds` and what follows from it."""
    record["seconds"] = seconds
    if seconds:
        whole = prepared.program
        record["gflops"], record["gbytes_per_s"] = whole.flops / seconds / 1e9, moved(whole) / seconds / 1e9
        record["roofline_fraction"] = roofline_seconds(whole, prepared.workshop.spec, prepared.threads) / seconds


def _total(seconds: Sequence[float | None], kernels: int) -> float | None:
    """Of all kernels; None where one has not been measured."""
    known = [s for s in seconds if s is not None and math.isfinite(s)]
    return sum(known) if len(known) == kernels else None


def _digest(parts: Sequence[str]) -> str:
    """Of several texts one digest; a single kernel keeps its own, by which the store knows it."""
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def exit_code(records: Iterable[Mapping[str, Any]], frozen: bool) -> int:
    """0 all ok; 1 some not; 4 none, although measuring was tried; 5 a frozen store lacks one; 130 interrupted."""
    found = {Status(r["status"]) for r in records}
    if Status.INTERRUPTED in found:
        return 130
    if found <= {Status.OK}:
        return 0
    return 5 if frozen else 1 if Status.OK in found or found == {Status.UNSUPPORTED} else 4


class State:
    """The finished cases of a sweep, a JSON line each, written when a case ends. A line cut short is no case."""

    def __init__(self, path: Path | None, options: Options, resume: bool) -> None:
        self.path, self.options, self.done = path, options, dict[str, Record]()
        for line in path.read_text("utf-8").splitlines() if path and resume and path.exists() else ():
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                self.done[row["key"]] = {name: row["record"][name] for name in FIELDS}
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            save(path, "".join(_line(*row) for row in self.done.items()))

    @staticmethod
    def place(directory: Path | None, cases: Iterable[Case], options: Options) -> Path | None:
        """Where the state of this very sweep lies by default."""
        name = _digest([options.device, str(options.threads), *(case.key for case in cases)])
        return directory / "sweeps" / f"{name}.jsonl" if directory else None

    def key(self, case: Case) -> str:
        """Of a case on this device; a user's function that has changed makes it another case."""
        meaning = ""
        with suppress(errors.AutotuneError):
            meaning = program(case).digest if ":" in case.op else ""
        return _digest([case.key, self.options.device, str(self.options.threads), meaning])

    def get(self, case: Case) -> Record | None:
        return self.done.get(self.key(case)) if self.done else None

    def put(self, case: Case, record: Record) -> None:
        if self.path is not None and record["status"] != Status.INTERRUPTED:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(self.key(case), record))


def _line(key: str, record: Record) -> str:
    return json.dumps({"key": key, "record": record}) + "\n"


def save(path: Path, text: str) -> None:
    """Write a whole file, or nothing of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)
