"""AMD GPUs through hip-python: every call answers with a status first."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..ir.errors import DeviceError
from ..ir.spmd import Entry
from . import gpu, runtime
from .spec import DeviceSpec

NO_DEVICE, NO_BINARY = 100, 209


class Status(Exception):
    """A call that failed: the name of its status, and the number."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} ({number})")
        self.number = number


def _hip() -> Any:
    """hip-python's module. Raises DeviceError."""
    try:
        from hip import hip
    except (ImportError, RuntimeError) as error:
        raise DeviceError(f"hip-python cannot be used ({error}): install ROCm, then the hip-python of its version: "
                          "pip install 'hip-python==MAJOR.MINOR.*'") from None  # fmt: skip
    return hip


def _ok(answer: Any) -> Any:
    """What a call gives beside its status."""
    status, *rest = answer if isinstance(answer, tuple) else (answer,)
    if int(status):
        raise Status(getattr(status, "name", type(status).__name__), int(status))
    return rest[0] if len(rest) == 1 else rest


def present() -> list[DeviceSpec]:
    """Every GPU as its driver describes it. Raises DeviceError."""
    hip = _hip()
    try:
        return [_described(hip, n) for n in range(_ok(hip.hipGetDeviceCount()))]
    except Status as error:
        told = "AMD's driver finds no GPU on this machine" if error.number == NO_DEVICE else (
            f"AMD's driver does not describe its GPUs: {error}")  # fmt: skip
        raise DeviceError(f"{told}; run rocminfo, and see that you may read /dev/kfd") from None
    except RuntimeError as error:  # its library is loaded by the first call
        raise DeviceError(f"AMD's driver cannot be used ({error}): install ROCm") from None


def _described(hip: Any, number: int) -> DeviceSpec:

    def of(name: str) -> int:
        attribute = getattr(hip.hipDeviceAttribute_t, f"hipDeviceAttribute{name}")
        return int(_ok(hip.hipDeviceGetAttribute(attribute, number)))

    try:
        p = _ok(hip.hipGetDeviceProperties(number))
    except TypeError:  # up to hip-python 6 the caller brings the structure
        p = hip.hipDeviceProp_t()
        _ok(hip.hipGetDeviceProperties(p, number))
    arch, name = (x.decode() if isinstance(x, bytes) else str(x) for x in (p.gcnArchName, p.name))
    return gpu.present(
        "hip", "AMD", name, arch.partition(":")[0], number, cores=of("MultiprocessorCount"),
        hertz=of("ClockRate") * 1e3, moved=2 * of("MemoryClockRate") * 1e3 * of("MemoryBusWidth") / 8,
        l2=of("L2CacheSize"), threads=of("MaxThreadsPerBlock"), shared=of("MaxSharedMemoryPerBlock"),
        warp=of("WarpSize"),
    )  # fmt: skip


class Runner(runtime.Runner):
    """Kernels of a code object, on the device's default stream."""

    errors = (Status, RuntimeError)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._hip = _hip()
        _ok(self._hip.hipSetDevice(self.spec.number))
        yield

    def load(self, code: runtime.Code, symbols: Sequence[str]) -> Sequence[Any]:
        module = _ok(self._hip.hipModuleLoadData(code.data))
        weakref.finalize(self, self._hip.hipModuleUnload, module)
        return [_ok(self._hip.hipModuleGetFunction(module, symbol.encode())) for symbol in symbols]

    def allocate(self, size: int) -> runtime.Memory:
        return runtime.Memory(int(_ok(self._hip.hipMalloc(size))), size, self._hip.hipFree)

    def write(self, memory: Any, address: int, size: int) -> None:
        kind = self._hip.hipMemcpyKind.hipMemcpyHostToDevice
        _ok(self._hip.hipMemcpy(memory, ctypes.c_void_p(address), size, kind))

    def read(self, address: int, memory: Any, size: int) -> None:
        kind = self._hip.hipMemcpyKind.hipMemcpyDeviceToHost
        _ok(self._hip.hipMemcpy(ctypes.c_void_p(address), memory, size, kind))

    def launch(self, kernel: Any, entry: Entry, memory: Sequence[Any], strides: Sequence[int]) -> None:
        # hip-python 10 reads other kinds of pointers among the arguments after it has let go of them
        arguments = (*map(ctypes.c_void_p, memory), *map(ctypes.c_int64, strides))
        _ok(self._hip.hipModuleLaunchKernel(kernel, *entry.launch.grid, *entry.launch.block, sharedMemBytes=0,
                                            stream=None, kernelParams=None, extra=arguments))  # fmt: skip

    def finish(self) -> None:
        _ok(self._hip.hipDeviceSynchronize())

    def elapsed(self, work: Callable[[], object]) -> float:
        hip = self._hip
        self.finish()
        start, end = _ok(hip.hipEventCreate()), _ok(hip.hipEventCreate())
        try:
            _ok(hip.hipEventRecord(start, None))
            work()
            _ok(hip.hipEventRecord(end, None))
            _ok(hip.hipEventSynchronize(end))
            return float(_ok(hip.hipEventElapsedTime(start, end))) / 1e3
        finally:
            hip.hipEventDestroy(start)
            hip.hipEventDestroy(end)

    def explained(self, what: str, error: Exception) -> DeviceError:
        if isinstance(error, Status) and error.number in (NO_BINARY, 200, 35):
            version = int(_ok(self._hip.hipRuntimeGetVersion()))
            return DeviceError(
                f"ROCm's runtime {version // 10_000_000}.{version // 100_000 % 100} did not take code for "
                f"{self.spec.arch} from {self.code.maker} ({error}): install a newer ROCm, or a clang that is not newer"
            )
        return super().explained(what, error)
