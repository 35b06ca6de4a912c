"""Drivers of devices with blocks and threads, behind one protocol: which of them work here, and kernels that they run.

A `Runner` holds the kernels of one text. It is called like machine code, by the address of an entry that takes host
arrays: it copies them to the device, runs the kernels in order, and copies results back; `timer` measures the kernels
alone. What one driver needs is in a module of its own, imported when a device of its kind is asked for.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from ..ir.errors import DeviceError
from ..ir.program import Buffer
from ..ir.spmd import Entry
from .spec import DeviceSpec

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
LEAST = 16  # bytes of an array on a device: none is empty
_LOCK = threading.RLock()  # runners share memory, and a thread's calls are not to be mixed with another's


def _after_fork() -> None:
    """Another thread of the parent may have held the lock, and is not here to release it."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Code:
    """What a driver loads: text, where it compiles by itself, else a binary; `maker` names the compiler and its
    version."""

    data: str | bytes
    maker: str = "the driver"


class Memory:
    """An array on a device. `free` is called when nobody uses it any more."""

    def __init__(self, handle: Any, size: int, free: Callable[[Any], object] | None = None) -> None:
        self.handle, self.size, self._free = handle, size, free

    def __del__(self) -> None:
        if self._free is not None:
            self._free(self.handle)


_POOL: WeakValueDictionary[tuple[Any, ...], Memory] = WeakValueDictionary()


class Runner(ABC):
    """The kernels of one text on one device. Drivers implement the methods without an underscore, which raise `errors`
    of their own; these become DeviceErrors here."""

    errors: tuple[type[Exception], ...] = ()

    def __init__(self, spec: DeviceSpec, code: Code, kernels: Sequence[Entry], buffers: Sequence[Buffer]) -> None:
        self.spec, self.code, self._buffers = spec, code, list(buffers)
        self._outer = [b for scope in ("input", "output") for b in buffers if b.scope == scope]
        self._strides = list(dict.fromkeys(s for b in self._outer for s in b.strides or () if isinstance(s, str)))
        self._memory: dict[str, Memory] = {}
        self._failed = threading.local()
        with self._at("load kernels"):
            self._kernels = list(zip(self.load(code, [k.symbol for k in kernels]), kernels))
        self._entry = ENTRY(self._call)
        self.address = ctypes.cast(self._entry, ctypes.c_void_p).value or 0

    # ---- what a driver does -----------------------------------------------------------------------------------------

    @abstractmethod
    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device this thread's."""

    @abstractmethod
    def load(self, code: Code, symbols: Sequence[str]) -> Sequence[Any]:
        """The kernels of these names."""

    @abstractmethod
    def allocate(self, size: int) -> Memory:
        """So many bytes, at a multiple of 16."""

    @abstractmethod
    def write(self, memory: Any, address: int, size: int) -> None:
        """Copy to the device."""

    @abstractmethod
    def read(self, address: int, memory: Any, size: int) -> None:
        """Copy from the device, after what was launched before."""

    @abstractmethod
    def launch(self, kernel: Any, entry: Entry, memory: Sequence[Any], strides: Sequence[int]) -> None:
        """Start a kernel behind those before it."""

    @abstractmethod
    def finish(self) -> None:
        """Wait for all that was started."""

    def elapsed(self, work: Callable[[], object]) -> float:
        """Seconds that the device spends on what `work` starts; here by the host's clock."""
        self.finish()
        start = time.perf_counter()
        work()
        self.finish()
        return time.perf_counter() - start

    def explained(self, what: str, error: Exception) -> DeviceError:
        """The driver's error in our words."""
        return DeviceError(f"{self.spec.name} ({self.spec.id}) cannot {what}: {str(error) or type(error).__name__}")

    # ---- what all share ---------------------------------------------------------------------------------------------

    @contextmanager
    def _at(self, what: str) -> Iterator[None]:
        with _LOCK:
            try:
                with self.current():
                    yield
            except self.errors as error:
                raise self.explained(what, error) from None

    def __call__(self, data: int, params: int) -> None:
        """Run on host arrays: `data` points to their addresses, inputs first, `params` to strides. Raises
        DeviceError."""
        with self._at("run kernels"):
            hosts, steps = self._upload(data, params)
            self._launch(steps)
            for b, (address, size) in zip(self._outer, hosts):
                if b.scope == "output" and size:
                    self.read(address, self._memory[b.name].handle, size)
            self.finish()

    def _call(self, data: int, params: int, threads: int) -> None:
        """The entry. No exception passes through native code: it is kept for `settle`."""
        try:
            self(data, params)
        except Exception as error:  # whatever it was, the result is not there
            self._failed.error = error

    def settle(self) -> None:
        """Raise what went wrong in this thread's last call through the entry."""
        error, self._failed.error = getattr(self._failed, "error", None), None
        if error is not None:
            raise error

    def timer(self, data: int, params: int) -> Callable[[int], float]:
        """Seconds of n runs of the kernels, on arrays that are on the device."""
        ready: list[Mapping[str, int]] = []

        def run(n: int) -> float:
            with self._at("run kernels"):
                if not ready:
                    ready.append(self._upload(data, params)[1])
                return self.elapsed(lambda: self._launch(ready[0], n))

        return run

    def _upload(self, data: int, params: int) -> tuple[list[tuple[int, int]], Mapping[str, int]]:
        """Address and bytes of each host array, and the strides; inputs are on the device after it."""
        given = (ctypes.c_int64 * len(self._strides)).from_address(params) if self._strides else ()
        steps = dict(zip(self._strides, map(int, given)))
        for n, b in enumerate(self._buffers):
            size = max(span(b, steps), LEAST)
            if b.name not in self._memory or self._memory[b.name].size < size:
                key = (type(self), self.spec.digest, self.spec.number, n, size)
                memory = self._memory[b.name] = _POOL.get(key) or self.allocate(size)
                _POOL[key] = memory
        pointers = (ctypes.c_void_p * len(self._outer)).from_address(data)
        hosts = [(pointer or 0, span(b, steps)) for b, pointer in zip(self._outer, pointers)]
        for b, (address, size) in zip(self._outer, hosts):
            if b.scope == "input" and size:
                self.write(self._memory[b.name].handle, address, size)
        return hosts, steps

    def _launch(self, steps: Mapping[str, int], times: int = 1) -> None:
        for kernel, k in self._kernels * times:
            memory = [self._memory[name].handle for name in k.buffers]
            self.launch(kernel, k, memory, [steps[s] for s in k.strides])


def span(b: Buffer, steps: Mapping[str, int]) -> int:
    """Bytes from the first to the last element of an array."""
    if not b.size:
        return 0
    strides = [s if isinstance(s, int) else steps[s] for s in b.element_strides]
    return (1 + sum((n - 1) * s for n, s in zip(b.shape, strides))) * b.dtype.bytes
