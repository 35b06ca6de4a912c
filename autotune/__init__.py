"""autotune: a compiler that finds by proof, prediction and measurement the fastest kernel for a shape on a device.

Only names live here. What a first call needs is imported at once, so that the call itself starts quickly; the rest is
imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .decorator import TuningResult, kernel
from .ir.errors import (
    AutotuneError,
    BuildError,
    CacheError,
    DeviceError,
    MeasureError,
    ScheduleError,
    SignatureError,
    TraceError,
    UsageError,
    VerifyError,
)
from .options import context
from .tracer import spec

if TYPE_CHECKING:
    from . import ops
    from .devices import device, list_devices

__version__ = "0.1.0"
__all__ = [
    "AutotuneError", "BuildError", "CacheError", "DeviceError", "MeasureError", "ScheduleError", "SignatureError",
    "TraceError", "TuningResult", "UsageError", "VerifyError", "__version__", "context", "device", "kernel",
    "list_devices", "ops", "spec",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module(".ops", __name__)
    if name in ("device", "list_devices"):
        return getattr(import_module(".devices", __name__), name)
    raise AttributeError(f"module 'autotune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
