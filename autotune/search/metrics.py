"""How good predictions and searches are, given what everything took."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
TIE = 0.01


def peak(predicted: Array, measured: Array, k: int) -> float:
    """The fraction of the best that the best of the first k, as predicted, reaches."""
    first = np.argsort(predicted, kind="stable")[:k]
    return float(measured.min() / measured[first].min())


def pairwise(predicted: Array, measured: Array, tie: float = TIE) -> float:
    """Of all pairs whose times differ by more than `tie` (of the logarithm), the share that is predicted in the right
    order."""
    gap = np.log(measured)[:, None] - np.log(measured)[None, :]
    order = np.sign(predicted[:, None] - predicted[None, :])
    apart = np.triu(np.abs(gap) > tie)
    if not apart.any():
        return 1.0
    return float(((order == np.sign(gap)) + 0.5 * (order == 0))[apart].mean())


def expected(times: Array) -> Array:
    """The best that so many random draws without replacement find on average, for 1 to all of them."""
    left, n = np.sort(times), len(times)
    out, weight = np.empty(n), np.full(n, 1.0 / n)  # of being the best of the draws so far, fastest first
    for k in range(1, n + 1):
        out[k - 1] = left @ weight
        # C(n-i, k) / C(n, k+1) from C(n-i, k-1) / C(n, k), for the i-th fastest.
        weight = weight * np.maximum(n - np.arange(1, n + 1) - k + 1, 0) / k * (k + 1) / max(n - k, 1)
    return out
