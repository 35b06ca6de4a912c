"""`autotune cache`: look at what was measured, check it, and exchange it as packs or databases.

Knows stores, packs and how records read; what a record must be is said in `cache`, whether a schedule holds in `ir`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from ..cache import pack
from ..cache.objects import ObjectCache
from ..cache.records import Record, to_json
from ..cache.store import Store, open_store
from ..devices.spec import DeviceSpec
from ..ir.errors import AutotuneError, CacheError, UsageError
from ..ir.program import from_json as program_from_json
from ..ir.schedule import from_json as schedule_from_json
from ..options import Options, resolve
from ..report import duration
from .output import aligned, say

_FORMAT = click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
_PATH = click.Path(path_type=Path)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def store_of(context: click.Context, readonly: bool = True) -> Store:
    """The store that the commands work on: the default one, or that of --store."""
    if context.obj is not None:
        if readonly and not Path(context.obj).exists():
            raise UsageError(f"--store {context.obj}: there is no such file")
        return open_store(context.obj, readonly)
    options = resolve()
    return open_store(options.store(), readonly or options.cache == "readonly")


def load(path: Path) -> list[Record]:
    """The records of a database or of a pack."""
    try:
        with open(path, "rb") as file:
            database = file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not database:
        return pack.read(path, schedule_from_json)[0]
    other = open_store(path, readonly=True)
    try:
        return list(other.records())
    finally:
        other.close()


def proved(record: Record) -> str:
    """What is wrong with a record here: its schedule is applied, the nest verified and compared with the program. "" if
    nothing is."""
    from ..codegen import build
    from ..ir.equiv import equivalent

    try:
        program = program_from_json(json.loads(record.key.program_json))
        schedule = schedule_from_json(json.loads(record.schedule_json))
        build.plan(program, schedule, DeviceSpec.from_json(json.loads(record.key.device_json)))
        report = equivalent(program, schedule)
    except (AutotuneError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return "" if report.ok else f"it computes another function: {report.message}"


@click.group()
def group() -> None:
    """What was measured."""


@group.command("ls")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@_FORMAT
@click.pass_context
def ls(context: click.Context, limit: int, form: str) -> None:
    """The best schedule of each program, newest first."""
    place = lambda r: (r.key.program, r.key.device_digest, r.key.toolchain, r.key.policy)
    records = sorted(store_of(context).records(), key=lambda r: (place(r), r.rank, r.id))
    groups = [list(rows) for _, rows in groupby(records, key=place)]
    groups.sort(key=lambda rows: -max(r.created for r in rows))
    rows = [{"program": best.key.program, "extents": list(best.key.extents), "device": best.key.device,
             "policy": best.key.policy, "status": str(best.measurement.status), "records": len(all_),
             "seconds": best.measurement.seconds if best.ok else None, "schedule": best.schedule, "local": best.local,
             "created": best.created} for all_ in groups[:limit] for best in all_[:1]]  # fmt: skip
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    heads = ["program", "extents", "device", "policy", "status", "time", "schedule", "records", "from", "measured"]
    click.echo(aligned(heads, [
        [r["program"][:12], "x".join(map(str, r["extents"])), r["device"], r["policy"], r["status"], duration(r["seconds"]),
         r["schedule"][:12], str(r["records"]), "here" if r["local"] else "import",
         time.strftime("%Y-%m-%d", time.gmtime(r["created"]))] for r in rows
    ]), nl=False)  # fmt: skip
    if len(groups) > limit:
        say(f"{len(groups) - limit} more: --limit")


@group.command()
@click.argument("digest")
@click.pass_context
def show(context: click.Context, digest: str) -> None:
    """Every record whose own digest, program or schedule begins with DIGEST, in full, best first."""
    rows = [r for r in store_of(context).records() if digest and any(d.startswith(digest) for d in (r.id, r.key.program, r.schedule))]
    if not rows:
        raise CacheError(f"no record begins with {digest}; `autotune cache ls` shows what there is")
    for r in sorted(rows, key=lambda r: (r.key.program, r.rank, r.id)):
        click.echo(json.dumps({"id": r.id, "local": r.local, **to_json(r)}))


@group.command()
@_FORMAT
@click.pass_context
def stat(context: click.Context, form: str) -> None:
    """Where the store is, its size and counts."""
    found = store_of(context).stat()
    if form == "json":
        click.echo(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        text = ", ".join(f"{k} {n}" for k, n in value.items()) or "-" if isinstance(value, dict) else value
        click.echo(f"{name:10} {text}")


@group.command()
@click.option("--limit", type=click.IntRange(1), help="the best of this many programs only")
@click.pass_context
def verify(context: click.Context, limit: int | None) -> int:
    """Prove the best schedule of each program again: exit 1 if one does not hold."""
    found: dict[tuple[str, str], Record] = {}
    for r in sorted((r for r in store_of(context).records() if r.ok), key=lambda r: (r.rank, r.id)):
        found.setdefault((r.key.program, r.key.device_digest), r)
    bad = 0
    for r in list(found.values())[:limit]:
        problem = proved(r)
        bad += bool(problem)
        click.echo(f"{'failed' if problem else 'ok':7} {r.key.program[:12]} {r.schedule[:12]} {problem}".rstrip())
    click.echo(f"{len(list(found)[:limit]) - bad} hold, {bad} do not")
    return int(bad > 0)


@group.command()
@click.argument("path", type=_PATH)
@click.option("--program", help="one program's records only, by its digest")
@click.pass_context
def export(context: click.Context, path: Path, program: str | None) -> None:
    """Write a pack: JSON lines without code, and nothing that is true of this installation only."""
    click.echo(f"{pack.export(store_of(context).records(program=program), path)} records in {path}")


@group.command("import")
@click.argument("path", type=_PATH)
@click.option("--keep-going", is_flag=True, help="leave bad lines out instead of refusing the pack")
@click.option("--eager", is_flag=True, help="prove every schedule now, and leave out those that do not hold")
@click.pass_context
def import_(context: click.Context, path: Path, keep_going: bool, eager: bool) -> int:
    """Add the records of a pack as foreign ones; each is proved here before its first use."""
    records, problems = pack.read(path, schedule_from_json, keep_going)
    if eager:
        broken = [(r, problem) for r in records if r.ok and (problem := proved(r))]
        problems += [(0, f"{r.schedule[:12]}: {problem}") for r, problem in broken]
        gone = {r.id for r, _ in broken}
        records = [r for r in records if r.id not in gone]
    for number, why in problems:
        say(f"left out: {f'line {number}: ' if number else ''}{why}")
    new = _add(context, records)
    click.echo(f"{len(records)} records read, {new} of them new")
    return int(bool(problems))


@group.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.pass_context
def merge(context: click.Context, paths: tuple[Path, ...]) -> None:
    """Add the records of other databases and packs as foreign ones."""
    records = [r for path in paths for r in load(path)]
    click.echo(f"{len(records)} records read, {_add(context, records)} of them new")


def _add(context: click.Context, records: Iterable[Record]) -> int:
    store = store_of(context, readonly=False)
    try:
        return store.put_many(replace(r, local=False, checks=()) for r in records)
    finally:
        store.close()


@group.command()
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH, required=False)
@_FORMAT
@click.pass_context
def diff(context: click.Context, before: Path, after: Path | None, form: str) -> None:
    """What AFTER (default: the store) has and lacks beside BEFORE, and where the best schedule is another."""
    new = load(after) if after else list(store_of(context).records())
    found = pack.diff(load(before), new)
    if form == "json":
        names: dict[str, Any] = {"added": [r.id for r in found.added], "removed": [r.id for r in found.removed],
                                 "changed": [[a.id, b.id] for a, b in found.changed]}  # fmt: skip
        click.echo(json.dumps(names, indent=1))
        return
    for a, b in found.changed:
        click.echo(f"best of {a.key.program[:12]} {'x'.join(map(str, a.key.extents))}: "
                   f"{a.schedule[:12]} {duration(a.measurement.seconds)} -> {b.schedule[:12]} {duration(b.measurement.seconds)}")  # fmt: skip
    click.echo(f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} with another best schedule")


@group.command()
@click.option("--keep", type=click.IntRange(1), default=16, show_default=True, help="best records of each program to keep")
@click.option("--older", metavar="30d", help="of records older than this keep only the best of each program")
@click.option("--dry-run", is_flag=True, help="only count")
@click.pass_context
def gc(context: click.Context, keep: int, older: str | None, dry_run: bool) -> None:
    """Remove what is not worth keeping, and machine code beyond its limit."""
    store = store_of(context, readonly=dry_run)
    gone = store.gc(keep, None if older is None else time.time() - _age(older), dry_run)
    store.close()
    freed = 0
    options: Options = resolve()
    if not dry_run and context.obj is None and (home := options.directory()) is not None:
        freed = ObjectCache(home / "objects").gc()
    click.echo(f"{gone} records {'would be ' * dry_run}removed, {freed} bytes of machine code freed")


def _age(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS[text[-1]]
    except (ValueError, KeyError, IndexError):
        raise UsageError(f"--older {text}: a number with s, m, h or d, such as 30d") from None
