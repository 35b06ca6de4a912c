"""Which drivers there are, which of them work here, and what to install where none does.

Looks before it imports: a module that is not installed, or whose driver is not on this machine, costs no time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..ir.errors import DeviceError
from ..ir.program import Buffer
from ..ir.spmd import Entry
from .runtime import Code, Runner
from .spec import DeviceSpec

_NVIDIA = "NVIDIA's driver is not on this machine (libcuda.so.1); install it from your system's packages"
_AMD = "AMD's driver is not on this machine (libamdhip64.so); install ROCm, and put /opt/rocm/lib on LD_LIBRARY_PATH"

WORDS = {"opencl": "OpenCL", "cuda": "CUDA", "hip": "HIP"}


@dataclass(frozen=True)
class Driver:
    """A way to devices of a kind: the Python module that is needed, our module that uses it, and the extra that brings
    it. `libraries`: the driver's own, one of which must load; none are named where the module finds them by itself."""

    kind: str
    module: str
    ours: str
    extra: str
    libraries: tuple[str, ...] = ()
    missing: str = ""

    def obstacle(self) -> str:
        """Why it cannot be used, and what to do; "" where nothing seems to be missing."""
        without = "" if _installed(self.module) else f"{self.module} is not installed: {self.install}"
        if self.libraries and not loads(self.libraries):
            return f"{self.missing}; and {without}" if without else self.missing
        return without

    @property
    def install(self) -> str:
        return f"pip install 'autotune-kernels[{self.extra}]'"

    def specs(self) -> list[DeviceSpec]:
        """The devices that it knows here. Raises DeviceError with what to do where it does not work."""
        if problem := self.obstacle():
            raise DeviceError(problem)
        found: list[DeviceSpec] = self.room().present()
        if not found:
            raise DeviceError(f"{self.module} works, and finds no {WORDS[self.kind]} device on this machine")
        return found

    def room(self) -> Any:
        """Our module."""
        return import_module(f".{self.ours}", __package__)


_CUDA, _HIP = ("libcuda.so.1",), ("libamdhip64.so", *(f"libamdhip64.so.{n}" for n in (7, 6, 5)))
DRIVERS = (
    Driver("opencl", "pyopencl", "opencl", "opencl"),
    Driver("cuda", "cuda.core", "cuda", "cuda", _CUDA, _NVIDIA),
    Driver("cuda", "pycuda", "pycuda", "pycuda", _CUDA, _NVIDIA),
    Driver("hip", "hip", "hip", "hip", _HIP, _AMD),
)


@cache
def loads(libraries: tuple[str, ...]) -> bool:
    """Can one of these be loaded?"""
    for name in libraries:
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            continue
    return False


def _installed(module: str) -> bool:
    """Without importing it; packages around it may be."""
    try:
        return find_spec(module.partition(".")[0]) is not None and find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # its package has no such part; or it is a stand-in without a spec
        return False


def working(kind: str) -> tuple[Driver, list[DeviceSpec]]:
    """The first driver of a kind that works, and its devices. Raises DeviceError that says why none does."""
    problems = []
    for driver in DRIVERS:
        if driver.kind == kind:
            try:
                return driver, driver.specs()
            except DeviceError as error:
                problems.append(str(error))
    raise DeviceError(f"no {WORDS[kind]} device can be used here: {'; or '.join(dict.fromkeys(problems))}")


def states() -> list[tuple[Driver, list[DeviceSpec], str]]:
    """Every driver with its devices, and why it has none."""
    rows: list[tuple[Driver, list[DeviceSpec], str]] = []
    for driver in DRIVERS:
        try:
            rows.append((driver, driver.specs(), ""))
        except DeviceError as error:
            rows.append((driver, [], str(error)))
    return rows


def present() -> list[DeviceSpec]:
    """Every device that kernels can run on, of all kinds; never raises."""
    found: dict[str, list[DeviceSpec]] = {}
    for driver, specs, _ in states():
        found[driver.kind] = found.get(driver.kind) or specs
    return [spec for specs in found.values() for spec in specs]


def find(kind: str, name: str) -> DeviceSpec:
    """A device of this machine by its number, or by a part of its name or of what compiles for it: numbers change with
    what is installed. Raises DeviceError with those that are here."""
    found = working(kind)[1]
    for n, spec in enumerate(found):
        if name == str(n) or name and not name.isdigit() and name.lower() in f"{spec.arch} {spec.name}".lower():
            return spec
    known = ", ".join(f"{kind}:{n} ({spec.arch}: {spec.name})" for n, spec in enumerate(found))
    raise DeviceError(f"no {WORDS[kind]} device {name!r} here; there are: {known}")


def runner(spec: DeviceSpec, code: Code, kernels: Sequence[Entry], buffers: Sequence[Buffer]) -> Runner:
    """The kernels of a text on the device of a spec. Raises DeviceError where it has gone, or its driver cannot take
    the code."""
    made: Runner = _room(spec.kind).Runner(spec, code, kernels, buffers)
    return made


@cache
def _room(kind: str) -> Any:
    return working(kind)[0].room()
