"""What a call is made of: arrays, of which only the kind makes the signature, and static values, which are part of it.

Knows Python's and NumPy's values, the layout classes of arrays and what is refused; must not know programs, sessions or
machine code. torch is looked at only where the caller has imported it.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from .codegen.launch import Array, Axis
from .ir.dtypes import DType
from .ir.dtypes import dtype as parse_dtype
from .ir.errors import SignatureError
from .tracer import Spec, Tracer

Place = tuple[int | str, tuple[Any, ...]]
"""Position or keyword of an argument, and the path of keys inside it."""


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """All of an array that a kernel depends on. The rule of each axis says which strides belong to this kind."""

    dtype: DType
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        return math.prod(axis.extent for axis in self.axes)

    def strides(self, name: str) -> tuple[int | str, ...] | None:
        """In elements; a run-time stride by its name; None for a C-contiguous array."""
        expected, contiguous = 1, True
        for axis in reversed(self.axes):
            contiguous &= axis.rule == "any" or (axis.rule == "exact" and axis.stride == expected * self.dtype.bytes)
            expected *= axis.extent
        if contiguous:
            return None
        fixed = ("exact", "any")
        return tuple(
            a.stride // self.dtype.bytes if a.rule in fixed else f"{name}.s{d}" for d, a in enumerate(self.axes)
        )


@dataclass(frozen=True)
class Call:
    """Arguments as given. `key`: equal for calls that one kernel serves. `arrays`: every array, or Spec, by place.

    `mutable`: a list or dictionary is among the static values, so that identity says nothing about them.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    key: Hashable
    arrays: dict[Place, Any]
    mutable: bool

    @property
    def abstract(self) -> bool:
        return any(isinstance(array, Spec) for array in self.arrays.values())


