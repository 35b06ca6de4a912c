"""OpenCL devices through pyopencl: the driver compiles the text itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np

from ..ir.errors import BuildError, DeviceError
from ..ir.spmd import Entry
from . import runtime
from .spec import CacheLevel, DeviceSpec

QUERIED = ("cores", "frequency_hz", "caches", "threads_per_block", "shared_bytes")
_HELP = "install a driver (Debian: apt-get install pocl-opencl-icd)"


def _devices() -> list[Any]:
    """Every device of every platform. Raises DeviceError where there is no platform."""
    try:
        import pyopencl as cl
    except ImportError as error:
        raise DeviceError(f"pyopencl cannot be imported ({error}): pip install --force-reinstall pyopencl") from None
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise DeviceError(f"no OpenCL platform is here ({error}): {_HELP}") from None
    found: list[Any] = []
    for p in platforms:
        with suppress(cl.Error):  # a driver whose hardware is missing does not hide the others
            found += p.get_devices()
    return found


def _arch(d: Any) -> str:
    """What compiles the text: the platform and its version."""
    return f"{d.platform.name} {d.driver_version}"


def present() -> list[DeviceSpec]:
    """Every device as its driver describes it; rates are rough guesses. Raises DeviceError."""
    return [_described(n, d) for n, d in enumerate(_devices())]


def _described(number: int, d: Any) -> DeviceSpec:
    cpu = "CPU" in str(d.name) or d.type & 2 == 2
    lanes = max(d.native_vector_width_float, 4) if cpu else 64
    peak = d.max_compute_units * d.max_clock_frequency * 1e6 * 2 * lanes
    rate = 20e9 if cpu else 200e9
    moved = tuple(("DRAM", how, rate, 1) for how in ("read", "write", "copy"))
    return DeviceSpec(
        "opencl", d.vendor, d.name, _arch(d), cores=d.max_compute_units,
        vector_bits=128, vector_registers=255, frequency_hz=d.max_clock_frequency * 1e6,
        caches=(CacheLevel("L2", max(int(d.global_mem_cache_size), 1 << 18), 64, 8, d.max_compute_units),),
        peak_flops=(("f32", peak / d.max_compute_units),), bandwidth=moved, launch_seconds=1e-5,
        provenance=tuple((field, "queried") for field in QUERIED), threads_per_block=min(d.max_work_group_size, 1024),
        shared_bytes=int(d.local_mem_size), warp=1 if cpu else 32, number=number,
    )  # fmt: skip


@cache
def _queue(arch: str, name: str) -> Any:
    """A context and a queue on the device that a spec describes. Raises DeviceError where it has gone."""
    import pyopencl as cl

    for d in _devices():
        if (_arch(d), d.name) == (arch, name):
            return cl.CommandQueue(cl.Context([d]))
    raise DeviceError(f"the OpenCL device {name!r} ({arch}) is not here any more")


def compiles(spec: DeviceSpec, text: str) -> list[str]:
    """The kernels of a text that the driver of a device here accepts. Raises BuildError with the driver's words."""
    import pyopencl as cl

    context = _queue(spec.arch, spec.name).context
    try:
        return [k.function_name for k in cl.Program(context, text).build(cache_dir=False).all_kernels()]
    except cl.Error as error:
        raise BuildError(f"the OpenCL driver refused the text: {error}", str(error)) from None


class Runner(runtime.Runner):
    """Kernels that the OpenCL driver builds."""

    @contextmanager
    def current(self) -> Iterator[None]:
        import pyopencl as cl

        self.errors = (cl.Error,)
        self._cl, self._queue = cl, _queue(self.spec.arch, self.spec.name)
        yield

    def load(self, code: runtime.Code, symbols: Sequence[str]) -> Sequence[Any]:
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the compiler says of a text that it accepts
                self._program = self._cl.Program(self._queue.context, code.data).build()
        except self._cl.Error as error:
            raise BuildError(f"the OpenCL driver refused the text: {error}", str(error)) from None
        return [getattr(self._program, symbol) for symbol in symbols]

    def allocate(self, size: int) -> runtime.Memory:
        return runtime.Memory(self._cl.Buffer(self._queue.context, self._cl.mem_flags.READ_WRITE, size), size)

    def write(self, memory: Any, address: int, size: int) -> None:
        self._cl.enqueue_copy(self._queue, memory, _bytes(address, size))

    def read(self, address: int, memory: Any, size: int) -> None:
        self._cl.enqueue_copy(self._queue, _bytes(address, size), memory)

    def launch(self, kernel: Any, entry: Entry, memory: Sequence[Any], strides: Sequence[int]) -> None:
        threads = tuple(g * b for g, b in zip(entry.launch.grid, entry.launch.block))
        kernel(self._queue, threads, entry.launch.block, *memory, *map(np.int64, strides))

    def finish(self) -> None:
        self._queue.finish()


def _bytes(address: int, size: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8)
