"""Devices with blocks and threads as the table describes them, here or not; and as drivers do, beside the table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from ..ir.errors import DeviceError
from .spec import CacheLevel, Core, DeviceSpec

KINDS = ("cuda", "hip", "opencl")
CORE = tuple(field.name for field in fields(Core))  # as the table has them
NEAR = 21  # bytes a cycle that a multiprocessor gets of the L2: measured on an H200
DEFAULT = {"cuda": "sm_80", "hip": "gfx942", "opencl": "generic"}


@cache
def _table() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("table.json").read_text("utf-8"))["gpu"]
    return rows


def known() -> tuple[str, ...]:
    """Every device of the table: "cuda:sm_80" and so on."""
    return tuple(_table())


def describe(kind: str, arch: str) -> DeviceSpec:
    """A device of the table that need not be here. Raises DeviceError for a name that the table lacks."""
    row = _table().get(f"{kind}:{arch}")
    if row is None:
        mine = ", ".join(name for name in known() if name.startswith(kind))
        raise DeviceError(f"no device {kind}:{arch} in the table; it knows {mine}")
    hertz, lanes = row["ghz"] * 1e9, row["lanes"]
    peak = hertz * 2 * lanes  # one fused multiply-add a lane and cycle
    rates = (("f32", peak), ("f64", peak * row["f64"]))
    return DeviceSpec(
        kind, row["vendor"], row["name"], arch, cores=row["cores"], vector_bits=128, vector_registers=255,
        frequency_hz=hertz, caches=(CacheLevel("L2", row["l2"], 128, 16, row["cores"]),), peak_flops=rates,
        bandwidth=_bandwidth(row["gbytes"] * 1e9, row["cores"] * hertz), launch_seconds=row["launch"],
        provenance=(("all", "table"),), threads_per_block=row["threads"], shared_bytes=row["shared"], warp=row["warp"],
        **_held(row),
    )  # fmt: skip


def _bandwidth(memory: float, cycles: float) -> tuple[tuple[str, str, float, int], ...]:
    """Bytes a second, of a memory that moves `memory` of them, with so many cycles a second of all multiprocessors."""
    rates = (("DRAM", "read", 1.0, memory), ("DRAM", "write", 1.0, memory), ("DRAM", "copy", 0.9, memory),
             ("L2", "copy", 1.0, NEAR * cycles))  # fmt: skip
    return tuple((level, how, rate * share, 1) for level, how, share, rate in rates)


def _held(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of one multiprocessor: its matrix instructions, and what it holds."""
    matrix = tuple((name, rate * 1e12 / row["cores"]) for name, rate in row.get("matrix", {}).items())
    return {"matrix": matrix, "core": Core(**dict(zip(CORE, row["core"]))) if "core" in row else None}


def _row(kind: str, arch: str) -> Mapping[str, Any]:
    """The row of an architecture; of NVIDIA's, that of the newest one before where there is none."""
    exact = _table().get(f"{kind}:{arch}") or _table().get(f"{kind}:{arch}a")
    if exact or kind != "cuda":
        return exact or {}
    numbers = {name: int(re.sub(r"\D", "", name)) for name in known() if name.startswith(f"{kind}:sm_")}
    mine = int(re.sub(r"\D", "", arch) or 0)
    older = [name for name, n in numbers.items() if n <= mine]
    return _table()[max(older, key=numbers.__getitem__)] if older else {}


QUERIED = ("cores", "frequency_hz", "caches", "threads_per_block", "shared_bytes", "warp")


def present(
    kind: str, vendor: str, name: str, arch: str, number: int, cores: int, hertz: float, moved: float, l2: int,
    threads: int, shared: int, warp: int,
) -> DeviceSpec:  # fmt: skip
    """A device of this machine: what its driver says, and peaks for its cores and clock from the table's row of its
    arch, or a guess. `moved`: bytes a second of its memory as the driver has it."""
    row = _row(kind, arch)
    hertz = hertz or row.get("ghz", 1.5) * 1e9
    usual = row.get("gbytes", 0) * 1e9
    # NVIDIA counts two transfers a cycle of the clock that it tells; with AMD it depends on the memory.
    sure = moved > 0 and (kind == "cuda" or not usual)
    rate = moved if sure else usual or 200e9
    peak = hertz * 2 * row.get("lanes", 128)
    how = dict.fromkeys(QUERIED, "queried") | {"peak_flops": "table", "bandwidth": "queried" if sure else "table"}
    return DeviceSpec(
        kind, vendor, name, arch, cores=cores, vector_bits=128, vector_registers=255, frequency_hz=hertz,
        caches=(CacheLevel("L2", l2 or row.get("l2", 1 << 22), 128, 16, cores),),
        peak_flops=(("f32", peak), ("f64", peak * row.get("f64", 1 / 64))),
        bandwidth=_bandwidth(rate, cores * hertz),
        launch_seconds=row.get("launch", 6e-6), provenance=tuple(how.items()), threads_per_block=threads,
        shared_bytes=shared, warp=warp, number=number, **_held(row),
    )  # fmt: skip
