"""Where records are kept: the `Store` protocol, in memory or in SQLite.

Knows tables, files and locks, and which of several measurements is the best; must not know how a caller falls back
when there is none, nor what a schedule means. Writes are transactions in WAL mode: a killed writer loses only what it
had not committed. Every error of SQLite becomes a CacheError that says what to do.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..ir.errors import CacheError
from .objects import private_directory
from .records import BROKEN, FACTS, SCHEMA, Record, build, digest, facts, texts, validate

T = TypeVar("T")
Shape = tuple[str, tuple[int, ...]]


class Store(Protocol):
    """A set of records. `where`: equalities on the text fields of `records.FACTS`; None stands for any value."""

    name: str
    readonly: bool

    def put_many(self, records: Iterable[Record]) -> int:
        """Add records, all or none; how many were new. CacheError for an invalid record or a readonly store."""

    def records(self, **where: str | None) -> Iterator[Record]:
        """The records that match, in the order of their ids."""

    def best(self, without: Collection[str] = (), **where: str | None) -> Record | None:
        """First in `Record.rank`, but no schedule in `without` nor one that was found broken under the same key."""

    def shapes(self, family: str, device: str, policy: str) -> Collection[Shape]:
        """(program digest, extents) of each program of the family with a usable measurement."""

    def remove(self, ids: Collection[str]) -> None: ...

    def state(self) -> str:
        """Another text after every change of the set of records."""

    def close(self) -> None:
        """Give back files. The store is not used again."""
        return

    def put(self, record: Record) -> bool:
        return self.put_many([record]) == 1

    def nearest(
        self, family: str, extents: tuple[int, ...], device: str, policy: str, limit: int, without: Collection[str] = ()
    ) -> list[Record]:
        """The best records of the programs nearest in shape: least sum of the |log2| of the extents' ratios."""
        order = sorted(
            (sum(abs(math.log2(max(a, 1) / max(b, 1))) for a, b in zip(extents, other, strict=True)), program)
            for program, other in self.shapes(family, device, policy)
            if len(other) == len(extents)
        )
        found = (self.best(without, program=p, device=device, policy=policy) for _, p in order[: 4 * limit])
        return [record for record in found if record is not None][:limit]

    def merge(self, other: Store) -> int:
        """Add another store's records as foreign ones, without what was proved of them there; how many were new."""
        return self.put_many(replace(record, local=False, checks=()) for record in other.records())

    def gc(self, keep: int = 16, older: float | None = None, dry_run: bool = False) -> int:
        """Of each key keep the `keep` best records, and only the best of those made before `older` (Unix time).

        What found a schedule broken stays: it is why that schedule is not used again. Returns how many go.
        """
        keys = [((r.key.program, r.key.device_digest, r.key.toolchain), r.key.policy, r) for r in self.records()]
        broken = {(key, r.schedule) for key, _, r in keys if r.measurement.status in BROKEN}
        keys.sort(key=lambda row: (row[:2], (row[0], row[2].schedule) in broken, row[2].rank, row[2].id))
        doomed = [
            r.id
            for _, group in groupby(keys, key=lambda row: row[:2])
            for place, (_, _, r) in enumerate(group)
            if r.measurement.status not in BROKEN and (place >= keep or (place and r.created < (older or 0)))
        ]
        if doomed and not dry_run:
            self.remove(doomed)
        return len(doomed)

    def stat(self) -> dict[str, Any]:
        """Totals: where, bytes, records, foreign, programs, schedules, and records by device and by status."""
        rows = [(r.key.program, r.schedule, r.key.device, str(r.measurement.status), r.local) for r in self.records()]
        programs, schedules, devices, statuses, local = (Counter(row[n] for row in rows) for n in range(5))
        return {"where": self.name, "bytes": os.path.getsize(self.name) if os.path.exists(self.name) else 0,
                "records": len(rows), "foreign": local[False], "programs": len(programs), "schedules": len(schedules),
                "devices": dict(devices), "statuses": dict(statuses)}  # fmt: skip


def open_store(where: str | Path | None, readonly: bool = False, timeout: float = 5.0) -> Store:
    """The store in the database file `where`; in memory for None, and for a file to be only read that is not there."""
    if "://" in str(where):
        raise CacheError(f"{where}: this version has no store behind a URL; give the path of a file")
    if where is None or (readonly and not os.path.exists(where)):
        return MemoryStore(readonly)
    return SqliteStore(Path(where), readonly, timeout)


