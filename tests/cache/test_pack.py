"""Packs: what comes out goes in, merge is a union, and a malformed line imports nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.cache import pack
from autotune.cache.pack import diff, export, merge, read
from autotune.cache.records import Record, canonical
from autotune.cache.store import MemoryStore
from autotune.ir.errors import CacheError, ScheduleError

from .samples import HERE, key, record

KEYS = [key(), key((1, 2, 3)), key(llvm="19"), key(device=replace(HERE, cores=7))]
RECORDS = st.builds(
    lambda at, factor, status, place: record(KEYS[at], factor, 1e-6 * factor, status, place=place),
    st.integers(0, 3), st.integers(1, 4), st.sampled_from(["ok", "ok", "timeout"]), st.sampled_from([None, 0]),
)  # fmt: skip
SETS = st.lists(RECORDS, max_size=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def sample() -> list[Record]:
    return [record(at, factor, factor * 1e-6) for at in KEYS for factor in (1, 2)] + [record(status="runtime")]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_round_trip_keeps_all_but_what_is_local(path: Path) -> None:
    made = [replace(r, checks=(("equivalent", "yes"),)) for r in sample()]
    assert export(made, path) == len(made)
    records, problems = read(path)
    assert problems == [] and set(records) == {replace(r, local=False, checks=()) for r in made}
    assert "equivalent" not in path.read_text() and "checks" not in path.read_text()
    store = MemoryStore()
    assert store.put_many(records) == len(made) and store.put_many(read(path)[0]) == 0


def test_the_bytes_depend_on_the_set_only(path: Path) -> None:
    export(sample(), path)
    first = path.read_bytes()
    export([*reversed(sample()), *sample()], path)
    assert path.read_bytes() == first
    export(read(path)[0], path)
    assert path.read_bytes() == first and json.loads(lines(path)[0]) == {"pack": "autotune", "records": 9, "schema": 1}


@settings(max_examples=60, deadline=None)
@given(SETS, SETS, SETS)
def test_merge_is_a_union(a: list[Record], b: list[Record], c: list[Record]) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(a, b, c)
    assert merge(a, a) == merge(a) == merge(merge(a))
    left, right = MemoryStore(), MemoryStore()
    for first, second, store in ((a, b, left), (b, a, right)):
        for rows in (first, second):
            other = MemoryStore()
            other.put_many(rows)
            store.merge(other)
    assert list(left.records()) == list(right.records()) == sorted(merge(a, b), key=lambda r: r.id)


def test_diff_names_what_came_went_and_won() -> None:
    old, slow, new = record(factor=1, seconds=2e-6), record(factor=2, seconds=3e-6), record(factor=3, seconds=1e-6)
    found = diff([old, slow], [old, new])
    away, came, was, now = (replace(r, local=False) for r in (slow, new, old, new))
    assert (found.added, found.removed, found.changed) == ((came,), (away,), ((was, now),))
    assert diff([old], [old]) == pack.Diff((), (), ())


def broken(name: str) -> Callable[[str], str]:
    def change(line: str) -> str:
        value = json.loads(line)
        value[name] = 17 if not isinstance(value[name], int) else "17"
        return canonical(value) + "\n"

    return change


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "not json": (lambda line: "{oops\n", "JSONDecodeError"),
    "empty": (lambda line: "\n", "JSONDecodeError"),
    "other json": (lambda line: "[]\n", "record is a JSON object"),
    "binary": (lambda line: "\x00\x01\n", "JSONDecodeError"),
    "deep": (lambda line: "[" * 100_000 + "\n", "RecursionError"),
    "newer": (lambda line: line.replace('"schema":1', '"schema":2'), "schema 2 is newer"),
    "type": (broken("rounds"), "rounds is '17'"),
    "status": (broken("status"), "status is 17"),
    "schedule": (lambda line: line.replace('"step":"split"', '"step":"spilt"'), "not the digest"),
    "infinite": (lambda line: line.replace('"seconds":', '"seconds":Infinity,"was":'), "'was' is unknown"),
    "huge": (lambda line: line.replace('"created":1000000000.0', '"created":1' + "0" * 400), "OverflowError"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_is_named_and_nothing_is_imported(path: Path, bad: str) -> None:
    change, why = BAD[bad]
    export(sample(), path)
    text = lines(path)
    text[4] = change(text[4])
    path.write_text("".join(text))
    with pytest.raises(CacheError, match=f"1 bad lines, nothing is taken .*--keep-going.*\n  line 5: .*{why}"):
        read(path)
    records, problems = read(path, keep_going=True)
    assert len(records) == 8 and [number for number, _ in problems] == [5] and why in problems[0][1]


def test_a_cut_file_is_noticed(path: Path) -> None:
    export(sample(), path)
    whole = lines(path)
    path.write_text("".join(whole[:-2]))
    with pytest.raises(CacheError, match="line 9: the file ends here; its header announces 9 records"):
        read(path)
    path.write_text("".join(whole)[:-40])
    with pytest.raises(CacheError, match="line 10: CacheError: the line is cut short"):
        read(path)


def test_programs_must_be_in_canonical_form(path: Path) -> None:
    from autotune.cache.records import digest
    from autotune.ir.program import to_json as program_to_json

    from .samples import matmul

    text = canonical(program_to_json(matmul(4, 4, 4)))
    export([record(replace(key(), program=digest(text), program_json=text))], path)
    with pytest.raises(CacheError, match="canonical form"):
        read(path)


def test_schedules_are_checked_by_the_caller(path: Path) -> None:
    def check(steps: list[dict[str, int]]) -> None:
        if steps[0]["factor"] == 2:
            raise ScheduleError("split: no factor 2 today")

    export(sample(), path)
    with pytest.raises(CacheError, match="4 bad lines(.|\n)*ScheduleError: split: no factor 2 today"):
        read(path, check)
    assert len(read(path, check, keep_going=True)[0]) == 5


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "not a pack"), ("[]\n", "not a pack"), ("[" * 10**5, "not a pack"),
        ('{"pack":"autotune"}\n', "not a pack"),
        ('{"pack":"other","records":0,"schema":1}\n', "pack of other"),
        ('{"pack":"autotune","records":0,"schema":9}\n', "schema 9"),
        ('{"pack":"autotune","records":99999999,"schema":1}\n', "99999999 records"),
        ('{"pack":"autotune","records":1e999,"schema":1}\n', "not a pack"),
        ('{"pack":"autotune","records":0,"schema":1}\n{}\n', "one more than announced"),
    ],
)  # fmt: skip
def test_other_files_and_newer_packs_are_refused(path: Path, header: str, why: str) -> None:
    path.write_text(header)
    with pytest.raises(CacheError, match=why):
        read(path, keep_going=True)


def test_limits_hold_whatever_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text('{"pack":"autotune","records":5,"schema":1}\n' + "x" * (pack.MAX_LINE + 5) + "\n")
    with pytest.raises(CacheError, match="line 2 is over 1536 KiB"):
        read(path, keep_going=True)
    monkeypatch.setattr(pack, "MAX_BYTES", 1 << 20)
    with pytest.raises(CacheError, match="limit of 1 MiB"):
        read(path, keep_going=True)
    with pytest.raises(CacheError, match="cannot be read"):
        read(path.with_name("missing"))


def test_a_pack_that_cannot_be_written_leaves_the_old_one(path: Path) -> None:
    export(sample(), path)
    with pytest.raises(CacheError, match="cannot be written"):
        export(sample(), path / "below" / "a file")
    assert len(read(path)[0]) == 9 and [p.name for p in path.parent.iterdir()] == [path.name]
