"""A function as machine code on one thread and on two, against NumPy in float64 within the derived tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import autotune
from autotune.floatcheck import evaluate
from autotune.tracer import trace


def leaves(value: Any) -> Iterator[Any]:
    """The arrays of a result."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    else:
        yield np.asarray(value)


def _wide(x: Any) -> Any:
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind not in "iub" else x


def check(fn: Callable[..., Any], *args: Any, threads: Sequence[int] = (1, 2), **options: Any) -> None:
    """fn(*args, **options), compiled, is what NumPy makes of it: within the bound that floatcheck derives, plus 1e-12
    of the magnitude for NumPy's own rounding in float64; exactly for integers and booleans."""

    def call(*arrays: Any) -> Any:
        return fn(*arrays, **options)

    traced = trace(call, args)
    assert all(source[0] == "arg" for source in traced.arguments), "a hidden array"
    values = evaluate(traced.program, [args[source[1]] for source in traced.arguments])
    with np.errstate(all="ignore"):
        expected = list(leaves(call(*map(_wide, args))))
    wanted = list(leaves(traced.rebuild([Holder(v) for v in values])))
    for count in threads:
        results = leaves(autotune.kernel(call, threads=count, tune="off", cache="off")(*args))
        for got, want, bound in zip(results, expected, wanted, strict=True):
            held = bound.item().value
            assert got.shape == want.shape, f"shape {got.shape}, NumPy: {want.shape}"
            if got.dtype.kind in "iub":
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want)
                continue
            wide = got.astype(np.float64)
            with np.errstate(all="ignore"):
                same = (wide == want) | (np.isnan(wide) & np.isnan(want))
                off = np.abs(wide - want) <= held.e + 1e-12 * (1 + np.abs(want))
            assert np.all(same | off), f"{count} threads: {wide[~(same | off)][:3]}, NumPy: {want[~(same | off)][:3]}"
            known = np.broadcast_to(np.isfinite(held.e), got.shape)
            assert known.mean() > 0.5 if got.size else True, "the bound says nothing"


class Holder:
    """One value of an evaluation, in place of an array of the result."""

    def __init__(self, value: Any) -> None:
        self.value = value
