"""`autotune sweep --no-run` and `--from` its file: lists for devices that are not here, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune import shortlist
from autotune.cli.run import FIELDS
from autotune.codegen import amdgpu, nvrtc, offline
from autotune.codegen.offline import Report
from autotune.codegen.resources import Resources
from autotune.devices import device
from autotune.devices.records import Status
from autotune.ir.collapse import normal_form
from autotune.ir.errors import BuildError, DeviceError, VerifyError
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.schedule import Schedule
from autotune.ir.spmd import Entry, Launch
from autotune.ir.steps import Bind, Tile
from autotune.ir.verify import verify
from autotune.search.ranking import Candidate, Ranking
from autotune.shortlist import Grid, Listed, shortlists
from tests.cli.conftest import Run
from tests.codegen.test_clike import queue
from tests.codegen.test_offline import present
from tests.ir.programs import product

GEMM = ("gemm", "m=32", "n=32", "k=16")
CPU = (*GEMM, "--no-run", "--device", "cpu", "--top", "3", "-o", "list.json")
COMPILED = Report(Resources(40, 0, 1024))


def edited(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads((place / "list.json").read_text())
    change(value)
    (place / "list.json").write_text(json.dumps(value))


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toolchains that are here and accept everything."""
    monkeypatch.setattr(shortlist, "ready", lambda spec: "a compiler")
    monkeypatch.setattr("autotune.cli.shortlists.ready", lambda spec: "a compiler")
    monkeypatch.setattr(offline, "compiled", lambda text, spec: {"kernel0": COMPILED})


# ---- made -----------------------------------------------------------------------------------------------------------


def test_two_targets_in_one_file(run: Run, place: Path) -> None:
    for name in ("cuda:sm_90", "hip:gfx942"):
        present(name)
    words = ("gemm", "m=64", "n=64", "k=64", "--no-run", "--targets", "cuda:sm_90,hip:gfx942", "--top", "2")
    done = run("sweep", *words, "-o", "list.json")
    assert done.code == 0, done.err
    value = json.loads((place / "list.json").read_text())
    assert (value["kind"], value["schema"]) == ("autotune shortlist", 1)
    assert [e["device"] for e in value["entries"]] == ["cuda:sm_90", "hip:gfx942"]
    for entry in value["entries"]:
        assert entry["status"] == "ok" and (entry["op"], entry["dtype"]) == ("gemm", "f32")
        (kernel,) = entry["kernels"]
        assert [c["rank"] for c in kernel["candidates"]] == [1, 2]
        expected = [c["expected_seconds"] for c in kernel["candidates"]]
        assert expected == sorted(expected)
        for c in kernel["candidates"]:
            (grid,) = c["grids"]
            assert c["status"] == "ok" and c["spilled"] == 0 and c["registers"] > 8 and c["schedule"]
            assert 0 < grid["occupancy"]["share"] <= 1 and grid["resources"]["registers"] == c["registers"]
            assert c["memory"]["shared"] >= 1 and c["memory"]["global"] >= 1
    lines = done.out.splitlines()
    assert lines[0].startswith("gemm m=64 n=64 k=64 f32 on cuda:sm_90 (nvrtc): ok") and lines[1].split() == [
        "rank", "status", "predicted", "expected", "registers", "spill", "shared", "occupancy", "conflicts", "sectors",
        "schedule",
    ]  # fmt: skip
    assert len(lines) == 8 and "on hip:gfx942: ok, 2 candidates" in done.err


def test_json_on_standard_output(run: Run, compiles: None) -> None:
    done = run("sweep", *GEMM, "--no-run", "--device", "cuda:sm_80", "--top", "1", "--format", "json", "-q")
    assert done.code == 0 and done.err == "" and len(json.loads(done.out)["entries"]) == 1


