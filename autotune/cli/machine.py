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

import click
import numpy as np

from .. import calibrate as measuring
from ..cache.objects import private_directory
from ..codegen import build
from ..decorator import call_path, make_kernel
from ..devices.client import WorkerClient
from ..devices.drivers import states
from ..devices.spec import DeviceSpec
from ..ir.errors import AutotuneError
from ..options import resolve, user_directory
from .output import FORMAT, aligned, say
from .stores import default_store

Row = tuple[str, str, str]  # what is shown, the field of a DeviceSpec that it comes from, its value


@click.command()
@click.option("--calibrate", is_flag=True, help="Measure peak and bandwidth with generated kernels, and keep them.")
@click.option("--threads", type=click.IntRange(1), help="Threads to calibrate with, beside one.")
@FORMAT
def devices(calibrate: bool, threads: int | None, form: str) -> None:
    """Describe the devices of this machine."""
    found = measuring.list_devices()
    if calibrate:
        found = [spec if spec.blocks else measuring.calibrate(spec, threads, say) for spec in found]
        say("kept in " + ", ".join(str(measuring.save(spec)) for spec in found if not spec.blocks))
    plain = [{"id": spec.id, "digest": spec.digest, **spec.to_json()} for spec in found]
    if form == "json":
        return click.echo(json.dumps(plain, indent=1))
    click.echo("\n".join(map(_described, found)) + "\n" + "\n".join(_drivers()))


def _drivers() -> list[str]:
    """A line for each way to a device: what it finds, or what to install."""
    rows = []
    for driver, specs, problem in states():
        found = ", ".join(f"{driver.kind}:{s.number} {s.name}" for s in specs) or problem
        rows.append(f"{'ok' if specs else 'absent':7} {driver.kind} ({driver.module}): {found}")
    return rows


def _described(spec: DeviceSpec) -> str:
    how = dict(spec.provenance)
    found = _blocks(spec) if spec.blocks else _cores(spec)
    rows = [[name, value, how.get(field, "estimate")] for name, field, value in found]
    wide = [f for f in spec.features if f.startswith(("+avx", "+fma", "+neon", "+sve", "+f16c"))]
    words = f"{' '.join(wide)}\n" if wide else ""
    return f"{spec.id}: {spec.name} ({spec.vendor})\n{words}{aligned(['field', 'value', 'known by'], rows)}"


def _blocks(spec: DeviceSpec) -> list[Row]:
    return [
        ("compute units", "cores", str(spec.cores)),
        ("block", "threads_per_block", f"{spec.threads_per_block} threads, {spec.shared_bytes >> 10} KiB shared"),
        ("clock", "frequency_hz", f"{spec.frequency_hz / 1e9:.2f} GHz"),
        *((c.name, "caches", f"{c.bytes >> 10} KiB") for c in spec.caches),
        ("peak f32", "peak_flops", f"{spec.peak('f32', spec.cores) / 1e9:.1f} GFLOP/s"),
        ("DRAM bandwidth", "bandwidth", f"{spec.bytes_per_second('DRAM', 'copy') / 1e9:.1f} GB/s"),
    ]


def _cores(spec: DeviceSpec) -> list[Row]:
    rows = [
        ("cores", "cores", str(spec.cores)),
        ("vectors", "vector_bits", f"{spec.vector_registers} of {spec.vector_bits} bits"),
        ("FMA", "fma_per_cycle", f"{spec.fma_per_cycle:g} a cycle, latency {spec.fma_latency:g}"),
        ("loads", "loads_per_cycle", f"{spec.loads_per_cycle:g} a cycle"),
        ("clock", "frequency_hz", f"{spec.frequency_hz / 1e9:.2f} GHz"),
        *((c.name, "caches", f"{c.bytes >> 10} KiB, {c.ways} ways, shared by {c.shared_by}") for c in spec.caches),
        *((f"peak {d}", "peak_flops", f"{spec.peak(d) / 1e9:.1f} GFLOP/s of one core") for d in ("f32", "f64")),
    ]
    for level in (*(c.name for c in spec.caches), "DRAM"):
        rates = (f"{kind} {spec.bytes_per_second(level, kind) / 1e9:.1f}" for kind in ("read", "write", "copy"))
        rows.append((f"{level} bandwidth", "bandwidth", ", ".join(rates) + " GB/s to one core"))
    return rows


