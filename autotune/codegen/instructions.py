"""Counts of machine instructions, in a whole kernel and in its hottest loop: SASS from nvdisasm, AMD's assembly.

The hottest loop is the innermost region that a jump closes backwards which multiplies most. Counts are static: what a
compiler unrolled stands there several times.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..ir.errors import BuildError, DeviceError
from . import tools


@dataclass(frozen=True, slots=True)
class Instructions:
    """`total` instructions, of which `multiply` multiply and add (or multiply matrices) and `shared` load from or store
    to shared memory; `mix`: how many of each opcode, the most frequent first."""

    total: int
    multiply: int
    shared: int
    mix: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Of issue slots that multiply."""
        return self.multiply / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: opcode, operands, the labels in front of it, and the label that it jumps to."""

    opcode: str
    operands: str = ""
    labels: tuple[str, ...] = ()
    target: str = ""


# Constants are put into registers by HFMA2 of zeros: that is no arithmetic.
_SASS_MULTIPLY = re.compile(r"(FFMA2?|DFMA|HFMA2(?!.*RZ, RZ)|HMMA|IMMA|DMMA|QMMA|OMMA|[HIQO]?GMMA|UTC\w*MMA)\b")
_SASS_LINE = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
_AMD_MULTIPLY = re.compile(r"v_(dual_)?(pk_)?(fma|fmac|fmaak|fmamk|mfma|wmma|swmmac|mad|mac|dot)\w*")


def sass(cubin: bytes, given: str = "", seconds: float = tools.LIMIT) -> dict[str, list[Line]]:
    """The instructions of each kernel of a cubin. Raises DeviceError where there is no nvdisasm, and BuildError."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = tools.run([given or disassembler(), "-c", file.name], "", seconds, "nvdisasm")
    if done.returncode:
        raise BuildError(f"nvdisasm refused the cubin: {done.stderr.strip()[:500]}", done.stderr, "compile")
    found: dict[str, list[Line]] = {}
    name, labels = "", list[str]()
    for line in done.stdout.splitlines():
        if match := re.match(r"\.text\.(\w+):", line):
            name, labels = match[1], []
        elif match := re.match(r"(\.L\w+):", line):
            labels.append(match[1])
        elif name and (match := _SASS_LINE.match(line)):
            jump = re.search(r"`\((\.L\w+)\)", match[2]) if match[1].startswith(("BRA", "JMP")) else None
            found.setdefault(name, []).append(Line(match[1], match[2].strip(), tuple(labels), jump[1] if jump else ""))
            labels = []
    if not found:
        raise tools.garbage("nvdisasm", done.stdout, "there is no instruction in it")
    return found


@cache
def disassembler() -> str:
    """nvdisasm of the wheel or of a toolkit. Raises DeviceError with the way to get it."""
    site = Path(sysconfig.get_paths()["purelib"])
    for path in (
        *sorted(site.glob("nvidia/**/bin/nvdisasm")),
        shutil.which("nvdisasm"),
        "/usr/local/cuda/bin/nvdisasm",
    ):
        if path and Path(path).is_file():
            return str(path)
    raise DeviceError("nvdisasm is not here: pip install nvidia-cuda-nvdisasm")


def amd(assembly: str) -> dict[str, list[Line]]:
    """The instructions of each kernel of clang's assembly."""
    found: dict[str, list[Line]] = {}
    name, labels = "", list[str]()
    kernels = set(re.findall(r"^\s*\.amdhsa_kernel (\w+)", assembly, re.MULTILINE))
    for line in assembly.splitlines():
        code = line.split(";")[0].rstrip()
        if match := re.match(r"([\w.$]+):", code):
            name = match[1] if match[1] in kernels else "" if match[1].startswith(".Lfunc_end") else name
            labels = [] if match[1] in kernels else [*labels, match[1]]
        elif name and (match := re.match(r"\s+([a-z]\w*)\s*(.*)", code)):
            for part in code.strip().split("::"):  # two operations of one instruction
                opcode, _, operands = part.strip().partition(" ")
                jump = operands.strip() if re.match(r"s_c?branch", opcode) else ""
                found.setdefault(name, []).append(Line(opcode, operands, tuple(labels), jump))
                labels = []
    return found


def counted(lines: Sequence[Line]) -> Instructions:
    """Of one kernel, or a part of it."""
    real = [ln for ln in lines if ln.opcode not in ("NOP", "s_nop", "s_code_end")]
    mix = Counter(ln.opcode for ln in real)
    shared = sum(n for name, n in mix.items() if re.match(r"(U?LDS|STS|LDSM|ATOMS|ds_)", name))
    return Instructions(len(real), sum(map(_multiplies, real)), shared, tuple(mix.most_common()))


def hottest(lines: Sequence[Line]) -> Instructions | None:
    """The innermost loop that multiplies most; None in a kernel without loops that do."""
    loops = list(_loops(lines))
    innermost = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    found = [counted(lines[first : last + 1]) for first, last in innermost]
    best = max(found, key=lambda i: (i.multiply, -i.total), default=None)
    return best if best and best.multiply else None


def _loops(lines: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """First and last instruction of each region that a jump closes; a jump to itself is the end of a kernel."""
    places = {label: n for n, ln in enumerate(lines) for label in ln.labels}
    for n, ln in enumerate(lines):
        if ln.target in places and places[ln.target] < n:
            yield places[ln.target], n


def _multiplies(line: Line) -> bool:
    return bool(_SASS_MULTIPLY.match(f"{line.opcode} {line.operands}") or _AMD_MULTIPLY.match(line.opcode))
