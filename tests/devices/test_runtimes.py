"""CUDA and HIP from the decorator to the result, on stand-ins that run the very text; what is absent or too old."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import autotune
from autotune import ops
from autotune.cli.main import main
from autotune.codegen import amdgpu, nvrtc
from autotune.devices import client, cuda, drivers, opencl, pycuda, runtime
from autotune.ir.errors import BuildError, DeviceError
from autotune.session import Session
from tests.codegen.test_clike import queue
from tests.devices import standins

ROOT = Path(__file__).parents[2]
FUNCTIONS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "dense": (lambda x, w, b: np.maximum(x @ w + b, 0), [(30, 40), (40, 50), (50,)]),
    "softmax": (ops.softmax, [(9, 70)]),
    "two kernels": (lambda x, u, v: np.maximum(x @ u, 0) @ v, [(20, 30), (30, 40), (40, 50)]),
}
Install = Callable[..., standins.Machine]


def arrays(shapes: list[tuple[int, ...]]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Stand-ins for this test, in this process and in the measuring one; with a session of their own."""
    for place in (drivers.loads, nvrtc.cubin, nvrtc.version, amdgpu.link):  # put back what stand-ins replace
        monkeypatch.setattr(sys.modules[place.__module__], place.__name__, place)
    before: dict[str, Any] = dict(sys.modules)
    worker = functools.partial(client.WorkerClient, module="tests.devices.standins")
    monkeypatch.setattr(client, "WorkerClient", worker)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cuda, "_STREAMS", {})
    own = Session()
    for module in ("autotune.session", "autotune.decorator"):
        monkeypatch.setattr(f"{module}.session", lambda: own)

    def put(kind: str, fault: str = "") -> standins.Machine:
        monkeypatch.setenv("STANDIN", kind)
        monkeypatch.setenv("STANDIN_FAULT", fault)
        return standins.install(kind, fault)

    yield put
    own.close()
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in ("cuda", "pycuda", "hip"):
            del sys.modules[name]
    sys.modules.update({name: m for name, m in before.items() if name.partition(".")[0] in ("cuda", "pycuda", "hip")})
    drivers._room.cache_clear()
    pycuda._context.cache_clear()
    runtime._POOL.clear()


@pytest.mark.parametrize("kind", standins.KINDS)
def test_calls_views_and_tuning(kind: str, install: Install, tmp_path: Path) -> None:
    machine, device = install(kind), f"{standins.KINDS[kind]}:0"
    for fn, shapes in FUNCTIONS.values():
        x = arrays(shapes)
        kernel = autotune.kernel(fn, device=device, cache=str(tmp_path / "store.db"))
        for _ in range(2):
            np.testing.assert_allclose(kernel(*x), fn(*x), rtol=1e-4, atol=1e-5)
    assert machine.launches
    (x,) = arrays([(20, 40)])
    moved = autotune.kernel(lambda x: x + 1, device=device, cache="off")
    out = np.empty((10, 20), np.float32)
    assert moved(x[::2, ::2], out=out) is out
    np.testing.assert_array_equal(out, x[::2, ::2] + 1)
    a, b = arrays([(24, 32), (32, 24)])
    kernel = autotune.kernel(lambda a, b: a @ b, device=device, cache=str(tmp_path / "store.db"))
    result = kernel.tune(a, b, trials=3, budget=60)
    assert 1 <= result.trials <= 3 and 0 < result.seconds <= result.default_seconds
    np.testing.assert_allclose(kernel(a, b), a @ b, rtol=1e-4, atol=1e-4)
    assert standins.KINDS[kind] in kernel.explain(a, b) or "chosen by" in kernel.explain(a, b)


@pytest.mark.parametrize("kind", standins.KINDS)
def test_devices_are_described_by_their_drivers(kind: str, install: Install) -> None:
    install(kind)
    name = standins.KINDS[kind]
    spec = autotune.device(f"{name}:0")
    assert spec == autotune.device(name) and spec in autotune.list_devices() and spec.here
    table = autotune.device(spec.id)
    assert not table.here and spec.cores == table.cores and spec.warp == table.warp
    assert spec.peak("f32", spec.cores) == pytest.approx(table.peak("f32", table.cores), rel=0.01)
    assert spec.bytes_per_second("DRAM") == pytest.approx(table.bytes_per_second("DRAM"), rel=0.05)
    assert type(spec).from_json(spec.to_json()) == spec
    with pytest.raises(DeviceError, match=f"no {name.upper()} device '3' here; there are: {name}:0"):
        autotune.device(f"{name}:3")