@click.command()
def doctor() -> int:
    """Check that everything that tuning needs works here, and say what to do where it does not."""
    failed = 0
    for name, check, advice in _CHECKS:
        try:
            found = f"ok      {name}: {check()}"
        except (AutotuneError, OSError, ImportError, RuntimeError) as error:
            failed += 1
            found = f"failed  {name}: {(str(error) or type(error).__name__).splitlines()[0]}; {advice}"
        click.echo(found)
    for line in _drivers():  # what is absent is no failure: the CPU needs none of it
        click.echo(line)
    click.echo(f"{failed} of {len(_CHECKS)} checks failed" if failed else "everything works")
    return int(failed > 0)


def _expect(well: bool, told: str) -> str:
    if not well:
        raise AutotuneError(told)
    return told


def _cpu() -> str:
    spec = measuring.device("cpu")
    how = "calibrated" if spec.bandwidth else "not calibrated (autotune devices --calibrate)"
    return _expect(spec.vector_bits >= 128, f"{spec.name} ({spec.id}), vectors of {spec.vector_bits} bits, {how}")


def _home() -> Path:
    home = resolve().cache_dir or user_directory("cache")
    return Path(_expect(home is not None, str(home)))


def _directory() -> str:
    problem = private_directory(_home())
    return _expect(not problem, problem or f"{_home()} is writable and private")


def _disk() -> str:
    place = next(p for p in (_home(), *_home().absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free >> 20
    return _expect(free >= 64, f"{free:,} MiB free at {place}")


def _store() -> str:
    found = default_store().stat()
    return f"{found['records']} records in {found['where']}"


def _worker() -> str:
    start = time.monotonic()
    with WorkerClient(measuring.device("cpu")) as client:
        client.wait()
    return f"starts in {time.monotonic() - start:.1f} s"


def _path() -> str:
    path = call_path()
    return _expect(not isinstance(path, Exception), str(path) if isinstance(path, Exception) else "native")


def _kernel() -> str:
    def dense(x: Any, w: Any, b: Any) -> Any:
        return np.maximum(x @ w + b, 0)

    rng, start = np.random.default_rng(0), time.monotonic()
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((33, 57), (57, 40), (40,)))
    right = np.array_equal(make_kernel(dense, {"tune": "off", "cache": "off"})(x, w, b), dense(x, w, b))
    told = f"built, verified and right in {time.monotonic() - start:.2f} s"
    return _expect(right, told if right else "its result differs from NumPy's")


_CHECKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("Python", lambda: _expect(sys.version_info >= (3, 11), platform.python_version()), "install Python 3.11 or later"),
    ("NumPy", lambda: _expect(int(np.__version__.split(".")[0]) >= 2, np.__version__), "pip install 'numpy>=2'"),
    ("LLVM", lambda: f"{build.versions()['llvm']} through llvmlite", "pip install 'llvmlite>=0.50'"),
    ("CPU", _cpu, "kernels will be slow, for vectors are not known; set AUTOTUNE_DEVICE to a CPU like it"),
    ("cache directory", _directory, "set AUTOTUNE_CACHE_DIR to a directory of yours, mode 0700"),
    ("disk", _disk, "free some space, or set AUTOTUNE_CACHE_DIR to another disk"),
    ("store", _store, "move the file away, or set AUTOTUNE_CACHE_DIR or AUTOTUNE_CACHE=off"),
    ("measuring process", _worker, "nothing can be tuned; run `python -m autotune.worker </dev/null` to see why"),
    ("call path", _path, "calls go through ctypes, which is right but takes some microseconds more"),
    ("kernel", _kernel, "this is a defect: run again with AUTOTUNE_DEBUG=4 and report what it prints"),
)
