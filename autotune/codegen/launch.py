"""How a prepared kernel is run, and the guards that say which calls may run it.

Knows the kernel ABI and the words that the native call path reads; knows neither LLVM nor how guards are checked there.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MAX_BUFFERS = 63  # slot 63 of the buffers and of the params takes what the kernel does not ask for
MAX_OUTPUTS = 16
_ALIGNED, _WRITEABLE, _OWNDATA = 0x100, 0x400, 0x4
_RULES = ("exact", "any", "general", "general 4K", "general not 4K")


@dataclass(frozen=True, slots=True)
class Axis:
    """What a guard asks of one dimension. `rule`: "exact" (the stride is `stride` bytes), "any", or a run-time stride:
    "general" (a multiple, two or more, of the element), "general 4K" or "general not 4K" (also (not) of 4096)."""

    extent: int
    rule: str
    stride: int = 0


@dataclass(frozen=True, slots=True)
class ArrayGuard:
    """An array: an argument, by its place in the call, or a captured one: then `place` is None and `holder` the array
    itself, or the cell or the dictionary (with `name`) that holds it. `buffer`: its place among the buffers, if any."""

    place: int | None
    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    buffer: int | None
    out: bool = False
    holder: Any = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class StaticGuard:
    """An argument that must be this very value, types included."""

    place: int
    value: Any


@dataclass(frozen=True, slots=True)
class Form:
    """One way to call: so many positional arguments, these keywords in order, while `token` is the context's value."""

    positional: int
    keywords: tuple[str, ...]
    guards: tuple[ArrayGuard | StaticGuard, ...]
    token: Any


@dataclass(frozen=True)
class Launch:
    """How to run a prepared kernel: its entry, and what to allocate. `owner` keeps the machine code loaded.

    `outputs`: dtype and shape of each; `params`: (input, dimension) of each run-time stride; `single`: return an array,
    not a tuple; `long`: worth releasing the interpreter lock for.
    """

    entry: int
    threads: int
    inputs: int
    outputs: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]
    params: tuple[tuple[int, int], ...] = ()
    single: bool = True
    long: bool = False
    owner: Any = field(default=None, repr=False, compare=False)

    def run(self, inputs: Sequence[Array], out: Sequence[Array] = ()) -> list[Any]:
        """Call the entry through ctypes. `inputs` fit the signature; `out` are all the outputs, or none of them."""
        made = list(out) or [aligned_empty(dtype, shape) for dtype, shape in self.outputs]
        buffers = (ctypes.c_void_p * 64)(*[a.ctypes.data for a in (*inputs, *made)])
        strides = [inputs[i].strides[d] // inputs[i].itemsize for i, d in self.params]
        _ENTRY(self.entry)(buffers, (ctypes.c_int64 * max(64, len(strides)))(*strides), self.threads)
        return made


_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def aligned_empty(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A C-contiguous array whose data is 64-byte aligned."""
    bytes_ = math.prod(shape) * dtype.itemsize
    block = np.empty(bytes_ + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + bytes_].view(dtype).reshape(shape)


class Table:
    """The guards of one callable, in native memory. Entries are added, and changed in place; none ever goes."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[Any, list[Any]]] = {}
        self._order = (ctypes.c_int64 * 8)()
        self._head = (ctypes.c_int64 * 2)(0, ctypes.addressof(self._order))
        self._keep: list[Any] = []  # what a call may still be inside of
        self.lock = threading.Lock()  # calls need none: they read with the interpreter lock held

    @property
    def address(self) -> int:
        return ctypes.addressof(self._head)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: Hashable, form: Form, launch: Launch) -> None:
        """Let calls of this form run `launch`. A known `key` gets the new token and launch and keeps its guards.

        A launch with more buffers or outputs than the native path has room for is left to `miss`.
        """
        outputs = len(launch.outputs)
        if launch.inputs + outputs > MAX_BUFFERS or len(launch.params) > MAX_BUFFERS or outputs > MAX_OUTPUTS:
            return
        with self.lock:
            self._add(key, form, launch)

    def _add(self, key: Hashable, form: Form, launch: Launch) -> None:
        if key in self._entries:
            entry, keep = self._entries[key]
            self._keep += [keep[1].owner] if launch.owner is not keep[1].owner else []
            keep[1] = launch
            entry[5:8] = [launch.entry, launch.threads, int(launch.long)]
            entry[12] = id(form.token)
            keep[0] = form
            return
        count = len(self._entries)
        if count == len(self._order):
            self._keep.append(self._order)
            self._order = (ctypes.c_int64 * (2 * count))(*self._order)
            self._head[1] = ctypes.addressof(self._order)
        entry, keep = self._entries[key] = _encode(form, launch)
        self._order[count] = ctypes.addressof(entry)
        self._head[0] = count + 1


def _encode(form: Form, launch: Launch) -> tuple[Any, list[Any]]:
    """One entry's words, as `at_call` reads them, and the objects whose addresses they hold."""
    keep: list[Any] = [form, launch]

    def words(values: Sequence[int]) -> Any:
        made = (ctypes.c_int64 * max(len(values), 1))(*values)
        keep.append(made)
        return made

    guards: list[int] = []
    for guard in form.guards:
        if isinstance(guard, StaticGuard):
            guards += [1, guard.place, id(guard.value), {float: 1, int: 2, str: 2}.get(type(guard.value), 0)]
            continue
        kept = -1 if isinstance(guard.holder, np.ndarray) else -2 if guard.name is None else -3
        place = kept if guard.place is None else guard.place
        name = 0 if guard.name is None else id(sys.intern(guard.name))
        buffer = MAX_BUFFERS if guard.buffer is None else guard.buffer
        flags = _ALIGNED | (_WRITEABLE if guard.out else 0)
        dtype = guard.dtype
        guards += [0, place, id(guard.holder), name, id(dtype), len(guard.axes), flags, buffer, dtype.itemsize]
        for d, axis in enumerate(guard.axes):
            value = axis.stride
            if axis.rule.startswith("general"):
                value = launch.params.index((buffer, d)) if (buffer, d) in launch.params else MAX_BUFFERS
            guards += [axis.extent, _RULES.index(axis.rule), value]
    names = [sys.intern(name) for name in form.keywords]
    keep.append(names)
    outputs: list[int] = []
    for dtype, shape in launch.outputs:
        size = math.prod(shape) * dtype.itemsize
        outputs += [id(dtype), len(shape), ctypes.addressof(words(shape)), size]
    entry = [
        form.positional, len(names), ctypes.addressof(words([id(name) for name in names])), len(form.guards),
        ctypes.addressof(words(guards)), launch.entry, launch.threads, int(launch.long), len(launch.outputs),
        ctypes.addressof(words(outputs)), launch.inputs, 0, id(form.token), int(launch.single),
    ]  # fmt: skip
    return words(entry), keep
