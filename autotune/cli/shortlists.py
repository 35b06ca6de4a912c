"""`autotune sweep --no-run` and `--from shortlist.json`: candidates listed for devices that need not be here, and taken
up again on one that is.

Knows the file: its schema, how it is written and what makes one invalid; and the table. How candidates are ranked
belongs to `shortlist`, how they are measured to `run`. A file is data from somewhere: every schedule in it is proved
and measured like any other candidate.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..codegen import build
from ..devices import DeviceSpec, device
from ..devices.records import Status
from ..ir import errors
from ..ir.collapse import normal_form
from ..ir.equiv import prove
from ..ir.schedule import Schedule
from ..ir.schedule import from_json as schedule_from_json
from ..options import Options
from ..report import duration
from ..shortlist import Listed, ready, shortlists
from .grid import Case, cases
from .output import aligned, clean, words
from .run import Record, program, run, status_of

if TYPE_CHECKING:
    from ..session import Prepared

SCHEMA = 1
KIND = "autotune shortlist"
Entry = dict[str, Any]
Schedules = Mapping[str, Sequence[Schedule]]  # by the digest of a kernel's program


# ---- made -----------------------------------------------------------------------------------------------------------


def toolchains(names: Sequence[str], options: Options) -> list[tuple[DeviceSpec, str]]:
    """The devices of these names, each with what compiles for it. Raises DeviceError for the first that is unknown or
    has no toolchain here."""
    from ..session import session

    found = [session().spec(replace(options, device=name)) for name in dict.fromkeys(names)]
    return [(spec, ready(spec)) for spec in found]


def entry(case: Case, spec: DeviceSpec, tool: str, options: Options, top: int, jobs: int) -> Entry:
    """What is listed for one case and device. What fails is a status of the entry, no error."""
    row: Entry = {
        "op": case.op, "params": dict(case.params), "dtype": case.dtype, "arrays": list(case.arrays), "device": spec.id,
        "name": spec.name, "toolchain": tool, "program": "", "status": str(Status.OK), "message": "", "kernels": [],
    }  # fmt: skip
    try:
        made = program(case)
        row["program"] = made.digest
        for kernel, found in shortlists(made, spec, options.threads or 1, top, jobs):
            row["kernels"].append({"program": kernel.digest, "candidates": [_row(*r) for r in enumerate(found, 1)]})
            if found and found[0].status is not Status.OK:
                row |= {"status": str(found[0].status), "message": f"no candidate compiles: {found[0].message}"}
    except errors.AutotuneError as error:
        if type(error) in (errors.DeviceError, errors.UsageError):
            raise
        row |= {"status": str(status_of(error)), "message": str(error)}
    return row


def _row(rank: int, listed: Listed) -> Entry:
    out: Entry = {
        "rank": rank, "status": str(listed.status), "reason": listed.reason, "message": listed.message,
        "schedule": listed.schedule.to_json(), "digest": listed.schedule.digest, "origin": listed.candidate.origin,
        "point": listed.candidate.point, "predicted_seconds": _finite(listed.candidate.predicted),
        "expected_seconds": _finite(listed.expected), "memory": None, "grids": [],
        **{name: listed.most(name) for name in ("registers", "spilled", "shared")},
    }  # fmt: skip
    if listed.memory is not None:
        m, worst = listed.memory, {scope: listed.memory.worst(scope) for scope in ("shared", "global")}
        out["memory"] = {scope: round(m.ratio(scope), 4) for scope in worst} | {
            f"worst_{scope}": None if row is None else str(row) for scope, row in worst.items()}  # fmt: skip
    for g in listed.grids:
        hot = g.report.hot
        out["grids"].append({
            "symbol": g.entry.symbol, "grid": list(g.entry.launch.grid), "block": list(g.entry.launch.block),
            "shared_bytes": g.entry.launch.shared_bytes,
            "resources": asdict(g.report.resources) if g.report.resources else None,
            "occupancy": {**asdict(g.resident), "share": round(g.resident.share, 4)} if g.resident else None,
            "instructions": g.report.code.total if g.report.code else None,
            "hot_loop": None if hot is None else {"instructions": hot.total, "multiply": hot.multiply,
                                                  "share": round(hot.share, 4), "mix": dict(hot.mix[:12])},
        })  # fmt: skip
    return out


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _ratio(memory: Mapping[str, Any] | None, scope: str) -> str:
    return "-" if memory is None else f"{memory[scope]:.2f}x"


def document(entries: Sequence[Entry]) -> str:
    whole = {"kind": KIND, "schema": SCHEMA, "version": __version__, "entries": list(entries)}
    return json.dumps(whole, indent=1) + "\n"


def table(entries: Sequence[Entry]) -> str:
    """Every kernel's candidates in order, for people."""
    heads = ["rank", "status", "predicted", "expected", "registers", "spill", "shared", "occupancy", "conflicts",
             "sectors", "schedule"]  # fmt: skip
    said: list[str] = []
    for e in entries:
        title = clean(f"{e['op']} {words(e['params'])} {e['dtype']} on {e['device']} ({e['toolchain']})")
        said.append(f"{title}: {e['status']}" + (f": {clean(e['message'].splitlines()[0])}" if e["message"] else ""))
        for n, kernel in enumerate(e["kernels"]):
            said += [f"kernel {n}"] if len(e["kernels"]) > 1 else []
            rows, notes = [], []
            for c in kernel["candidates"]:
                main = max(c["grids"], key=lambda g: g["grid"][0] * g["grid"][1] * g["grid"][2], default=None)
                live = main and main["occupancy"]
                rows.append([
                    _text(c["rank"]), c["status"], duration(c["predicted_seconds"]), duration(c["expected_seconds"]),
                    _text(c["registers"]), _text(c["spilled"]), _text(c["shared"]),
                    f"{live['warps']}/{live['most']}" if live else "-", _ratio(c["memory"], "shared"),
                    _ratio(c["memory"], "global"), c["digest"][:12],
                ])  # fmt: skip
                if c["message"]:
                    notes.append(f"  {c['rank']}: {clean(c['message'].splitlines()[0])[:160]}")
            said += [aligned(heads, rows).rstrip("\n"), *notes]
    return "\n".join(said) + "\n" if said else ""


