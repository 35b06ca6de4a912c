"""What the rules of ATen operations share: the node a rule stands at, element types, and how rules are registered.

A rule is a function of a Site and the operation's own arguments, with arrays (or tracers) in place of tensors. Knows
torch's metadata and NumPy's dtypes. Must not know how graphs are cut, or what runs a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ...ir.dtypes import DType
from ...ir.dtypes import dtype as parse_dtype
from ...ir.errors import AutotuneError

Array = Any  # an ndarray, or a tracer of one
Rule = Callable[..., Any]
_np: Any = np  # its stubs do not know what implements the protocols

_NAMES = {
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64", torch.int8: "i8",
    torch.uint8: "u8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.bool: "bool",
}  # fmt: skip


class Refused(AutotuneError):
    """A node that no rule can translate; the text says why."""


@dataclass(frozen=True)
class Site:
    """A node while it is translated. `result`: torch's metadata of what it gives, one tensor or a tuple of them.

    `like`: some array of the kernel, by which constants are made; `wrong`: conditions, arrays of bool, that no element
    may fulfil when the kernel has run, as where a place lies outside of its array.
    """

    node: Any
    result: Any
    like: Array
    wrong: list[Array]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.result.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return numpy_dtype(self.result.dtype)

    def full(self, value: Any, dtype: Any = None, shape: Sequence[int] = ()) -> Array:
        """A constant of the kernel."""
        return _np.full(tuple(shape), value, dtype=self.dtype if dtype is None else dtype, like=self.like)

    def arange(self, start: int, end: int, step: int = 1) -> Array:
        """Positions, of int64."""
        return _np.arange(start, end, step, dtype=np.int64, like=self.like)


def own_dtype(dtype: Any) -> DType:
    """Raises Refused for an element type that kernels do not have."""
    if dtype not in _NAMES:
        raise Refused(f"no kernel computes with {str(dtype).removeprefix('torch.')}")
    return parse_dtype(_NAMES[dtype])


@cache
def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    return own_dtype(dtype).numpy


def wide(x: Array) -> Array:
    """16-bit floats as f32, in which torch computes them; anything else as it is."""
    return x.astype(np.float32) if x.dtype.kind not in "iub" and x.dtype.itemsize == 2 else x


def axes_of(dims: Any, ndim: int) -> tuple[int, ...]:
    """torch's `dim`: one, several, or none for all of them."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return tuple(range(ndim))
    return tuple(sorted({d % max(ndim, 1) for d in ([dims] if isinstance(dims, int) else dims)}))


def rounded(site: Site, value: Array) -> Array:
    return value if value.dtype == site.dtype else value.astype(site.dtype)
