"""`autotune devices` and `autotune doctor`: what this machine is, and whether everything that tuning needs works on it.

Knows what to look at and what to advise; how a device is detected or calibrated is said in `devices` and `calibrate`.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import calibrate as measuring
from ..cache.objects import private_directory
from ..devices.cpu import default_threads
from ..devices.spec import DeviceSpec
from ..ir.errors import AutotuneError
from ..options import resolve, user_directory
from .output import aligned, say

LEAST_DISK = 64 << 20


def devices(calibrate: bool, threads: int | None, form: str) -> int:
    found = measuring.list_devices()
    if calibrate:
        found = [measuring.calibrate(spec, threads, say) for spec in found]
        for spec in found:
            say(f"kept in {measuring.save(spec)}")
    if form == "json":
        print(json.dumps([{"id": s.id, "digest": s.digest, **s.to_json()} for s in found], indent=1))
    else:
        print("\n".join(map(_described, found)), end="")
    return 0


def _described(spec: DeviceSpec) -> str:
    how = dict(spec.provenance)
    wide = [f for f in spec.features if f.startswith(("+avx", "+fma", "+neon", "+sve", "+f16c"))]
    facts: list[tuple[str, str, str]] = [
        ("cores", str(spec.cores), "cores"),
        ("vectors", f"{spec.vector_registers} of {spec.vector_bits} bits", "vector_bits"),
        ("FMA", f"{spec.fma_per_cycle:g} a cycle, latency {spec.fma_latency:g}", "fma_per_cycle"),
        ("loads", f"{spec.loads_per_cycle:g} a cycle", "loads_per_cycle"),
        ("clock", f"{spec.frequency_hz / 1e9:.2f} GHz", "frequency_hz"),
        *((c.name, f"{c.bytes >> 10} KiB, {c.ways} ways, shared by {c.shared_by}", "caches") for c in spec.caches),
        *((f"peak {kind}", f"{spec.peak(kind) / 1e9:.1f} GFLOP/s of one core", "peak_flops") for kind in ("f32", "f64")),
    ]  # fmt: skip
    count = min(default_threads(), spec.cores)
    for level in (*(c.name for c in spec.caches), "DRAM"):
        for n in dict.fromkeys((1, count)):
            rates = (f"{kind} {spec.bytes_per_second(level, kind, n) / 1e9:.1f}" for kind in ("read", "write", "copy"))
            facts.append((f"{level}, {n}t", ", ".join(rates) + " GB/s", "bandwidth"))
    rows = [[name, value, how.get(field, "estimated")] for name, value, field in facts]
    return f"{spec.id}: {spec.name} ({spec.vendor})\n{' '.join(wide)}\n" + aligned(["field", "value", "known by"], rows)


def doctor() -> int:
    """Each check a line: ok or failed, what was found, and what to do."""
    failed = 0
    for name, check, advice in _CHECKS:
        try:
            found, well = check(), True
        except (AutotuneError, OSError, ImportError, RuntimeError, AssertionError) as error:
            found, well = f"{error}".splitlines()[0] if str(error) else type(error).__name__, False
        failed += not well
        print(f"{'ok' if well else 'failed':7} {name}: {found}" + ("" if well else f"; {advice}"), flush=True)
    print(f"{failed} of {len(_CHECKS)} checks failed" if failed else "everything works")
    return int(failed > 0)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AutotuneError(message)


def _python() -> str:
    _expect(sys.version_info >= (3, 11), f"{platform.python_version()} is too old")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _numpy() -> str:
    import numpy as np

    _expect(int(np.__version__.partition(".")[0]) >= 2, f"{np.__version__} is too old")
    return np.__version__


def _llvm() -> str:
    from ..codegen import build

    versions = build.versions()
    return f"{versions['llvm']} through llvmlite {versions['llvmlite']}"


def _cpu() -> str:
    spec = measuring.device("cpu")
    _expect(spec.vector_bits >= 128, f"{spec.name} has no vector registers that are known")
    told = "calibrated" if "measured" in dict(spec.provenance).values() else "not calibrated (autotune devices --calibrate)"
    return f"{spec.name} ({spec.id}), {spec.cores} cores, vectors of {spec.vector_bits} bits, {told}"


def _home() -> Path | None:
    options = resolve()
    return Path(options.cache_dir) if options.cache_dir else user_directory("cache")


def _directory() -> str:
    options, home = resolve(), _home()
    if options.cache == "off":
        return "off, as asked for"
    _expect(home is not None, "there is no home directory")
    assert home is not None
    problem = private_directory(home)
    _expect(not problem, problem)
    return f"{home} is writable and private"


def _disk() -> str:
    home = _home()
    place = next((p for p in (home, *home.parents) if p.exists()), Path("/")) if home else Path("/")
    free = shutil.disk_usage(place).free
    _expect(free >= LEAST_DISK, f"{free >> 20} MiB free at {place}")
    return f"{free >> 20:,} MiB free"


def _store() -> str:
    from ..cache.store import open_store

    where = resolve().store()
    store = open_store(where, resolve().cache == "readonly")
    try:
        return f"{store.stat()['records']} records in {store.name}"
    finally:
        store.close()


def _worker() -> str:
    from ..devices.client import WorkerClient

    start = time.monotonic()
    client = WorkerClient(measuring.device("cpu"))
    try:
        client.wait()
    finally:
        client.close()
    return f"starts in {time.monotonic() - start:.1f} s"


def _path() -> str:
    from ..decorator import call_path

    path = call_path()
    if isinstance(path, AutotuneError):
        raise path
    return "native"


def _kernel() -> str:
    import numpy as np

    from ..decorator import make_kernel

    def dense(x: Any, w: Any, b: Any) -> Any:
        return np.maximum(x @ w + b, 0)

    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((33, 57), (57, 40), (40,)))
    start = time.monotonic()
    made = make_kernel(dense, {"tune": "off", "cache": "off"})(x, w, b)
    _expect(np.array_equal(made, dense(x, w, b)), "the kernel's result differs from NumPy's")
    return f"built, verified and right in {time.monotonic() - start:.2f} s"


_CHECKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("Python", _python, "install Python 3.11 or later"),
    ("NumPy", _numpy, "pip install 'numpy>=2'"),
    ("LLVM", _llvm, "pip install 'llvmlite>=0.50'"),
    ("CPU", _cpu, "kernels will be slow: its description is missing; set AUTOTUNE_DEVICE to a CPU like it"),
    ("cache directory", _directory, "set AUTOTUNE_CACHE_DIR to a directory of yours, mode 0700"),
    ("disk", _disk, "free some space, or set AUTOTUNE_CACHE_DIR to another disk"),
    ("store", _store, "move the file away, or set AUTOTUNE_CACHE_DIR or AUTOTUNE_CACHE=off"),
    ("measuring process", _worker, "run `python -m autotune.worker` by hand to see why; are pipes and /tmp usable?"),
    ("call path", _path, "calls go through ctypes, which is right but takes some microseconds more"),
    ("kernel", _kernel, "this is a defect: run again with AUTOTUNE_DEBUG=4 and report what it prints"),
)
