"""The benchmark for GPUs, run with a small budget on whatever OpenCL device is here."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codegen.test_clike import queue

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_it_tells_everything_within_its_time(tmp_path: Path) -> None:
    queue()  # skips where there is no device
    file = tmp_path / "told.json"
    how = ["--quick", "--budget", "10s", "--device", "opencl:portable", "--json", str(file)]
    words = [sys.executable, str(SCRIPT), *how]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    assert told["seconds"] < 60 and told["environment"]["device"]["kind"] == "opencl"
    assert told["correctness"]["rows"] and all(row["right"] for row in told["correctness"]["rows"])
    assert not any(told[part]["failed"] for part in ("correctness", "sanitizer", "ceilings", "shortlist"))
    assert "ceiling" in done.stdout and "Spearman" in done.stdout


def test_no_such_device_is_one_line_and_exit_code_3() -> None:
    words = [sys.executable, str(SCRIPT), "--quick", "--device", "opencl:99"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3 and done.stderr.startswith("error: no OpenCL device")


def test_rank_correlation() -> None:
    names = runpy.run_path(str(SCRIPT))
    spearman, clean = names["spearman"], names["clean"]
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [5, 6, 7, 8]) == pytest.approx(0.9487, abs=1e-3)  # scipy.stats.spearmanr
    assert str(spearman([1, 2], [1, 2])) == "nan" and clean({"x": [float("nan"), 1.0]}) == {"x": [None, 1.0]}
