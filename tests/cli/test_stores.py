"""`autotune cache`: what is shown, what travels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.cache.store import open_store
from tests.cache.samples import key, record
from tests.cli.conftest import QUICK, Done, Run


@pytest.fixture
def tuned(run: Run) -> Run:
    """The command line, with a product of 8x8x8 in its store."""
    assert run("sweep", "gemm", "m=8", "n=8", "k=8", *QUICK).code == 0
    return run


def wrong(done: Done, code: int, told: str) -> None:
    assert done.code == code and told in done.err and done.err.startswith("error: ") and "Traceback" not in done.err


def test_ls_and_show(tuned: Run) -> None:
    (row,) = json.loads(tuned("cache", "ls", "--format", "json").out)
    assert row["extents"] == [8, 8, 8] and row["status"] == "ok" and row["local"] and row["seconds"] > 0
    table = tuned("cache", "ls").out.splitlines()
    assert table[0].split()[:3] == ["program", "extents", "device"] and row["program"][:12] in table[1]
    shown = [json.loads(line) for line in tuned("cache", "show", row["program"][:8]).out.splitlines()]
    assert shown[0]["schedule"] == row["schedule"] and shown[0]["schedule_json"] is not None
    assert json.loads(tuned("cache", "show", shown[0]["id"]).out)["id"] == shown[0]["id"]
    wrong(tuned("cache", "show", "feedfacefeed"), 1, "no record begins")
    wrong(tuned("cache", "show", ""), 1, "no record begins")


def test_stat_and_verify(tuned: Run) -> None:
    found = json.loads(tuned("cache", "stat", "--format", "json").out)
    assert found["records"] >= 1 and found["programs"] == 1
    assert tuned("cache", "stat").out.startswith("where ")
    done = tuned("cache", "verify")
    assert done.code == 0 and done.out.startswith("ok ") and len(done.out.splitlines()) == 1


def test_an_empty_store(run: Run) -> None:
    assert run("cache", "ls", "--format", "json").out == "[]\n"
    assert run("cache", "stat").code == run("cache", "verify").code == run("cache", "gc").code == 0


def test_export_and_import(tuned: Run, place: Path) -> None:
    count = json.loads(tuned("cache", "stat", "--format", "json").out)["records"]
    assert tuned("cache", "export", "p.jsonl").out == f"{count} records in p.jsonl\n"
    other = ("cache", "--store", str(place / "other.db"))
    assert tuned(*other, "import", "p.jsonl", "--eager").out == f"{count} records read, {count} of them new\n"
    assert tuned(*other, "import", "p.jsonl").out == f"{count} records read, 0 of them new\n"
    assert json.loads(tuned(*other, "stat", "--format", "json").out)["foreign"] == count
    assert tuned("cache", "diff", "p.jsonl").out == "0 added, 0 removed, 0 with another best\n"
    assert tuned("cache", "diff", "p.jsonl", "other.db").out == "0 added, 0 removed, 0 with another best\n"
    assert tuned("cache", "merge", "other.db", "p.jsonl").out.endswith(", 0 of them new\n")


def test_what_a_pack_may_not_hold(tuned: Run, place: Path) -> None:
    tuned("cache", "export", "p.jsonl")
    header, *lines = (place / "p.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["schedule_json"] = [{"step": "teleport", "stage": "t0"}]
    (place / "p.jsonl").write_text("\n".join([header, json.dumps(row), *lines[1:]]) + "\n")
    other = ("cache", "--store", str(place / "other.db"))
    wrong(tuned(*other, "import", "p.jsonl"), 1, "line 2")
    assert not (place / "other.db").exists(), "nothing is taken of a pack with a bad line"
    done = tuned(*other, "import", "p.jsonl", "--keep-going")
    assert done.code == 1 and "left out: line 2" in done.err and done.out.startswith(f"{len(lines) - 1} records read")
    (place / "no.jsonl").write_text("{malformed\n")
    wrong(tuned(*other, "import", "no.jsonl"), 1, "not a pack")
    wrong(tuned(*other, "import", "none.jsonl"), 1, "cannot be read")


def test_what_does_not_hold_is_found(run: Run, place: Path) -> None:
    with_records = open_store(place / "foreign.db")
    with_records.put_many([record(key(), factor=8, seconds=1e-5), record(key(), factor=0, seconds=1e-6)])
    with_records.close()
    store = ("cache", "--store", str(place / "foreign.db"))
    done = run(*store, "verify")
    assert done.code == 1 and done.out.startswith("failed ")
    run(*store, "export", "p.jsonl")
    done = run("cache", "import", "p.jsonl", "--eager")
    assert done.code == 1 and done.out.startswith("1 records read") and done.err.count("left out: ") == 1


def test_diff_and_gc(run: Run, place: Path) -> None:
    for name, factors in (("a.db", (1, 2)), ("b.db", (2, 3))):
        store = open_store(place / name)
        store.put_many(record(factor=f, seconds=1e-5 / f, created=1e9 + f) for f in factors)
        store.close()
    done = run("cache", "diff", "a.db", "b.db")
    assert done.out.splitlines()[-1] == "1 added, 1 removed, 1 with another best" and len(done.out.splitlines()) == 2
    store_b = ("cache", "--store", str(place / "b.db"))
    assert run(*store_b, "gc", "--keep", "1", "--dry-run").out.startswith("1 records would be removed")
    assert run(*store_b, "gc", "--older", "30d").out.startswith("1 records removed")
    assert json.loads(run(*store_b, "stat", "--format", "json").out)["records"] == 1
    wrong(run(*store_b, "gc", "--older", "soon"), 2, "30d")


def test_stores_that_are_none(run: Run, place: Path) -> None:
    wrong(run("cache", "--store", "none.db", "ls"), 2, "no such file")
    wrong(run("cache", "merge", "none.db"), 2, "none.db")
    wrong(run("cache", "diff", "none.db"), 2, "none.db")


def test_a_readonly_store_takes_nothing(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned("cache", "export", "p.jsonl")
    monkeypatch.setenv("AUTOTUNE_CACHE", "readonly")
    wrong(tuned("cache", "import", "p.jsonl"), 1, "reading only")
    assert tuned("cache", "ls").code == 0
