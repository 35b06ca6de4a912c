"""`autotune report`: cases, the records of an earlier sweep, or a model, gathered and written as one page.

Knows what a report may be asked for and what a record says; how the page looks is `page`'s business, what is seen of a
model its plugin's.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..codegen import build
from ..devices import DeviceSpec, device
from ..devices.records import Status
from ..ir.errors import AutotuneError, DeviceError, MeasureError, UsageError
from ..options import Options
from ..page import facts
from ..page.document import html, plotly_js
from ..page.graph import draw
from ..page.launches import boxes, joints
from ..report import moved, roofline_seconds
from . import bench, shortlists
from .grid import Case, entries, entry
from .output import Progress, say, words
from .run import FIELDS, Record, exit_code, prepare, run, save

ROUNDS = 15
TOLD = 25  # records after which progress is said
_PEER_NAMES = {"eager", "inductor"}
_NUMBERS = ("seconds", "default_seconds", "gflops", "gbytes_per_s", "roofline_fraction")


@dataclass
class _Gathered:
    """What is known so far. A kernel's number is its place."""

    kernels: list[facts.Kernel] = field(default_factory=list)
    wholes: list[facts.Whole] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    specs: list[tuple[DeviceSpec, int]] = field(default_factory=list)


def is_records(rows: Sequence[Any]) -> bool:
    """Did a sweep or a comparison write these entries, or are they cases to run?"""
    return any(isinstance(row, dict) and "status" in row for row in rows)


def is_model(op: str | None, given: Sequence[str]) -> bool:
    """A function without arrays or parameters makes a model."""
    return op is not None and ":" in op and not given


def check(output: Path) -> None:
    """What must hold before anything is measured. Raises UsageError, and DeviceError where plotly is missing."""
    if not output.parent.is_dir():
        raise UsageError(f"-o {output}: no such folder")
    plotly_js()


def of_cases(
    todo: Sequence[Case], options: Options, tune: bool, against: str | None, command: str, output: Path, quiet: bool
) -> int:
    """Report on cases, tuned first or as they stand in the store; the exit code is that of a sweep."""
    names = bench.peers(against, todo) if against else []
    found, records = _Gathered(), list[Record]()
    progress = Progress(len(todo), quiet, not options.no_color)
    with closing(progress):
        for case in todo:
            progress.start(str(case), options.budget or 1.0)
            again = True if tune else None
            if names:
                record = bench.compare(case, options, names, ROUNDS, again, progress.trial)
            else:
                record = run(case, options, progress.trial, again)
            if record["status"] == Status.INTERRUPTED:
                raise KeyboardInterrupt
            records.append(record)
            _add(found, record, case, options)
            progress.finish({**record, "seconds": found.wholes[-1].seconds})
    title = str(todo[0]) if len(todo) == 1 else f"{len(todo)} cases of {', '.join(dict.fromkeys(c.op for c in todo))}"
    _write(found, title, command, output)
    return exit_code(records, options.frozen)


def of_records(
    path: Path, rows: Sequence[Any], options_of: Callable[[Record], Options], command: str, output: Path, quiet: bool
) -> int:
    """Report on what a sweep or a comparison found, beside the schedules that the store has for it now."""
    found = _Gathered()
    records = [_record(path, number, row) for number, row in enumerate(rows, 1)]
    for number, record in enumerate(records, 1):
        if number % TOLD == 0 and not quiet:
            say(f"{number} of {len(records)} records")
        try:
            plain = {name: record[name] for name in ("op", "params", "dtype")} | {"arrays": record.get("arrays", {})}
            (case,) = entry(path, number, plain)
            _add(found, record, case, options_of(record))
        except (AutotuneError, ValueError) as error:
            problem = str(error).splitlines()[0]
            found.notes.append(f"{record['op']} {words(record['params'])}: its kernels cannot be shown here: {problem}")
            found.wholes.append(_whole(record, (), ""))
    _write(found, f"{path.name}: {len(rows)} cases", command, output)
    return 0


