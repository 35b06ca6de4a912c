"""clang as a compiler for AMD GPUs: HIP text to assembly, with what it uses, and to a code object that a driver loads;
no ROCm, no GPU, no header needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..ir.errors import BuildError, DeviceError
from . import tools
from .resources import Resources

ARCHS = ("gfx90a", "gfx942", "gfx1100", "gfx1200")
_FLAGS = ("-x", "hip", "--cuda-device-only", "-nogpuinc", "-nogpulib", "-O3", "-ffp-contract=fast")
_PIPE = ("-S", "-o", "-", "-")


@cache
def compiler() -> tuple[str, ...]:
    """A clang that knows the architectures. Raises DeviceError with the way to get one."""
    for name in ("clang-22", "clang-21", "clang-20", "clang-19", "amdclang", "clang"):
        if (path := shutil.which(name)) and _version(path) >= 19:
            return (path,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "clang")
    raise DeviceError("no clang >= 19 is here: apt-get install clang-19, or pip install ziglang")


def _version(path: str) -> int:
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)", text)
    return int(match[1]) if match else 0


def compile(
    text: str, arch: str, seconds: float = tools.LIMIT, given: tuple[str, ...] = ()
) -> tuple[str, dict[str, Resources]]:
    """Assembly and what each kernel in it uses; `given` is a compiler other than the one found. Raises BuildError with
    the compiler's log and a reason: arch | compile | timeout | crash | garbage."""
    words = [*(given or compiler()), f"--offload-arch={arch}", *_FLAGS, *_PIPE]
    done = tools.run(words, text, seconds, f"clang for {arch}")
    if done.returncode:
        reason = "arch" if "arch" in done.stderr and arch in done.stderr else "compile"
        raise BuildError(f"clang refused the text for {arch}: {done.stderr.strip()[:2000]}", done.stderr, reason)
    if not (found := _resources(done.stdout)):
        raise tools.garbage(f"clang for {arch}", done.stdout, "there is no kernel in its assembly")
    return done.stdout, found


@cache
def linker() -> tuple[str, ...]:
    """An ld.lld. Raises DeviceError with the way to get one."""
    for name in ("ld.lld-22", "ld.lld-21", "ld.lld-20", "ld.lld-19", "ld.lld"):
        if path := shutil.which(name):
            return (path,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "ld.lld")
    raise DeviceError("no linker for AMD's code objects is here: apt-get install lld-19, or pip install ziglang")


def link(text: str, arch: str, seconds: float = 60.0) -> bytes:
    """A code object, the ELF file that AMD's driver loads. Raises BuildError with the log, and DeviceError where there
    is no compiler or no linker."""
    assembler, lld = compiler(), linker()
    assembly, _ = compile(text, arch, seconds)
    with tempfile.TemporaryDirectory() as folder:
        part, whole = Path(folder, "kernel.o"), Path(folder, "kernel.hsaco")
        made = ("-target", "amdgcn-amd-amdhsa", f"-mcpu={arch}", "-x", "assembler", "-c", "-", "-o", str(part))
        for words, given in (((*assembler, *made), assembly), ((*lld, "-shared", str(part), "-o", str(whole)), None)):
            done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=seconds, check=False)
            if done.returncode:
                told = done.stderr.strip()[:2000]
                raise BuildError(f"{words[0]} cannot make a code object for {arch}: {told}", done.stderr, "link")
        return whole.read_bytes()


def _resources(assembly: str) -> dict[str, Resources]:
    """From the kernels' metadata at the end of the assembly."""
    found = {}
    for part in re.split(r"^  - \.a", assembly.partition("amdhsa.kernels:")[2], flags=re.MULTILINE)[1:]:
        rows = dict(re.findall(r"^    \.(\w+):\s+(\S+)", part, flags=re.MULTILINE))
        spilled = int(rows.get("private_segment_fixed_size", 0))  # scalars that spill go to lanes of vector registers
        shared = int(rows.get("group_segment_fixed_size", 0))
        found[rows["name"].strip("'")] = Resources(int(rows["vgpr_count"]), spilled, shared)
    return found