def _checked(store: Store, records: Iterable[Record]) -> dict[str, Record]:
    if store.readonly:
        raise CacheError(f"cache {store.name} is open for reading only: nothing can be added or removed")
    rows = {record.id: record for record in records}
    for record in rows.values():
        validate(record)
    return rows


class MemoryStore(Store):
    """A store that ends with the process. It needs no lock: each change is one operation on one dictionary."""

    def __init__(self, readonly: bool = False) -> None:
        self.name, self.readonly = ":memory:", readonly
        self._programs: dict[str, dict[str, Record]] = {}

    def put_many(self, records: Iterable[Record]) -> int:
        new = 0
        for name, record in _checked(self, records).items():
            rows = self._programs.setdefault(record.key.program, {})
            new += name not in rows
            if record.local or name not in rows:
                rows[name] = record
        return new

    def records(self, **where: str | None) -> Iterator[Record]:
        wanted = {name: value for name, value in where.items() if value is not None}
        programs = [wanted["program"]] if "program" in wanted else [*self._programs]
        rows = sorted((row for p in programs for row in self._programs.get(p, {}).copy().items()), key=itemgetter(0))
        return (r for _, r in rows if all(_field(r, name) == value for name, value in wanted.items()))

    def best(self, without: Collection[str] = (), **where: str | None) -> Record | None:
        def same(r: Record) -> tuple[str, ...]:
            return r.key.program, r.schedule, r.key.device_digest, r.key.toolchain

        rows = [*self.records(program=where.get("program"))]
        broken = {(same(r), r.local) for r in rows if r.measurement.status in BROKEN}
        found = (r for r in self.records(**{**where, "status": "ok"}) if r.schedule not in without)
        sound = (r for r in found if not {(same(r), True), (same(r), r.local)} & broken)
        return min(sound, key=lambda r: (r.rank, r.id), default=None)

    def shapes(self, family: str, device: str, policy: str) -> Collection[Shape]:
        rows = self.records(family=family, device=device, policy=policy, status="ok")
        return {(r.key.program, r.key.extents) for r in rows}

    def state(self) -> str:
        return digest(" ".join(sorted(name for rows in self._programs.copy().values() for name in rows)))

    def remove(self, ids: Collection[str]) -> None:
        _checked(self, ())
        for rows in self._programs.copy().values():
            for name in ids & rows.keys():
                del rows[name]


def _field(record: Record, name: str) -> str:
    if name == "status":
        return str(record.measurement.status)
    return str(record.schedule if name == "schedule" else getattr(record.key, name))


APPLICATION = 0x41543031  # "AT01": in SQLite's header, says whose file it is
MOUNTS = Path("/proc/self/mounts")
LOCAL = Path("/var/tmp")
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "fuse.sshfs")
_LISTS = ("extents", "versions", "samples")
_BROKEN = tuple(map(str, BROKEN))
_TABLES = (
    "PRAGMA auto_vacuum=FULL",
    "PRAGMA journal_mode=WAL",
    "BEGIN IMMEDIATE",
    f"CREATE TABLE measurements (id TEXT PRIMARY KEY, {', '.join(FACTS)}, device_text, checks, local)",
    "CREATE INDEX by_program ON measurements (program, device, policy)",
    "CREATE INDEX by_family ON measurements (family, device, policy)",
    f"CREATE INDEX broken ON measurements (program, schedule) WHERE status IN {_BROKEN}",
    "CREATE TABLE clear (digest TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID",
    f"PRAGMA application_id={APPLICATION}",
    f"PRAGMA user_version={SCHEMA}",
    "COMMIT",
)
_IDENTITY = """SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
    FROM pragma_application_id, pragma_user_version"""
_PUT = f"INSERT OR IGNORE INTO measurements VALUES ({', '.join('?' * (len(FACTS) + 4))})"
_GET = """SELECT m.*, p.json, s.json, d.json FROM measurements m LEFT JOIN clear p ON p.digest=m.program
    LEFT JOIN clear s ON s.digest=m.schedule LEFT JOIN clear d ON d.digest=m.device_text WHERE """