def test_sizes_of_zero_and_one(run: Run, compiles: None) -> None:
    words = ("gemm", "m=0,1", "n=1", "k=1", "--no-run", "--device", "cuda:sm_80", "--top", "2", "-q")
    done = run("sweep", *words, "--format", "json")
    zero, one = json.loads(done.out)["entries"]
    assert done.code == 1 and zero["status"] == "unsupported" and "zero" in zero["message"] and zero["kernels"] == []
    assert one["status"] == "ok" and one["kernels"][0]["candidates"][0]["status"] == "ok"
    assert "unsupported: an extent is zero" in run("sweep", *words).out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [(("--device", "cuda:sm_1"), 3, "no device cuda:sm_1"), (("--targets", "cuda:sm_80,metal:m1"), 3, "metal:m1"),
     (("--device", "opencl:generic"), 3, "its device's driver"), (("--device", "opencl:99"), 3, "penCL"),
     (("--targets", "cuda:sm_80", "--device", "cpu"), 2, "not both"), (("--budget", "2s"), 2, "--budget"),
     (("--trials", "2"), 2, "--trials"), (("--format", "csv"), 2, "csv"), (("--top", "0"), 2, "top"),
     (("-o", "no/such/list.json"), 2, "no such folder")],
)  # fmt: skip
def test_wrong_words(run: Run, words: tuple[str, ...], code: int, told: str) -> None:
    done = run("sweep", *GEMM, "--no-run", *words)
    assert done.code == code and done.out == "" and told in done.err and len(done.err.splitlines()) == 1


def test_options_of_lists_need_no_run(run: Run) -> None:
    for words in (("--top", "3"), ("--targets", "cpu")):
        done = run("sweep", *GEMM, *words)
        assert done.code == 2 and "--no-run" in done.err


def test_a_missing_toolchain_is_told_with_its_remedy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> None:
        raise DeviceError("it is not here: pip install it")

    monkeypatch.setattr(nvrtc, "library", missing)
    monkeypatch.setattr(amdgpu, "compiler", missing)
    for name in ("cuda:sm_80", "hip:gfx942"):
        done = run("sweep", *GEMM, "--no-run", "--device", name, "-o", "list.json")
        assert done.code == 3 and done.err == "error: it is not here: pip install it\n" and done.out == ""


@pytest.mark.parametrize(
    ("reason", "status"), [("timeout", "timeout"), ("crash", "compile"), ("garbage", "compile"), ("compile", "compile")]
)
def test_a_compiler_that_fails_is_a_status(
    run: Run, place: Path, compiles: None, monkeypatch: pytest.MonkeyPatch, reason: str, status: str
) -> None:
    def fails(text: str, spec: object) -> None:
        raise BuildError("it went wrong", "", reason)

    monkeypatch.setattr(offline, "compiled", fails)
    done = run("sweep", *GEMM, "--no-run", "--device", "cuda:sm_80", "--top", "2", "-o", "list.json")
    (entry,) = json.loads((place / "list.json").read_text())["entries"]
    assert done.code == 4 and entry["status"] == status and "it went wrong" in done.out
    assert [(c["status"], c["reason"]) for c in entry["kernels"][0]["candidates"]] == [(status, reason)] * 2


def test_an_interrupt_keeps_what_is_listed(
    run: Run, place: Path, compiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def stops(text: str, spec: object) -> dict[str, Report]:
        calls.append(text)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"kernel0": COMPILED}

    monkeypatch.setattr(offline, "compiled", stops)
    words = ("gemm", "m=32,48", "n=32", "k=16", "--no-run", "--device", "cuda:sm_80", "--top", "1", "-o", "list.json")
    done = run("sweep", *words)
    assert done.code == 130 and "interrupted: 1 of 2 lists" in done.err
    assert len(json.loads((place / "list.json").read_text())["entries"]) == 1


# ---- ranked ---------------------------------------------------------------------------------------------------------


def listed(predicted: float, registers: int = 40, spilled: int = 0, shared: int = 0, blocks: int = 10_000) -> Listed:
    spec = device("cuda:sm_80")
    entry = Entry("k", Launch((blocks, 1, 1), (128, 1, 1), shared), (), ())
    grid = shortlist._grid(entry, Report(Resources(registers, spilled, shared)), spec)
    row = Listed(Candidate(Schedule(), predicted, "model"), grids=(grid,))
    return replace(row, expected=shortlist._expected(row, spec))


def test_what_spills_is_last_of_what_works() -> None:
    rows = [listed(1e-5, spilled=8), listed(3e-5), listed(2e-5), replace(listed(1e-6), status=Status.COMPILE)]
    assert [r.candidate.predicted for r in sorted(rows, key=lambda r: r.order)] == [2e-5, 3e-5, 1e-5, 1e-6]


def test_few_resident_threads_cost_time() -> None:
    free, full = listed(1e-5), listed(1e-5, shared=100 << 10)
    assert free.expected == 1e-5 and full.expected == pytest.approx(1e-5 * 512 / 128)
    assert full.resident is not None and (full.resident.blocks, full.resident.limit) == (1, "shared")
    assert listed(1e-5, shared=100 << 10, blocks=108).expected == 1e-5, "there is no more than one block for each"


