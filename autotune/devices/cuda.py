"""NVIDIA GPUs through cuda.core, with cuda.bindings for what it has no call for: driver versions and copies.

The driver is asked through cuda.bindings first: where there is none, cuda.core 1.2 waits for ever in its second call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..ir.errors import DeviceError
from ..ir.spmd import Entry
from . import gpu, runtime
from .spec import DeviceSpec

# CUDA_ERROR_...: what a driver says to code from a newer toolkit, or for another device.
TOO_OLD = {
    35: "INSUFFICIENT_DRIVER", 209: "NO_BINARY_FOR_GPU", 218: "INVALID_PTX", 222: "UNSUPPORTED_PTX_VERSION",
    200: "INVALID_IMAGE", 803: "SYSTEM_DRIVER_MISMATCH",
}  # fmt: skip

_STREAMS: dict[int, Any] = {}  # one a device: its order is that of copies, kernels, and uses of memory that is shared


def _modules() -> tuple[Any, Any]:
    """cuda.core and cuda.bindings.driver, after the driver has answered. Raises DeviceError."""
    try:
        from cuda.bindings import driver

        status = int(driver.cuInit(0)[0])
        if status == 100:  # no device: a driver without hardware
            raise DeviceError("NVIDIA's driver finds no GPU on this machine")
        if status == 3:  # not initialised: what a fork of a process that used the driver gets
            raise DeviceError("NVIDIA's driver does not work in a fork of a process that used it: start processes anew "
                              "(multiprocessing's \"spawn\")")  # fmt: skip
        if status:
            raise DeviceError(f"NVIDIA's driver cannot be started: {_word(driver, status)}; run nvidia-smi")
        from cuda import core
    except (ImportError, RuntimeError) as error:
        raise DeviceError(f"cuda.core cannot be used ({error}): install NVIDIA's driver, then pip install -U "
                          "cuda-core cuda-bindings") from None  # fmt: skip
    return core, driver


def _word(driver: Any, status: int) -> str:
    words = driver.cuGetErrorName(driver.CUresult(status))[1]
    return f"{words.decode() if isinstance(words, bytes) else words} ({status})"


def present() -> list[DeviceSpec]:
    """Every GPU as its driver describes it. Raises DeviceError."""
    core, driver = _modules()
    count, errors = int(driver.cuDeviceGetCount()[1]), _errors()
    try:
        return [_described(core.Device(n), n) for n in range(count)]
    except errors as error:
        raise DeviceError(f"NVIDIA's driver does not describe its GPUs: {error}; run nvidia-smi") from None


def _described(d: Any, number: int) -> DeviceSpec:
    p = d.properties
    return gpu.present(
        "cuda", "NVIDIA", d.name, f"sm_{d.arch}", number, cores=p.multiprocessor_count, hertz=p.clock_rate * 1e3,
        moved=2 * p.memory_clock_rate * 1e3 * p.global_memory_bus_width / 8, l2=p.l2_cache_size,
        threads=p.max_threads_per_block, shared=p.max_shared_memory_per_block, warp=p.warp_size,
    )  # fmt: skip


def _errors() -> tuple[type[Exception], ...]:
    from cuda.core._utils.cuda_utils import CUDAError

    return (CUDAError,)


class Status(Exception):
    """A call of cuda.bindings that failed."""


def version(number: int) -> str:
    """12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def too_old(spec: DeviceSpec, maker: str, driver: int, error: Exception) -> DeviceError | None:
    """In our words, where the driver did not take a binary that was made for this very device."""
    text = str(error)
    told = text.partition(": ")[0]
    if not any(word in text or f"({code})" in text for code, word in TOO_OLD.items()) and "no kernel image" not in text:
        return None
    wheel = "nvidia-cuda-nvrtc-cu12" if driver < 13000 else "nvidia-cuda-nvrtc"
    return DeviceError(
        f"the driver of {spec.name} supports CUDA {version(driver)} and did not take code for {spec.arch} from {maker} "
        f"({told}): install a driver for that version of CUDA, or the compiler for the driver's instead of this one: "
        f"pip uninstall nvidia-cuda-nvrtc; pip install '{wheel}=={version(driver)}.*'"
    )


class Runner(runtime.Runner):
    """Kernels of a cubin."""

    @contextmanager
    def current(self) -> Iterator[None]:
        self._core, self._driver = _modules()
        self.errors = (*_errors(), Status)
        number = self.spec.number
        if number >= int(self._driver.cuDeviceGetCount()[1]):
            raise DeviceError(f"{self.spec.name} (cuda:{number}) is not here any more; run nvidia-smi")
        self._device = self._core.Device(number)  # of this thread
        self._device.set_current()
        self._stream = _STREAMS.setdefault(number, None) or self._device.create_stream()
        _STREAMS[number] = self._stream
        yield

    def load(self, code: runtime.Code, symbols: Sequence[str]) -> Sequence[Any]:
        made = self._core.ObjectCode.from_cubin(code.data)
        return [made.get_kernel(symbol) for symbol in symbols]

    def allocate(self, size: int) -> runtime.Memory:
        return runtime.Memory(self._device.allocate(size, stream=self._stream), size)

    def write(self, memory: Any, address: int, size: int) -> None:
        self._checked(self._driver.cuMemcpyHtoDAsync(int(memory.handle), address, size, self._stream.handle))

    def read(self, address: int, memory: Any, size: int) -> None:
        self._checked(self._driver.cuMemcpyDtoHAsync(address, int(memory.handle), size, self._stream.handle))

    def _checked(self, answer: tuple[Any, ...]) -> None:
        if status := int(answer[0]):
            raise Status(_word(self._driver, status))

    def launch(self, kernel: Any, entry: Entry, memory: Sequence[Any], strides: Sequence[int]) -> None:
        config = self._core.LaunchConfig(grid=entry.launch.grid, block=entry.launch.block)
        self._core.launch(self._stream, config, kernel, *memory, *strides)  # a Python int is 64 bits there

    def finish(self) -> None:
        self._stream.sync()

    def elapsed(self, work: Callable[[], object]) -> float:
        self.finish()
        options = self._core.EventOptions(timing_enabled=True)
        start = self._stream.record(options=options)
        work()
        end = self._stream.record(options=options)
        end.sync()
        return float(end - start) / 1e3

    def explained(self, what: str, error: Exception) -> DeviceError:
        driver = int(self._driver.cuDriverGetVersion()[1])
        return too_old(self.spec, self.code.maker, driver, error) or super().explained(what, error)
