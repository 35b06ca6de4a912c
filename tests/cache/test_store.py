"""Stores: one set of tests on both, and that both choose the same best record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.cache.records import Record
from autotune.cache.store import MemoryStore, SqliteStore, Store, open_store
from autotune.devices.records import Measurement, Policy
from autotune.ir.errors import CacheError

from .samples import HERE, key, record

AT = key()
WHERE = {"program": AT.program, "device": AT.device, "policy": AT.policy}


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(None if request.param == "memory" else tmp_path / "deep" / "records.db")
    yield made
    made.close()


def best(store: Store, *records: Record, **where: str) -> Record | None:
    store.put_many(records)
    return store.best(**{**WHERE, **where})


def test_put_is_idempotent_and_keeps_everything(store: Store) -> None:
    made = [record(factor=f, checks=(("equivalent", "yes"),), place=f) for f in range(4)]
    made += [record(status="timeout", message="after 2 s"), replace(record(key((1, 2, 3))), local=False)]
    assert store.put_many(made) == 6 and store.put_many(made) == 0 and not store.put(made[0])
    assert list(store.records()) == sorted(made, key=lambda r: r.id)


def test_the_state_changes_with_the_records(store: Store) -> None:
    seen = [store.state()]
    for factor in (1, 2, 2, 0, 3):
        store.put(record(factor=factor)) if factor else store.remove({record(factor=1).id})
        seen.append(store.state())
    assert seen[2] == seen[3] and len({*seen}) == 5


def test_records_are_selected_by_equality(store: Store) -> None:
    store.put_many([record(), record(status="runtime"), record(key((1, 2, 3)), factor=2)])
    assert len(list(store.records(program=AT.program))) == 2
    assert len(list(store.records(program=AT.program, status="runtime", device=None))) == 1
    assert len(list(store.records(family=AT.family))) == 3
    assert not list(store.records(schedule="0" * 32))


def test_an_own_measurement_replaces_the_foreign_copy(store: Store) -> None:
    own = record(checks=(("equivalent", "yes"),))
    store.put(replace(own, local=False, checks=()))
    store.put(own)
    assert list(store.records()) == [own]
    store.put(replace(own, local=False, checks=()))
    assert list(store.records()) == [own]


def test_best_is_the_fastest_that_works(store: Store) -> None:
    slow, fast = record(seconds=2e-5), record(factor=2, seconds=1e-5)
    assert best(store) is None
    assert best(store, slow, fast, record(factor=3, status="runtime")) == fast
    assert store.best([fast.schedule], **WHERE) == slow
    assert store.best([fast.schedule, slow.schedule], **WHERE) is None
    assert store.best(**WHERE | {"policy": "cold-9t"}) is None


def test_the_last_run_off_decides(store: Store) -> None:
    first = record(factor=1, seconds=1.2e-5, place=0, created=1e9)
    last = record(factor=2, seconds=1.3e-5, place=0, created=1e9 + 1)
    beaten = record(factor=3, seconds=1.1e-5, place=1, created=1e9 + 1)
    assert best(store, first, last, beaten, record(factor=4, seconds=1e-6)) == last


def test_own_records_go_before_foreign_and_quiet_before_noisy(store: Store) -> None:
    noisy = record(factor=1, seconds=1e-6)
    noisy = replace(noisy, measurement=replace(noisy.measurement, noisy=True))
    own, foreign = record(factor=2, seconds=1e-5), record(factor=3, seconds=1e-7, local=False, place=0)
    assert best(store, noisy, own, foreign) == own


def test_what_was_found_broken_is_not_best(store: Store) -> None:
    wrong, crash, late, good = (record(factor=f, seconds=f * 1e-6) for f in (1, 2, 3, 4))
    store.put_many([wrong, crash, late, good])
    store.put_many([record(factor=1, status="correctness"), record(factor=2, status="runtime")])
    assert best(store, record(factor=3, status="timeout")) == late
    assert best(store, record(factor=3, status="correctness", local=False)) == late, "strangers cannot hide own records"
    assert best(store, record(key(llvm="19"), factor=3, status="correctness")) == late, "another compiler's fault"


def test_best_narrows_as_asked(store: Store) -> None:
    other = replace(HERE, cores=99)
    here, there, old = record(AT, 1, 3e-5), record(key(device=other), 2, 2e-5), record(key(llvm="19"), 3, 1e-5)
    assert best(store, here, there, old) == old
    assert store.best(**WHERE, toolchain=AT.toolchain) == there
    assert store.best(**WHERE, toolchain=AT.toolchain, device_digest=AT.device_digest) == here


def test_nearest_goes_by_the_ratio_of_extents(store: Store) -> None:
    shapes = [(64, 64, 128), (64, 64, 32), (1, 1, 1), (60, 64, 64), (640, 640, 640)]
    made = {shape: record(key(shape), factor=n) for n, shape in enumerate(shapes)}
    store.put_many([*made.values(), record(key((64, 64, 65)), status="compile")])
    found = store.nearest(AT.family, (64, 64, 60), AT.device, AT.policy, 3)
    assert [r.key.extents for r in found] == [(60, 64, 64), (64, 64, 32), (64, 64, 128)]
    refused = [found[0].schedule]
    assert store.nearest(AT.family, (64, 64, 60), AT.device, AT.policy, 1, refused)[0] == made[(64, 64, 32)]
    assert not store.nearest(AT.family, (64, 64), AT.device, AT.policy, 3)
    assert not store.nearest("another", (64, 64, 60), AT.device, AT.policy, 3)


def test_merge_brings_data_but_no_proofs(store: Store) -> None:
    other = MemoryStore()
    other.put_many([record(checks=(("equivalent", "yes"),)), record(factor=2)])
    own = record(factor=2, checks=(("equivalent", "here"),))
    store.put(own)
    assert store.merge(other) == 1 and store.merge(other) == 0
    assert {(r.local, r.checks) for r in store.records()} == {(True, own.checks), (False, ())}


def test_gc_keeps_the_best_and_what_is_broken(store: Store) -> None:
    store.put_many([record(factor=f, seconds=f * 1e-6, created=1e9 + f) for f in range(1, 30)])
    store.put_many([record(factor=1, status="correctness"), record(factor=77, status="timeout")])
    store.put(record(key((1, 2, 3)), created=1.0))
    assert store.gc(keep=3, dry_run=True) == store.gc(keep=3) == 27
    left = [round(r.measurement.seconds * 1e6) for r in store.records(program=AT.program, status="ok")]
    assert sorted(left) == [2, 3, 4]
    assert store.gc(older=2e9) == 2 and [r.ok for r in store.records(program=AT.program)].count(True) == 1
    assert store.best(**WHERE) and store.stat()["statuses"] == {"ok": 2, "correctness": 1}


def test_stat_counts(store: Store) -> None:
    assert store.stat()["records"] == 0
    store.put_many([record(), record(factor=2, status="runtime"), record(key((1, 2, 3)), local=False)])
    stat = store.stat()
    assert {n: stat[n] for n in ("records", "foreign", "programs", "schedules")} == {
        "records": 3, "foreign": 1, "programs": 2, "schedules": 2}  # fmt: skip
    assert stat["devices"] == {"cpu:sample1": 3} and stat["statuses"] == {"ok": 2, "runtime": 1}


def test_an_invalid_record_leaves_the_store_as_it_was(store: Store) -> None:
    with pytest.raises(CacheError, match="time is missing"):
        store.put_many([record(), replace(record(factor=2), measurement=Measurement())])
    assert not list(store.records())


def test_readonly_stores_refuse_writers(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    assert not list(open_store(path, readonly=True).records()), "a missing file is an empty store"
    assert not path.exists()
    open_store(path).put(record())
    for store in (open_store(path, readonly=True), open_store(None, readonly=True)):
        with pytest.raises(CacheError, match="reading only"):
            store.put(record())
        with pytest.raises(CacheError, match="reading only"):
            store.remove([record().id])
    assert list(open_store(path, readonly=True).records()) == [record()]


def test_a_url_is_refused_clearly() -> None:
    with pytest.raises(CacheError, match="postgresql://x.*no store behind a URL"):
        open_store("postgresql://x/y")


def test_many_threads_use_one_store(store: Store) -> None:
    def work(n: int) -> None:
        for i in range(20):
            store.put(record(factor=100 * n + i, seconds=1e-6 * (1 + n + i)))
            assert store.best(**WHERE) is not None

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.records())) == 80


RECORDS = st.builds(
    lambda at, factor, seconds, status, place, created, local, noisy: replace(
        made := record(at, factor, seconds, status, created, place=place, local=local),
        measurement=replace(made.measurement, noisy=noisy),
    ),
    st.sampled_from([AT, key(llvm="19"), key(device=replace(HERE, cores=99)), key(policy=Policy(threads=2))]),
    st.integers(1, 4),
    st.sampled_from([1e-6, 2e-6, 3e-6]),
    st.sampled_from(["ok", "ok", "ok", "ok", "correctness", "runtime", "timeout"]),
    st.sampled_from([None, None, 0, 1]),
    st.sampled_from([1e9, 1e9 + 0.5]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, max_size=14), st.sets(st.integers(1, 4), max_size=2))
def test_both_stores_choose_the_same(rows: list[Record], without: set[int]) -> None:
    memory, sqlite = MemoryStore(), _FAST
    sqlite.remove([r.id for r in sqlite.records()])
    assert memory.put_many(rows) == sqlite.put_many(rows)
    assert list(memory.records()) == list(sqlite.records())
    out = [record(factor=f).schedule for f in without]
    for where in (WHERE, WHERE | {"toolchain": AT.toolchain}, WHERE | {"device_digest": AT.device_digest}):
        assert memory.best(out, **where) == sqlite.best(out, **where)
    assert memory.nearest(AT.family, (1, 1, 1), AT.device, AT.policy, 2, out) == sqlite.nearest(
        AT.family, (1, 1, 1), AT.device, AT.policy, 2, out
    )
    assert memory.gc(keep=2) == sqlite.gc(keep=2)
    assert list(memory.records()) == list(sqlite.records())


@pytest.fixture(autouse=True, scope="module")
def _fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global _FAST
    _FAST = SqliteStore(tmp_path_factory.mktemp("fast") / "records.db")
    yield
    _FAST.close()


_FAST: SqliteStore
