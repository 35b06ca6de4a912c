"""NVIDIA's run-time compiler, which needs neither a GPU nor its driver: CUDA text to a cubin, with what it uses.

The library comes with the wheel `nvidia-cuda-nvrtc`, or with a CUDA toolkit; it is loaded at the first use.
"""

from __future__ import annotations

import ctypes
import re
import sysconfig
from functools import cache
from pathlib import Path

from ..ir.errors import BuildError, DeviceError
from . import tools
from .resources import Resources

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a")


@cache
def library(given: str = "") -> ctypes.CDLL:
    """libnvrtc, or the library at the path `given`. Raises DeviceError with the way to get it."""
    site = Path(sysconfig.get_paths()["purelib"])
    found = sorted(site.glob("nvidia/**/libnvrtc.so.*")) + sorted(site.glob("nvidia/**/libnvrtc-*.so*"))
    names = [str(path) for path in found if "builtins" not in path.name and ".alt." not in path.name]
    for name in [given] if given else [*names, "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"]:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise DeviceError("CUDA's run-time compiler is not here: pip install nvidia-cuda-nvrtc")


def version() -> str:
    """Its name and version, "NVRTC 13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"NVRTC {major.value}.{minor.value}"


def compile(text: str, arch: str, given: str = "") -> tuple[bytes, dict[str, Resources]]:
    """A cubin and what each kernel in it uses. Raises BuildError with the compiler's log and a reason: arch | compile |
    garbage. The compiler runs in this process: `offline` keeps its crashes out of it.

    From NVRTC 12.9 on a binary may come from the driver's cache, and then no figures come with it."""
    binary, log = _compiled(text, arch, given)
    found = resources(log)
    if not found:
        binary, log = _compiled(text, arch, given, "--no-cache")
        found = resources(log)
    if not found:
        raise tools.garbage(f"NVRTC for {arch}", log, "there are no figures of its kernels")
    return binary, found


def cubin(text: str, arch: str) -> bytes:
    """The cubin alone, from the driver's cache where it is there. Raises BuildError as `compile` does."""
    return _compiled(text, arch, "")[0]


def _compiled(text: str, arch: str, given: str, *more: str) -> tuple[bytes, str]:
    nvrtc, program = library(given), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    try:
        options = [f"--gpu-architecture={arch}", "--ptxas-options=-v", "--std=c++17", "-lineinfo", *more]
        words = (ctypes.c_char_p * len(options))(*map(str.encode, options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), words)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode(errors="replace")
        log = log.rstrip("\0")
        if status:
            reason = "arch" if "invalid value for --gpu-architecture" in log else "compile"
            raise BuildError(f"NVRTC refused the text for {arch}: {log.strip() or f'status {status}'}", log, reason)
        binary = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        if not binary.startswith(b"\x7fELF"):
            raise tools.garbage(f"NVRTC for {arch}", log, "there is no binary")
        return binary, log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size: ctypes._NamedFuncPointer, read: ctypes._NamedFuncPointer, program: ctypes.c_void_p) -> bytes:
    count = ctypes.c_size_t()
    size(program, ctypes.byref(count))
    buffer = ctypes.create_string_buffer(count.value)
    read(program, buffer)
    return buffer.raw


def resources(log: str) -> dict[str, Resources]:
    """From lines like: Compiling entry function 'k' ...; 0 bytes spill stores, 0 bytes spill loads; Used 40 registers,
    used 1 barriers, 8192 bytes smem."""
    found: dict[str, Resources] = {}
    name, spills = "", 0
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name, spills = match[1], 0
        if match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spills = int(match[1]) + int(match[2])
        if match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] = Resources(int(match[1]), spills, int(shared[1]) if shared else 0)
    return found
