"""One case run: traced, prepared, tuned, and written down as a record. What fails is a status of the case, not an exception.

Knows the fields of a record and which error is which status; must not know how records are shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices.records import Status
from ..ir.errors import (
    AutotuneError,
    BuildError,
    DeviceError,
    FrozenError,
    MeasureError,
    ScheduleError,
    SignatureError,
    TraceError,
    UsageError,
    VerifyError,
)
from ..options import Options
from .grid import Case

if TYPE_CHECKING:
    from ..ir.program import TensorProgram
    from ..session import Prepared

Record = dict[str, Any]
FIELDS = (
    "op", "params", "dtype", "device", "threads", "status", "source", "winner", "seconds", "default_seconds", "gflops",
    "gbytes_per_s", "roofline_fraction", "trials", "tuning_seconds", "program", "schedule", "message",
)  # fmt: skip
_STATUS: tuple[tuple[type[AutotuneError], Status], ...] = (
    (TraceError, Status.UNSUPPORTED), (SignatureError, Status.UNSUPPORTED), (ScheduleError, Status.CONSTRAINTS),
    (BuildError, Status.COMPILE), (VerifyError, Status.CORRECTNESS),
)  # fmt: skip
_SOURCES = ("model", "transfer", "cache", "tuned")
Progress = Callable[[int, float], None]


class UserError(TraceError):
    """The user's own function raised, or makes nothing that a kernel could compute."""


def program(case: Case) -> TensorProgram:
    """The case's program. Raises UserError for whatever the function itself raises."""
    from ..tracer import trace

    fn, args, kwargs = case.make()
    try:
        made = trace(fn, args, kwargs).program
    except AutotuneError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(f"{type(error).__name__}: {error}") from error
    if not made.outputs:
        raise UserError("the function returns no array")
    if any(b.size == 0 for b in made.buffers) or any(c.points == 0 for c in made.computes):
        raise UserError("an extent is zero: there is nothing to compute")
    return made


def prepare(case: Case, options: Options) -> Prepared:
    """The case ready to run with the best that is known now."""
    from ..session import session

    return session().prepare(program(case), options)


def blank(case: Case, options: Options) -> Record:
    from ..session import session

    values = {"op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": options.device,
              "threads": session().threads(options), "trials": 0, "program": "", "schedule": "", "message": ""}  # fmt: skip
    return {name: values.get(name) for name in FIELDS}


def run(case: Case, options: Options, progress: Progress | None = None, tune: bool = True) -> Record:
    """The record of one case. Without `tune` a stored winner is taken where there is one. An interrupt is a status too,
    after what was measured has been stored."""
    record, begun = blank(case, options), 0.0
    prepared: Prepared | None = None
    try:
        made = program(case)
        record["program"] = made.digest
        prepared = prepare(case, options)
        stored = {k.choice.source for k in prepared.kernels} == {"cache"}
        if not options.frozen and (tune or not stored):
            shop = prepared.workshop
            shop.owner.worker(shop.spec, shop.threads, options).wait()  # no case's budget pays for its start
            begun = time.monotonic()
            prepared.tune(progress=progress)
        record["status"] = str(Status.OK)
    except KeyboardInterrupt:
        record |= {"status": str(Status.INTERRUPTED), "message": "what was measured until then is stored"}
    except (UsageError, DeviceError) as error:
        if not isinstance(error, FrozenError):
            raise
        record |= {"status": str(Status.UNSUPPORTED), "message": str(error)}
    except AutotuneError as error:
        late = begun > 0 and options.budget is not None and time.monotonic() - begun >= options.budget
        record |= {"status": str(_status(error, late)), "message": str(error)}
    record["tuning_seconds"] = round(time.monotonic() - begun, 3) if begun else 0.0
    if prepared is not None:
        _measured(record, prepared)
    return record


def _status(error: AutotuneError, late: bool) -> Status:
    if isinstance(error, MeasureError):
        return Status.TIMEOUT if late else Status.RUNTIME
    return next((status for kind, status in _STATUS if isinstance(error, kind)), Status.RUNTIME)


