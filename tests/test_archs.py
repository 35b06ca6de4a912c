"""The table of operations and architectures: what is in a cell, and that a spill is no success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.codegen import nvrtc, offline
from autotune.codegen.offline import Report
from autotune.codegen.resources import Resources
from autotune.devices.gpu import known
from autotune.ir.errors import BuildError, DeviceError
from benchmarks import archs
from tests.codegen.test_offline import present

ONE = ("--operations", "softmax m=1024 n=1024", "--archs", "cuda:sm_80")


def test_a_cell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present("cuda:sm_80")
    monkeypatch.setattr(archs, "RESULTS", tmp_path / "results" / "archs.json")
    monkeypatch.setattr(archs, "PAGE", tmp_path / "archs.md")
    assert archs.main([*ONE, "--write"]) == 0
    (row,) = json.loads((tmp_path / "results" / "archs.json").read_text())["cells"]
    assert row["registers"] > 8 and row["spilled"] == 0 and row["compile_ms"] > 1 and 0 < row["occupancy"] <= 1
    shown = f"| `softmax m=1024 n=1024` | {row['registers']} / {row['shared'] / 1024:.3g} /"
    assert shown in capsys.readouterr().out and shown in (tmp_path / "archs.md").read_text()


def test_spills_errors_and_missing_compilers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "toolchain", lambda spec: "a compiler")
    used = {"kernel0": Report(Resources(40, 8, 1024))}
    monkeypatch.setattr(offline, "compiled", lambda text, spec: used)
    assert archs.main(ONE) == 1
    shown = capsys.readouterr()
    assert "40 / 1 /" in shown.out and "spill 8" in shown.out and "8 bytes spilled" in shown.err

    def fails(text: str, spec: object) -> None:
        raise BuildError("it crashed", "", "crash")

    monkeypatch.setattr(offline, "compiled", fails)
    assert archs.main(ONE) == 1 and "wrong: softmax m=1024 n=1024 on cuda:sm_80: it crashed" in capsys.readouterr().err

    def missing(spec: object) -> None:
        raise DeviceError("pip install it")

    monkeypatch.setattr(offline, "toolchain", missing)
    assert archs.main(ONE) == 3 and capsys.readouterr().err == "error: pip install it\n"


def test_every_operation_can_be_made_and_every_architecture_is_in_the_table() -> None:
    assert set(archs.ARCHS) <= set(known()) and len(archs.ARCHS) >= len(nvrtc.ARCHS) + 4
    assert [archs.case(words).op for words in archs.OPERATIONS]
