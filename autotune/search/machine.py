"""What the cost model asks of a device: cycles, ports, cache sizes and the price of a byte at each level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.dtypes import DType
from .sketch import Column

PAGE = 4096  # bytes; rows so far apart share one set of a first cache with that many bytes a way, and need a page each
NARROW = 2.0  # loads of one number a cycle, at least
WINDOW = 256  # instructions that a processor has begun and not ended


@dataclass(frozen=True)
class Machine:
    """A DeviceSpec seen by one kernel: `threads` of it, computing in `dtype`."""

    spec: DeviceSpec
    threads: int
    dtype: DType

    @cached_property
    def cycle(self) -> float:
        """Seconds of a cycle: from the measured peak where there is one, else from the clock."""
        rate = self.spec.peak("f32") / (self.spec.lanes("f32") * 2 * self.spec.fma_per_cycle)
        return 1.0 / rate

    @property
    def fma_per_cycle(self) -> float:
        return self.spec.fma_per_cycle

    @property
    def fma_latency(self) -> float:
        return self.spec.fma_latency

    def aliased(self, apart: int) -> bool:
        """Whether lines so many bytes apart are all in one set of a first cache."""
        return apart != 0 and apart % PAGE == 0

    def latency(self, chain: Column | float) -> Column:
        """Cycles that a step waits for the one before it, in a chain of so many instructions: the processor has
        begun what comes after a short one."""
        return np.asarray(self.fma_latency / np.maximum(1.0, WINDOW / np.maximum(chain, 1.0)))

    def held(self, cache: str, apart: int, run: Column) -> Column:
        """How many runs of `run` bytes, each `apart` bytes after the last, stay in a cache: those a power of two apart
        share few of its sets."""
        found = self.spec.cache(cache)
        if found is None:
            return np.full(np.shape(run), np.inf)
        way = found.bytes // found.ways
        return np.asarray(found.ways * np.minimum(way / math.gcd(apart, way), way / np.maximum(run, found.line)))

    @property
    def loads_per_cycle(self) -> float:
        return self.spec.loads_per_cycle

    def loading(self, full: Column | float, narrow: Column | float) -> Column | float:
        """Cycles in which so many vectors are loaded, and so many numbers that a multiplication spreads over lanes."""
        return full / self.loads_per_cycle + narrow / max(self.loads_per_cycle, NARROW)

    def refill(self, vectors: Column | float, lanes: int) -> Column:
        """Cycles in which so many vectors come from the second cache, beside other work."""
        return np.asarray(1.2 * vectors * lanes * self.dtype.compute.bytes * self.byte("L2") / self.cycle)

    def vectors(self, elements: int, lanes: int) -> float:
        """What arithmetic on so many elements costs, in full vectors: where one of them is issued a cycle, half of one
        is half the work."""
        whole, rest = divmod(elements, lanes)
        half = self.fma_per_cycle <= 1 and lanes == self.spec.lanes(self.dtype) and rest <= lanes // 2
        return whole + (0.5 if rest and half else float(rest > 0))

    def _size(self, name: str, otherwise: int) -> int:
        cache = self.spec.cache(name)
        return cache.bytes if cache else otherwise

    @cached_property
    def l1(self) -> int:
        return self._size("L1", 32 << 10)

    @cached_property
    def l2(self) -> int:
        return self._size("L2", 512 << 10)

    @cached_property
    def l3(self) -> int:
        return self._size("L3", self.l2 * 8)

    @cached_property
    def l1_ways(self) -> int:
        cache = self.spec.cache("L1")
        return cache.ways if cache else 8

    def level(self, footprint: float) -> str:
        """Where data of this size lives between uses."""
        return self.spec.level_of(int(footprint * 1.1))

    def byte(self, level: str, kind: str = "read") -> float:
        """Seconds a byte, for one thread."""
        return 1.0 / self.spec.bytes_per_second(level, kind, 1)

    def bypass(self, moved: float, past: NDArray[Any]) -> Column:
        """What writing costs where it goes `past` the caches (1), over writing through them (0). Other cores' data live
        in the last cache, too: what moves more than a third of it had better not be written there."""
        return np.asarray(np.where(past == 1, 0.5 if moved > self.l3 / 3 else 1.0, 1.0))

    @cached_property
    def streams(self) -> float:
        """How much faster all threads together read memory than one does."""
        if self.threads == 1:
            return 1.0
        one = self.spec.bytes_per_second("DRAM", "read", 1)
        return max(1.0, self.spec.bytes_per_second("DRAM", "read", self.threads) / one)

    def launch(self, threads: int) -> float:
        return self.spec.launch_seconds + (2e-6 if threads > 1 else 0.0)
