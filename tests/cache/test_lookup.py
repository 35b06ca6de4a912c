"""The look-up chain: each link, its reason, and what a miss says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.cache.lookup import Found, Miss, candidates, find
from autotune.cache.store import MemoryStore, SqliteStore
from autotune.devices.records import Policy

from .samples import HERE, key, record

AT = key()
ELSEWHERE = replace(HERE, cores=99)
EXACT, FOREIGN = record(AT, 1), record(AT, 2, seconds=1e-9, local=False)
TOOLCHAIN, ARCH = record(key(llvm="19.1"), 3), record(key(device=ELSEWHERE), 4)
NEAR, FAR = record(key((64, 64, 96)), 5), record(key((64, 64, 640)), 6)
CHAIN = [EXACT, FOREIGN, TOOLCHAIN, ARCH, NEAR, FAR]


def stored(*records: object) -> MemoryStore:
    store = MemoryStore()
    store.put_many(records)  # type: ignore[arg-type]
    return store


@pytest.mark.parametrize(
    ("first", "source", "reason"),
    [
        (0, "cache", "exact"),
        (1, "transfer", "exact, but measured elsewhere"),
        (2, "transfer", "same device, other toolchain: llvm 19.1 -> 20.1"),
        (3, "transfer", f"same arch, other machine: device_digest {ELSEWHERE.digest} -> {HERE.digest}"),
        (4, "transfer", "nearest shape: (64, 64, 96) for (64, 64, 64)"),
        (5, "transfer", "nearest shape: (64, 64, 640) for (64, 64, 64)"),
    ],
)
def test_each_link_of_the_chain(first: int, source: str, reason: str) -> None:
    assert find(stored(*CHAIN[first:]), AT) == Found(CHAIN[first], source, reason)


def test_candidates_go_down_the_chain_and_repeat_no_schedule() -> None:
    again = record(key((64, 64, 65)), 4)
    found = list(candidates(stored(EXACT, TOOLCHAIN, ARCH, NEAR, FAR, again), AT))
    assert [f.record for f in found] == [EXACT, TOOLCHAIN, ARCH, NEAR, FAR]
    assert len(list(candidates(stored(*CHAIN), AT, limit=1))) == 4
    second = [f.reason for f in candidates(stored(EXACT, record(AT, 8, 9e-5)), AT)]
    assert second == ["exact", "exact"], "the runner-up, in case the best cannot be proved"


def test_what_failed_here_is_not_transferred() -> None:
    for status in ("correctness", "timeout", "compile", "constraints"):
        store = stored(NEAR, FAR, record(AT, 5, status=status))
        assert find(store, AT) == Found(FAR, "transfer", "nearest shape: (64, 64, 640) for (64, 64, 64)")


@pytest.mark.parametrize(
    ("records", "differs", "reason"),
    [
        ([], (), "nothing is stored for this program in any shape"),
        ([record(key(policy=Policy(threads=2)))], ("policy",), "differs in policy: policy warm-2t -> warm-1t"),
        (
            [record(key(device=replace(HERE, arch="other")))], ("device", "device_digest"),
            "differs in device, device_digest: device cpu:other -> cpu:sample1",
        ),
        ([record(key((1, 2, 3), policy=Policy(threads=2)))], ("program", "policy"), "differs in program, policy"),
        ([record(status="timeout"), record(factor=2, status="compile")], (), "only failures are stored: 1 "),
        ([record(), record(status="correctness")], (), "only failures are stored: 1 "),
    ],
)  # fmt: skip
def test_a_miss_says_why(records: list[object], differs: tuple[str, ...], reason: str) -> None:
    found = find(stored(*records), AT)
    assert isinstance(found, Miss) and found.differs == differs and reason in found.reason
    assert (found.closest in records) == bool(records)


def test_the_warm_path_is_one_query(tmp_path: object) -> None:
    store = SqliteStore(tmp_path / "records.db")  # type: ignore[operator]
    store.put_many(CHAIN)
    statements: list[str] = []
    assert store._db is not None
    store._db.set_trace_callback(statements.append)
    assert find(store, AT) == Found(EXACT, "cache", "exact")
    assert len(statements) == 1
