"""Products of types that matrix instructions take, of every structure, at sizes of whole tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autotune.ir.program import TensorProgram

from .kernels import kernels, spec

STRUCTURES: dict[str, tuple[Callable[..., Any], str]] = {
    "product": (lambda x, y: x @ y, "ac cb"), "second turned": (lambda x, y: x @ y.T, "ac bc"),
    "first turned": (lambda x, y: x.T @ y, "ca cb"), "batch": (lambda x, y: x @ y, "dac dcb"),
    "epilogue": (lambda x, y, v: np.maximum(x @ y + v, 0), "ac cb b"),
}  # fmt: skip
DTYPES = ("f16", "bf16", "i8")


def matrices(name: str, dtype: str, sizes: tuple[int, int, int] = (64, 128, 128)) -> list[TensorProgram]:
    """The kernels of a structure; small integers add up in i32, halves in f32."""
    fn, shapes = STRUCTURES[name]
    extents = dict(zip("abcd", (*sizes, 3)))
    wide: Callable[[Any], Any] = (lambda x: x.astype(np.int32)) if dtype == "i8" else lambda x: x
    made = [spec(*map(extents.__getitem__, shape), dtype=dtype) for shape in shapes.split()]
    return kernels(lambda *args: fn(*map(wide, args)), *made)
