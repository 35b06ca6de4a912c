"""NVIDIA GPUs through pycuda, where a user has it and not cuda.core."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ..ir.errors import DeviceError
from ..ir.spmd import Entry
from . import gpu, runtime
from .cuda import too_old
from .spec import DeviceSpec


def _driver() -> Any:
    """pycuda.driver, started. Raises DeviceError."""
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise DeviceError(f"pycuda cannot be used ({error}): install NVIDIA's driver, or pip install "
                          "'autotune-kernels[cuda]', which needs no compiler") from None  # fmt: skip
    try:
        driver.init()
    except driver.Error as error:
        raise DeviceError(f"NVIDIA's driver cannot be started: {error}; run nvidia-smi") from None
    return driver


def present() -> list[DeviceSpec]:
    """Every GPU as its driver describes it. Raises DeviceError."""
    driver = _driver()
    try:
        return [_described(driver, driver.Device(n), n) for n in range(driver.Device.count())]
    except driver.Error as error:
        raise DeviceError(f"NVIDIA's driver does not describe its GPUs: {error}; run nvidia-smi") from None


def _described(driver: Any, d: Any, number: int) -> DeviceSpec:
    def of(name: str) -> int:
        return int(d.get_attribute(getattr(driver.device_attribute, name)))

    major, minor = d.compute_capability()
    return gpu.present(
        "cuda", "NVIDIA", d.name(), f"sm_{major}{minor}", number, cores=of("MULTIPROCESSOR_COUNT"),
        hertz=of("CLOCK_RATE") * 1e3, moved=2 * of("MEMORY_CLOCK_RATE") * 1e3 * of("GLOBAL_MEMORY_BUS_WIDTH") / 8,
        l2=of("L2_CACHE_SIZE"), threads=of("MAX_THREADS_PER_BLOCK"), shared=of("MAX_SHARED_MEMORY_PER_BLOCK"),
        warp=of("WARP_SIZE"),
    )  # fmt: skip


@cache
def _context(number: int) -> Any:
    return _driver().Device(number).retain_primary_context()


class Runner(runtime.Runner):
    """Kernels of a cubin."""

    @contextmanager
    def current(self) -> Iterator[None]:
        self._driver = _driver()
        self.errors = (self._driver.Error,)
        context = _context(self.spec.number)
        context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def load(self, code: runtime.Code, symbols: Sequence[str]) -> Sequence[Any]:
        made = self._driver.module_from_buffer(code.data)
        return [made.get_function(symbol) for symbol in symbols]

    def allocate(self, size: int) -> runtime.Memory:
        return runtime.Memory(self._driver.mem_alloc(size), size)

    def write(self, memory: Any, address: int, size: int) -> None:
        self._driver.memcpy_htod(memory, (ctypes.c_uint8 * size).from_address(address))

    def read(self, address: int, memory: Any, size: int) -> None:
        self._driver.memcpy_dtoh((ctypes.c_uint8 * size).from_address(address), memory)

    def launch(self, kernel: Any, entry: Entry, memory: Sequence[Any], strides: Sequence[int]) -> None:
        kernel(*memory, *map(np.int64, strides), grid=entry.launch.grid, block=entry.launch.block)

    def finish(self) -> None:
        self._driver.Context.synchronize()

    def elapsed(self, work: Callable[[], object]) -> float:
        self.finish()
        start, end = self._driver.Event(), self._driver.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(end.time_since(start)) / 1e3

    def explained(self, what: str, error: Exception) -> DeviceError:
        driver = int(self._driver.get_driver_version())
        return too_old(self.spec, self.code.maker, driver, error) or super().explained(what, error)
