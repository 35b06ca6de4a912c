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
from ..options import resolve
from ..report import duration
from .output import FORMAT, aligned, say, words

_PATH = click.Path(path_type=Path)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
@click.option("--store", type=_PATH, help="Another store than the default one.")
@click.pass_context
def cache(context: click.Context, store: Path | None) -> None:
    """Keep, check and share what was measured."""
    context.obj = store


def default_store(write: bool = False) -> Store:
    options = resolve()
    return open_store(options.store(), not write or options.cache == "readonly")


def _store(context: click.Context, write: bool = False) -> Store:
    """The store that a command works on: that of --store, or the default one."""
    path: Path | None = context.obj
    if path is not None and not write and not path.exists():
        raise UsageError(f"--store {path}: there is no such file")
    return open_store(path, not write) if path is not None else default_store(write)


def _load(path: Path) -> list[Record]:
    """The records of a database or of a pack."""
    try:
        with open(path, "rb") as file:
            database = file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return list(open_store(path, readonly=True).records()) if database else pack.read(path, schedule_from_json)[0]


def _add(context: click.Context, records: Iterable[Record]) -> None:
    rows = [replace(r, local=False, checks=()) for r in records]
    click.echo(f"{len(rows)} records read, {_store(context, write=True).put_many(rows)} of them new")


def _problem(record: Record) -> str:
    """Why a record does not hold, if so: its schedule is applied, the nest verified and compared with the program."""
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


def _best(records: Iterable[Record]) -> list[tuple[Record, int]]:
    """The best record of each key and how many the key has, newest first."""

    def place(r: Record) -> tuple[str, ...]:
        return r.key.program, r.key.device_digest, r.key.toolchain, r.key.policy

    groups = [[*rows] for _, rows in groupby(sorted(records, key=lambda r: (place(r), r.rank, r.id)), key=place)]
    groups.sort(key=lambda rows: -max(r.created for r in rows))
    return [(rows[0], len(rows)) for rows in groups]


@cache.command("ls")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@FORMAT
@click.pass_context
def ls(context: click.Context, limit: int, form: str) -> None:
    """The best schedule of each program, newest first."""
    rows: list[dict[str, Any]] = [
        {"program": r.key.program, "extents": list(r.key.extents), "device": r.key.device, "policy": r.key.policy,
         "status": str(r.measurement.status), "seconds": r.measurement.seconds if r.ok else None,
         "schedule": r.schedule, "records": count, "local": r.local, "created": r.created}
        for r, count in _best(_store(context).records())[:limit]
    ]  # fmt: skip
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    heads = ("program", "extents", "device", "policy", "status", "seconds", "schedule", "records", "local")
    short = [{**row, "program": row["program"][:12], "extents": "x".join(map(str, row["extents"])),
              "seconds": duration(row["seconds"]), "schedule": row["schedule"][:12]} for row in rows]  # fmt: skip
    click.echo(aligned(heads, [[str(row[name]) for name in heads] for row in short]), nl=False)


@cache.command()
@click.argument("digest")
@click.pass_context
def show(context: click.Context, digest: str) -> None:
    """Every record whose own digest, program or schedule begins with DIGEST, in full, best first."""
    records = _store(context).records()
    rows = [r for r in records if any(d.startswith(digest) for d in (r.id, r.key.program, r.schedule))]
    if not digest or not rows:
        raise CacheError(f"no record begins with {digest!r}; `autotune cache ls` shows what there is")
    for r in sorted(rows, key=lambda r: (r.key.program, r.rank, r.id)):
        click.echo(json.dumps({"id": r.id, "local": r.local, **to_json(r)}))


@cache.command()
@FORMAT
@click.pass_context
def stat(context: click.Context, form: str) -> None:
    """Where the store is, its size and counts."""
    found = _store(context).stat()
    plain = [f"{name:10} {words(value) if isinstance(value, dict) else value}" for name, value in found.items()]
    click.echo(json.dumps(found, indent=1) if form == "json" else "\n".join(plain))


@cache.command()
@click.pass_context
def verify(context: click.Context) -> int:
    """Prove the best schedule of each program again; exit 1 if one does not hold."""
    problems = {r: _problem(r) for r, _ in _best(r for r in _store(context).records() if r.ok)}
    for r, problem in problems.items():
        click.echo(f"{'failed' if problem else 'ok':7} {r.key.program[:12]} {r.schedule[:12]} {problem}".rstrip())
    return int(any(problems.values()))


@cache.command()
@click.argument("path", type=_PATH)
@click.option("--program", help="One program's records only, by its digest.")
@click.pass_context
def export(context: click.Context, path: Path, program: str | None) -> None:
    """Write a pack: JSON lines without code, and nothing that is true of this installation only."""
    click.echo(f"{pack.export(_store(context).records(program=program), path)} records in {path}")


@cache.command("import")
@click.argument("path", type=_PATH)
@click.option("--keep-going", is_flag=True, help="Leave bad lines out instead of refusing the pack.")
@click.option("--eager", is_flag=True, help="Prove every schedule now, and leave out those that do not hold.")
@click.pass_context
def import_(context: click.Context, path: Path, keep_going: bool, eager: bool) -> int:
    """Add the records of a pack as foreign ones; each is proved here before its first use."""
    records, problems = pack.read(path, schedule_from_json, keep_going)
    broken = {r.id: problem for r in records if eager and r.ok and (problem := _problem(r))}
    for why in [*(f"line {number}: {why}" for number, why in problems), *(f"{i}: {why}" for i, why in broken.items())]:
        say(f"left out: {why}")
    _add(context, [r for r in records if r.id not in broken])
    return int(bool(problems or broken))


@cache.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.pass_context
def merge(context: click.Context, paths: tuple[Path, ...]) -> None:
    """Add the records of other databases and packs as foreign ones."""
    _add(context, [r for path in paths for r in _load(path)])


@cache.command()
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH, required=False)
@click.pass_context
def diff(context: click.Context, before: Path, after: Path | None) -> None:
    """What AFTER (default: the store) has and lacks beside BEFORE, and where the best schedule is another."""
    found = pack.diff(_load(before), _load(after) if after else _store(context).records())
    for pair in found.changed:
        told = " -> ".join(f"{r.schedule[:12]} {duration(r.measurement.seconds)}" for r in pair)
        click.echo(f"{pair[0].key.program[:12]} {list(pair[0].key.extents)}: {told}")
    click.echo(f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} with another best")


@cache.command()
@click.option("--keep", type=click.IntRange(1), default=16, show_default=True, help="Records to keep of each program.")
@click.option("--older", metavar="30d", help="Of records older than this keep only the best of each program.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.pass_context
def gc(context: click.Context, keep: int, older: str | None, dry_run: bool) -> None:
    """Remove what is not worth keeping, and machine code beyond its limit."""
    try:
        age = None if older is None else time.time() - float(older[:-1]) * _UNITS[older[-1:]]
    except (ValueError, KeyError):
        raise UsageError(f"--older {older}: a number with s, m, h or d, such as 30d") from None
    gone, home = _store(context, write=not dry_run).gc(keep, age, dry_run), resolve().directory()
    freed = ObjectCache(home / "objects").gc() if home and not dry_run and context.obj is None else 0
    click.echo(f"{gone} records {'would be ' * dry_run}removed, {freed} bytes of machine code freed")
