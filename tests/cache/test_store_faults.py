"""What may happen to a database file: damage, locks, a full disk, killed writers, forks, network file systems."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.cache import store as rooms
from autotune.cache.store import SqliteStore, open_store
from autotune.ir.errors import CacheError

from .samples import record

ROOT = Path(__file__).resolve().parents[2]


def script(body: str, *arguments: object) -> list[str]:
    head = "import sys\nfrom pathlib import Path\nfrom autotune.cache.store import SqliteStore\n"
    head += "from tests.cache.samples import record\nstore = SqliteStore(Path(sys.argv[1]))\n"
    return [sys.executable, "-c", head + body, *map(str, arguments)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def filled(path: Path, count: int = 40) -> SqliteStore:
    store = SqliteStore(path)
    store.put_many(record(factor=f, seconds=f * 1e-6) for f in range(1, count + 1))
    return store


def scribble(path: Path) -> None:
    with open(path, "r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4000)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("this is not a database, and long enough to have a header" * 9),
    "header": lambda path: path.write_bytes(b"\0" * 100 + path.read_bytes()[100:]),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 77]),
    "pages": scribble,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(path: Path, damage: str) -> None:
    filled(path).close()
    DAMAGE[damage](path)
    before = path.read_bytes()
    with pytest.warns(RuntimeWarning, match=r"is damaged .* it is now .*records\.db\.corrupt-.* new one is begun"):
        store = SqliteStore(path)
        assert not list(store.records())
    assert store.put(record()) and list(SqliteStore(path).records()) == [record()]
    aside = [p for p in path.parent.iterdir() if ".corrupt-" in p.name and not p.name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1 and aside[0].read_bytes() == before, "what was damaged is kept"


def test_damage_under_an_open_store_and_two_users_of_the_file(path: Path) -> None:
    one = filled(path)
    one.close()
    one, two = SqliteStore(path), SqliteStore(path)
    scribble(path)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert not list(one.records())
    assert one.put(record())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(two.records()) == [record()], "the second user goes over to the new file and does not move it too"
    two.put(record(factor=2))
    one.close()
    two.close()
    assert len(list(SqliteStore(path).records())) == 2


def test_damage_in_a_file_that_is_only_read_is_an_error(path: Path) -> None:
    filled(path).close()
    scribble(path)
    with pytest.raises(CacheError, match="malformed"):
        list(SqliteStore(path, readonly=True).records())
    assert [p.name for p in path.parent.iterdir() if ".corrupt-" in p.name] == []


def test_a_removed_file_is_made_again(path: Path) -> None:
    store = filled(path)
    for file in path.parent.iterdir():
        file.unlink()
    assert not list(store.records()) and store.put(record())
    assert list(SqliteStore(path).records()) == [record()]


def test_another_programs_database_is_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE bookmarks (url)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(path: Path) -> None:
    filled(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(CacheError, match="schema 99, this version 1; upgrade"):
        SqliteStore(path)


def test_a_lock_is_waited_for_and_then_reported(path: Path) -> None:
    filled(path).close()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(path, timeout=0.1)
    assert len(list(store.records())) == 40, "readers need not wait"
    with pytest.raises(CacheError, match="locked: another process kept it locked; end that process"):
        store.put(record())
    patient = SqliteStore(path, timeout=30)
    release = threading.Timer(0.2, other.execute, ("COMMIT",))
    release.start()
    assert patient.put(record(factor=99))
    release.join()
    assert store.put(record(factor=98))


def test_a_full_disk_loses_nothing_that_was_stored(path: Path) -> None:
    body = """
import resource
store.put_many(record(factor=f) for f in range(100))
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size + 200_000,) * 2)
stored = 100
try:
    for n in range(1, 1000):
        stored += store.put_many(record(factor=100 * n + f, status="compile", message="x" * 1900) for f in range(100))
except Exception as error:
    print(type(error).__name__, error)
assert len(list(store.records())) == stored, (len(list(store.records())), stored)
print(stored)
"""
    done = subprocess.run(script(body, path), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    error, stored = done.stdout.rsplit("\n", 2)[:2]
    assert error.startswith("CacheError") and "disk is full" in error and "AUTOTUNE_CACHE_DIR" in error
    assert len(list(SqliteStore(path).records())) == int(stored) >= 100


def test_a_full_database_says_so(path: Path) -> None:
    store = filled(path)
    assert store._db is not None
    store._db.execute("PRAGMA max_page_count=1")
    with pytest.raises(CacheError, match="full.*stored records stay readable"):
        store.put_many(record(factor=f, status="compile", message="x" * 1900) for f in range(1000, 1200))
    assert len(list(store.records())) == 40


def test_several_processes_write_at_once(path: Path) -> None:
    body = "for f in range(30): store.put(record(factor=1000 * int(sys.argv[2]) + f))"
    writers = [subprocess.Popen(script(body, path, n), cwd=ROOT, stderr=subprocess.PIPE) for n in range(4)]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors.decode()
    assert len({r.schedule for r in SqliteStore(path).records()}) == 120


def test_a_killed_writer_loses_no_committed_record(path: Path) -> None:
    body = """
for n in range(10**6):
    store.put_many(record(factor=10 * n + f) for f in range(10))
    print(n, flush=True)
"""
    writer = subprocess.Popen(script(body, path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    committed = [writer.stdout.readline() for _ in range(20)]
    time.sleep(0.003)
    writer.send_signal(signal.SIGKILL)
    committed += writer.stdout.read().splitlines()
    writer.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count = len(list(SqliteStore(path).records()))
    assert count % 10 == 0 and count >= 10 * len([line for line in committed if line.strip()]) >= 200


def test_a_forked_child_has_a_connection_of_its_own(path: Path) -> None:
    store = filled(path)
    child = os.fork()
    if not child:
        code = 1
        try:
            store.put(record(factor=500))
            code = 0 if len(list(store.records())) == 41 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.put(record(factor=501)) and len(list(store.records())) == 42


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_a_place_that_cannot_be_written_is_read_only_or_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.db")
        filled(path).close()
        path.chmod(0o644)
        Path(folder).chmod(0o755)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setuid(65534)
                count = len(list(open_store(path, readonly=True).records()))
                try:
                    open_store(path)
                except CacheError as error:
                    code = 0 if count == 40 and "not writable; " in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_network_file_system_is_avoided_and_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = path.with_name("mounts")
    mounts.write_text(f"disk / ext4 rw 0 0\nhost:/home {path.parent} nfs4 rw 0 0\nx {path.parent}/here ext4 rw 0 0\n")
    monkeypatch.setattr(rooms, "MOUNTS", mounts)
    monkeypatch.setattr(rooms, "LOCAL", path.parent / "here" / "tmp")
    with pytest.warns(RuntimeWarning, match="nfs4, a network file system; .*records.db is used"):
        store = filled(path)
    assert store.path.is_relative_to(path.parent / "here") and not path.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SqliteStore(path.parent / "here" / "records.db").path == path.parent / "here" / "records.db"
