"""CPUs: the one that runs this process, from /proc, sysfs and LLVM, and any other from the table.

Knows the files in which Linux describes a machine and falls back to the table wherever one is missing (containers,
other systems). `root` stands for "/" so that a test can describe a machine. Runs nothing: what was measured is read.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from ..ir.errors import DeviceError
from .spec import CacheLevel, DeviceSpec

ROOT = Path("/")
_NEEDS = {512: "+avx512vl", 256: "+avx2"}  # the LLVM feature without which a width of the table cannot be used
_MASKABLE = ("avx", "fma", "f16c", "sse", "bmi")  # what a hypervisor may hide although the CPU's name implies it


@cache
def _table() -> dict[str, dict[str, Any]]:
    rows = json.loads(Path(__file__).with_name("table.json").read_text("utf-8"))["cpu"]

    def resolved(row: dict[str, Any]) -> dict[str, Any]:
        return {**(resolved(rows[row["like"]]) if "like" in row else {}), **row}

    return {arch: resolved(row) for arch, row in rows.items()}


def known() -> tuple[str, ...]:
    """Every CPU of the table, by LLVM name."""
    return tuple(_table())


def describe(arch: str) -> DeviceSpec:
    """A CPU of the table that need not be here. Raises DeviceError for a name that the table lacks."""
    row = _table().get(arch)
    if row is None:
        raise DeviceError(f"no CPU named {arch!r} in the table; it knows {', '.join(known())}")
    caches = tuple(CacheLevel(n, size, row.get("line", 64), ways, by) for n, size, ways, by in row["caches"])
    return DeviceSpec(
        "cpu", row["vendor"], row["name"], arch, cores=row["cores"], frequency_hz=row["ghz"] * 1e9, caches=caches,
        fma_latency=float(row["latency"]), provenance=(("all", "table"),),
        **_vectors(row, row.get("baseline", max(map(int, row["widths"])))),
    )  # fmt: skip


def _vectors(row: dict[str, Any], bits: int) -> dict[str, Any]:
    """The fields that follow from the width of the vectors."""
    fma, loads = map(float, row["widths"][str(bits)])
    registers = row.get("registers", 32 if bits == 512 else 16)
    return {"vector_bits": bits, "vector_registers": registers, "fma_per_cycle": fma, "loads_per_cycle": loads}


def host(config: Path | None = None, root: Path = ROOT) -> DeviceSpec:
    """The CPU of this process. `config`: the directory in which `calibrate` keeps what it measured."""
    import llvmlite.binding as llvm

    flags = [f for f in str(llvm.get_host_cpu_features().flatten()).split(",") if f]
    return detect(llvm.get_host_cpu_name(), tuple(flags), config, root)


def detect(arch: str, flags: tuple[str, ...], config: Path | None = None, root: Path = ROOT) -> DeviceSpec:
    """The machine below `root` whose CPU LLVM calls `arch`, with LLVM's feature strings `flags`."""
    generic = "generic" if platform.machine().lower() in ("aarch64", "arm64") else "x86-64"
    base = describe(arch if arch in _table() else generic)
    row = _table()[base.arch]
    widths = [w for w in map(int, row["widths"]) if w not in _NEEDS or _NEEDS[w] in flags]
    info, caches = _cpuinfo(root), _caches(root)
    hertz = _frequency(info, root)
    where = dict.fromkeys(("arch", "features", "vector_bits", "cores"), "queried")
    where |= dict.fromkeys(("fma_per_cycle", "fma_latency", "loads_per_cycle", "vector_registers"), "table")
    where |= {"caches": "queried" if caches else "table", "frequency_hz": "queried" if hertz else "table"}
    spec = replace(
        base, arch=arch, name=info.get("model name", base.name), cores=os.cpu_count() or 1,
        vendor={"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(info.get("vendor_id", ""), base.vendor),
        features=tuple(sorted(f for f in flags if f[0] == "+" or f[1:].startswith(_MASKABLE))),
        caches=caches or base.caches, frequency_hz=hertz or base.frequency_hz, provenance=tuple(sorted(where.items())),
        **_vectors(row, max(widths, default=min(map(int, row["widths"])))),
    )  # fmt: skip
    return calibrated(spec, config)


def calibration_path(spec: DeviceSpec, config: Path) -> Path:
    return config / "devices" / f"{spec.digest}.json"


def calibrated(spec: DeviceSpec, config: Path | None) -> DeviceSpec:
    """`spec` with the values measured on this very machine, if they were ever measured."""
    if config is None or not (path := calibration_path(spec, config)).is_file():
        return spec
    try:
        stored = DeviceSpec.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, DeviceError) as error:
        raise DeviceError(f"{path}: the calibration cannot be read ({error}); delete it or calibrate again") from error
    return stored if stored.digest == spec.digest else spec


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's fields. Only the head is read: the kernel composes the file as it is read, CPU by CPU."""
    try:
        with open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            head = file.read(4096).split("\n\n")[0]
    except OSError:
        return {}
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in head.splitlines())}


def _caches(root: Path) -> tuple[CacheLevel, ...]:
    """Data and unified caches of the first CPU, smallest level first; none where sysfs does not tell."""
    found: list[CacheLevel] = []
    for index in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, size = _text(index / "level"), _size(_text(index / "size"))
        if _text(index / "type") in ("Data", "Unified") and level and size:
            line, ways = (_size(_text(index / name)) for name in ("coherency_line_size", "ways_of_associativity"))
            shared = len(cpu_list(_text(index / "shared_cpu_list")))
            found.append(CacheLevel(f"L{level}", size, line or 64, ways or 8, shared or 1))
    return tuple(sorted(found, key=lambda c: c.name))


def _text(path: Path) -> str:
    """A one-line file of the kernel's; "" where there is none (or it may not be read)."""
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _size(text: str) -> int:
    """Bytes of "32K" or a plain number; 0 of anything else."""
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    digits = text.rstrip("KMGkmg")
    return int(digits) * unit if digits.isdigit() else 0


def cpu_list(text: str) -> frozenset[int]:
    """The CPUs of a kernel list such as "0-3,8"."""
    out: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        out |= set(range(int(low), int(high or low) + 1))
    return frozenset(out)


def _frequency(info: dict[str, str], root: Path) -> float:
    kilohertz = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if kilohertz.isdigit():
        return int(kilohertz) * 1e3
    try:
        return float(info.get("cpu MHz", "0")) * 1e6
    except ValueError:
        return 0.0


def default_threads(root: Path = ROOT) -> int:
    """CPUs that this process may use: its affinity mask, cut by the cgroup quota (rounded up)."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, min(mask, -int(-quota // 1)) if quota else mask)


def _quota(root: Path) -> float:
    """CPUs' worth of time that the tightest enclosing cgroup grants; 0: no limit known. Reads versions 1 and 2."""
    limits: list[float] = []
    for row in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (row.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for top, level in product(
            ("unified", "") if not controllers else ("cpu", controllers), (group, *group.parents)
        ):
            folder = root / "sys/fs/cgroup" / top / level
            old = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
            quota, _, period = (old if controllers else _text(folder / "cpu.max")).partition(" ")
            if quota.isdigit() and period.isdigit() and int(period) > 0:
                limits.append(int(quota) / int(period))
    return min(limits, default=0.0)
