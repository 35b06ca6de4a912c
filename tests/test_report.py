"""What people read about a kernel: the program, the schedule, exact counts, times and the roof."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from autotune.ir.errors import UsageError
from autotune.options import Options
from autotune.report import describe, duration, launched, roofline_seconds
from autotune.session import Prepared, Session
from autotune.tracer import trace
from tests.kernels import spec


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """max(x @ u, 0) @ v of 10x20, 20x30 and 30x40, untuned: two kernels."""
    program = trace(lambda x, u, v: np.maximum(x @ u, 0) @ v, (spec(10, 20), spec(20, 30), spec(30, 40)), {}).program
    return Session().prepare(program, Options(threads=1, cache_dir=str(tmp_path_factory.mktemp("cache"))))


def test_explain(prepared: Prepared) -> None:
    text = prepared.explain()
    assert text.startswith(f"2 kernels on {prepared.workshop.spec.name} (cpu:") and ", 1 thread\n" in text
    flops, bytes_ = (2 * 10 * 20 * 30 + 10 * 30, 2 * 10 * 30 * 40), (4 * (200 + 600 + 300), 4 * (300 + 1200 + 400))
    for n, k in enumerate(prepared.kernels):
        part = text[text.index(f"kernel {n}:") :]
        assert "chosen by: model (the model's first choice)" in part
        assert all(f"    {step}\n" in part for step in k.choice.schedule.steps) and k.choice.schedule.steps
        assert f"{bytes_[n]:,} bytes at least" in part
        counted = re.search(r"counts: ([\d,]+) flops", part)
        assert counted and abs(int(counted[1].replace(",", "")) - flops[n]) <= flops[n] // 20
        assert re.search(r"predicted: [\d.]+ [mun]?s, \w+ [\d.]+ [mun]?s", part)
        assert re.search(r"measured: not yet \(roofline [\d.]+ [mun]?s\)", part)
    assert "x: " in text and "elements touched" in text


def test_launched(prepared: Prepared, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    launched(prepared, [1e-6, 2e-6])
    assert capfd.readouterr().err == "", "nothing is said unless debugging asks for it"
    monkeypatch.setattr(prepared, "options", replace(prepared.options, debug=2))
    launched(prepared, [1e-6, 2e-6])
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all(re.search(r"GFLOP/s .* GB/s \d+ % of roofline$", line) for line in lines)
    for line, k, seconds in zip(lines, prepared.kernels, (1e-6, 2e-6)):
        assert f" {k.program.flops:,} flops {k.program.bytes:,} bytes " in line
        assert f" {k.program.flops / seconds / 1e9:.1f} GFLOP/s {k.program.bytes / seconds / 1e9:.1f} GB/s " in line


def test_source(prepared: Prepared) -> None:
    text = prepared.source()
    assert "define void @kernel0(" in text and "define void @kernel1(" in text
    with pytest.raises(UsageError, match="target 'fortran'"):
        prepared.source("fortran")


def test_the_roof(prepared: Prepared) -> None:
    spec = prepared.workshop.spec
    program = prepared.kernels[0].program
    roof = roofline_seconds(program, spec, 1)
    assert roof >= program.flops / spec.peak("f32", 1) and roofline_seconds(program, spec, 2) <= roof
    assert describe(prepared.kernels[0].original)[0].startswith("t0[") and "sum over" in "".join(describe(program))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s"), (1.5e-3, "1.5 ms"), (12e-6, "12 us"), (3.21e-9, "3.21 ns"), (None, "-"), (float("inf"), "-"),
     (float("nan"), "-")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