_BEST = f""" NOT EXISTS (SELECT 1 FROM measurements f WHERE f.program=m.program AND f.schedule=m.schedule
    AND f.device_digest=m.device_digest AND f.toolchain=m.toolchain AND f.local>=m.local
    AND f.status IN {_BROKEN}) ORDER BY m.local DESC, m.place IS NOT 0,
    CASE WHEN m.place=0 THEN -m.created END, m.noisy, m.seconds, m.id LIMIT 1"""
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process kept it locked; end that process, or set AUTOTUNE_CACHE=readonly or off",
    sqlite3.SQLITE_FULL: "the disk is full; free some space or set AUTOTUNE_CACHE_DIR (stored records stay readable)",
    sqlite3.SQLITE_IOERR: "the disk is full or fails; free some space or set AUTOTUNE_CACHE_DIR",
    sqlite3.SQLITE_READONLY: "the file cannot be written; set AUTOTUNE_CACHE=readonly or AUTOTUNE_CACHE_DIR",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; set AUTOTUNE_CACHE_DIR to a directory of yours",
}
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteStore(Store):
    """A store in one SQLite file, for several processes and threads at a time; a forked child opens its own connection.

    A file that is no sound database is moved aside with a warning, and a new one begun. One that can be read but not
    written (a full disk, say) is only read, with a warning.
    """

    def __init__(self, path: Path, readonly: bool = False, timeout: float = 5.0) -> None:
        self.path = path.absolute() if readonly else _local(path.absolute())
        self.name, self.readonly, self.timeout = str(self.path), readonly, timeout
        self._lock, self._pid, self._inode = threading.RLock(), os.getpid(), -1
        self._db: sqlite3.Connection | None = None
        self._run(lambda db: None)

    def put_many(self, records: Iterable[Record]) -> int:
        rows = _checked(self, records)

        def insert(db: sqlite3.Connection) -> int:
            clear = {(digest(text), text) for r in rows.values() for text in texts(r) if text}
            db.executemany("INSERT OR IGNORE INTO clear VALUES (?, ?)", clear)
            new = db.executemany(_PUT, [_row(name, r) for name, r in rows.items()]).rowcount
            own = [(json.dumps(r.checks), name) for name, r in rows.items() if r.local]
            db.executemany("UPDATE measurements SET checks=?, local=1 WHERE id=?", own)
            return new

        return self._run(insert, write=True)

    def records(self, **where: str | None) -> Iterator[Record]:
        (match, values), last = _match(where), ""
        while rows := self._all(f"{_GET} {match} m.id>? ORDER BY m.id LIMIT 500", *values, last):
            yield from map(_record, rows)
            last = rows[-1][0]

    def best(self, without: Collection[str] = (), **where: str | None) -> Record | None:
        match, values = _match({**where, "status": "ok"})
        other = f"m.schedule NOT IN ({', '.join('?' * len(without))}) AND" if without else ""
        one = f"m.id=(SELECT m.id FROM measurements m WHERE {match} {other} {_BEST})"
        rows = self._all(f"{_GET} {one}", *values, *without)
        return _record(rows[0]) if rows else None

    def shapes(self, family: str, device: str, policy: str) -> Collection[Shape]:
        match, values = _match({"family": family, "device": device, "policy": policy})
        rows = self._all(f"SELECT DISTINCT program, extents FROM measurements m WHERE {match} status='ok'", *values)
        return {(program, tuple(json.loads(extents))) for program, extents in rows}

    def remove(self, ids: Collection[str]) -> None:
        _checked(self, ())

        def delete(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM measurements WHERE id=?", [(name,) for name in ids])
            db.execute("""DELETE FROM clear WHERE digest NOT IN (SELECT program FROM measurements UNION
                SELECT schedule FROM measurements UNION SELECT device_text FROM measurements)""")

        self._run(delete, write=True)

    def state(self) -> str:
        """By their number and the newest, so that it takes no time."""
        last = "SELECT id FROM measurements ORDER BY rowid DESC LIMIT 1"
        return str(self._all(f"SELECT (SELECT count(*) FROM measurements), ({last})")[0])

    def close(self) -> None:
        if self._db is not None and self._pid == os.getpid():
            self._db.close()
            self._db = None

    def _all(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        return self._run(lambda db: db.execute(sql, values).fetchall())

    def _run(self, operation: Callable[[sqlite3.Connection], T], write: bool = False, again: bool = True) -> T:
        if self._pid != os.getpid():  # a forked child must neither use nor close its parent's connection
            self._pid, self._lock, self._parents, self._db = os.getpid(), threading.RLock(), self._db, None
        with self._lock:
            try:
                if self._db is None or (_inode(self.path) != self._inode and not self.readonly):
                    self._db = self._connect()  # the first time, or because the file was moved or removed
                with self._db:  # commits, or rolls back
                    if write:
                        self._db.execute("BEGIN IMMEDIATE")
                    return operation(self._db)
            except sqlite3.Error as error:
                if _code(error) not in _CORRUPT or self.readonly or not again:
                    advice = _ADVICE.get(_code(error), "move the file away, or set AUTOTUNE_CACHE=off")
                    raise CacheError(f"cache {self.path}: {error}: {advice}") from error
                self._move_aside(error)
            return self._run(operation, write, again=False)

    def _connect(self) -> sqlite3.Connection:
        if not self.readonly and (problem := private_directory(self.path.parent, alone=False)):
            raise CacheError(f"cache {self.path}: {problem}; {_ADVICE[sqlite3.SQLITE_CANTOPEN]}")
        for mode in ("rwc", "ro", "ro&immutable=1")[self.readonly :]:  # immutable: no files of SQLite's own beside it
            try:
                uri = f"{self.path.as_uri()}?mode={mode}"
                db = sqlite3.connect(uri, self.timeout, uri=True, isolation_level=None, check_same_thread=False)
                self._inode = _inode(self.path)
                self._prepare(db)
            except sqlite3.OperationalError as error:
                unwritable = _code(error) in _ADVICE and _code(error) != sqlite3.SQLITE_BUSY
                if not unwritable or "immutable" in mode or not os.path.exists(self.path):
                    raise
                if not self.readonly:
                    message = f"cache {self.path} is only read: {error}: {_ADVICE[_code(error)]}"
                    warnings.warn(message, RuntimeWarning, stacklevel=4)
                    self.readonly = True
            else:
                return db
        raise AssertionError("the last mode returns or raises")

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA synchronous=NORMAL")
        found = db.execute(_IDENTITY).fetchone()
        if found == (0, 0, 0) and not self.readonly:
            with _exclusive(self.path.parent):
                for statement in _TABLES if db.execute(_IDENTITY).fetchone() == found else ():
                    db.execute(statement)
                found = db.execute(_IDENTITY).fetchone()
        if found[0] != APPLICATION:
            raise CacheError(f"{self.path} is a database of another program; give another path")
        if found[1] != SCHEMA:
            raise CacheError(f"{self.path} has schema {found[1]}, this version {SCHEMA}; upgrade, or give another path")

    def _move_aside(self, error: sqlite3.Error) -> None:
        with _exclusive(self.path.parent):
            if _inode(self.path) == self._inode:  # else another process has just done it
                aside = f"{self.path}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
                for suffix in ("-wal", "-shm", ""):
                    if os.path.exists(f"{self.path}{suffix}"):
                        os.replace(f"{self.path}{suffix}", aside + suffix)
                message = f"cache {self.path} is damaged ({error}); it is now {aside} and a new one is begun"
                warnings.warn(message, RuntimeWarning, stacklevel=5)
        self.close()


def _match(where: dict[str, str | None]) -> tuple[str, list[str]]:
    wanted = {name: value for name, value in where.items() if value is not None}
    return "".join(f"m.{name}=? AND " for name in wanted), list(wanted.values())


def _row(name: str, r: Record) -> tuple[Any, ...]:
    known = facts(r)
    known |= {column: json.dumps(known[column], separators=(",", ":")) for column in _LISTS}
    return (name, *(known[n] for n in FACTS), digest(r.key.device_json), json.dumps(r.checks), r.local)


def _record(row: tuple[Any, ...]) -> Record:
    known = dict(zip(FACTS, row[1:], strict=False))
    known |= {column: json.loads(known[column]) for column in _LISTS}
    checks, local, *clear = row[-5:]
    return build(known, [text or "" for text in clear], json.loads(checks), bool(local))


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One process at a time makes or moves databases in `directory`."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _local(path: Path) -> Path:
    """`path`, or a private one on a local disk where `path` is on a network file system: WAL needs shared memory."""
    real, kinds = f"{path.resolve()}/", {}
    for line in MOUNTS.read_text().splitlines() if MOUNTS.exists() else ():
        _, point, kind, *_ = line.split(" ")
        kinds[point.replace("\\040", " ").rstrip("/") + "/"] = kind
    kind = kinds.get(max((point for point in kinds if real.startswith(point)), key=len, default=""), "")
    if kind not in NETWORK:
        return path
    moved = Path(LOCAL, f"autotune-{os.geteuid()}", f"{digest(real)[:12]}-{path.name}")
    if problem := private_directory(moved.parent):
        raise CacheError(f"cache {path} is on {kind}, and {problem}; set AUTOTUNE_CACHE_DIR to a local directory")
    warnings.warn(f"cache {path} is on {kind}, a network file system; {moved} is used", RuntimeWarning, stacklevel=4)
    return moved