# ---- read -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """The entries of a file that fit one device: their cases, and by case and program of a kernel the schedules to try
    first. `unread`: what became of schedules that are none."""

    device: str
    cases: list[Case]
    first: Mapping[str, Schedules]
    unread: list[str]


def is_shortlist(path: Path) -> bool:
    """Is this file one that `document` wrote, of whatever schema?"""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text("utf-8"))
        return isinstance(value, dict) and value.get("kind") == KIND
    return False


def read(path: Path, wanted: str | None) -> Lists:
    """The entries for the device named `wanted`, else for that of the first entry; those of other kinds are left out.

    Raises UsageError for a file that is not as the schema says, DeviceError where none is for such a device.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["schema"] != SCHEMA:
            raise errors.UsageError(f"{path}: a shortlist of schema {value['schema']!r}; this version reads {SCHEMA}")
        rows = [(e, _case(path, n, e)) for n, e in enumerate(value["entries"], 1)]
        kinds = dict.fromkeys(e["device"].partition(":")[0] for e, _ in rows)
        name = wanted or next((e["device"] for e, _ in rows), "")
        kind = name.partition(":")[0]
        mine = [(e, case) for e, case in rows if e["device"].partition(":")[0] == kind]
        if not mine:
            there = ", ".join(kinds) or "no entry"
            raise errors.DeviceError(f"{path} lists nothing for {name or 'any device'}; it has {there}")
        exact = device(name).id if wanted else name
        mine = [row for row in mine if row[0]["device"] == exact] or mine
        first: dict[str, dict[str, list[Schedule]]] = {}
        unread: list[str] = []
        for e, case in mine:
            for kernel in e["kernels"]:
                known = first.setdefault(case.key, {}).setdefault(str(kernel["program"]), [])
                for c in kernel["candidates"]:
                    try:
                        known.append(schedule_from_json(c["schedule"]))
                    except errors.ScheduleError as error:
                        unread.append(f"{case}: candidate {c['rank']} is no schedule: constraints: {error}")
        return Lists(name, list({case.key: case for _, case in mine}.values()), first, unread)
    except (OSError, ValueError) as error:
        raise errors.UsageError(f"{path} cannot be read: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise errors.UsageError(f"{path} is not a shortlist as `sweep --no-run` writes it: {error!r}") from None


def _case(path: Path, number: int, e: Mapping[str, Any]) -> Case:
    pairs = [*e["arrays"], *(f"{name}={value}" for name, value in e["params"].items())]
    try:
        (case,) = cases(e["op"], pairs, None if ":" in e["op"] else e["dtype"])
    except (errors.UsageError, ValueError) as error:
        raise errors.UsageError(f"{path}, entry {number}: {error}") from None
    return case


def measured(case: Case, lists: Lists, options: Options, progress: Any, note: Callable[[str], None]) -> Record:
    """The record of a case whose listed candidates are tried first; `note` is told, a line each, of those that did not
    work here."""
    first, bad = _proved(case, lists.first.get(case.key, {}), options)
    many = sum(map(len, lists.first.get(case.key, {}).values()))
    record = run(case, options, progress, first=first, done=lambda prepared: bad.extend(_failed(prepared, first)))
    for status, text in bad:
        note(f"{case}: {text}: {status}")
    if bad and record["status"] == Status.OK:
        statuses = ", ".join(f"{n} {status}" for status, n in Counter(status for status, _ in bad).items())
        record["message"] = f"of {many} listed candidates did not work here: {statuses}"
    return record


def _proved(case: Case, listed: Schedules, options: Options) -> tuple[dict[str, list[Schedule]], list[tuple[str, str]]]:
    """The schedules that the verifier and the equivalence check accept for this device; and what is wrong with the
    others."""
    from ..search.plans import plans
    from ..session import session

    good: dict[str, list[Schedule]] = {}
    bad: list[tuple[str, str]] = []
    spec = session().spec(options)
    with suppress(errors.AutotuneError):  # a case that cannot be traced has a record of its own
        found = plans(program(case), spec, session().threads(options))
        for kernel in {k.digest: k for plan in found for k in map(normal_form, plan.kernels)}.values():
            for schedule in listed.get(kernel.digest, ()):
                status = Status.CONSTRAINTS
                try:
                    nest = build.plan(kernel, schedule, spec)
                    status = Status.CORRECTNESS
                    prove(kernel, schedule, nest)
                    good.setdefault(kernel.digest, []).append(schedule)
                except errors.AutotuneError as error:
                    bad.append((str(status), f"schedule {schedule.digest[:12]}: {_short(error)}"))
    return good, bad


def _failed(prepared: Prepared, first: Schedules) -> Iterator[tuple[str, str]]:
    """What became of proved schedules that could not be measured."""
    for digest, outcome in prepared.outcomes.items():
        tried = {t.candidate.schedule.digest: t for t in (*outcome.reused, *outcome.trials)}
        for schedule in first.get(digest, ()):
            trial, name = tried.get(schedule.digest), f"schedule {schedule.digest[:12]}"
            if trial is None:
                yield str(Status.INTERRUPTED), f"{name}: the budget or the trials were used up before"
            elif not trial.build.ok:
                yield str(trial.build.status), f"{name}: {_short(trial.build.message)}"
            elif not trial.measurement.ok:
                yield str(trial.measurement.status), f"{name}: {_short(trial.measurement.message)}"


def _short(message: object) -> str:
    return clean(str(message).partition("\n")[0])[:200]