def _record(path: Path, number: int, row: Any) -> Record:
    """A record of a file, with the fields and types that one has. Raises UsageError that names what is wrong."""
    where = f"{path}, record {number}"
    if not isinstance(row, dict):
        raise UsageError(f"{where}: a record is a JSON object, not {type(row).__name__}")
    if lost := [name for name in FIELDS if name not in row]:
        raise UsageError(f"{where} has no field {lost[0]!r}; give a file that `autotune sweep --format json` wrote")
    for name in _NUMBERS:
        if row[name] is not None and not _positive(row[name]):
            raise UsageError(f"{where}: {name} is {row[name]!r:.40}, expected a number above 0, or null")
    peers = row.get("peers") or {}
    texts = (row["op"], row["dtype"], row["device"], row["status"], row["message"])
    right = isinstance(row["params"], dict) and isinstance(peers, dict) and all(isinstance(t, str) for t in texts)
    if not right or not isinstance(row["trials"], int) or not isinstance(row["threads"], (int, type(None))):
        raise UsageError(f"{where}: params and peers are objects, threads and trials integers, what is said is text")
    for name, peer in peers.items():
        if not isinstance(peer, dict) or not all(_positive(peer.get(part)) for part in ("seconds", "ratio")):
            raise UsageError(f"{where}: the peer {name!r:.40} has no seconds and ratio above 0")
    return row


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _add(found: _Gathered, record: Record, case: Case, options: Options) -> None:
    """A case with the kernels that run it now; where there can be none, the record alone."""
    if record["status"] != Status.OK:
        found.wholes.append(_whole(record, (), ""))
        return
    prepared = prepare(case, options)
    spec, threads = prepared.workshop.spec, prepared.threads
    found.specs.append((spec, threads))
    seconds, how = facts.timed(prepared)
    if len(seconds) == 1 and record["seconds"]:
        seconds, how = [record["seconds"]], ["the sweep's" if record["source"] else how[0]]
    names = [str(case)] if len(seconds) == 1 else [f"{case}, kernel {n}" for n in range(len(seconds))]
    first = len(found.kernels)
    found.kernels += facts.kernels(prepared, names, seconds, how)
    drawn = boxes(prepared, [name.split(", ")[-1] for name in names], seconds, first=first)
    whole = _whole(record, range(first, len(found.kernels)), draw(drawn, joints(prepared)))
    total = whole.seconds or (sum(s or 0.0 for s in seconds) if all(seconds) else None)
    program = prepared.program
    roof = roofline_seconds(program, spec, threads)
    found.wholes.append(replace(whole, seconds=total, flops=program.flops, bytes=moved(program), roof=roof))
    schedules = [k.choice.schedule.digest for k in prepared.kernels]
    if len(schedules) == 1 and record["schedule"] not in ("", schedules[0]):
        found.notes.append(
            f"{case}: the times are of schedule {record['schedule'][:12]}, and the store has {schedules[0][:12]} now, "
            "which is the one that is shown"
        )


def _whole(record: Record, kernels: Sequence[int], graph: str) -> facts.Whole:
    seconds = record["seconds"]
    known = {name: record[name] * seconds * 1e9 if seconds and record[name] else None for name in _NUMBERS[2:4]}
    roof = record["roofline_fraction"] * seconds if seconds and record["roofline_fraction"] else None
    peers = {n: facts.Peer(p["seconds"], p["ratio"]) for n, p in (record.get("peers") or {}).items()}
    return facts.Whole(
        f"{record['op']} {words(record['params'])}", record["dtype"], record["status"], record["message"],
        record["source"] or "", record["trials"], seconds, record["default_seconds"], known["gflops"],
        known["gbytes_per_s"], roof, peers, tuple(kernels), (), graph,
    )  # fmt: skip


