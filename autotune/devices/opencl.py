"""OpenCL devices of this machine, and kernels on them: drivers are asked through pyopencl, imported when it is needed.

A loaded text is called like machine code, by the address of an entry that takes host arrays: it copies them to the
device, runs the kernels in order, and copies results back. `Runner.timer` measures the kernels alone.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..ir.errors import BuildError, DeviceError
from ..ir.program import Buffer
from ..ir.spmd import Entry
from .spec import CacheLevel, DeviceSpec

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
QUERIED = ("cores", "frequency_hz", "caches", "threads_per_block", "shared_bytes")
_HELP = "install a driver (Debian: apt-get install pocl-opencl-icd) and pyopencl (pip install pyopencl)"


def devices() -> list[Any]:
    """Every device of every platform. Raises DeviceError where there is no OpenCL at all."""
    try:
        import pyopencl as cl
    except ImportError:
        raise DeviceError(f"pyopencl is not installed: {_HELP}") from None
    try:
        return [d for p in cl.get_platforms() for d in p.get_devices()]
    except cl.Error as error:
        raise DeviceError(f"no OpenCL platform is here ({error}): {_HELP}") from None


def find(name: str) -> Any:
    """A device by its number, or by a part of its platform's name and version or of its own name: numbers change with
    what is installed."""
    found = devices()
    rows = [d for n, d in enumerate(found) if name == str(n) or (name and not name.isdigit()
            and name.lower() in f"{_arch(d)} {d.name}".lower())]  # fmt: skip
    if not rows:
        known = ", ".join(f"opencl:{n} ({d.platform.name}: {d.name})" for n, d in enumerate(found)) or "none"
        raise DeviceError(f"no OpenCL device {name!r} here; there are: {known}")
    return rows[0]


def _arch(d: Any) -> str:
    """What compiles the text: the platform and its version."""
    return f"{d.platform.name} {d.driver_version}"


def present() -> list[DeviceSpec]:
    """Every device here; none where OpenCL or pyopencl is missing."""
    try:
        return [_described(d) for d in devices()]
    except DeviceError:
        return []


def describe(name: str) -> DeviceSpec:
    """A device of this machine as its driver describes it; rates are rough guesses."""
    return _described(find(name))


def _described(d: Any) -> DeviceSpec:
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
        shared_bytes=int(d.local_mem_size), warp=1 if cpu else 32,
    )  # fmt: skip


@cache
def _queue(arch: str, name: str) -> Any:
    """A context and a queue on the device that a spec describes. Raises DeviceError where it has gone."""
    import pyopencl as cl

    for d in devices():
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


class Runner:
    """The kernels of one text, built for a device. `address`: an entry that takes host arrays."""

    def __init__(self, spec: DeviceSpec, text: str, kernels: Sequence[Entry], buffers: Sequence[Buffer]) -> None:
        import warnings

        import pyopencl as cl

        self._cl, self._queue = cl, _queue(spec.arch, spec.name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the compiler says of a text that it accepts
                self._program = cl.Program(self._queue.context, text).build()
        except cl.Error as error:
            raise BuildError(f"the OpenCL driver refused the text: {error}", str(error)) from None
        outer = [b for b in buffers if b.scope in ("input", "output")]
        self._outer = [b for b in buffers if b.scope == "input"] + [b for b in outer if b.scope == "output"]
        self._strides = list(dict.fromkeys(s for b in self._outer for s in b.strides or () if isinstance(s, str)))
        flags = cl.mem_flags.READ_WRITE
        self._memory = {b.name: None if any(isinstance(s, str) for s in b.strides or ())
                        else cl.Buffer(self._queue.context, flags, max(_span(b, {}), 16)) for b in buffers}  # fmt: skip
        self._kernels = [(getattr(self._program, k.symbol), k) for k in kernels]
        self._entry = ENTRY(self._call)
        self.address = ctypes.cast(self._entry, ctypes.c_void_p).value or 0

    def _upload(self, data: int, params: int) -> tuple[list[Any], Mapping[str, int]]:
        cl, q = self._cl, self._queue
        given = (ctypes.c_int64 * max(len(self._strides), 1)).from_address(params) if self._strides else ()
        steps = dict(zip(self._strides, map(int, given)))
        pointers = (ctypes.c_void_p * len(self._outer)).from_address(data)
        hosts = []
        for b, pointer in zip(self._outer, pointers):
            size = _span(b, steps)
            host = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(pointer or 0)), np.uint8)
            memory = self._memory[b.name]
            if memory is None or memory.size < size:
                memory = self._memory[b.name] = cl.Buffer(q.context, cl.mem_flags.READ_WRITE, size)
            if b.scope == "input":
                cl.enqueue_copy(q, memory, host)
            hosts.append(host)
        return hosts, steps

    def _launch(self, steps: Mapping[str, int]) -> None:
        for kernel, k in self._kernels:
            threads = tuple(g * b for g, b in zip(k.launch.grid, k.launch.block))
            strides = [np.int64(steps[s]) for s in k.strides]
            kernel(self._queue, threads, k.launch.block, *(self._memory[name] for name in k.buffers), *strides)

    def _call(self, data: int, params: int, threads: int) -> None:
        hosts, steps = self._upload(data, params)
        self._launch(steps)
        for b, host in zip(self._outer, hosts):
            if b.scope == "output":
                self._cl.enqueue_copy(self._queue, host, self._memory[b.name])
        self._queue.finish()

    def timer(self, data: int, params: int) -> Callable[[int], float]:
        """Seconds of n runs of the kernels, on arrays that are on the device."""
        ready: list[Mapping[str, int]] = []

        def run(n: int) -> float:
            if not ready:
                ready.append(self._upload(data, params)[1])
                self._queue.finish()
            start = time.perf_counter()
            for _ in range(n):
                self._launch(ready[0])
            self._queue.finish()
            return time.perf_counter() - start

        return run


def _span(b: Buffer, steps: Mapping[str, int]) -> int:
    """Bytes from the first to the last element of an array."""
    if not b.size:
        return 0
    strides = [s if isinstance(s, int) else steps[s] for s in b.element_strides]
    return (1 + sum((n - 1) * s for n, s in zip(b.shape, strides))) * b.dtype.bytes
