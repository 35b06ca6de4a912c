"""T4 documents: there and back, as others write them, and what is said of those that are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from autotune.devices.records import Status
from autotune.ir.errors import CacheError
from autotune.search import t4

RESULTS = (
    t4.Result({"sketch": "a", "x": 3}, Status.OK, 1.5e-3, (1.5e-3, 2e-3), 0.02, 0.001, timestamp="2026-01-01",
              extra={"noisy": (1, ""), "mad": (0.1, "ms")}),
    t4.Result({"sketch": "a", "x": 4}, Status.COMPILE, extra={"reason": ("spills", "")}),
    t4.Result({"sketch": "a", "x": 5}, Status.CORRECTNESS),
)  # fmt: skip
KERNEL_TUNER = {
    "schema_version": "1.0.0",
    "results": [
        {"timestamp": "2024-01-01 00:00:00+00:00", "configuration": {"block_size_x": 128, "use_padding": True},
         "times": {"compilation": 440.1, "benchmark": 1.2, "framework": 0.8, "search_algorithm": 0, "validation": 0,
                   "runtimes": [0.05, 0.06, 0.04]},
         "invalidity": "correct", "correctness": 1, "objectives": ["time"],
         "measurements": [{"name": "time", "value": 0.05, "unit": "ms"},
                          {"name": "GFLOP/s", "value": 9.5, "unit": ""}]},
        {"timestamp": "2024-01-01 00:00:01+00:00", "configuration": {"block_size_x": 2048, "use_padding": False},
         "times": {"compilation": 10.0, "runtimes": []}, "invalidity": "runtime", "correctness": 1,
         "objectives": ["time"], "measurements": [{"name": "time", "value": "RuntimeFailedConfig", "unit": "ms"}]},
    ],
}  # fmt: skip
KTT = {
    "schema_version": "1.0.0",
    "results": [
        {"configuration": {"TILE": 16}, "objectives": ["duration"], "invalidity": "correct", "correctness": 1.0,
         "times": {"compilation_time": 12.5, "runtimes": [31.0], "framework": 1.0, "search_algorithm": 0.1},
         "measurements": [{"name": "duration", "value": 31000, "unit": "us"}]},
        {"configuration": {"TILE": 32}, "times": {"compilation_time": 12.5}, "invalidity": "timeout", "correctness": 0},
    ],
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.xz"])
def test_there_and_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"space{suffix}"
    t4.write(path, t4.Document(RESULTS, {"autotune": {"format": 1}}))
    again = t4.read(path)
    assert again == t4.Document(RESULTS, {"autotune": {"format": 1}})
    before = path.read_bytes()
    t4.write(path, again)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_others_write() -> None:
    first, second = t4.parse(json.dumps(KERNEL_TUNER)).results
    assert first.seconds == pytest.approx(5e-5) and first.compile_seconds == pytest.approx(0.4401)
    assert first.runtimes == pytest.approx((5e-5, 6e-5, 4e-5)) and first.extra == {"GFLOP/s": (9.5, "")}
    assert first.configuration == {"block_size_x": 128, "use_padding": True}
    assert second.status is Status.RUNTIME and second.seconds == math.inf
    first, second = t4.parse(json.dumps(KTT)).results
    assert first.seconds == pytest.approx(0.031) and first.framework_seconds == pytest.approx(1e-3)
    assert second.status is Status.TIMEOUT


def changed(**how: Any) -> str:
    row = {**KERNEL_TUNER["results"][0], **how}  # type: ignore[dict-item]
    return json.dumps({**KERNEL_TUNER, "results": [{k: v for k, v in row.items() if v is not None}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({**KERNEL_TUNER, "schema_version": "2.0.0"}), "schema_version is '2.0.0'; .* reads 1.0.0"),
        (json.dumps({"results": []}), "schema_version is None"),
        (json.dumps([]), "no T4 document"),
        (json.dumps({**KERNEL_TUNER, "more": 1}), "field 'more' is unknown"),
        (json.dumps({**KERNEL_TUNER, "metadata": 1}), "metadata is no JSON object"),
        (json.dumps({**KERNEL_TUNER, "results": [3]}), "result 0: a result is a JSON object, not int"),
        (changed(colour="red"), "result 0: field 'colour' is unknown"),
        (changed(times={"lunch": 1}), "field 'times.lunch' is unknown"),
        (changed(times={"runtimes": [-1]}), "times.runtimes is -1"),
        (changed(times={"runtimes": 1}), "times.runtimes is 1, no list"),
        (changed(times=None), "field 'times' is missing"),
        (changed(invalidity="maybe"), "invalidity is 'maybe'"),
        (changed(correctness="yes"), "correctness is 'yes'"),
        (changed(configuration={"x": [1]}), r"configuration\['x'\]"),
        (changed(measurements=[{"name": "time", "value": 1, "unit": "parsec"}]), "time is in 'parsec'"),
        (changed(measurements=[{"name": "time", "value": 1, "dtype": 3}]), "field 'measurements.dtype' is unknown"),
        (changed(measurements=[7]), "a measurement is 7"),
        (changed(measurements=[], times={}), "neither the measurement of its objective nor runtimes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(CacheError, match=f"bad.json: .*{message}"):
        t4.read(path)


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.xz"])
@pytest.mark.parametrize("left", [0, 5, 0.5, 0.98])
def test_cut_short(tmp_path: Path, suffix: str, left: float) -> None:
    path = tmp_path / f"space{suffix}"
    t4.write(path, t4.Document(RESULTS))
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if left < 1 else int(left)])
    with pytest.raises(CacheError, match="space.json.*cut short"):
        t4.read(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="none.json"):
        t4.read(tmp_path / "none.json")
