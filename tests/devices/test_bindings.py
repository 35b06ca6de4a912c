"""The real cuda-core, cuda-bindings and hip-python on drivers made for these tests (`stubs/`), which run the text.

What is tested is that arguments, streams, events and errors pass through the real modules as our runners mean them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autotune import hostrun
from autotune.devices import drivers
from autotune.ir.errors import DeviceError

HERE = Path(__file__).parent
DRIVERS = {"cuda": ("cuda.core", "libcuda.so.1"), "hip": ("hip", "libamdhip64.so")}
SCRIPT = """
import sys, threading
import numpy as np
import autotune
from autotune import ops
from autotune.codegen import amdgpu, nvrtc
from autotune.worker import Arrays
from tests.devices import standins

kind = sys.argv[1]
made = lambda text: standins.Machine("").load(text.encode())._name.encode() + b"\\0"
nvrtc.cubin, nvrtc.version = lambda text, arch: made(text), lambda: "NVRTC 13.5"
amdgpu.link = lambda text, arch, seconds=60.0: made(text)
spec = autotune.device(f"{kind}:0")
assert spec in autotune.list_devices() and spec.here and spec.peak("f32", spec.cores) > 5e13, spec
assert 3e12 < spec.bytes_per_second("DRAM") < 6e12, spec
rng = np.random.default_rng(0)
dense = lambda x, w, b: np.maximum(x @ w + b, 0)
for fn, shapes in ((dense, [(30, 40), (40, 50), (50,)]), (ops.softmax, [(9, 70)])):
    x = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    kernel = autotune.kernel(fn, device=f"{kind}:0", cache="off")
    np.testing.assert_allclose(kernel(*x), fn(*x), rtol=1e-4, atol=1e-5)
x = rng.standard_normal((20, 40)).astype(np.float32)[::2, ::2]
kernel, found = autotune.kernel(lambda x: x + 1, device=f"{kind}:0", cache="off"), []
kernel(x)
thread = threading.Thread(target=lambda: found.append(kernel(x)))
thread.start()
thread.join()
np.testing.assert_array_equal(found[0], x + 1)
(plan,) = kernel._plans.values()
arrays = Arrays(plan.prepared.kernels[0].program)
arrays.ready()
assert 0 < plan.prepared.runners[0].timer(arrays.data, arrays.params)(50) < 10
made = lambda text: b"/no/such/file\\0"
try:
    autotune.kernel(lambda x: x + 3, device=f"{kind}:0", cache="off")(x)
except autotune.DeviceError as error:
    assert "did not take code for" in str(error) and spec.arch in str(error), error
    print("right")
"""


@pytest.mark.parametrize("kind", DRIVERS)
def test_our_runner_through_the_real_module(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, library = DRIVERS[kind]
    if not drivers._installed(module):
        pytest.skip(f"{module} is not installed: pip install 'autotune-kernels[{kind}]'")
    try:
        compiler = hostrun.compiler()
    except DeviceError as error:
        pytest.skip(str(error))
    words = [compiler, "-x", "c", "-w", "-shared", "-fPIC", str(HERE / "stubs" / f"{kind}.c")]
    subprocess.run([*words, "-o", str(tmp_path / library), "-ldl"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    script = [sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(script, cwd=HERE.parents[1], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "right", done.stderr
