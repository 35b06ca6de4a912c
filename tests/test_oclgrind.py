"""OpenCL texts under oclgrind: clean as they are, and planted faults show. Skipped where oclgrind is not installed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from autotune.codegen.opencl import OPENCL
from autotune.devices import device

from . import oclgrind
from .emulated import legal
from .ir.test_spmd import LANGUAGES, NESTS, made
from .kernels import PROGRAMS, named

if reason := oclgrind.missing():
    pytest.skip(reason, allow_module_level=True)

SIZES = (5, 9, 6)
NAMES = list(PROGRAMS)
GROUPS = [NAMES[n::4] for n in range(4)]
BARRIER = OPENCL.atoms["barrier"]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_every_program_is_clean(names: list[str]) -> None:
    spec = device("opencl:generic")
    jobs = [oclgrind.Job(program, nest) for name in names for program in named(name, SIZES)
            for _, nest in legal(program, spec, 1)]  # fmt: skip
    assert oclgrind.run(jobs) == ""


def test_nests_with_barriers_are_clean() -> None:
    assert oclgrind.run([oclgrind.Job(*made(name)) for name in NESTS if name not in LANGUAGES]) == ""


def once(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text, text
        return text.replace(old, new, 1)

    return change


FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "no barrier before the first use": (once(BARRIER, ""), "race"),
    "no barrier after the last use": (lambda t: "".join(t.rsplit(BARRIER, 1)), "race|ninitiali"),
    "a barrier for half of the threads": (once(BARRIER, f"if (get_local_id(1) < 2) {BARRIER}"), "divergence"),
    "a global read past the end": (once("= a[", "= a[1920 + "), "Invalid read"),
    "a shared write past the end": (once("t0_load1[8 * t0_load1_a", "t0_load1[32 + 8 * t0_load1_a"), "Invalid write"),
    "two threads write one element": (once("t0[128 * i_0", "t0[0 * get_local_id(0)"), "race"),
    "an element is not written": (
        once("t0_load1[8 * t0_load1_a", "if (get_local_id(0) > 0) t0_load1[8 * t0_load1_a"), "ninitiali"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_show(name: str) -> None:
    change, told = FAULTS[name]
    found = oclgrind.run([oclgrind.Job(*made("product"), change)])
    assert re.search(told, found), found
