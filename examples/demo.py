"""Tunes four kernels on this CPU and compares them with NumPy: a matrix product, a fused layer, softmax, and one more.

Fails only on a wrong result. Times are of calls from Python on one thread; ratios are medians of paired, interleaved
rounds. "Before" is what runs without any tuning: the cost model's first choice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import autotune
from autotune.devices.records import median
from autotune.peers import agree, paired, ratio, threads
from autotune.report import duration

Array = NDArray[Any]
BUDGET, ROUNDS = 6.0, 25


@autotune.kernel(threads=1)
def gemm(a: Any, b: Any) -> Any:
    return a @ b


@autotune.kernel(threads=1)
def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


@autotune.kernel(threads=1)
def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@autotune.kernel(threads=1)
def distances(p: Any, q: Any) -> Any:
    """What no library has a kernel for: distances between points, damped by the sums of the first ones."""
    squares = (p * p).sum(axis=1)[:, None] + (q * q).sum(axis=1) - 2 * (p @ q.T)
    return np.sqrt(np.maximum(squares, 0)) / (1 + np.abs(p.sum(axis=1)))[:, None]


def product_into(a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b, out=out)


def dense_into(x: Array, w: Array, b: Array, out: Array) -> None:
    np.matmul(x, w, out=out)
    np.add(out, b, out=out)
    np.maximum(out, 0, out=out)


INTO: dict[str, Callable[..., None]] = {"gemm": product_into, "dense": dense_into}


def compare(name: str, kernel: Any, numpy: Callable[..., Any], *x: Array) -> tuple[bool, float]:
    """Tune, check against NumPy, and print a line; whether the result is right, and how many times faster it is."""
    wanted = numpy(*x)
    out, other, third = (np.empty_like(wanted) for _ in range(3))
    found = kernel.tune(*x, budget=BUDGET)
    before = autotune.kernel(numpy, threads=1, tune="off")
    right = agree(kernel(*x, out=out), wanted) and agree(before(*x, out=other), wanted)
    into = INTO.get(name.split()[0])
    calls = {"before": partial(before, *x, out=other), "tuned": partial(kernel, *x, out=out)}
    samples = paired({**calls, "NumPy": partial(into, *x, third) if into else partial(numpy, *x)}, ROUNDS)
    rate = ratio(samples["NumPy"], samples["tuned"])
    times = "".join(f"{duration(median(row)):>10}" for row in samples.values())
    print(f"{name:20}{times}{rate:>8.2f}x{found.trials:>8}  {'right' if right else 'WRONG'}", flush=True)
    return right, rate


def main() -> int:
    rng = np.random.default_rng(0)
    random: Callable[..., Array] = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    print(f"{'kernel':20}{'before':>10}{'tuned':>10}{'NumPy':>10}{'ratio':>9}{'trials':>8}")
    with threads(1):
        cases = {
            name: compare(name, kernel, kernel.__wrapped__, *map(lambda shape: random(*shape), shapes))
            for name, kernel, shapes in (
                ("gemm 512x512x512", gemm, ((512, 512), (512, 512))),
                ("dense 128x768x768", dense, ((128, 768), (768, 768), (768,))),
                ("softmax 1024x1024", softmax, ((1024, 1024),)),
                ("distances 512x256x32", distances, ((512, 32), (256, 32))),
            )
        }
    if wrong := [name for name, (right, _) in cases.items() if not right]:
        print(f"demo: wrong result: {', '.join(wrong)}")
        return 1
    product, layer = cases["gemm 512x512x512"][1], cases["dense 128x768x768"][1]
    print(f"demo: ok, {len(cases)} kernels checked, gemm 512x512x512 {product:.2f}x NumPy, dense {layer:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
