"""The plans of a program in the order of their predicted times: the model's choice, then what it is unsure about.

Sees regions and ways (`ir/plan.py`); a way costs what the best points of its kernels' sketches are predicted to take.
"""

from __future__ import annotations

import math

from ..devices.spec import DeviceSpec
from ..ir.collapse import normal_form
from ..ir.partition import partition
from ..ir.plan import Group, Plan
from ..ir.program import TensorProgram
from .ranking import Ranking

TIE = 1.005  # one kernel is taken for several where it is predicted to cost no more than this
UNSURE = 1.25  # the other way of a region is worth measuring where it is predicted to cost at most so much more


def plans(program: TensorProgram, spec: DeviceSpec, threads: int) -> list[Plan]:
    """First the cheapest as predicted; then those that differ from it in one region, the nearest in price first."""
    plan = partition(program, not spec.blocks)
    known: dict[str, float] = {}

    def price(way: tuple[Group, ...]) -> float:
        total = 0.0
        for kernel in map(normal_form, plan.kernels_of(way)):
            if kernel.digest not in known:
                columns = [p.seconds for p in Ranking(kernel, spec, threads).priced]
                known[kernel.digest] = min((float(c.min()) for c in columns if len(c)), default=math.inf)
            total += known[kernel.digest]
        return total * (1 if len(way) == 1 else TIE)

    others: list[tuple[float, int]] = []
    for n in plan.open:
        mine, other = (price(plan.regions[n].ways[way]) for way in (plan.chosen[n], 1 - plan.chosen[n]))
        if other < mine:
            plan, mine, other = plan.turned(n), other, mine
        if plan.regions[n].close and other <= UNSURE * mine:
            others.append((other - mine, n))
    return [plan, *(plan.turned(n) for _, n in sorted(others))]
