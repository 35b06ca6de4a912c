"""How many blocks a multiprocessor holds at once: arithmetic on what a kernel uses and what there is."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import DeviceError
from .spec import DeviceSpec


@dataclass(frozen=True, slots=True)
class Occupancy:
    """`blocks` and `warps` resident on one multiprocessor, of `most` warps; `limit`: what there would have to be more
    of for another block: registers | shared | warps | blocks."""

    blocks: int
    warps: int
    most: int
    limit: str

    @property
    def share(self) -> float:
        return self.warps / self.most

    def __str__(self) -> str:
        return f"{self.warps}/{self.most} warps ({self.limit})"


def occupancy(spec: DeviceSpec, threads: int, registers: int, shared: int) -> Occupancy:
    """Of a block with so many threads, 32-bit registers a thread and bytes of shared memory. 0 blocks: it does not fit.

    Registers are given to a warp in units, and a warp has those of one partition; a block's shared memory is rounded up
    to a unit, with what the system keeps of it. (NVIDIA's occupancy calculator; AMD's ISA guides and LLVM's AMDGPU
    usage: the same with other numbers.) Raises DeviceError for a device without such limits.
    """
    core = spec.core
    if core is None:
        raise DeviceError(f"how many blocks a multiprocessor of {spec.id} holds is not known: the table has no limits")
    warps = max(-(-threads // spec.warp), 1)
    one = _rounded(max(registers, 1) * spec.warp, core.register_unit)
    held = core.registers // core.partitions // one * core.partitions
    room = _rounded(shared + core.shared_reserved, core.shared_unit)
    found = {
        "warps": core.warps // warps,
        "registers": held // warps if registers <= core.thread_registers else 0,
        "shared": core.shared_bytes // room if room else core.blocks,
        "blocks": core.blocks,
    }
    limit = min(found, key=found.__getitem__)
    return Occupancy(found[limit], found[limit] * warps, core.warps, limit)


def _rounded(n: int, unit: int) -> int:
    return -(-n // unit) * unit
