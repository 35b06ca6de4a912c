"""Plan: a program as kernels in the order in which they run, with the reasons, and the other way where there is one.

Says what was decided; how is told in `partition`, and what each way costs is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .memory import Memory, memory
from .panels import Panels, paneled
from .program import Buffer, TensorProgram


@dataclass(frozen=True, slots=True)
class Group:
    """Computes that share a kernel, in program order, and why: what keeps them together or apart from others."""

    names: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Region:
    """The ways, one or two, in which some Computes can be cut into kernels. They run with nothing else in between.
    `close`: where prices are near each other, only a measurement can tell."""

    ways: tuple[tuple[Group, ...], ...]
    close: bool = True


@dataclass(frozen=True)
class Plan:
    """Regions in the order in which they run, and which way each goes. `widths`: of panels of those inputs that kernels
    may read in panels."""

    program: TensorProgram
    regions: tuple[Region, ...]
    chosen: tuple[int, ...]
    widths: tuple[tuple[str, int], ...] = ()

    @property
    def ways(self) -> tuple[tuple[Group, ...], ...]:
        """Of each region the way it goes."""
        return tuple(region.ways[way] for region, way in zip(self.regions, self.chosen))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        return tuple(g for way in self.ways for g in way)

    @cached_property
    def kernels(self) -> tuple[TensorProgram, ...]:
        """One-kernel programs. Arrays that pass between them keep their names: an output of one is an input of the
        next."""
        return self.kernels_of(self.groups)

    def kernels_of(self, groups: tuple[Group, ...]) -> tuple[TensorProgram, ...]:
        return tuple(k for k, _ in self._paneled(groups))

    def _paneled(self, groups: tuple[Group, ...]) -> list[tuple[TensorProgram, tuple[Panels, ...]]]:
        return [paneled(kernel(self.program, g.names), dict(self.widths)) for g in groups]

    @cached_property
    def panels(self) -> tuple[Panels, ...]:
        """What kernels read in panels, in the order in which they do."""
        return self.panels_of(self.groups)

    def panels_of(self, groups: tuple[Group, ...]) -> tuple[Panels, ...]:
        return tuple(dict.fromkeys(p for _, panels in self._paneled(groups) for p in panels))

    @cached_property
    def memory(self) -> Memory:
        """Places for what kernels pass to each other."""
        return memory(self.program, self.kernels)

    @property
    def open(self) -> tuple[int, ...]:
        """Regions that could go another way."""
        return tuple(n for n, region in enumerate(self.regions) if len(region.ways) > 1)

    def turned(self, region: int) -> Plan:
        """The plan in which one region goes its other way."""
        ways = [1 - way if n == region else way for n, way in enumerate(self.chosen)]
        return replace(self, chosen=tuple(ways))

    def lines(self, times: Mapping[int, str] | None = None) -> list[str]:
        """Text for people: each kernel and why, what else is close, and memory. `times`: by region, what is known of
        its two ways."""
        out = [f"{n}: {', '.join(g.names)}: {g.why}" for n, g in enumerate(self.groups)]
        for n in (n for n in self.open if self.regions[n].close):
            inside = {name for g in self.ways[n] for name in g.names}
            names = ", ".join(c.name for c in self.program.computes if c.name in inside)
            known = f": {times[n]}" if times and n in times else ""
            count = len(self.turned(n).ways[n])
            out.append(f"{names} could be {'one kernel' if count == 1 else f'{count} kernels'}{known}")
        for p in self.panels:
            out.append(f"{p.source}: kept in panels of {p.width} along dimension {p.dim}, made anew when it changes")
        if self.memory.slots:
            out.append(f"between kernels: {size(self.memory.peak)}, {size(self.memory.apart)} without reuse of memory")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Without the program."""
        rows = [{"ways": [[[list(g.names), g.why] for g in way] for way in region.ways], "close": region.close}
                for region in self.regions]  # fmt: skip
        return {"regions": rows, "chosen": list(self.chosen)}


def from_json(program: TensorProgram, value: Mapping[str, Any]) -> Plan:
    """The plan of this program that `to_json` wrote."""
    regions = (
        Region(tuple(tuple(Group(tuple(names), why) for names, why in way) for way in row["ways"]), row["close"])
        for row in value["regions"]
    )
    return Plan(program, tuple(regions), tuple(value["chosen"]))


def size(count: int) -> str:
    """Bytes with a unit that fits them."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def kernel(program: TensorProgram, names: tuple[str, ...]) -> TensorProgram:
    """The program of one group: what it reads from outside are inputs, what others need are outputs."""
    inside = set(names)
    if len(inside) == len(program.computes):
        return program
    computes = tuple(c for c in program.computes if c.name in inside)
    available = {b.name: b for b in program.buffers}
    needed = dict.fromkeys(name for c in computes for name in program.reads[c.name] if name not in inside)
    inputs = tuple(Buffer(b.name, b.dtype, b.shape, "input", b.strides) for b in (available[n] for n in needed))
    wanted = {n for n in names if n in program.outputs or program.readers[n] - inside}
    return TensorProgram(inputs, computes, tuple(n for n in names if n in wanted))
