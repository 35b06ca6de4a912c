"""`autotune sweep`: records, formats, statuses, exit codes, and going on after an interrupt."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune.cli.run import FIELDS
from tests.cli.conftest import QUICK, Run

ROOT = Path(__file__).parent.parent.parent
GEMM = ("sweep", "gemm", "m=8,16", "n=8", "k=8", *QUICK)
CONTRACT = [
    "op", "params", "dtype", "device", "threads", "status", "source", "winner", "seconds", "default_seconds", "gflops",
    "gbytes_per_s", "roofline_fraction", "trials", "tuning_seconds", "program", "schedule", "message",
]  # fmt: skip


def test_records(run: Run) -> None:
    done = run(*GEMM, "--format", "jsonl")
    assert done.code == 0 and [list(r) for r in done.records] == [CONTRACT, CONTRACT] == [list(FIELDS)] * 2
    first = done.records[0]
    assert (first["op"], first["params"], first["dtype"]) == ("gemm", {"m": 8, "n": 8, "k": 8}, "f32")
    assert (first["device"], first["threads"], first["status"], first["source"]) == ("cpu", 1, "ok", "tuned")
    assert first["winner"] in ("tuned", "default") and first["trials"] == 2 and first["message"] == ""
    assert 0 < first["seconds"] < 1 and 0 < first["default_seconds"] < 1 and first["tuning_seconds"] > 0
    assert first["gflops"] == pytest.approx(2 * 8**3 / first["seconds"] / 1e9)
    assert first["gbytes_per_s"] == pytest.approx(3 * 4 * 64 / first["seconds"] / 1e9)
    assert len(first["program"]) == len(first["schedule"]) == 32


def test_formats_say_the_same(run: Run, place: Path) -> None:
    assert run(*GEMM, "--format", "json", "-o", "out.json").out == ""
    records = json.loads((place / "out.json").read_text())
    assert [r["params"]["m"] for r in records] == [8, 16]
    rows = list(csv.DictReader(run(*GEMM, "--format", "csv").out.splitlines()))
    assert [list(row) for row in rows] == [CONTRACT, CONTRACT] and rows[1]["params"] == "m=16 n=8 k=8"
    assert rows[0]["program"] == records[0]["program"]
    lines = run(*GEMM).out.splitlines()
    assert lines[0].split()[:5] == ["case", "dtype", "status", "source", "winner"] and len(lines) == 3
    assert lines[2].startswith("gemm m=16 n=8 k=8")


def test_progress_goes_to_standard_error(run: Run) -> None:
    done = run(*GEMM, "--format", "jsonl")
    assert done.err.splitlines()[0].startswith("[1/2] gemm m=8 n=8 k=8: ")
    assert run(*GEMM, "--format", "jsonl", "--quiet").err == ""


def test_a_user_s_function(run: Run) -> None:
    words = ("functions_here:dense", "x=f32[m,k]", "w=f32[k,16]", "b=f32[16]", "m=8", "k=4,8")
    done = run("sweep", *words, *QUICK, "--format", "jsonl")
    assert done.code == 0 and [r["params"] for r in done.records] == [{"m": 8, "k": 4}, {"m": 8, "k": 8}]
    assert {r["op"] for r in done.records} == {"functions_here:dense"}


def test_several_outputs(run: Run) -> None:
    done = run("sweep", "functions_here:both", "x=f32[16,32]", *QUICK, "--format", "jsonl")
    assert done.code == 0 and done.records[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("op", "told"),
    [("branch", "in branch"), ("boom", "RuntimeError: first line"), ("nothing", "returns no array")],
)
def test_what_a_function_raises_is_a_status(run: Run, op: str, told: str) -> None:
    done = run("sweep", f"functions_here:{op}", "x=f32[n]", "n=8,16", *QUICK, "--format", "jsonl")
    assert done.code == 1 and [r["status"] for r in done.records] == ["unsupported"] * 2
    assert told in done.records[0]["message"] and done.records[0]["seconds"] is None
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [("m=0", "n=8", "k=8"), ("m=9999999999", "n=9999999999", "k=9999999999")])
def test_extents_without_a_kernel(run: Run, words: tuple[str, ...]) -> None:
    done = run("sweep", "gemm", *words, *QUICK, "--format", "jsonl")
    assert done.code == 1 and done.records[0]["status"] == "unsupported"


def test_some_ok_some_not(run: Run) -> None:
    done = run("sweep", "gemm", "m=0,8", "n=8", "k=8", *QUICK, "--format", "jsonl")
    assert done.code == 1 and [r["status"] for r in done.records] == ["unsupported", "ok"]


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 2), (("gem", "m=8"), 2), (("gemm", "m=8"), 2), (("gemm", "m=8", "n=8", "k=8", "--budget", "soon"), 2),
     (("gemm", "m=8", "n=8", "k=8", "--format", "xml"), 2), (("gemm", "m=8", "n=8", "k=8", "--device", "cuda:0"), 3),
     (("gemm", "m=8", "n=8", "k=8", "--device", "cpu:znver1"), 3), (("gemm", "m=8", "n=8", "k=8", "--speed"), 2),
     (("functions_here:scaled", "x=f32[n]"), 2), (("--from", "none.toml"), 2), (("gemm", "m=1", "--from", "x"), 2),
     (("gemm", "m=8", "n=8", "k=8", "-o", "no/such/place"), 2), (("gemm", "m=8", "n=8", "k=8", "--jobs", "0"), 2),
     (("gemm", "m=8", "n=8", "k=8", "--threads", "0"), 2), (("gemm", "m=8", "n=8", "k=8", "--dtype", "f1"), 2)],
)  # fmt: skip
def test_nothing_runs_after_a_wrong_word(run: Run, words: tuple[str, ...], code: int) -> None:
    done = run("sweep", *words)
    assert done.code == code and done.out == ""
    assert len(done.err.splitlines()) == 1 and done.err.startswith("error: ")


def test_a_traceback_is_for_debugging(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_DEBUG", "4")
    done = run("sweep", "gem", "m=8")
    assert done.code == 2 and "Traceback" in done.err and done.err.splitlines()[-1].startswith("error: ")


def test_a_frozen_store_answers_or_misses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("sweep", "gemm", "m=8", "n=8", "k=8", *QUICK).code == 0
    monkeypatch.setenv("AUTOTUNE_FROZEN", "1")
    done = run(*GEMM, "--format", "jsonl")
    assert done.code == 5 and [r["status"] for r in done.records] == ["ok", "unsupported"]
    assert done.records[0]["source"] == "cache" and done.records[0]["trials"] == 0 and done.records[0]["seconds"] > 0
    assert "AUTOTUNE_FROZEN" in done.records[1]["message"]


def test_from_a_file(run: Run, place: Path) -> None:
    (place / "c.toml").write_text('[[case]]\nop = "softmax"\nparams = {m = 4, n = "8,16"}\n')
    done = run("sweep", "--from", "c.toml", *QUICK, "--format", "json", "-o", "out.json")
    assert done.code == 0
    again = run("sweep", "--from", "out.json", *QUICK, "--format", "jsonl")
    assert [r["params"] for r in again.records] == [{"m": 4, "n": 8}, {"m": 4, "n": 16}], "records are cases too"


def test_resume_runs_only_what_is_left(run: Run, place: Path) -> None:
    first = run(*GEMM, "--format", "jsonl", "--state", "s.jsonl").records
    (place / "s.jsonl").write_text((place / "s.jsonl").read_text().splitlines()[0] + '\n{"key": "cut sho')
    again = run(*GEMM, "--format", "jsonl", "--state", "s.jsonl", "--resume")
    assert again.code == 0 and again.records[0] == first[0] and again.records[1]["tuning_seconds"] > 0
    assert again.err.splitlines()[0] == "resuming: 1 of 2 cases are finished"
    whole = run(*GEMM, "--format", "jsonl", "--state", "s.jsonl", "--resume")
    assert whole.records == again.records


def test_a_changed_function_is_another_case(run: Run, place: Path) -> None:
    words = ("sweep", "functions_here:scaled", "x=f32[8]", *QUICK, "--format", "jsonl", "--resume")
    first = run(*words).records
    assert run(*words).records == first
    text = (place / "functions_here.py").read_text().replace("x * factor", "x * factor + 1")
    (place / "functions_here.py").write_text(text + "# longer, for the cache of compiled modules\n")
    sys.modules.pop("functions_here")
    assert run(*words).records[0]["program"] != first[0]["program"]


def test_a_store_that_cannot_be_used_costs_no_result(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "store").mkdir(mode=0o700)
    (place / "store" / "records.db").write_bytes(b"no database" * 100)
    done = run(*GEMM, "--format", "jsonl")
    assert done.code == 0 and len(done.records) == 2 and "warning: cache" in done.err and "is damaged" in done.err
    (place / "taken").write_text("")
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(place / "taken"))
    done = run(*GEMM, "--format", "jsonl")
    assert done.code == 0 and len(done.records) == 2 and "warning: nothing is kept on disk" in done.err


def test_resume_needs_a_place(run: Run) -> None:
    done = run(*GEMM, "--cache", "off", "--resume")
    assert done.code == 2 and "--state" in done.err
    assert run(*GEMM, "--cache", "off", "--format", "jsonl").code == 0


def _started(place: Path, *more: str) -> subprocess.Popen[str]:
    words = ("gemm", "m=24:264:8", "n=24", "k=24", "--threads", "1", "--format", "jsonl", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "autotune", "sweep", *words], cwd=place, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip


def test_interrupt_saves_the_best_so_far_and_resume_goes_on(run: Run, place: Path) -> None:
    sweep = _started(place, "--budget", "60s")
    database, end = place / "store" / "records.db", time.monotonic() + 60
    while time.monotonic() < end and not (database.exists() and list((place / "store" / "objects").glob("*.o"))):
        time.sleep(0.05)
    time.sleep(0.7)  # a case is being measured by now
    os.killpg(sweep.pid, signal.SIGINT)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, err
    *finished, last = map(json.loads, out.splitlines())
    assert list(last) == CONTRACT and last["status"] == "interrupted" and {r["status"] for r in finished} <= {"ok"}
    assert "Traceback" not in err and f"interrupted: {len(finished)} of 31 cases are finished" in err
    stored = json.loads(run("cache", "stat", "--format", "json").out)["records"]
    assert stored >= sum(r["trials"] for r in (*finished, last)) - last["trials"]
    if last["trials"]:
        assert last["seconds"] > 0 and stored > sum(r["trials"] for r in finished), "the best so far is kept"
    again = _started(place, "--trials", "2", "--resume")
    out, err = again.communicate(timeout=120)
    rows = [json.loads(line) for line in out.splitlines()]
    assert again.returncode == 0 and [r["params"]["m"] for r in rows] == [*range(24, 265, 8)], err
    assert rows[: len(finished)] == finished and {r["status"] for r in rows} == {"ok"}


def test_a_bar_on_a_terminal(place: Path) -> None:
    master, slave = pty.openpty()
    words = ("softmax", "m=4", "n=16", "--format", "jsonl", "--threads", "1", "--budget", "1s")
    done = subprocess.Popen(
        [sys.executable, "-m", "autotune", "sweep", *words], cwd=place, text=True, stdout=subprocess.PIPE, stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while done.poll() is None or select.select([master], [], [], 0)[0]:
        if select.select([master], [], [], 0.1)[0]:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
    out, _ = done.communicate(timeout=30)
    os.close(master)
    assert done.returncode == 0 and json.loads(out)["status"] == "ok"
    assert b"softmax m=4 n=16" in shown and b"0/1" in shown and b"best so far" in shown
