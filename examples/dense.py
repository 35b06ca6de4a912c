"""A fused layer: tune it for two seconds, then compare it with NumPy."""

from __future__ import annotations

import timeit
from typing import Any

import numpy as np

import autotune


@autotune.kernel(threads=1)
def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


def reference(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((128, 768), (768, 768), (768,)))
    result = dense.tune(x, w, b, budget=2.0)
    np.testing.assert_allclose(dense(x, w, b), reference(x, w, b), rtol=1e-3, atol=1e-3)
    numpy = min(timeit.repeat(lambda: reference(x, w, b), number=1, repeat=20))
    for name, seconds in ((result.winner, result.seconds), ("default", result.default_seconds), ("NumPy", numpy)):
        print(f"{name:8} {seconds * 1e3:.3f} ms")
    print(dense.explain(x, w, b))
