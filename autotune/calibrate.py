"""Measure this machine with generated probes, and keep what was found in the user's configuration directory.

Knows probes, the compiler and where the user's files live; how a device is described belongs to devices/.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import devices
from .devices import cpu
from .devices.spec import DeviceSpec
from .ir.errors import CacheError, DeviceError
from .options import user_directory

if TYPE_CHECKING:
    from .search.correction import Correction

Entry = Callable[[int, int, int], None]
PEAK_TYPES = ("f32", "f64", "i32")
SAMPLES = 7
SECONDS = 4e-3  # a sample


def device(name: str = "cpu") -> DeviceSpec:
    """A device by name, with what was calibrated here; see `devices.device`."""
    return devices.device(name, user_directory("config"))


def list_devices() -> list[DeviceSpec]:
    """The devices of this machine that kernels can run on, with what was calibrated here."""
    return devices.list_devices(user_directory("config"))


def calibrate(
    spec: DeviceSpec, threads: int | None = None, say: Callable[[str], object] = str, seconds: float = 15.0
) -> DeviceSpec:
    """`spec` with its clock, peak of each type and bandwidth of each level measured, by one thread and by `threads`.

    Best of several samples: what the machine can do, not what it did while disturbed. Ends within about `seconds`.
    """
    from .codegen import probes

    end = time.monotonic() + seconds
    count = threads or cpu.default_threads()
    memory = np.ones(1 << 12)
    chain = _compile(probes.chain(), "chain", spec)
    hertz = probes.CHAIN * _rate(chain, [memory], 1000, 1, end)
    say(f"clock {hertz / 1e9:.2f} GHz")
    peaks = []
    for dtype in PEAK_TYPES:
        lanes = spec.lanes(dtype)
        wide = min(spec.vector_registers - 2, max(10, int(2 * spec.fma_latency * spec.fma_per_cycle)))
        entry = _compile(probes.peak(dtype, lanes, wide), "peak", spec)
        peaks.append((dtype, 2 * lanes * wide * _rate(entry, [np.zeros(64)], 1000, 1, end)))
        say(f"peak {dtype} {peaks[-1][1] / 1e9:.1f} GFLOP/s")
    rows: list[tuple[str, str, float, int]] = []
    for level, size in working_sets(spec, count):
        for kind in ("read", "write", "copy"):
            entry = _compile(probes.stream(kind, spec.vector_bits), "stream", spec)
            for n in dict.fromkeys((1, count)):
                parts = 1 if kind != "copy" else 2
                steps = max(1, size // parts * 8 // (probes.STREAM * spec.vector_bits))
                memory = np.ones(n * parts * (steps * probes.STREAM * spec.vector_bits // 64))
                rate = _rate(entry, np.array_split(memory, n * parts), steps, n, end)
                rows.append((level, kind, rate * probes.STREAM * spec.vector_bits / 8 * parts, n))
                say(f"{level} {kind} {rows[-1][2] / 1e9:.1f} GB/s, {n} thread{'s' * (n > 1)}")
    measured = {"frequency_hz": "measured", "peak_flops": "measured", "bandwidth": "measured"}
    return replace(
        spec, frequency_hz=hertz, peak_flops=tuple(peaks), bandwidth=tuple(rows),
        provenance=tuple(sorted({**dict(spec.provenance), **measured}.items())),
    )  # fmt: skip


def ensure(spec: DeviceSpec, say: Callable[[str], object] = str) -> DeviceSpec:
    """`spec` calibrated: as it was kept, else measured now (a second or two) and kept where that is possible."""
    if spec.peak_flops:
        return spec
    say("measuring this machine once, for predictions and rooflines")
    made = calibrate(spec, seconds=5.0)
    try:
        save(made)
    except DeviceError as error:
        say(str(error))
    return made


def save(spec: DeviceSpec, directory: Path | None = None) -> Path:
    """Keep a calibrated spec where detection finds it. Raises DeviceError where it cannot be written."""
    home = directory or user_directory("config")
    if home is None:
        raise DeviceError("there is no home directory to keep the calibration in; set XDG_CONFIG_HOME")
    path = cpu.calibration_path(spec, home)
    _write(path, spec.to_json(), "the calibration")
    devices.forget()
    return path


def correction(spec: DeviceSpec) -> Correction | None:
    """What `autotune model fit` has kept for this machine. Raises CacheError where it cannot be read."""
    path = _correction_path(spec.digest)
    if path is None or not path.is_file():
        return None
    from .search.correction import Correction

    try:
        return Correction.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, CacheError) as error:
        raise CacheError(f"{path}: the fitted model cannot be read ({error}); delete it or fit again") from error


def keep_correction(found: Correction) -> Path:
    """Keep a fitted model where `correction` finds it. Raises DeviceError where it cannot be written."""
    path = _correction_path(found.device)
    if path is None:
        raise DeviceError("there is no home directory to keep the model in; set XDG_CONFIG_HOME")
    _write(path, found.to_json(), "the model")
    return path


def _correction_path(digest: str) -> Path | None:
    home = user_directory("config")
    return home / "models" / f"{digest}.json" if home else None


def _write(path: Path, value: Any, what: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(value, indent=1), "utf-8")
        draft.replace(path)
    except OSError as error:
        raise DeviceError(f"{what} cannot be kept in {path}: {error}") from error


def working_sets(spec: DeviceSpec, threads: int) -> list[tuple[str, int]]:
    """Bytes that one thread touches to be served by each level: half of a private cache, its share of a shared one."""
    sets, largest = [], 0
    for c in spec.caches:
        inside = c.bytes // 2 if c.shared_by <= 2 and c.name != "L3" else c.bytes // (2 * max(threads, 2))
        sets.append((c.name, max(inside, 2 * largest)))
        largest = c.bytes
    return [*sets, ("DRAM", min(max(4 * largest // threads, 64 << 20), 256 << 20))]


def _compile(text: str, symbol: str, spec: DeviceSpec) -> Entry:
    """The probe of `text`, called as entry(address of buffers, address of params, times)."""
    from .codegen import jit, runtime

    loaded = jit.load(jit.assemble(text, spec.arch, spec.features), symbol)
    repeat = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)(
        runtime.runtime().symbols["at_repeat"]
    )
    return lambda data, params, times: repeat(loaded.address, data, params, 1, times)


def _rate(entry: Entry, memory: Sequence[np.ndarray], steps: int, threads: int, end: float) -> float:
    """Iterations a second of all threads together, `steps` of them a call; the best sample."""
    parts = len(memory) // threads
    data = [
        (ctypes.c_void_p * 2)(memory[t].ctypes.data, memory[t + parts - 1].ctypes.data)
        for t in range(0, len(memory), parts)
    ]
    count = ctypes.c_int64(steps)
    barrier = threading.Barrier(threads)
    spans: list[tuple[float, float]] = [(0.0, 0.0)] * threads

    def work(t: int, times: int) -> None:
        barrier.wait()
        start = time.perf_counter()
        entry(ctypes.addressof(data[t]), ctypes.addressof(count), times)
        spans[t] = (start, time.perf_counter())

    def sample(times: int) -> float:
        helpers = [threading.Thread(target=work, args=(t, times)) for t in range(1, threads)]
        for h in helpers:
            h.start()
        work(0, times)
        for h in helpers:
            h.join()
        return max(s[1] for s in spans) - min(s[0] for s in spans)

    times = 1
    while (spent := sample(times)) < SECONDS / 2 and time.monotonic() < end:
        times *= max(2, min(64, int(SECONDS / spent)))
    best = min([spent, *(sample(times) for _ in range(SAMPLES) if time.monotonic() < end)])
    return threads * steps * times / best
