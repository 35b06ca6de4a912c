"""How many blocks a multiprocessor holds, beside figures worked out by the vendors' tools."""

from __future__ import annotations

import pytest

from autotune.devices import device
from autotune.devices.gpu import known
from autotune.devices.occupancy import occupancy
from autotune.devices.spec import DeviceSpec
from autotune.ir.errors import DeviceError


# threads, registers, shared -> blocks, warps, limit; the CUDA rows are those of NVIDIA's occupancy calculator.
@pytest.mark.parametrize(
    ("name", "used", "found"),
    [
        ("cuda:sm_80", (256, 32, 0), (8, 64, "warps")), ("cuda:sm_80", (256, 128, 0), (2, 16, "registers")),
        ("cuda:sm_80", (256, 127, 8192), (2, 16, "registers")), ("cuda:sm_80", (128, 40, 20480), (7, 28, "shared")),
        ("cuda:sm_80", (32, 16, 0), (32, 32, "blocks")), ("cuda:sm_80", (1024, 64, 0), (1, 32, "registers")),
        ("cuda:sm_80", (1024, 65, 0), (0, 0, "registers")), ("cuda:sm_80", (96, 168, 0), (4, 12, "registers")),
        ("cuda:sm_75", (256, 32, 0), (4, 32, "warps")), ("cuda:sm_75", (256, 32, 32768), (2, 16, "shared")),
        ("cuda:sm_86", (128, 32, 0), (12, 48, "warps")), ("cuda:sm_89", (64, 32, 0), (24, 48, "warps")),
        ("cuda:sm_90a", (256, 96, 49152), (2, 16, "registers")), ("cuda:sm_90a", (33, 255, 0), (4, 8, "registers")),
        ("hip:gfx90a", (256, 128, 0), (4, 16, "registers")), ("hip:gfx90a", (256, 129, 0), (3, 12, "registers")),
        ("hip:gfx942", (64, 32, 32768), (2, 2, "shared")), ("hip:gfx942", (256, 512, 0), (1, 4, "registers")),
        ("hip:gfx1100", (256, 96, 0), (4, 32, "warps")), ("hip:gfx1100", (256, 97, 0), (3, 24, "registers")),
    ],
)  # fmt: skip
def test_blocks_of_a_multiprocessor(name: str, used: tuple[int, int, int], found: tuple[int, int, str]) -> None:
    made = occupancy(device(name), *used)
    assert (made.blocks, made.warps, made.limit) == found and made.share == made.warps / made.most


@pytest.mark.parametrize("name", [name for name in known() if name != "opencl:generic"])
def test_every_device_of_the_table_has_limits(name: str) -> None:
    spec = device(name)
    core = spec.core
    assert core is not None and core.registers % core.partitions == 0 and core.warps % core.partitions == 0
    assert core.warps * spec.warp >= spec.threads_per_block and core.shared_bytes >= spec.shared_bytes
    assert core.registers // core.partitions % core.register_unit == 0 or spec.arch.startswith("gfx1")
    full = occupancy(spec, spec.threads_per_block, 32, 0)
    assert full.warps > 0 and 0 < full.share <= 1 and f"/{core.warps} warps" in str(full)
    assert occupancy(spec, 64, 32, core.shared_bytes + 1).blocks == 0, "more shared memory than there is"
    again = DeviceSpec.from_json(spec.to_json())
    assert again == spec and again.digest == spec.digest


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(DeviceError, match="no limits"):
        occupancy(device("opencl:generic"), 64, 32, 0)
    with pytest.raises(DeviceError, match="not a device description"):
        DeviceSpec.from_json({**device("cuda:sm_80").to_json(), "core": {"lanes": 3}})