def _measured(record: Record, prepared: Prepared) -> None:
    """What is known of the kernels: digests, where the schedules came from and, of all together, the times."""
    kernels, outcomes = prepared.kernels, prepared.outcomes
    record["program"] = _digest([k.program.digest for k in kernels])
    record["schedule"] = _digest([k.choice.schedule.digest for k in kernels])
    record["source"] = min((k.choice.source for k in kernels), key=_SOURCES.index)
    record["trials"] = sum(len(o.trials) for o in outcomes)
    record["seconds"] = _total(k.choice.seconds for k in kernels)
    if outcomes:
        changed = any(o.winner.schedule.digest != o.default.schedule.digest for o in outcomes)
        record["winner"] = "tuned" if changed else "default"
        if len(outcomes) == len(kernels):
            record["default_seconds"] = _total(o.default_seconds for o in outcomes)
    rates(record, prepared)


def rates(record: Record, prepared: Prepared) -> None:
    """Fill in what follows from `seconds`."""
    from ..report import roofline_seconds

    if seconds := record["seconds"]:
        record["gflops"] = prepared.program.flops / seconds / 1e9
        record["gbytes_per_s"] = prepared.program.bytes / seconds / 1e9
        roof = roofline_seconds(prepared.program, prepared.workshop.spec, prepared.threads)
        record["roofline_fraction"] = roof / seconds


def _total(seconds: Iterable[float | None]) -> float | None:
    """Of all kernels; None where one has not been measured."""
    total = sum(math.inf if s is None else s for s in seconds)
    return total if math.isfinite(total) else None


def _digest(parts: list[str]) -> str:
    """Of several kernels one digest; a single kernel keeps its own, by which the store knows it."""
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def exit_code(records: Iterable[Mapping[str, Any]], frozen: bool = False) -> int:
    """0 all ok; 1 some not; 4 nothing valid although measuring was tried; 5 a frozen store lacks one; 130 interrupted."""
    statuses = [Status(r["status"]) for r in records]
    if Status.INTERRUPTED in statuses:
        return 130
    if all(s is Status.OK for s in statuses):
        return 0
    if frozen:
        return 5
    return 1 if Status.OK in statuses or set(statuses) == {Status.UNSUPPORTED} else 4


class State:
    """The finished cases of a sweep, one JSON line each, written when a case ends; a line cut short counts for nothing."""

    def __init__(self, path: Path | None, resume: bool) -> None:
        self.path, self.done = path, {}  # type: Path | None, dict[str, Record]
        if path is not None and resume and path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self.done[row["key"]] = {name: row["record"][name] for name in FIELDS}
                except (ValueError, KeyError, TypeError):
                    continue
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            draft.write_text("".join(map(_line, self.done.items())), "utf-8")
            draft.replace(path)

    @staticmethod
    def place(directory: Path | None, cases: Iterable[Case], options: Options) -> Path | None:
        """Where the state of this very sweep lies by default."""
        if directory is None:
            return None
        text = "\n".join([options.device, str(options.threads), *(case.key for case in cases)])
        return directory / "sweeps" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.jsonl"

    def key(self, case: Case, options: Options) -> str:
        """Of the case here; a user's function that has changed makes it another case."""
        try:
            meaning = program(case).digest if ":" in case.op else ""
        except AutotuneError:
            meaning = ""
        text = f"{case.key}\n{options.device}\n{options.threads}\n{meaning}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, case: Case, options: Options) -> Record | None:
        """The record of a case that was finished before."""
        record = self.done.get(self.key(case, options))
        return record if record is not None and record["status"] != Status.INTERRUPTED else None

    def put(self, case: Case, options: Options, record: Record) -> None:
        if self.path is not None and record["status"] != Status.INTERRUPTED:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line((self.key(case, options), record)))


def _line(row: tuple[str, Record]) -> str:
    return json.dumps({"key": row[0], "record": row[1]}) + "\n"