@pytest.mark.parametrize("kind", standins.KINDS)
def test_a_driver_that_takes_no_code(kind: str, install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a traceback nor "no schedule": both versions, and exit code 3."""
    install(kind, "old")
    device = f"{standins.KINDS[kind]}:0"
    assert main(["sweep", "gemm", "m=8", "n=8", "k=8", "--device", device, "--quiet"]) == 3
    told = capsys.readouterr().err
    assert ("CUDA 12.4" in told and "NVRTC 13.5" in told) or ("runtime 6.2" in told and "clang" in told)
    assert "Traceback" not in told and "install" in told


@pytest.mark.parametrize("kind", standins.KINDS)
def test_a_driver_without_a_gpu(kind: str, install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(kind, "none")
    assert not [s for s in autotune.list_devices() if s.kind in ("cuda", "hip")]
    device = f"{standins.KINDS[kind]}:0"
    assert main(["bench", "gemm", "m=8", "n=8", "k=8", "--against", "numpy", "--device", device]) == 3
    told = capsys.readouterr().err
    assert "no GPU" in told or "device on this machine" in told


@pytest.mark.parametrize("kind", standins.KINDS)
def test_a_launch_that_fails_is_an_error_not_a_result(kind: str, install: Install) -> None:
    machine = install(kind)
    (x,) = arrays([(40,)])
    kernel = autotune.kernel(lambda x: x + 1, device=f"{standins.KINDS[kind]}:0", cache="off")
    np.testing.assert_array_equal(kernel(x), x + 1)
    machine.fault = "lost"
    for _ in range(2):
        with pytest.raises(DeviceError, match="cannot run kernels"):
            kernel(x)
    machine.fault = ""
    np.testing.assert_array_equal(kernel(x), x + 1)


def test_an_arch_that_the_compiler_does_not_know(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str, arch: str) -> Any:
        raise BuildError("invalid value for --gpu-architecture", "", "arch")

    install("cuda.core")
    monkeypatch.setattr(nvrtc, "cubin", refuse)
    kernel = autotune.kernel(lambda x: x + 1, device="cuda:0", cache="off")
    with pytest.raises(DeviceError, match=r"NVRTC 13.5 does not know .*sm_80"):
        kernel(np.ones(8, np.float32))


@pytest.mark.parametrize("kind", ["cuda", "hip"])
def test_nothing_is_here(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(drivers, "loads", lambda libraries: False)
    monkeypatch.setattr(drivers, "_installed", lambda module: False)
    assert main(["sweep", "gemm", "m=8", "n=8", "k=8", "--device", f"{kind}:0"]) == 3
    told = capsys.readouterr().err
    assert "driver is not on this machine" in told and f"pip install 'autotune-kernels[{kind}]'" in told
    monkeypatch.setattr(drivers, "loads", lambda libraries: True)
    assert main(["bench", "gemm", "m=8", "n=8", "k=8", "--against", "numpy", "--device", kind]) == 3
    assert "is not installed" in capsys.readouterr().err
    assert main(["devices"]) == 0
    assert "pip install 'autotune-kernels[hip]'" in capsys.readouterr().out


def test_listing_devices_imports_nothing_heavy() -> None:
    """Where no driver is, the modules stay untouched: even an installed one."""
    text = ("import sys, autotune.devices.drivers as d; d.loads = lambda names: False; import autotune;"
            "autotune.list_devices(); names = ('cuda.', 'pycuda', 'hip', 'torch');"
            "print(*[m for m in sys.modules if m.startswith(names)])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ---- OpenCL whose platforms come and go -----------------------------------------------------------------------------


def test_a_platform_that_vanishes_and_another_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queue()  # skips where there is none
    import pyopencl as cl

    real = cl.get_platforms()
    name = real[0].name
    broken = SimpleNamespace(name="Broken", get_devices=lambda: (_ for _ in ()).throw(cl.LogicError("no hardware")))
    other = SimpleNamespace(
        platform=SimpleNamespace(name="Another"), driver_version="1", name="other", vendor="x", type=4,
        max_compute_units=2, max_clock_frequency=1000, native_vector_width_float=1, global_mem_cache_size=0,
        max_work_group_size=256, local_mem_size=32768,
    )  # fmt: skip
    x = np.ones(32, np.float32)
    monkeypatch.setattr(cl, "get_platforms", lambda: [broken, SimpleNamespace(get_devices=lambda: [other]), *real])
    opencl._queue.cache_clear()
    assert autotune.device("opencl:0").name == "other" and autotune.device("opencl:1").arch.startswith(name)
    kernel = autotune.kernel(lambda x: x + 1, device=f"opencl:{name}", cache=str(tmp_path / "store.db"))
    np.testing.assert_array_equal(kernel(x), x + 1)
    for gone in (lambda: [broken], lambda: (_ for _ in ()).throw(cl.LogicError("PLATFORM_NOT_FOUND_KHR"))):
        monkeypatch.setattr(cl, "get_platforms", gone)
        opencl._queue.cache_clear()
        with pytest.raises(DeviceError, match="here"):
            autotune.kernel(lambda x: x + 2, device=f"opencl:{name}", cache="off")(x)
        assert "opencl" not in [s.kind for s in autotune.list_devices()]
        assert main(["sweep", "gemm", "m=8", "n=8", "k=8", "--device", "opencl:0"]) == 3
    opencl._queue.cache_clear()
