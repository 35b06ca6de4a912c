"""Stand-ins for cuda.core with cuda.bindings, pycuda and hip-python that *execute*: memory of the device is memory of
this process, and kernels are their own text, compiled by the system's C++ compiler around `cuda_host.h`.

`install` puts one of them among the imported modules and takes the place of the device compiler, which hands the text
on. Faults: "old" (a driver that takes no binary), "none" (a driver without a GPU), "lost" (launches fail).
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from autotune import hostrun
from autotune.codegen import amdgpu, nvrtc
from autotune.devices import drivers

KINDS = {"cuda.core": "cuda", "pycuda": "cuda", "hip": "hip"}
FOLDER = Path(tempfile.gettempdir()) / f"autotune-standins-{os.getuid()}"
_KERNEL = re.compile(r'extern "C" __global__ void [^\n]*?(\w+)\(([^()]*)\) \{')
_NAMES = itertools.count()


class Failure(Exception):
    """What a driver raises."""


class Machine:
    """One GPU of the kind "sm_80" or "gfx942", whatever the host has."""

    def __init__(self, fault: str) -> None:
        self.fault, self.launches, self.memory = fault, 0, dict[int, Any]()

    def allocate(self, size: int) -> int:
        block = np.full(size + 256, 0xCD, np.uint8)
        address = -(-int(block.ctypes.data) // 256) * 256
        self.memory[address] = block
        return address

    def copy(self, to: int, frm: int, size: int) -> None:
        assert bool(self.memory)
        ctypes.memmove(to, frm, size)

    def load(self, binary: bytes) -> ctypes.CDLL:
        """The text, compiled for this CPU."""
        text = binary.decode()
        if self.fault == "old":
            raise Failure("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device")
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        made = FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
        if not made.exists():
            calls = []
            for name, arguments in _KERNEL.findall(text):
                types = [a.replace("__restrict__", "").rsplit(" ", 1)[0].strip() for a in arguments.split(",")]
                given = ", ".join(f"*(std::remove_const<{t}>::type *)a[{n}]" for n, t in enumerate(types))
                calls.append(
                    f'extern "C" void run_{name}(const unsigned *n, void **a) {{ at_host::launch({{n[0], n[1], n[2]}}, '
                    f"{{n[3], n[4], n[5]}}, 0, [&] {{ {name}({given}); }}); }}"
                )
            header = Path(hostrun.__file__).parent / "codegen" / "cuda_host.h"
            draft = FOLDER / f"{os.getpid()}-{next(_NAMES)}.cpp"
            draft.write_text("\n".join([f'#include "{header}"', "#include <type_traits>", text, *calls]))
            words = [hostrun.compiler(), "-std=c++17", "-O1", "-w", "-shared", "-fPIC", str(draft), "-o", f"{draft}.so"]
            subprocess.run(words, check=True)
            Path(f"{draft}.so").replace(made)
        return ctypes.CDLL(str(made))

    def launch(self, function: Any, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]) -> None:
        if self.fault == "lost":
            raise Failure("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
        self.launches += 1
        sizes = (ctypes.c_uint * 6)(*grid, *block)
        words = [ctypes.c_int64(int(a)) for a in arguments]
        assert all(w.value % 256 == 0 for w in words if w.value in self.memory)
        function(sizes, (ctypes.c_void_p * len(words))(*map(ctypes.addressof, words)))


def install(kind: str, fault: str = "") -> Machine:
    """Let `kind` be the one driver that works here. Its caller puts back what it replaces."""
    machine = Machine(fault)
    for name, module in {"cuda.core": _cuda, "pycuda": _pycuda, "hip": _hip}[kind](machine).items():
        module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        sys.modules[name] = module
    mine = [d.libraries for d in drivers.DRIVERS if d.module == kind]
    vars(drivers)["loads"] = lambda libraries: libraries in mine
    nvrtc.cubin = lambda text, arch: text.encode()
    nvrtc.version = lambda: "NVRTC 13.5"
    amdgpu.link = lambda text, arch, seconds=60.0: text.encode()
    drivers._room.cache_clear()
    return machine


def _module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def _cuda(m: Machine) -> dict[str, ModuleType]:
    class CUDAError(Failure):
        pass

    class Buffer:
        def __init__(self, size: int) -> None:
            self.handle, self.size = m.allocate(size), size

        __int__ = lambda self: self.handle

    class Event:
        def __init__(self) -> None:
            self.at = time.perf_counter()

        def sync(self) -> None: ...

        __sub__ = lambda self, other: (self.at - other.at) * 1e3

    class Stream:
        handle = 7

        def sync(self) -> None: ...

        def record(self, event: Any = None, options: Any = None) -> Event:
            assert options.timing_enabled
            return Event()

    class Device:
        name, arch = "NVIDIA A100 stand-in", "80"
        properties = SimpleNamespace(
            multiprocessor_count=108, clock_rate=1410000, memory_clock_rate=1215000, global_memory_bus_width=5120,
            l2_cache_size=1 << 25, max_threads_per_block=1024, max_shared_memory_per_block=49152, warp_size=32,
        )  # fmt: skip

        def __init__(self, number: int) -> None:
            self.number = number

        def set_current(self) -> None: ...

        def create_stream(self) -> Stream:
            return Stream()

        def allocate(self, size: int, *, stream: Stream) -> Buffer:
            return Buffer(size)

    class ObjectCode:
        def __init__(self, binary: bytes) -> None:
            try:
                self.made = m.load(binary)
            except Failure as error:
                raise CUDAError(str(error)) from None

        @staticmethod
        def from_cubin(binary: bytes) -> ObjectCode:
            return ObjectCode(binary)

        def get_kernel(self, symbol: str) -> Any:
            return self.made[f"run_{symbol}"]

    def launch(stream: Stream, config: Any, kernel: Any, *arguments: Any) -> None:
        try:
            m.launch(kernel, config.grid, config.block, arguments)
        except Failure as error:
            raise CUDAError(str(error)) from None

    def to_device(to: int, frm: int, size: int, stream: int) -> tuple[int]:
        m.copy(to, frm, size)
        return (0,)

    driver = _module(
        "cuda.bindings.driver", cuInit=lambda flags: (100 if m.fault == "none" else 0,),
        cuDeviceGetCount=lambda: (0, 1), cuDriverGetVersion=lambda: (0, 12040 if m.fault == "old" else 13000),
        cuMemcpyHtoDAsync=to_device, cuMemcpyDtoHAsync=to_device,
    )  # fmt: skip
    bindings = _module("cuda.bindings", driver=driver)
    core = _module("cuda.core", Device=Device, ObjectCode=ObjectCode, LaunchConfig=SimpleNamespace, launch=launch,
                   EventOptions=SimpleNamespace)  # fmt: skip
    utils = _module("cuda.core._utils.cuda_utils", CUDAError=CUDAError)
    return {
        "cuda": _module("cuda", core=core, bindings=bindings), "cuda.core": core, "cuda.bindings": bindings,
        "cuda.bindings.driver": driver, "cuda.core._utils": _module("cuda.core._utils", cuda_utils=utils),
        "cuda.core._utils.cuda_utils": utils,
    }  # fmt: skip


def _pycuda(m: Machine) -> dict[str, ModuleType]:
    numbers = {
        "MULTIPROCESSOR_COUNT": 108, "CLOCK_RATE": 1410000, "MEMORY_CLOCK_RATE": 1215000,
        "GLOBAL_MEMORY_BUS_WIDTH": 5120, "L2_CACHE_SIZE": 1 << 25, "MAX_THREADS_PER_BLOCK": 1024,
        "MAX_SHARED_MEMORY_PER_BLOCK": 49152, "WARP_SIZE": 32,
    }  # fmt: skip
    stack: list[Any] = []

    class Error(Failure):
        pass

    class Context:
        def push(self) -> None:
            stack.append(self)

        @staticmethod
        def pop() -> None:
            stack.pop()

        @staticmethod
        def synchronize() -> None:
            assert stack

    class Device:
        @staticmethod
        def count() -> int:
            return 0 if m.fault == "none" else 1

        def __init__(self, number: int) -> None:
            self.number = number

        name = lambda self: "NVIDIA A100 stand-in"
        compute_capability = lambda self: (8, 0)
        get_attribute = lambda self, attribute: numbers[attribute]
        retain_primary_context = lambda self: Context()

    class Event:
        def record(self) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None: ...

        time_since = lambda self, other: (self.at - other.at) * 1e3

    def module(binary: bytes) -> Any:
        try:
            made = m.load(binary)
        except Failure as error:
            raise Error(str(error)) from None

        def call(function: Any) -> Any:
            def run(*arguments: Any, grid: Any, block: Any) -> None:
                assert stack
                try:
                    m.launch(function, grid, block, arguments)
                except Failure as error:
                    raise Error(str(error)) from None

            return run

        return SimpleNamespace(get_function=lambda symbol: call(made[f"run_{symbol}"]))

    address = ctypes.addressof
    driver = _module(
        "pycuda.driver", Error=Error, Context=Context, Device=Device, Event=Event, init=lambda: None,
        device_attribute=SimpleNamespace(**{name: name for name in numbers}), mem_alloc=m.allocate,
        module_from_buffer=module, get_driver_version=lambda: 12040 if m.fault == "old" else 13000,
        memcpy_htod=lambda to, frm: m.copy(to, address(frm), ctypes.sizeof(frm)),
        memcpy_dtoh=lambda to, frm: m.copy(address(to), frm, ctypes.sizeof(to)),
    )  # fmt: skip
    return {"pycuda": _module("pycuda", driver=driver), "pycuda.driver": driver}


def _hip(m: Machine) -> dict[str, ModuleType]:
    numbers = {
        "MultiprocessorCount": 304, "ClockRate": 2100000, "MemoryClockRate": 1300000, "MemoryBusWidth": 8192,
        "L2CacheSize": 1 << 22, "MaxThreadsPerBlock": 1024, "MaxSharedMemoryPerBlock": 65536, "WarpSize": 64,
    }  # fmt: skip

    class Code(int):
        @property
        def name(self) -> str:
            return {0: "hipSuccess", 209: "hipErrorNoBinaryForGpu"}.get(self, "hipErrorLaunchFailure")

    ok = Code(0)

    def load(binary: bytes) -> Any:
        try:
            return ok, m.load(binary)
        except Failure:
            return Code(209), None

    def launch(function: Any, *sizes: int, **more: Any) -> Any:
        assert (more["sharedMemBytes"], more["stream"], more["kernelParams"]) == (0, None, None)
        try:
            m.launch(function, sizes[:3], sizes[3:], [getattr(a, "value", a) for a in more["extra"]])
        except Failure:
            return (Code(719),)
        return (ok,)

    def copy(to: Any, frm: Any, size: int, kind: int) -> Any:
        m.copy(getattr(to, "value", to), getattr(frm, "value", frm), size)
        return (ok,)

    def record(event: Any, stream: Any) -> Any:
        event.at = time.perf_counter()
        return (ok,)

    done = lambda *_: (ok,)
    hip = _module(
        "hip.hip", hipSetDevice=done, hipDeviceSynchronize=done, hipEventSynchronize=done, hipEventDestroy=done,
        hipModuleUnload=done, hipFree=lambda address: (ok, m.memory.pop(address, None))[:1],
        hipGetDeviceCount=lambda: (Code(100), 0) if m.fault == "none" else (ok, 1),
        hipDeviceGetAttribute=lambda attribute, number: (ok, numbers[attribute.removeprefix("hipDeviceAttribute")]),
        hipDeviceAttribute_t=SimpleNamespace(**{f"hipDeviceAttribute{n}": f"hipDeviceAttribute{n}" for n in numbers}),
        hipGetDeviceProperties=lambda n: (ok, SimpleNamespace(gcnArchName=b"gfx942:sramecc+:xnack-", name=b"MI300X")),
        hipMalloc=lambda size: (ok, m.allocate(size)), hipMemcpy=copy, hipModuleLoadData=load,
        hipMemcpyKind=SimpleNamespace(hipMemcpyHostToDevice=1, hipMemcpyDeviceToHost=2),
        hipModuleGetFunction=lambda module, name: (ok, module[f"run_{name.decode()}"]), hipModuleLaunchKernel=launch,
        hipEventCreate=lambda: (ok, SimpleNamespace()), hipEventRecord=record,
        hipEventElapsedTime=lambda a, b: (ok, (b.at - a.at) * 1e3), hipRuntimeGetVersion=lambda: (ok, 60_200_000),
    )  # fmt: skip
    return {"hip": _module("hip", hip=hip), "hip.hip": hip}


def main() -> None:
    """The measuring process with a stand-in: the environment says which."""
    from autotune import worker

    install(os.environ["STANDIN"], os.environ.get("STANDIN_FAULT", ""))
    worker.main()
