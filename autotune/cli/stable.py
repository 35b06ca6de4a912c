"""`autotune bench --stability N`: how often a tuning that begins from nothing ends with a slow pick.

How that is found out is in `stability`; here is what is shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from ..devices.records import Status
from ..ir.errors import AutotuneError, DeviceError, UsageError
from ..options import Options
from ..report import duration
from ..stability import ALLOWED, CONDITIONS, MARGIN, Stability, stability
from .bench import margin
from .grid import Case
from .output import aligned, clean, say, words
from .run import Record, exit_code, program, save, status_of

HEADS = ("case", "machine", "tunes", "picks", "flips", "slow", "median regret", "worst regret", "trials", "best")


def bench_stability(
    cases: Sequence[Case], options: Options, tunes: int, slower: str | None, given: Mapping[str, Any]
) -> int:  # fmt: skip
    """Show every case and all together. With `slower` (a share such as "3%"), 1 where more than 5 % of the tunes under
    one condition ended with a pick that is slower than the best by more."""
    if given["form"] not in ("table", "json"):
        raise UsageError(f"--stability writes a table or json, no {given['form']}")
    limit = MARGIN if math.isinf(margin(slower)) else margin(slower)
    records: list[Record] = []
    for case in cases:
        records.append(_record(case, options, tunes, limit, given["quiet"]))
        if records[-1]["status"] == Status.INTERRUPTED:
            break
    text = json.dumps(records, indent=1) + "\n" if given["form"] == "json" else table(records, limit)
    if given["output"] is not None:
        save(given["output"], text)
    else:
        click.echo(text, nl=False)
    late = any(share > ALLOWED for share in _slow(records).values())
    return exit_code(records, False) or int(slower is not None and late)


def _record(case: Case, options: Options, tunes: int, limit: float, quiet: bool) -> Record:
    row: Record = {
        "op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": options.device,
        "threads": options.threads, "status": str(Status.OK), "budget": options.budget, "margin": limit,
        "seconds": None, "message": "",
    }  # fmt: skip

    def told(condition: str, done: int) -> None:
        if not quiet and done == tunes:
            say(f"{case}: {done} tunes, {condition}")

    try:
        found, row["seconds"] = stability(program(case), options, tunes, limit, told)
        row |= {condition: asdict(s) for condition, s in found.items()}
    except KeyboardInterrupt:
        row |= {"status": str(Status.INTERRUPTED), "message": "its picks were not compared"}
    except AutotuneError as error:
        if type(error) in (DeviceError, UsageError):
            raise
        row |= {"status": str(status_of(error)), "message": str(error)}
    return row


def _slow(records: Sequence[Record]) -> dict[str, float]:
    """By condition, the share of all tunes that ended with a slow pick."""
    rows = {c: [r[c] for r in records if c in r] for c in CONDITIONS}
    many = {c: sum(s["tunes"] for s in found) for c, found in rows.items()}
    return {c: sum(s["slow"] * s["tunes"] for s in found) / many[c] for c, found in rows.items() if many[c]}


def table(records: Sequence[Record], limit: float) -> str:
    """For people: a line for each case and condition, then all cases together."""
    rows, notes = [], list[str]()
    for r in records:
        title = f"{r['op']} {words(r['params'])}"
        if r["message"]:
            notes.append(f"{title}: {r['status']}: {clean(r['message'].splitlines()[0])}")
        for condition in (c for c in CONDITIONS if c in r):
            s = Stability(**r[condition])
            shares = [f"{100 * share:.1f} %" for share in (s.flips, s.slow, s.median_regret, s.worst_regret)]
            counts = [title, condition, str(s.tunes), str(s.picks)]
            rows.append([*counts, *shares, f"{s.trials:.0f}", duration(r["seconds"])])
    for condition, share in _slow(records).items():
        more = f"more than {100 * limit:g} % slower than the best pick"
        notes.append(f"{condition}: {100 * share:.1f} % of all tunes picked what is {more}")
    return (aligned(HEADS, rows) if rows else "") + "".join(f"{note}\n" for note in notes)