def of_model(
    plugin: Any, name: str, model: Any, inputs: Sequence[Any], given: Mapping[str, Any], against: Sequence[str],
    command: str, output: Path, quiet: bool,
) -> int:  # fmt: skip
    """Report on a model: its kernels timed within its calls, and the model beside others in turn."""
    note = (lambda text: None) if quiet else say
    seen = plugin.inspect(model, *inputs, options=given, against=against, rounds=ROUNDS, progress=note)
    if not seen.parts:
        raise MeasureError(f"{name}: no part of this model is computed by kernels")
    found = _Gathered(notes=[*seen.notes])
    firsts, names = [], []
    for part in seen.parts:
        prepared, count = part.prepared, len(part.seconds)
        firsts.append(len(found.kernels))
        names.append([f"kernel {firsts[-1] + n}" for n in range(count)])
        note(f"writing down {prepared.said.title}: {count} kernel{'s' * (count != 1)}")
        how = [f"median of {part.calls} calls of the model"] * count
        found.kernels += facts.kernels(prepared, names[-1], part.seconds, how)
        found.specs.append((prepared.workshop.spec, prepared.threads))
    ours = seen.ways.pop("autotune")
    peers = {way: facts.Peer(s, r) for way, (s, r) in seen.ways.items()}
    total: dict[str, Any] = {
        "flops": sum(k.flops for k in found.kernels), "bytes": sum(k.bytes for k in found.kernels),
        "roof": sum(k.roof for k in found.kernels), "trials": sum(len(k.trials) for k in found.kernels),
    }  # fmt: skip
    sources = {k.choice.source for part in seen.parts for k in part.prepared.kernels}
    found.wholes.append(
        facts.Whole(
            name, ", ".join(dict.fromkeys(k.dtype for k in found.kernels)), source=", ".join(sorted(sources)),
            seconds=ours[0], peers=peers, kernels=tuple(range(len(found.kernels))), graph=seen.graph(names, firsts),
            rest=tuple(facts.Rest(*row) for row in seen.rest), **total,
        )
    )  # fmt: skip
    _write(found, name, command, output, seen.versions)
    return 0


def _write(
    found: _Gathered, title: str, command: str, output: Path, versions: Sequence[tuple[str, str]] = ()
) -> None:
    if not found.specs:
        found.specs.append((device("cpu"), 1))
    (spec, threads), *others = dict.fromkeys(found.specs)
    if others:
        more = ", ".join(f"{s.id} with {t} thread{'s' * (t != 1)}" for s, t in others)
        found.notes.append(f"the lines of the roofline are those of {spec.id}, {threads} threads; there is also {more}")
    roof = facts.roof(spec, threads, [k.dtype for k in found.kernels] or ["f32"])
    save(output, html(facts.Report(
        title, command, tuple(found.kernels), tuple(found.wholes), roof,
        (*_environment(spec, threads, roof), *versions), tuple(found.notes),
    )))  # fmt: skip
    say(f"{output}: {len(found.kernels)} kernels")


def _environment(spec: DeviceSpec, threads: int, roof: facts.Roof) -> list[tuple[str, str]]:
    from .. import __version__

    made = build.versions()
    levels = ", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, rate in roof.levels.items())
    peaks = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in roof.peaks.items())
    measured = {name for name, how in spec.provenance if how == "measured"} & {"peak_flops", "bandwidth"}
    rows = [
        ("device", f"{spec.name} ({spec.id}), {spec.cores} cores"), ("threads", str(threads)),
        ("peak", peaks), ("bandwidth, reading and writing", levels),
        ("the machine's limits are", "measured" if len(measured) == 2 else "estimates: `autotune devices --calibrate`"),
        ("date", datetime.fromtimestamp(time.time()).astimezone().isoformat(" ", "seconds")),
        ("system", platform.platform()), ("Python", platform.python_version()), ("NumPy", _version("numpy")),
        ("autotune", f"{__version__} ({made['autotune']})"),
        ("LLVM", f"{made['llvm']} (llvmlite {made['llvmlite']})"),
    ]  # fmt: skip
    return rows


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def model_peers(text: str | None) -> list[str]:
    """The names in `--against` for a model. Raises UsageError for one that there is not."""
    names = [name.strip() for name in (text or "eager,inductor").split(",")]
    if wrong := [name for name in names if name not in _PEER_NAMES]:
        raise UsageError(f"--against {wrong[0]}: a model is compared with eager, inductor or both")
    return names


def rows_of(path: Path) -> list[Any]:
    """The entries of a file that is to be reported on. Raises UsageError where it is none."""
    if path.suffix == ".csv":
        raise UsageError(f"{path}: a table in CSV lacks types; write the sweep with --format json or jsonl")
    if shortlists.is_shortlist(path):
        raise UsageError(f"{path} lists candidates, and nothing of it was measured: autotune sweep --from {path} first")
    found = entries(path)
    if not found:
        raise UsageError(f"{path} has no records and no cases")
    return found


def plugin_of_models() -> Any:
    """torch's plugin. Raises DeviceError where torch is not installed."""
    try:
        from ..plugins import torch as plugin
    except ImportError as error:
        raise DeviceError(str(error)) from error
    return plugin
