"""A prepared kernel called with torch tensors: no copy, results allocated by torch with the strides of torch's own.

Knows tensors, strides and the kernel ABI. Must not know graphs, or how a kernel is chosen and built.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .site import Array

_np: Any = np
_SAMPLES = 64  # elements of a tensor that are looked at before its panels are used again
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@dataclass(frozen=True)
class Layout:
    """Type, shape and strides (in elements) of a tensor."""

    dtype: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> Layout:
        return cls(value.dtype, tuple(value.shape), tuple(value.stride()))

    @property
    def core(self) -> tuple[int, ...]:
        """The shape without what is only repeated: extent 1 along axes of stride 0."""
        return tuple(1 if s == 0 else e for e, s in zip(self.shape, self.strides))

    @property
    def order(self) -> tuple[int, ...]:
        """The axes from the largest stride to the smallest."""
        return tuple(sorted(range(len(self.shape)), key=lambda d: (-self.strides[d], d)))

    @property
    def dense(self) -> bool:
        """Elements, repetitions aside, lie one behind the other in the order of the axes."""
        expected = 1
        for d in reversed(self.order):
            if self.core[d] > 1 and self.strides[d] != expected:
                return False
            expected *= self.core[d]
        return True

    def stored(self, value: Array) -> Array:
        """What a kernel must compute, C-contiguous, so that its memory is that of the tensor `allocate` makes."""
        if self.core != self.shape:
            value = value[tuple(slice(0, 1) if s == 0 else slice(None) for s in self.strides)]
        return _np.transpose(value, self.order) if self.dense and self.order != tuple(range(value.ndim)) else value

    def fits(self, tensor: Any) -> bool:
        """Whether the tensor lies in memory as this says; along an extent of 1 any stride will do."""
        return bool(
            tensor.dtype == self.dtype
            and tensor.shape == self.shape
            and all(e <= 1 or a == b for e, a, b in zip(self.shape, tensor.stride(), self.strides))
        )

    def allocate(self) -> tuple[Any, Callable[[], Any]]:
        """A tensor for the kernel to fill, and what makes the result of it."""
        if self.dense:
            made = torch.empty_strided(self.core, self.strides, dtype=self.dtype)
            return made, lambda: made if self.core == self.shape else made.expand(self.shape)
        made = torch.empty(self.core, dtype=self.dtype)

        def spread() -> Any:
            result = torch.empty_strided(self.core, self.strides, dtype=self.dtype).copy_(made)
            return result if self.core == self.shape else result.expand(self.shape)

        return made, spread


@dataclass(frozen=True)
class _Kept:
    """The panels of a tensor, and what shows that it has changed: address, version, and a few of its elements, for it
    may be written in ways that its version does not count. A tensor without a version is never the same."""

    panels: Any
    address: int
    version: int
    seen: Any
    values: Any

    @classmethod
    def of(cls, tensor: Any, dim: int, width: int) -> _Kept:
        plain, version = tensor.detach(), -1 if tensor.is_inference() else tensor._version
        seen = plain.view(-1)[:: max(1, plain.numel() // _SAMPLES)]
        cut = plain.unflatten(dim, (-1, width)).movedim((dim, dim + 1), (0, -1))
        return cls(cut.contiguous(), tensor.data_ptr(), version, seen, seen.clone())

    def holds(self, tensor: Any) -> bool:
        return (
            self.version >= 0
            and not tensor.is_inference()
            and tensor._version == self.version
            and tensor.data_ptr() == self.address
            and torch.equal(self.seen, self.values)
        )


class KernelCall(torch.nn.Module):  # type: ignore[misc]
    """The module that stands in a graph for a part that a kernel computes: tensors in, tensors out.

    `places`: for each result, which of the kernel's outputs it is; `checked`: one result more says whether a place was
    outside of its array, and then the call raises IndexError as torch does. `original`: the part as torch has it.
    Panels of inputs that `prepared` was told are constants are kept between calls.
    """

    def __init__(
        self, title: str, prepared: Any, inputs: Sequence[Layout], used: Sequence[int], outputs: Sequence[Layout],
        places: Sequence[int], checked: bool, operations: Sequence[str], original: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self._given = (title, prepared, inputs, used, outputs, places, checked, operations, original)
        self.title, self.prepared, self.operations = title, prepared, tuple(operations)
        self.used, self.places = tuple(used), tuple(places)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._checked = checked
        self._first = [places.index(output) for output in range(len(set(places)))]
        self._again = [(n, places.index(output)) for n, output in enumerate(places) if places.index(output) != n]
        self._expected = [layout.strides for layout in self._inputs]
        self._original = (original,)  # in a tuple: no part of this module
        self._code: Any = None
        self._panels: dict[tuple[int, int, int], _Kept] = {}
        self._lock = threading.Lock()
        strides = [self._inputs[self.used[i]].strides[d] for i, d in prepared.params]
        self._params = (ctypes.c_int64 * max(64, len(strides)))(*strides)  # static: the graph is made for these

    def state(self) -> dict[str, Any]:
        """What it was made of, by the names of the parameters."""
        names = ("title", "prepared", "inputs", "used", "outputs", "places", "checked", "operations", "original")
        return dict(zip(names, self._given))

    def forward(self, *tensors: Any) -> Any:
        laid = [*tensors] if [t.stride() for t in tensors] == self._expected else self._laid(tensors)
        if laid is None:
            warnings.warn(f"{self.title}: tensors lie otherwise than foreseen; torch computes it", stacklevel=2)
            return self._original[0](*tensors)
        made = [layout.allocate() for layout in self._outputs]
        if self._checked:
            made.append((torch.empty((), dtype=torch.bool), lambda: None))
        filled = [tensor for tensor, _ in made]
        self._run([laid[n] for n in self.used], [filled[n] for n in self._first])
        for n, first in self._again:
            _flat(filled[n]).copy_(_flat(filled[first]))
        if self._checked and filled[-1].item():
            raise IndexError("index out of range in self")
        results = [finish() for _, finish in made[: len(self._outputs)]]
        return results[0] if len(results) == 1 else tuple(results)

    def _run(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Call the machine code that is current; it may be replaced meanwhile, and lives until the call ends."""
        prepared = self.prepared
        entry, code = self._entry()
        panels = [self._in_panels(inputs[place[0]], place) for place in code[2]]
        addresses = [t.data_ptr() for t in (*inputs, *panels, *outputs)]
        buffers = (ctypes.c_void_p * max(64, len(addresses)))(*addresses)
        entry(buffers, self._params, prepared.threads)
        del code, panels
        if prepared.runners:
            prepared.settle()
        if prepared.watched:
            prepared.launched()

    def _entry(self) -> tuple[Any, Any]:
        kept: tuple[Any, Any] | None = self._code
        if kept is None or kept[1] is not self.prepared.code:
            with self._lock:
                code, entry = None, 0
                while code is not self.prepared.code:  # tuning may change both meanwhile, entry first
                    code, entry = self.prepared.code, self.prepared.entry
                kept = self._code = _ENTRY(entry), code
        return kept

    def _in_panels(self, tensor: Any, place: tuple[int, int, int]) -> Any:
        """The panels of an input, made at its first use and whenever it has changed since."""
        kept = self._panels.get(place)
        if kept is None or not kept.holds(tensor):
            kept = self._panels[place] = _Kept.of(tensor, *place[1:])
        return kept.panels

    def _laid(self, tensors: Sequence[Any]) -> list[Any] | None:
        """The tensors as the kernel expects them in memory, copied if need be; None where that cannot be."""
        given = list(tensors)
        for n, (tensor, layout) in enumerate(zip(tensors, self._inputs)):
            if not layout.fits(tensor):
                if tensor.shape != layout.shape or tensor.dtype != layout.dtype or layout.core != layout.shape:
                    return None
                given[n] = torch.empty_strided(layout.shape, layout.strides, dtype=layout.dtype).copy_(tensor)
        return given

    def __deepcopy__(self, memo: Any) -> KernelCall:
        return self  # machine code and locks are shared


def _flat(tensor: Any) -> Any:
    """The elements as they lie in memory."""
    return tensor.as_strided((tensor.numel(),), (1,))
