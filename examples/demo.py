"""Tunes a matrix product and a fused layer on this CPU and compares them with NumPy; fails only on a wrong result."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import autotune

Array = NDArray[Any]
BUDGET, ROUNDS = 4.0, 15


@autotune.kernel(threads=1)
def gemm(a: Any, b: Any) -> Any:
    return a @ b


@autotune.kernel(threads=1)
def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


def numpy_gemm(a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b, out=out)


def numpy_dense(x: Array, w: Array, b: Array, out: Array) -> None:
    np.matmul(x, w, out=out)
    np.add(out, b, out=out)
    np.maximum(out, 0, out=out)


def seconds(run: Callable[[], object]) -> float:
    """Of one call, over enough calls to take at least about a millisecond."""
    start = time.perf_counter()
    run()
    count = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def compare(kernel: Any, peer: Callable[..., None], *arguments: Array) -> tuple[bool, float]:
    """(the result is right, times faster than the peer in paired rounds) after tuning."""
    m, k, n = arguments[0].shape[0], arguments[0].shape[1], arguments[1].shape[1]
    ours, theirs = np.full((m, n), np.nan, np.float32), np.empty((m, n), np.float32)
    begun = time.perf_counter()
    kernel(*arguments, out=ours)
    first = time.perf_counter() - begun
    result = kernel.tune(*arguments, budget=BUDGET)
    kernel(*arguments, out=ours)
    peer(*arguments, out=theirs)
    right = bool(np.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * k))
    rounds = [
        (seconds(lambda: kernel(*arguments, out=ours)), seconds(lambda: peer(*arguments, out=theirs)))
        for _ in range(ROUNDS)
    ]
    ratio = statistics.median(b / a for a, b in rounds)
    mine = statistics.median(a for a, _ in rounds)
    tuned = f"{result.trials} trials in {result.elapsed:.1f} s, {result.winner} wins"
    speed = f"{mine * 1e3:.3f} ms, {2e-9 * m * n * k / mine:.1f} GFLOP/s, {ratio:.2f}x NumPy"
    print(f"{m}x{n}x{k}: first call {first * 1e3:.0f} ms; {tuned}; {speed}")
    return right, ratio


def main() -> int:
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    random: Callable[..., Array] = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    with threadpool_limits(1):
        cases = {
            "gemm 512x512x512": compare(gemm, numpy_gemm, random(512, 512), random(512, 512)),
            "dense": compare(dense, numpy_dense, random(128, 768), random(768, 768), random(768)),
        }
    wrong = [name for name, (right, _) in cases.items() if not right]
    if wrong:
        print(f"demo: wrong result: {', '.join(wrong)}")
        return 1
    (_, first), (_, second) = cases.values()
    print(f"demo: ok, {len(cases)} kernels checked, gemm 512x512x512 {first:.2f}x NumPy, dense {second:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