def test_a_block_that_fits_no_multiprocessor(compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used = Report(Resources(300, 0, 0))
    monkeypatch.setattr(offline, "compiled", lambda text, spec: {"kernel0": used})
    ((_, rows),) = shortlists(product(32, 32, 16), device("cuda:sm_80"), top=2)
    assert [(r.status, r.reason) for r in rows] == [(Status.CONSTRAINTS, "registers")] * 2
    assert "not one block fits" in rows[0].message


@pytest.mark.parametrize(
    ("most", "told"), [({"threads_per_block": 16}, "threads a block; at most 16"),
                       ({"shared_bytes": 64}, "bytes of shared memory; at most 64")],
)  # fmt: skip
def test_more_than_a_device_has(
    compiles: None, monkeypatch: pytest.MonkeyPatch, most: dict[str, Any], told: str
) -> None:
    spec, program = device("cuda:sm_80"), product(256, 256, 64)
    first = next(Ranking(normal_form(program), spec, 1).best())
    monkeypatch.setattr(Ranking, "best", lambda self: iter([first, Candidate(Schedule(), float("inf"), "plain")]))
    ((_, (plain, large)),) = shortlists(program, replace(spec, **most), top=2)
    assert plain.status is Status.OK and plain.candidate.origin == "plain"
    assert (large.status, large.reason) == (Status.CONSTRAINTS, "verifier") and told in large.message


def test_a_wrong_schedule_is_a_status(compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = device("cuda:sm_80")

    def wrong(*_: object) -> None:
        raise VerifyError("it computes something else")

    monkeypatch.setattr(shortlist, "prove", wrong)
    ((_, rows),) = shortlists(product(32, 32, 16), spec, top=1)
    assert {r.status for r in rows} == {Status.CORRECTNESS} and rows[0].reason == "equivalence"


def test_grids_have_limits() -> None:
    program = product(64, 64, 4)
    steps = (Tile("t0", (("i", 8), ("j", 8))), Bind("t0", "i.0", "block.y"), Bind("t0", "j.0", "block.x"),
             Bind("t0", "i.1", "thread.y"), Bind("t0", "j.1", "thread.x"))  # fmt: skip
    nest = Schedule(steps).apply(lower(program))
    assert verify(program, nest, Limits(grid=(8, 8, 1))).ok
    (wrong,) = verify(program, nest, Limits(grid=(8, 7, 1))).violations
    assert (wrong.kind, wrong.message) == ("limit", "8 blocks along y; at most 7")
    assert device("cuda:sm_80").limits().grid == (2**31 - 1, 65535, 65535)
    assert device("opencl:generic").limits().grid == Limits().grid


def test_the_largest_grid_counts() -> None:
    small, large = (Grid(Entry("k", Launch((n, 2, 1), (32, 1, 1), 0), (), ()), COMPILED) for n in (3, 4))
    row = Listed(Candidate(Schedule(), 1.0, "model"), grids=(small, large))
    assert large.blocks == 8 and row.resident is None and row.most("registers") == 40
    assert Listed(row.candidate).most("registers") is None


# ---- read and measured ----------------------------------------------------------------------------------------------


def test_a_list_is_measured(run: Run, place: Path) -> None:
    assert run("sweep", *CPU).code == 0
    schedules = [
        c["digest"] for c in json.loads((place / "list.json").read_text())["entries"][0]["kernels"][0]["candidates"]
    ]
    done = run("sweep", "--from", "list.json", "--threads", "1", "--trials", "3", "--budget", "5s", "--format", "jsonl")
    (record,) = done.records
    assert done.code == 0 and list(record) == list(FIELDS) and record["status"] == "ok" and record["trials"] == 3
    assert record["schedule"] in schedules, "there are trials for these only; the default is one of them"


def test_lists_that_do_not_work_here(run: Run, place: Path) -> None:
    assert run("sweep", *CPU).code == 0

    def worse(value: dict[str, Any]) -> None:
        rows = value["entries"][0]["kernels"][0]["candidates"]
        rows[0]["schedule"] = [{"kind": "no such step"}]
        rows[1]["schedule"] = [{**step, "loop": "nowhere"} if "loop" in step else step for step in rows[1]["schedule"]]
        rows.append({**rows[2], "schedule": "text"})

    edited(place, worse)
    done = run("sweep", "--from", "list.json", "--threads", "1", "--trials", "4", "--budget", "5s", "--format", "jsonl")
    (record,) = done.records
    assert done.code == 0 and record["status"] == "ok" and "Traceback" not in done.err
    assert done.err.count("is no schedule: constraints") == 2 and record["seconds"] > 0
    assert "listed candidates did not work here: " in record["message"] and "constraints" in record["message"]


def test_a_list_that_computes_something_else(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise VerifyError("another function")

    assert run("sweep", *CPU).code == 0
    monkeypatch.setattr("autotune.cli.shortlists.prove", wrong)
    done = run("sweep", "--from", "list.json", "--threads", "1", "--trials", "1", "--format", "jsonl")
    (record,) = done.records
    assert done.code == 0 and "of 3 listed candidates did not work here: 3 correctness" in record["message"]


def test_the_budget_may_end_before(run: Run, place: Path) -> None:
    assert run("sweep", *CPU).code == 0
    done = run("sweep", "--from", "list.json", "--threads", "1", "--trials", "1", "--format", "jsonl")
    (record,) = done.records
    assert done.code == 0 and record["status"] == "ok" and record["trials"] == 1 and "interrupted" in record["message"]
    assert run("sweep", "--from", "list.json", "--threads", "1", "--trials", "1", "-q").err == ""


def test_a_user_s_function_is_listed_and_measured(run: Run, place: Path) -> None:
    words = ("functions_here:dense", "x=f32[m,k]", "w=f32[k,16]", "b=f32[16]", "m=8", "k=4", "--device", "cpu")
    assert run("sweep", *words, "--no-run", "--top", "2", "-o", "list.json").code == 0
    done = run("sweep", "--from", "list.json", "--threads", "1", "--trials", "3", "--format", "jsonl")
    assert done.code == 0 and done.records[0]["op"] == "functions_here:dense" and done.records[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [(lambda v: v.update(schema=2), 2, "schema 2"), (lambda v: v.pop("entries"), 2, "not a shortlist"),
     (lambda v: v["entries"].clear(), 3, "lists nothing"), (lambda v: v["entries"][0].pop("op"), 2, "not a shortlist"),
     (lambda v: v["entries"][0].update(op="gem"), 2, "entry 1"),
     (lambda v: v["entries"][0]["kernels"].append(3), 2, "not a shortlist"),
     (lambda v: v["entries"][0].update(device="cuda:sm_80"), 3, "not in this machine"),
     (lambda v: v["entries"][0].update(device="abacus:1"), 3, "abacus")],
)  # fmt: skip
def test_files_that_are_wrong(
    run: Run, place: Path, change: Callable[[dict[str, Any]], None], code: int, told: str
) -> None:
    assert run("sweep", *CPU).code == 0
    edited(place, change)
    done = run("sweep", "--from", "list.json", "--threads", "1")
    assert done.code == code and told in done.err and done.out == "" and len(done.err.splitlines()) == 1


def test_another_device_is_named(run: Run) -> None:
    assert run("sweep", *CPU).code == 0
    done = run("sweep", "--from", "list.json", "--device", "cuda:sm_80")
    assert done.code == 3 and "lists nothing for cuda:sm_80; it has cpu" in done.err


def test_on_a_real_device_with_blocks(run: Run, place: Path) -> None:
    queue()
    words = ("softmax", "m=24", "n=40", "--no-run", "--device", "opencl:portable", "--top", "2", "-o", "list.json")
    done = run("sweep", *words)
    assert done.code == 0, done.err
    (entry,) = json.loads((place / "list.json").read_text())["entries"]
    assert entry["device"].startswith("opencl:") and entry["kernels"][0]["candidates"][0]["registers"] is None

    def larger(value: dict[str, Any]) -> None:
        rows = value["entries"][0]["kernels"][0]["candidates"]
        rows[0]["schedule"] = json.loads(json.dumps(rows[0]["schedule"]).replace("32", "4096").replace("64", "4096"))

    edited(place, larger)
    done = run("sweep", "--from", "list.json", "--budget", "5s", "--trials", "3", "--format", "jsonl")
    (record,) = done.records
    assert done.code == 0 and record["status"] == "ok" and record["device"].startswith("opencl:") and record["seconds"]
