"""What a report shows, as plain data: each kernel with its times, schedule and source, and what they are part of.

Knows prepared programs and the store's trials. Must not know how anything is drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..devices.records import Status
from ..ir.errors import ScheduleError
from ..ir.program import TensorProgram
from ..report import counted, describe, explained, moved, roofline_seconds

if TYPE_CHECKING:
    from ..cache.records import Record
    from ..devices.spec import DeviceSpec
    from ..session import Prepared

TURNS = 10.0  # seconds for timing kernels that nobody has timed yet
LOOKED = 256  # of the model's candidates, in search of the one that runs
PAUSE = 10.0  # seconds between two trials, above which they belong to different tunings


@dataclass(frozen=True)
class Trial:
    """A candidate: seconds of one call, None where it failed; `at`: seconds of tuning until then."""

    at: float
    seconds: float | None
    status: str


@dataclass(frozen=True)
class Kernel:
    """One kernel. Times in seconds, `roof` the least that the machine allows; `how` says where `seconds` comes from.

    `level`: the memory whose bandwidth the roof takes; `dtype`: the type it computes with; `trials` in their order.
    """

    title: str
    operations: str
    dtype: str
    flops: int
    bytes: int
    seconds: float | None
    how: str
    predicted: float | None
    roof: float
    level: str
    chosen: str
    schedule: tuple[str, ...]
    program: tuple[str, ...]
    explain: tuple[str, ...]
    nest: str
    source: str
    language: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Peer:
    """Seconds of one call of another library, and how many times faster ours is in paired rounds, where known."""

    seconds: float
    ratio: float | None = None


@dataclass(frozen=True)
class Rest:
    """What a whole spends outside of kernels: an operation that other code computes, `count` times, and why."""

    title: str
    count: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Whole:
    """A case of a sweep, or a model: what is compared with peers. `roof`: of all its kernels together.

    `kernels`: their numbers in the report; `graph`: SVG. A whole of which only a record is known has no kernels.
    """

    title: str
    dtype: str = ""
    status: str = "ok"
    message: str = ""
    source: str = ""
    trials: int = 0
    seconds: float | None = None
    default: float | None = None
    flops: float | None = None
    bytes: float | None = None
    roof: float | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    kernels: tuple[int, ...] = ()
    rest: tuple[Rest, ...] = ()
    graph: str = ""


@dataclass(frozen=True)
class Roof:
    """The machine's limits for so many threads: flops a second by type, bytes a second by level of memory."""

    device: str
    threads: int
    peaks: Mapping[str, float]
    levels: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """All of one page. `environment`: name and value, for people."""

    title: str
    command: str
    kernels: tuple[Kernel, ...]
    wholes: tuple[Whole, ...]
    roof: Roof
    environment: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def kernels(
    prepared: Prepared, names: Sequence[str], seconds: Sequence[float | None], how: Sequence[str]
) -> list[Kernel]:
    """The kernels of a program, in the order in which they run; one value of `names`, `seconds` and `how` for each."""
    shop, found = prepared.workshop, []
    language = shop.spec.kind if shop.spec.blocks else "llvm"
    for n, (k, name, spent, said) in enumerate(zip(prepared.kernels, names, seconds, how, strict=True)):
        found.append(
            Kernel(
                name, counted(prepared.operations(n)), _dtype(k.program), k.program.flops, moved(k.program), spent,
                said if spent else "", k.choice.predicted or _predicted(prepared, k.program, k.choice.schedule.digest),
                roofline_seconds(k.program, shop.spec, prepared.threads), shop.spec.level_of(moved(k.program)),
                f"{k.choice.source} ({k.choice.reason})", tuple(map(str, k.choice.schedule.steps)),
                tuple(describe(k.original)), tuple(explained(prepared, n, spent)), str(shop.nest(k)),
                shop.text(k, "kernel", language), language, trials(shop.trials(k.program)),
            )
        )  # fmt: skip
    return found


def _predicted(prepared: Prepared, program: TensorProgram, schedule: str) -> float | None:
    """The model's time of a schedule that came from elsewhere, where it is among those that the model ranks."""
    ranked = prepared.workshop.ranking(program).best(apart=0, limit=LOOKED)
    try:
        found = next((c.predicted for c in ranked if c.schedule.digest == schedule), math.inf)
    except ScheduleError:  # a point that its sketch cannot express ends the row
        return None
    return found if math.isfinite(found) else None


def _dtype(program: TensorProgram) -> str:
    return max((c.dtype.compute for c in program.computes), key=lambda d: d.bits).name


def trials(records: Sequence[Record]) -> tuple[Trial, ...]:
    """Stored measurements of one kernel as they followed each other, without the pauses between tunings and without
    what a deadline cut short. None where their order was not kept."""
    if len({r.created for r in records}) < len(records):
        return ()
    records = [r for r in records if r.measurement.status != Status.INTERRUPTED]
    found, at = [], 0.0
    for before, r in zip([records[0], *records] if records else [], records):
        gap = r.created - before.created
        at += gap if gap < PAUSE else 0.0
        found.append(Trial(round(at, 4), r.measurement.seconds if r.ok else None, str(r.measurement.status)))
    return tuple(found)


def timed(prepared: Prepared) -> tuple[list[float | None], list[str]]:
    """Seconds of each kernel and where they come from: what is stored, else all of them timed in turn now."""
    stored = [k.choice.seconds for k in prepared.kernels]
    if all(stored):
        return stored, ["stored: alone, when it was tuned"] * len(stored)
    shop = prepared.workshop
    pairs = list({k.program.digest: (k.program, k.choice.schedule) for k in prepared.kernels}.values())
    rows = shop.paired(pairs, time.monotonic() + TURNS)
    known = dict(zip((program.digest for program, _ in pairs), rows))
    return [known.get(k.program.digest) for k in prepared.kernels], ["in turn, for this report"] * len(stored)


def roof(spec: DeviceSpec, threads: int, dtypes: Sequence[str]) -> Roof:
    """The limits for these types of numbers."""
    levels = [c.name for c in spec.caches] + ["DRAM"]
    peaks = {name: spec.peak(name, threads) for name in dict.fromkeys(dtypes)}
    known = {level: spec.bytes_per_second(level, "copy", threads) for level in dict.fromkeys(levels)}
    return Roof(f"{spec.name} ({spec.id})", threads, peaks, known)
