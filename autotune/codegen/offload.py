"""A verified nest to what the driver of its device loads: text for OpenCL, a binary for CUDA and HIP."""

from __future__ import annotations

from ..devices.runtime import Code
from ..devices.spec import DeviceSpec
from ..ir.errors import BuildError, DeviceError, UsageError
from ..ir.nest import Nest
from .clike import Dialect, Text, render, source

TARGETS = ("llvm", "cuda", "hip", "opencl")


def dialect(target: str) -> Dialect:
    """The language of a target. Raises UsageError for one that does not exist."""
    if target == "cuda":
        from .cuda import CUDA

        return CUDA
    if target == "hip":
        from .hip import HIP

        return HIP
    if target == "opencl":
        from .opencl import OPENCL

        return OPENCL
    raise UsageError(f"target {target!r}: the targets are {', '.join(TARGETS)}")


def compiled(nest: Nest, spec: DeviceSpec) -> tuple[Code, Text]:
    """The kernels of a nest for a device of this machine. Raises BuildError with the compiler's log, and DeviceError
    where there is no compiler, or it does not know the device."""
    language = dialect(spec.kind)
    made = render(nest, language)
    return binary(source([made], language), spec), made


def binary(text: str, spec: DeviceSpec) -> Code:
    """A text as its driver takes it."""
    from . import amdgpu, nvrtc

    if spec.kind == "opencl":
        return Code(text)
    maker = nvrtc.version() if spec.kind == "cuda" else " ".join(amdgpu.compiler())
    try:
        data = nvrtc.cubin(text, spec.arch) if spec.kind == "cuda" else amdgpu.link(text, spec.arch)
    except BuildError as error:
        if error.reason != "arch":
            raise
        advice = "install another version of nvidia-cuda-nvrtc" if spec.kind == "cuda" else "install a newer clang"
        raise DeviceError(f"{maker} does not know {spec.name} ({spec.arch}): {advice}") from None
    return Code(data, maker)