def read_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Raises SignatureError, naming the argument, for what no kernel accepts."""
    arrays: dict[Place, Any] = {}
    mutable = False

    def key(value: Any, root: int | str, path: tuple[Any, ...]) -> Hashable:
        nonlocal mutable
        kind = type(value)
        if value is None or kind in (bool, int, str, bytes):
            return kind, value
        if isinstance(value, (np.ndarray, Spec)):
            arrays[root, path] = value
            return array_kind(value, _where(root, path))
        if kind in (float, complex):
            return kind, repr(value)  # tells 0.0 from -0.0, and finds nan again
        if isinstance(value, np.generic):
            return kind, value.tobytes()
        if isinstance(value, (tuple, list, dict)):
            mutable |= not isinstance(value, tuple)
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return kind, tuple((k, key(item, root, (*path, k))) for k, item in items)
        if isinstance(value, slice):
            return kind, value.start, value.stop, value.step
        if isinstance(value, (type, np.dtype, Enum)) or callable(value) or value is Ellipsis:
            return kind, value
        accepted = "arrays, Python scalars, strings, None, functions, and tuples, lists or dictionaries of these"
        raise SignatureError(f"{_where(root, path)} is a {kind.__name__}; arguments are {accepted}")

    positional = tuple(key(value, i, ()) for i, value in enumerate(args))
    named = tuple((name, key(value, name, ())) for name, value in sorted(kwargs.items()))
    return Call(args, kwargs, (positional, named), arrays, mutable)


def _where(root: int | str, path: tuple[Any, ...]) -> str:
    start = f"argument {root + 1}" if isinstance(root, int) else f"argument {root!r}"
    return start + "".join(f"[{key!r}]" for key in path)


def array_kind(array: Array | Spec, where: str) -> ArrayKind:
    """The kind of an array, or of one like the Spec. Raises SignatureError."""
    if isinstance(array, Spec):
        dtype = array.dtype
        if any(stride < 0 for stride in array.strides or ()):
            raise SignatureError(f"{where} has a negative stride {array.strides}")
        strides = None if array.strides is None else tuple(s * dtype.bytes for s in array.strides)
        return ArrayKind(dtype, _axes(array.shape, strides, dtype.bytes, where))
    if type(array) is not np.ndarray:
        raise SignatureError(
            f"{where} is a {type(array).__name__}; array subclasses are refused: pass np.asarray of it"
        )
    if not array.dtype.isnative:
        raise SignatureError(
            f"{where} has foreign byte order ({array.dtype.str}); pass x.astype(x.dtype.newbyteorder('='))"
        )
    if array.dtype.hasobject:
        raise SignatureError(f"{where} has dtype object, which no kernel can compute with; convert it to numbers")
    try:
        dtype = parse_dtype(array.dtype)
    except SignatureError as error:
        raise SignatureError(f"{where}: {error}") from None
    if any(stride < 0 for stride, extent in zip(array.strides, array.shape, strict=True) if extent > 1):
        raise SignatureError(f"{where} has a negative stride {array.strides}; pass np.ascontiguousarray of it")
    if not array.flags.aligned:
        raise SignatureError(f"{where} is not aligned to its {dtype.bytes}-byte elements; pass a copy of it")
    return ArrayKind(dtype, _axes(array.shape, array.strides, dtype.bytes, where))


@functools.lru_cache(maxsize=1024)
def _axes(shape: tuple[int, ...], strides: tuple[int, ...] | None, item: int, where: str) -> tuple[Axis, ...]:
    """The layout class: dense in some order of the axes, or for each axis unit, broadcast or any other stride.

    Of the other strides the last one, which is the distance of two rows, also counts as a multiple of 4096 or not.
    """
    steps = list(strides or ())
    if strides is None:
        step = item
        for extent in reversed(shape):
            steps.insert(0, step)
            step *= extent
    real = [d for d, extent in enumerate(shape) if extent > 1]
    if 0 in shape:
        return tuple(Axis(extent, "any") for extent in shape)
    rules = {d: Axis(shape[d], "exact", steps[d]) for d in real}
    dense = item
    for d in sorted(real, key=lambda d: steps[d]):
        if steps[d] != dense:
            break
        dense *= shape[d]
    else:
        return tuple(rules.get(d, Axis(1, "any")) for d in range(len(shape)))
    general = [d for d in real if steps[d] not in (0, item)]
    for d in general:
        if steps[d] % item:
            raise SignatureError(f"{where} has a stride of {steps[d]} bytes, no multiple of its {item}-byte elements")
        row = "general 4K" if steps[d] % 4096 == 0 else "general not 4K"
        rules[d] = Axis(shape[d], row if d == general[-1] else "general")
    return tuple(rules.get(d, Axis(1, "any")) for d in range(len(shape)))


# ---- captured arrays ------------------------------------------------------------------------------------------------


def locate(fn: Callable[..., Any], array: Array) -> tuple[Any, str | None] | None:
    """Where the function finds a captured array: (cell, None) or (globals, name); None if in another way."""
    seen: set[int] = set()

    def search(function: Any) -> tuple[Any, str | None] | None:
        function = getattr(function, "__func__", getattr(function, "__wrapped__", function))
        if not isinstance(function, FunctionType) or id(function) in seen or len(seen) > 100:
            return None
        seen.add(id(function))
        found: list[tuple[Any, tuple[Any, str | None]]] = []
        for cell in function.__closure__ or ():
            try:
                found.append((cell.cell_contents, (cell, None)))
            except ValueError:  # not assigned yet
                continue
        spaces = function.__globals__
        found += [(spaces[name], (spaces, name)) for name in _names(function.__code__) if name in spaces]
        for value, place in found:
            if value is array:
                return place
        return next((inner for value, _ in found if (inner := search(value))), None)

    return search(fn)


def _names(code: CodeType) -> list[str]:
    return [*code.co_names, *(n for c in code.co_consts if isinstance(c, CodeType) for n in _names(c))]


def current(place: tuple[Any, str | None] | None, array: Array) -> Any:
    """What stands at the place of a captured array now."""
    if place is None:
        return array
    holder, name = place
    try:
        return holder.cell_contents if name is None else holder[name]
    except (ValueError, KeyError):
        raise SignatureError("a captured array is gone: its variable has no value any more") from None


# ---- leaves ---------------------------------------------------------------------------------------------------------


def any_leaf(test: Callable[[Any], bool], value: Any) -> bool:
    """Does anything inside tuples, lists and dictionaries satisfy the test?"""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return test(value)
    return any(any_leaf(test, item) for item in value)


def map_leaves(fn: Callable[[Any], Any], value: Any) -> Any:
    """Apply `fn` to everything inside tuples, lists and dictionaries."""
    if isinstance(value, dict):
        return type(value)({key: map_leaves(fn, item) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        items = [map_leaves(fn, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return fn(value)


def is_tracer(value: Any) -> bool:
    return isinstance(value, Tracer)


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch") if type(value).__module__.partition(".")[0] == "torch" else None
    return torch is not None and isinstance(value, torch.Tensor)


def wants_gradient(value: Any) -> bool:
    """Is this a tensor in whose gradient a result would have a part?"""
    return is_tensor(value) and value.requires_grad and sys.modules["torch"].is_grad_enabled()


def from_tensor(value: Any) -> Any:
    """A torch tensor as an array over the same memory, through DLPack; anything else as it is."""
    if not is_tensor(value):
        return value
    torch = sys.modules["torch"]
    if value.device.type != "cpu":
        raise SignatureError(f"a tensor on {value.device} cannot be used by a CPU kernel; move it with .cpu()")
    if wants_gradient(value):
        how = "import autotune.plugins.torch, which computes gradients, or pass tensor.detach()"
        raise SignatureError(f"a tensor requires a gradient, and kernels alone record none: {how}")
    value = value.detach()
    try:
        if value.dtype == torch.bfloat16:
            return np.from_dlpack(value.view(torch.int16)).view(parse_dtype("bf16").numpy)
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise SignatureError(f"a tensor of {value.dtype} cannot be passed through DLPack: {error}") from None


def to_tensor(value: Any) -> Any:
    """The reverse, for results."""
    if not isinstance(value, np.ndarray):
        return value
    torch = sys.modules["torch"]
    if value.dtype.name == "bfloat16":
        return torch.from_dlpack(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(value)
