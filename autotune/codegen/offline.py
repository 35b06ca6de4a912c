"""Texts for devices that need not be here, compiled by their real compilers: registers, spills, instructions.

Every text is compiled in a process of its own, so that a compiler may crash or hang without harm. This module is also
that process: `main` reads one job from standard input and answers on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..devices.spec import DeviceSpec
from ..ir.errors import BuildError, DeviceError
from . import amdgpu, instructions, nvrtc, ptxas, tools
from .instructions import Instructions, Line
from .resources import Resources

_ROOT = str(Path(__file__).resolve().parents[2])
_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from autotune.codegen.offline import main; main()"


@dataclass(frozen=True, slots=True)
class Report:
    """Of one compiled kernel: what it uses (None: the compiler does not say), all of its instructions, and those of its
    hottest loop (None: unknown, or no loop that multiplies). `seconds`: what its whole text took to compile."""

    resources: Resources | None = None
    code: Instructions | None = None
    hot: Instructions | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Report:
        def part(name: str) -> Instructions | None:
            row = value[name]
            return Instructions(**{**row, "mix": tuple((n, int(c)) for n, c in row["mix"])}) if row else None

        used = Resources(**value["resources"]) if value["resources"] else None
        return Report(used, part("code"), part("hot"), float(value["seconds"]))


def toolchain(spec: DeviceSpec) -> str:
    """What compiles for a device. Raises DeviceError with the way to get it where that is missing here."""
    if spec.kind == "cuda":
        try:
            nvrtc.library()
            return "nvrtc"
        except DeviceError as missing:
            try:
                return ptxas.programs()
            except DeviceError:
                raise missing from None
    if spec.kind == "hip":
        return " ".join(amdgpu.compiler())
    if spec.kind == "opencl" and ("cores", "queried") in spec.provenance:
        return spec.arch
    raise DeviceError(f"nothing here compiles for {spec.id}: an OpenCL text is compiled by its device's driver")


def compiled(text: str, spec: DeviceSpec, seconds: float = tools.LIMIT, given: str = "") -> dict[str, Report]:
    """The kernels of a text, by symbol. `given`: the compiler's program or library, else the one found. Raises
    DeviceError for a missing toolchain, BuildError with a reason (arch | compile | crash | timeout | garbage)."""
    job = json.dumps({"text": text, "spec": spec.to_json(), "given": given, "seconds": seconds})
    paths = sys.path if _ROOT in sys.path else [_ROOT, *sys.path]
    done = tools.run([sys.executable, "-c", _CHILD, *paths], job, seconds + 2, f"the compiler for {spec.id}")
    try:
        reply = json.loads(done.stdout)
        failed = reply.get("error")
        if failed and failed["reason"] == "toolchain":
            raise DeviceError(failed["message"])
        if failed:
            raise BuildError(**failed)
        return {name: Report.from_json(row) for name, row in reply["kernels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        told = done.stderr.strip().splitlines()[-1:] or [done.stdout[:60]]
        raise BuildError(
            f"the compiler for {spec.id} ended without an answer: {told[0]}", done.stderr, "garbage"
        ) from None


def _here(text: str, spec: DeviceSpec, given: str, seconds: float) -> dict[str, Report]:
    nvidia = spec.kind == "cuda" and (given or toolchain(spec) == "nvrtc")
    if nvidia:
        nvrtc.library(given)  # once it is loaded it is no part of what a text takes
    begun = time.perf_counter()
    if spec.kind == "cuda":
        binary, used = nvrtc.compile(text, spec.arch, given) if nvidia else ptxas.compile(text, spec.arch, seconds)
        took = time.perf_counter() - begun
        try:
            lines = instructions.sass(binary, seconds=seconds)
        except (DeviceError, BuildError):  # without a disassembler the rest is known all the same
            lines = {}
        return {name: _report(row, lines.get(name, []), took) for name, row in used.items()}
    if spec.kind == "hip":
        assembly, used = amdgpu.compile(text, spec.arch, seconds, (given,) if given else ())
        took = time.perf_counter() - begun
        lines = instructions.amd(assembly)
        return {name: _report(row, lines.get(name, []), took) for name, row in used.items()}
    from ..devices.opencl import compiles

    return {name: Report() for name in compiles(spec, text)}


def _report(used: Resources, lines: list[Line], seconds: float) -> Report:
    if not lines:
        return Report(used, seconds=seconds)
    return Report(used, instructions.counted(lines), instructions.hottest(lines), seconds)


def main() -> None:
    """One job: compile, answer, end."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected here
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a compiler prints is not the answer
    job = json.load(sys.stdin)
    try:
        found = _here(job["text"], DeviceSpec.from_json(job["spec"]), job["given"], job["seconds"])
        reply: dict[str, Any] = {"kernels": {name: report.to_json() for name, report in found.items()}}
    except BuildError as error:
        reply = {"error": {"message": str(error), "log": error.log[:4000], "reason": error.reason}}
    except DeviceError as error:
        reply = {"error": {"message": str(error), "reason": "toolchain"}}
    answers.write(json.dumps(reply))
    answers.close()
