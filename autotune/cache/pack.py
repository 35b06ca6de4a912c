"""Packs: records as JSON lines, the form in which they travel. A header line, then one record a line in a fixed order.

Knows the file format, its limits and the algebra of sets of records; must not know what makes a step valid: that is the
caller's `check`. A pack holds data of strangers: nothing in it is run, and nothing of it is believed beyond its form.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..ir.errors import CacheError
from ..ir.program import from_json as program_from_json
from .records import MAX_TEXT, SCHEMA, Record, canonical, from_json, to_json

MAX_LINE, MAX_RECORDS, MAX_BYTES = 3 * MAX_TEXT, 200_000, 1 << 28


@dataclass(frozen=True, slots=True)
class Diff:
    """What `after` has and lacks beside `before`, and (before, after) where the best schedule of a key is another."""

    added: tuple[Record, ...]
    removed: tuple[Record, ...]
    changed: tuple[tuple[Record, Record], ...]


def merge(*sets: Iterable[Record]) -> tuple[Record, ...]:
    """The union, in the order of a pack: commutative, associative, idempotent. Nothing of one installation remains."""
    union = {r.id: replace(r, local=False, checks=()) for records in sets for r in records}
    return tuple(r for _, r in sorted(union.items(), key=lambda row: (_group(row[1]), row[1].rank, row[0])))


def diff(before: Iterable[Record], after: Iterable[Record]) -> Diff:
    old, new = ({r.id: r for r in merge(records)} for records in (before, after))
    was, now = ({_group(r): r for r in reversed(rows.values()) if r.ok} for rows in (old, new))
    added, removed = (tuple(r for n, r in a.items() if n not in b) for a, b in ((new, old), (old, new)))
    both = ((was[g], now[g]) for g in was if g in now)
    return Diff(added, removed, tuple((a, b) for a, b in both if a.schedule != b.schedule))


def _group(r: Record) -> tuple[str, ...]:
    return r.key.program, r.key.device, r.key.device_digest, r.key.toolchain, r.key.policy


def export(records: Iterable[Record], path: Path) -> int:
    """Write a pack, atomically; the same set of records gives the same bytes. Returns how many."""
    rows = merge(records)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(canonical({"pack": "autotune", "records": len(rows), "schema": SCHEMA}) + "\n")
            file.writelines(canonical(to_json(record)) + "\n" for record in rows)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise CacheError(f"{path} cannot be written: {error.strerror}; stored records are untouched") from error
    return len(rows)


def read(
    path: Path, check: Callable[[Any], object] | None = None, keep_going: bool = False
) -> tuple[list[Record], list[tuple[int, str]]]:
    """Read a pack and check every line: size, schema, types, digests, the program, and `check(schedule as JSON)`.

    Returns the records and (line number, what is wrong) of the lines left out. Unless `keep_going` is set, one bad line
    is a CacheError that lists them. A file that is over the limits or no pack is one in any case.
    """
    records: list[Record] = []
    problems: list[tuple[int, str]] = []
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise CacheError(f"{path} is over the limit of {MAX_BYTES >> 20} MiB")
            announced = _header(path, file.readline(MAX_LINE))
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 2):
                if len(line) == MAX_LINE or number > announced + 1:
                    raise CacheError(f"{path}: line {number} is over {MAX_LINE >> 10} KiB, or one more than announced")
                try:
                    records.append(_record(line, check))
                except Exception as error:  # whatever a stranger's line provokes is wrong with that line
                    problems.append((number, f"{type(error).__name__}: {error}"[:200]))
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}") from error
    if (found := len(records) + len(problems)) < announced:
        problems.append((found + 2, f"the file ends here; its header announces {announced} records"))
    if problems and not keep_going:
        shown = "".join(f"\n  line {number}: {why}" for number, why in problems[:10])
        raise CacheError(f"{path}: {len(problems)} bad lines, nothing is taken (--keep-going leaves them out):{shown}")
    return records, problems


def _header(path: Path, line: bytes) -> int:
    try:
        header = json.loads(line)
        kind, schema, count = header["pack"], int(header["schema"]), int(header["records"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise CacheError(f"{path} is not a pack: its first line is not the header of one") from None
    if kind != "autotune" or schema > SCHEMA or count > MAX_RECORDS:
        known = f"this version reads schema {SCHEMA} and {MAX_RECORDS} records"
        raise CacheError(f"{path} is a pack of {str(kind)[:20]}, schema {schema}, {count} records; {known}")
    return count


def _record(line: bytes, check: Callable[[Any], object] | None) -> Record:
    if not line.endswith(b"\n"):
        raise CacheError("the line is cut short")
    value = json.loads(line)
    record = from_json(value)
    if program_from_json(value["program_json"]).digest != record.key.program:
        raise CacheError("the program is not in canonical form")
    if check is not None:
        check(value["schedule_json"])
    return record
