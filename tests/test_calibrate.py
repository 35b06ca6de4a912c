"""Calibration: the probes run, the numbers are plausible and come back through detection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune import calibrate, devices
from autotune.codegen import jit, probes
from autotune.devices import cpu
from autotune.ir.errors import DeviceError


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 2e-4)
    monkeypatch.setattr(calibrate, "SAMPLES", 2)


def test_calibration_round_trip(tmp_path: Path) -> None:
    here, lines = devices.device(), list[str]()
    small = replace(here, caches=tuple(replace(c, bytes=min(c.bytes, 1 << 21)) for c in here.caches))
    spec = calibrate.calibrate(small, threads=2, say=lines.append, seconds=2.0)
    assert 5e8 < spec.frequency_hz < 1e10 and dict(spec.provenance)["peak_flops"] == "measured"
    assert dict(spec.peak_flops)["f32"] > 1e8 and {n for *_, n in spec.bandwidth} == {1, 2}
    levels = [c.name for c in here.caches] + ["DRAM"]
    assert [row[:2] for row in spec.bandwidth if row[3] == 1] == [
        (lv, k) for lv in levels for k in ("read", "write", "copy")
    ]
    assert all(rate > 1e6 for _, _, rate, _ in spec.bandwidth) and len(lines) == 4 + len(spec.bandwidth)
    path = calibrate.save(spec, tmp_path)
    assert cpu.calibrated(small, tmp_path) == spec and spec.digest == small.digest
    assert cpu.calibrated(replace(small, cores=99), tmp_path).peak_flops == small.peak_flops
    path.write_text("{")
    with pytest.raises(DeviceError, match="calibrate again"):
        cpu.calibrated(small, tmp_path)


def test_save_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "devices").write_text("a file, not a directory")
    with pytest.raises(DeviceError, match="cannot be kept"):
        calibrate.save(devices.device(), tmp_path)


def test_working_sets_fit_their_level() -> None:
    for arch in cpu.known():
        spec = cpu.describe(arch)
        sets = dict(calibrate.working_sets(spec, 4))
        assert all(sets[c.name] <= c.bytes for c in spec.caches) and sets["DRAM"] >= 64 << 20


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
@pytest.mark.parametrize("bits", [128, 512])
def test_probes_compile_for_every_width(dtype: str, bits: int) -> None:
    size = int(dtype[1:])
    text = probes.peak(dtype, bits // size, 5)
    assert jit.assemble(text, "znver4") and text.count("phi <") == 5
    for kind in ("read", "write", "copy"):
        assert jit.assemble(probes.stream(kind, bits), "znver4")


def test_streams_touch_what_they_say() -> None:
    spec, source, target = devices.device(), np.arange(128), np.zeros(128, np.int64)
    entry = calibrate._compile(probes.stream("copy", 512), "stream", spec)
    addresses, count = np.array([source.ctypes.data, target.ctypes.data]), np.array([2])
    entry(addresses.ctypes.data, count.ctypes.data, 1)
    assert (source == target).all()
