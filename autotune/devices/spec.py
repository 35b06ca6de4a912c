"""DeviceSpec: what is known about one machine, as plain data and arithmetic on it. Detects and runs nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..ir.dtypes import DType
from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import DeviceError

if TYPE_CHECKING:
    from ..ir.banks import Shape
    from ..ir.dots import Dot
    from ..ir.limits import Limits

# Sustained bandwidth where nothing was measured: reads as a share of what the load ports allow (Zen 3: 182, 101, 74 and
# 20 GB/s of 201), writes and copies (bytes read and written) as a share of the level's reads.
_LEVEL_SHARE = {"L1": 0.9, "L2": 0.5, "L3": 0.37, "DRAM": 0.1}
_KIND_SHARE = {"read": 1.0, "write": 0.7, "copy": 0.9}
# What calibration or a boost clock may change without making it another device.
_VECTOR_FEATURES = ("+avx", "+fma", "+f16c", "+sse4", "+neon", "+sve", "+dotprod", "+bf16", "+i8mm", "+fullfp16")
GRIDS = dict.fromkeys(("cuda", "hip"), (2**31 - 1, 65535, 65535))  # blocks along x, y, z, as the vendors' guides say
_MEASURED = ("frequency_hz", "peak_flops", "bandwidth", "launch_seconds", "provenance", "number")


@dataclass(frozen=True, slots=True)
class CacheLevel:
    """One data or unified cache: capacity in bytes, line in bytes, and how many hardware threads share one instance."""

    name: str
    bytes: int
    line: int = 64
    ways: int = 8
    shared_by: int = 1


@dataclass(frozen=True, slots=True)
class Core:
    """What one multiprocessor holds: 32-bit registers in `partitions` equal parts, warps, blocks, bytes of shared
    memory. A warp gets registers in multiples of `register_unit`, a block shared memory in multiples of `shared_unit`
    with `shared_reserved` bytes for the system; a thread has at most `thread_registers`. `block_cycles` lie between the
    beginnings of two blocks, `latency` cycles between a load that no near cache serves and its value."""

    registers: int
    partitions: int
    warps: int
    blocks: int
    shared_bytes: int
    register_unit: int
    shared_unit: int
    shared_reserved: int = 0
    thread_registers: int = 255
    block_cycles: int = 160
    latency: int = 900


@dataclass(frozen=True)
class DeviceSpec:
    """A machine. Rates are for one core; `fma_per_cycle` and `loads_per_cycle` count full-width vectors.

    `features` are LLVM attribute strings ("+avx512f"). `peak_flops`: (dtype name, flops a second of one core).
    `bandwidth`: (level, "read" | "write" | "copy", bytes a second of all threads together, threads).
    `provenance`: (field, "queried" | "measured" | "table"). Of devices with blocks, `cores` are multiprocessors;
    `threads_per_block` and `shared_bytes` are the most of one block, `warp` threads run in step; `matrix`: instructions
    (`ir.instructions`), the fastest first, with the operations a second of one multiprocessor; `core`: what one
    multiprocessor holds, where that is known; `number` is the driver's, and no part of what the device is.
    """

    kind: str
    vendor: str
    name: str
    arch: str
    features: tuple[str, ...] = ()
    cores: int = 1
    vector_bits: int = 128
    vector_registers: int = 16
    fma_per_cycle: float = 2.0
    fma_latency: float = 4.0
    loads_per_cycle: float = 2.0
    frequency_hz: float = 3e9
    caches: tuple[CacheLevel, ...] = ()
    peak_flops: tuple[tuple[str, float], ...] = ()
    bandwidth: tuple[tuple[str, str, float, int], ...] = ()
    launch_seconds: float = 1e-7
    provenance: tuple[tuple[str, str], ...] = ()
    threads_per_block: int = 0
    shared_bytes: int = 0
    warp: int = 0
    matrix: tuple[tuple[str, float], ...] = ()
    core: Core | None = None
    number: int = 0

    @property
    def shuffles(self) -> int:
        """Threads that may read each other's registers; 1 where none may."""
        return self.warp if self.kind in ("cuda", "hip") else 1

    @property
    def ahead(self) -> int:
        """Blocks of operands that may be on their way into shared memory while others are used."""
        return 3 if self.kind == "cuda" and int(re.sub(r"\D", "", self.arch) or 0) >= 80 else 1

    @property
    def dots(self) -> tuple[Dot, ...]:
        """The dot instructions of its vectors."""
        from ..ir.dots import DOTS

        return tuple(d for d in DOTS.values() if d.feature in self.features and "+avx512vl" in self.features)

    @property
    def blocks(self) -> bool:
        """Does it run blocks of threads (a GPU), not one thread a core (a CPU)?"""
        return self.kind != "cpu"

    @property
    def id(self) -> str:
        """What `autotune.device` takes: "cpu:znver4"."""
        return f"{self.kind}:{self.arch}"

    @property
    def here(self) -> bool:
        """Of a device with blocks: is it in this machine, as its driver says?"""
        return ("cores", "queried") in self.provenance

    @property
    def line(self) -> int:
        """Bytes of a cache line."""
        return self.caches[0].line if self.caches else 64

    def lanes(self, dtype: DType | str) -> int:
        """Elements of a full-width vector."""
        return max(1, self.vector_bits // parse_dtype(dtype).bits)

    def peak(self, dtype: DType | str, threads: int = 1) -> float:
        """Flops a second: measured, else frequency * FMAs a cycle * 2 * lanes of the type that computes."""
        kind = parse_dtype(dtype)
        known = dict(self.peak_flops)
        one = known.get(kind.name) or known.get(kind.compute.name)
        if one is None:
            one = self.frequency_hz * self.fma_per_cycle * self.lanes(kind.compute) * 2
        return one * min(max(threads, 1), self.cores)

    def cache(self, name: str) -> CacheLevel | None:
        return next((c for c in self.caches if c.name == name), None)

    def level_of(self, footprint: int) -> str:
        """The first level that holds `footprint` bytes of one core: a cache's name or "DRAM"."""
        return next((c.name for c in self.caches if footprint <= c.bytes), "DRAM")

    def bytes_per_second(self, level: str, kind: str = "read", threads: int = 1) -> float:
        """Bandwidth of a level for all `threads` together: measured at the nearest thread count, else an estimate."""
        rows = [(rate, n) for lv, k, rate, n in self.bandwidth if (lv, k) == (level, kind)]
        private = level != "DRAM" and (found := self.cache(level)) is not None and found.shared_by <= 2
        if rows:
            rate, n = min(rows, key=lambda row: abs(row[1] - threads))
            return rate * threads / n if private else rate
        ports = self.frequency_hz * self.loads_per_cycle * self.vector_bits / 8
        scale = threads if private else min(threads, 4) ** 0.5
        return ports * _LEVEL_SHARE.get(level, 0.1) * _KIND_SHARE.get(kind, 0.9) * scale

    def limits(self) -> Limits:
        """What the verifier may hold a nest against."""
        from ..ir.limits import Limits

        if self.blocks:
            grid = GRIDS.get(self.kind, Limits().grid)
            known = tuple(name for name, _ in self.matrix)
            return Limits(threads=self.threads_per_block, shared_bytes=self.shared_bytes, instructions=known,
                          warp=self.shuffles, grid=grid)
        dots = tuple(d.name for d in self.dots)
        return Limits(vector_bits=self.vector_bits, vector_registers=self.vector_registers, instructions=dots)

    def memory(self) -> Shape:
        """How the warps of a device with blocks reach its memory."""
        from ..ir.banks import Shape

        return Shape(warp=max(self.warp, 1), sector_bytes=64 if self.vendor == "AMD" else 32)

    @cached_property
    def digest(self) -> str:
        """Identity of the hardware: what no calibration and no newer LLVM (with names for more features) changes."""
        fixed = {k: v for k, v in self.to_json().items() if k not in (*_MEASURED, "core")}  # the arch says what it is
        fixed["features"] = sorted(f for f in self.features if f.startswith(_VECTOR_FEATURES))
        text = json.dumps(fixed, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @cached_property
    def text(self) -> str:
        """All fields as canonical JSON."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> DeviceSpec:
        """The spec that `to_json` wrote, also after a trip through JSON. Raises DeviceError on anything else."""
        try:
            names = {f.name for f in dataclasses.fields(DeviceSpec)}
            if unknown := sorted(set(value) - names):
                raise ValueError(f"unknown fields {', '.join(unknown)}")
            rows = {k: tuple(map(tuple, value.get(k, ()))) for k in ("peak_flops", "bandwidth", "provenance", "matrix")}
            caches = tuple(CacheLevel(**row) for row in value.get("caches", ()))
            core = Core(**value["core"]) if value.get("core") else None
            more = {"caches": caches, "features": tuple(value.get("features", ())), "core": core}
            return DeviceSpec(**{**value, **rows, **more})
        except (TypeError, ValueError, AttributeError) as error:
            raise DeviceError(f"not a device description: {error}") from error
