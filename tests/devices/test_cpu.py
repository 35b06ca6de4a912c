"""What a machine is, read from described file trees, from the table and from this machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from autotune import devices
from autotune.devices import cpu, gpu
from autotune.devices.spec import CacheLevel, DeviceSpec
from autotune.ir.errors import DeviceError

ZEN4 = ("+avx2", "+avx512f", "+avx512vl", "+fma", "-avx512fp16", "-amx-tile")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def sysfs(index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    base = f"sys/devices/system/cpu/cpu0/cache/index{index}/"
    values = {"level": str(level), "type": kind, "size": size, "coherency_line_size": "64", "shared_cpu_list": shared}
    return {base + name: text for name, text in {**values, "ways_of_associativity": "16"}.items()}


def machine(root: Path) -> Path:
    info = (
        "processor : 0\nvendor_id : AuthenticAMD\nmodel name : EPYC\ncpu MHz : 2500.5\n\nprocessor : 1\nmodel name : no"
    )
    files = {"proc/cpuinfo": info, **sysfs(0, 1, "Data", "32K", "0-1"), **sysfs(1, 1, "Instruction", "64K", "0-1")}
    return tree(root, {**files, **sysfs(2, 2, "Unified", "1024K", "0,8"), **sysfs(3, 3, "Unified", "32M", "0-7,16-23")})


def test_detection(tmp_path: Path) -> None:
    spec = cpu.detect("znver4", ZEN4, root=machine(tmp_path))
    assert (spec.vendor, spec.name, spec.id, spec.frequency_hz) == ("AMD", "EPYC", "cpu:znver4", 2500.5e6)
    assert (spec.vector_bits, spec.vector_registers, spec.fma_per_cycle, spec.loads_per_cycle) == (512, 32, 1.0, 1.0)
    sizes = {"L1": (32 << 10, 2), "L2": (1 << 20, 2), "L3": (32 << 20, 16)}
    assert spec.caches == tuple(CacheLevel(name, size, 64, 16, by) for name, (size, by) in sizes.items())
    assert "-avx512fp16" in spec.features and "-amx-tile" not in spec.features
    assert dict(spec.provenance)["caches"] == "queried" and dict(spec.provenance)["fma_latency"] == "table"


def test_a_hidden_feature_narrows_the_vectors(tmp_path: Path) -> None:
    spec = cpu.detect("znver4", ("+avx2", "+fma", "-avx512f", "-avx512vl"), root=tmp_path)
    assert (spec.vector_bits, spec.vector_registers, spec.fma_per_cycle) == (256, 16, 2.0)
    assert cpu.detect("znver4", (), root=tmp_path).vector_bits == 128


def test_no_files_at_all(tmp_path: Path) -> None:
    spec = cpu.detect("znver3", ("+avx2",), root=tmp_path)
    assert spec.caches == cpu.describe("znver3").caches and spec.frequency_hz > 1e9 and spec.cores >= 1
    assert dict(spec.provenance)["caches"] == dict(spec.provenance)["frequency_hz"] == "table"


def test_an_unknown_cpu_is_judged_by_its_features(tmp_path: Path) -> None:
    spec = cpu.detect("znver99", ZEN4, root=tmp_path)
    assert spec.arch == "znver99" and spec.vector_bits in (128, 512) and spec.caches


@pytest.mark.parametrize("text", ["garbage", "cpu MHz : fast", ""])
def test_broken_files_count_as_missing(tmp_path: Path, text: str) -> None:
    tree(tmp_path, {"proc/cpuinfo": text, "sys/devices/system/cpu/cpu0/cache/index0/level": "one"})
    assert dict(cpu.detect("znver3", (), root=tmp_path).provenance)["frequency_hz"] == "table"


def test_max_frequency_wins(tmp_path: Path) -> None:
    tree(machine(tmp_path), {"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3700000"})
    assert cpu.detect("znver4", ZEN4, root=tmp_path).frequency_hz == 3.7e9


V2 = {"proc/self/cgroup": "0::/a/b"}
V1 = {"proc/self/cgroup": "4:memory:/x\n2:cpu,cpuacct:/a\n0::/"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, 0.0),
        (V2, 0.0),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 0.0),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "400000 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2.0),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({**V1, "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"}, 0.0),
        (
            {**V1, "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "2",
            },
            0.5,
        ),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    assert cpu._quota(tree(tmp_path, files)) == quota
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    expected = max(1, min(usable, -int(-quota // 1))) if quota else usable
    assert cpu.default_threads(tmp_path) == expected


def test_cpu_list() -> None:
    assert cpu.cpu_list("0-2,5") == {0, 1, 2, 5} and cpu.cpu_list("") == frozenset()


def test_the_table() -> None:
    for arch in cpu.known():
        spec = devices.device(f"cpu:{arch}")
        assert spec.arch == arch and spec.peak("f32") > 1e9 and spec.vector_bits in (128, 256, 512)
        assert [c.name for c in spec.caches] == ["L1", "L2", "L3"][: len(spec.caches)]
        assert DeviceSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    for arch in (
        "znver2",
        "znver3",
        "znver4",
        "haswell",
        "skylake-avx512",
        "icelake-server",
        "apple-m1",
        "neoverse-v1",
    ):
        assert arch in cpu.known()


def test_this_machine() -> None:
    spec, *others = devices.list_devices()
    assert all(other.kind == "opencl" and devices.device(other.id) == other for other in others)
    assert spec == devices.device("cpu") == devices.device(spec.id)
    assert spec.kind == "cpu" and spec.cores >= 1 and spec.cache("L1") and spec.limits().vector_bits == spec.vector_bits


@pytest.mark.parametrize("name", ["cuda:sm_20", "cpu:z80", "tpu", "", "hip:gfx1"])
def test_no_such_device(name: str) -> None:
    with pytest.raises(DeviceError, match="knows znver1|known are cpu|knows (cuda|hip):"):
        devices.device(name)


@pytest.mark.parametrize("name", gpu.known())
def test_devices_with_blocks_are_described_without_being_here(name: str) -> None:
    spec = devices.device(name)
    assert spec.id == name and spec.blocks and spec.peak("f32") > spec.peak("f64") / 2 > 0
    limits = spec.limits()
    assert limits.threads == spec.threads_per_block >= 256 and limits.shared_bytes == spec.shared_bytes >= 32 << 10


def test_an_opencl_device_that_is_not_here() -> None:
    with pytest.raises(DeviceError, match="pip install .autotune-kernels.opencl|no OpenCL device '99' here"):
        devices.device("opencl:99")


def test_arithmetic_on_a_spec() -> None:
    spec = replace(cpu.describe("znver3"), frequency_hz=3e9, cores=8)
    assert spec.lanes("f32") == 8 and spec.lanes("bf16") == 16 and spec.peak("f32") == spec.peak("f16") == 96e9
    assert spec.peak("f64", threads=99) == 8 * 48e9
    assert [spec.level_of(n) for n in (1, 1 << 18, 1 << 22, 1 << 30)] == ["L1", "L2", "L3", "DRAM"]
    rates = [spec.bytes_per_second(level) for level in ("L1", "L2", "L3", "DRAM")]
    assert rates == sorted(rates, reverse=True) and spec.bytes_per_second("L1", threads=2) == 2 * rates[0]
    measured = replace(spec, bandwidth=(("L1", "read", 1e11, 1), ("DRAM", "copy", 2e10, 1), ("DRAM", "copy", 3e10, 8)))
    assert measured.bytes_per_second("L1", threads=4) == 4e11 and measured.bytes_per_second("DRAM", "copy", 6) == 3e10


def test_identity_does_not_depend_on_what_is_measured() -> None:
    spec = replace(cpu.describe("znver4"), features=("+avx512f", "-avx10.1"))
    assert replace(spec, frequency_hz=1.0, peak_flops=(("f32", 1.0),)).digest == spec.digest
    assert replace(spec, features=("+avx512f", "-avx10.2", "+newname")).digest == spec.digest
    assert replace(spec, features=("+avx2",)).digest != spec.digest != replace(spec, cores=2).digest


@pytest.mark.parametrize("value", [{}, {"kind": "cpu"}, {"bogus": 1}, {"caches": 3}, {"caches": [{"size": 3}]}])
def test_malformed_descriptions(value: dict[str, object]) -> None:
    with pytest.raises(DeviceError, match="not a device description"):
        DeviceSpec.from_json(value)
