"""What a machine is, and how to run and time kernels on it.

Knows no program and no search: it is handed kernels by address. Directories come in as arguments.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..ir.errors import DeviceError
from .spec import CacheLevel, DeviceSpec

__all__ = ["CacheLevel", "DeviceSpec", "device", "list_devices"]


@lru_cache(maxsize=8)
def _host(config: Path | None) -> DeviceSpec:
    from .cpu import host

    return host(config)


def forget() -> None:
    """Detect again at the next question: a calibration has changed."""
    _host.cache_clear()


def list_devices(config: Path | None = None) -> list[DeviceSpec]:
    """The devices of this machine that kernels can run on: the CPU, then those of every driver that works here."""
    from .drivers import present

    return [_host(config), *present()]


def device(name: str = "cpu", config: Path | None = None) -> DeviceSpec:
    """A device by name: "cpu" is this machine; "cuda", "cuda:0", "hip:0", "opencl:0" a device that a driver knows here,
    by number, "opencl:PoCL" or "cuda:H100" by part of its name; "cpu:znver3" or "cuda:sm_80" any of the table, here or
    not.

    Raises DeviceError for a name that means nothing, or no device that is described here.
    """
    from . import gpu
    from .cpu import describe, known

    kind, _, arch = name.partition(":")
    if kind in gpu.KINDS:
        if f"{kind}:{arch}" in gpu.known():
            return gpu.describe(kind, arch)
        if kind != "opencl" and arch.startswith(("sm_", "gfx")):
            return gpu.describe(kind, arch)  # says which ones the table has
        from .drivers import find

        try:
            return find(kind, arch or "0")
        except DeviceError as error:
            if not arch or arch.isdigit() or kind == "opencl":
                raise
            known_here = ", ".join(name for name in gpu.known() if name.startswith(kind))
            raise DeviceError(f"no device {name!r} in the table, which has {known_here}; {error}") from None
    if kind != "cpu":
        names = f"cpu, {', '.join(gpu.known())} and cpu:ARCH, ARCH one of {', '.join(known())}"
        raise DeviceError(f"no device {name!r} here or in the table; known are {names}")
    if not arch or arch == _host(config).arch:
        return _host(config)
    return describe(arch)
