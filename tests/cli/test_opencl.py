"""A real OpenCL device, end to end: calls, tuning, the command line. Skipped where there is none, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
from autotune import ops
from tests.cli.conftest import Run
from tests.codegen.test_clike import queue

FUNCTIONS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "dense": (lambda x, w, b: np.maximum(x @ w + b, 0), [(30, 40), (40, 50), (50,)]),
    "softmax": (ops.softmax, [(9, 70)]),
    "two kernels": (lambda x, u, v: np.maximum(x @ u, 0) @ v, [(20, 30), (30, 40), (40, 50)]),
    "one element": (lambda x: x * 2 + 1, [(1,)]),
    "no element": (lambda x: x * 2 + 1, [(0, 3)]),
}


def arrays(shapes: list[tuple[int, ...]]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.fixture
def device() -> str:
    queue()  # skips where there is none
    return "opencl:portable"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls(device: str, name: str, tmp_path: Path) -> None:
    fn, shapes = FUNCTIONS[name]
    x = arrays(shapes)
    kernel = autotune.kernel(fn, device=device, cache=str(tmp_path / "store.db"))
    for _ in range(2):
        np.testing.assert_allclose(kernel(*x), fn(*x), rtol=1e-4, atol=1e-5)


def test_views_and_out(device: str) -> None:
    (x,) = arrays([(20, 40)])
    kernel = autotune.kernel(lambda x: x + 1, device=device, cache="off")
    out = np.empty((10, 20), np.float32)
    assert kernel(x[::2, ::2], out=out) is out
    np.testing.assert_array_equal(out, x[::2, ::2] + 1)
    np.testing.assert_array_equal(kernel(x.T), x.T + 1)


def test_tuning_never_leaves_a_slower_or_wrong_kernel(device: str, tmp_path: Path) -> None:
    x, y = arrays([(48, 64), (64, 48)])
    kernel = autotune.kernel(lambda a, b: a @ b, device=device, cache=str(tmp_path / "store.db"))
    result = kernel.tune(x, y, trials=5, budget=30)
    assert result.trials <= 5 and 0 < result.seconds <= result.default_seconds
    np.testing.assert_allclose(kernel(x, y), x @ y, rtol=1e-4, atol=1e-4)
    again = autotune.kernel(lambda a, b: a @ b, device=device, cache=str(tmp_path / "store.db"))
    again(x, y)
    assert "chosen by: cache" in again.explain(x, y)


def test_the_command_line(device: str, run: Run) -> None:
    words = ("gemm", "m=32", "n=32", "k=16", "--device", device, "--budget", "3s", "--format", "jsonl")
    done = run("sweep", *words)
    (record,) = done.records
    assert done.code == 0 and record["status"] == "ok" and record["device"].startswith("opencl:") and record["seconds"]
    assert "shared memory: " in run("explain", *words[:6]).out


@pytest.mark.parametrize("name", ["opencl:99", "cuda:sm_80", "hip:gfx942"])
def test_a_device_that_is_not_here(run: Run, name: str) -> None:
    done = run("sweep", "gemm", "m=8", "n=8", "k=8", "--device", name)
    assert done.code == 3 and ("not in this machine" in done.err or "here" in done.err or "pyopencl" in done.err)
