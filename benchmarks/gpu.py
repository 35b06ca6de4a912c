"""What a machine with a GPU (or any OpenCL device) has to tell: one command, ten minutes, one JSON file and one table.

`python benchmarks/gpu.py --json F` takes the first GPU, else an OpenCL device. Parts, each within a share of the time:
the environment; results of every operation beside NumPy's, and candidates of every sketch checked (under
compute-sanitizer too, where it is installed); ceilings that our own kernels reach; and for several shapes the model's
shortlist measured: best time, rank correlation of the model, and torch's time for the same. A part that runs out of
time says so. Exits with 1 where a result is wrong, with 3 where there is no device, never because of a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARES = {"correctness": 0.3, "sanitizer": 0.15, "ceilings": 0.1, "shortlist": 0.45}  # of the time that is left
CHECKED = (
    "gemm m=37 n=53 k=21", "gemm m=64 n=64 k=64 ta=1", "gemm m=33 n=20 k=40 bias=1 act=gelu", "bmm b=3 m=20 n=24 k=16",
    "gemv m=50 k=70", "linear m=30 n=50 k=40", "softmax m=9 n=70", "log_softmax m=20 n=33", "logsumexp m=8 n=100",
    "layer_norm m=7 n=130", "rms_norm m=12 n=64", "reduce shape=40x50 axes=1", "reduce shape=40x50 axes=0 op=max",
    "reduce shape=5x6x7 axes=0,2 op=mean", "transpose shape=30x50 perm=1,0", "cast shape=30x20 dtype=f16",
    "elementwise n=1000 expr=gelu(a*b+c)", "elementwise n=999 expr=tanh(a*b+c)",
)  # fmt: skip
SHAPES = (
    "gemm m=512 n=512 k=512", "gemm m=1024 n=1024 k=1024", "gemm m=2048 n=2048 k=2048", "gemm m=4096 n=4096 k=1024",
    "gemm m=4096 n=4096 k=4096 f16", "gemm m=4096 n=4096 k=4096 bf16", "gemm m=128 n=768 k=3072 bias=1 act=relu",
    "softmax m=4096 n=1024", "layer_norm m=4096 n=1024", "reduce shape=4096x4096 axes=1",
    "reduce shape=4096x4096 axes=0", "reduce shape=1048576x64 axes=0", "elementwise n=16777216 expr=gelu(a*b+c)",
    "transpose shape=4096x4096 perm=1,0",
)  # fmt: skip
HALVES = {"f16": "float16", "bf16": "bfloat16"}  # last words of cases that are not of f32
SMALL = ("gemm m=128 n=128 k=128", "softmax m=256 n=256", "reduce shape=512x512 axes=0",
         "elementwise n=262144 expr=relu(a*b+c)")  # fmt: skip
CHAIN = 32  # multiply-adds one after another; of much longer expressions parts become arrays, and kernels, of their own


class Bench:
    """The device, a measuring process, and what was found so far."""

    def __init__(self, options: argparse.Namespace, name: str) -> None:
        import autotune
        from autotune.devices.client import WorkerClient

        self.o, self.name, self.spec = options, name, autotune.device(name)
        self.worker = WorkerClient(self.spec, self.spec.cores)
        self.end = 0.0
        self.ceilings: dict[str, float] = {}

    def left(self) -> float:
        return self.end - time.monotonic()

    def kernels(self, words: str) -> list[Any]:
        """The kernels of a case, in the form in which they are scheduled."""
        from autotune.cli.run import program
        from autotune.ir.collapse import normal_form
        from autotune.ir.partition import partition
        from benchmarks.archs import case

        return [normal_form(k) for k in partition(program(case(words))).kernels]

    def measured(self, program: Any, top: int, others: int, check: str = "quick") -> dict[str, Any]:
        """The model's first `top` candidates and `others` drawn at random, built, checked and timed in turns."""
        import numpy as np

        from autotune.devices.records import Policy
        from autotune.search.ranking import Ranking

        ranking, rng = Ranking(program, self.spec, self.spec.cores), np.random.default_rng(0)
        picks = [c for _, c in zip(range(top), ranking.best()) if c.sketch >= 0]
        for n, priced in enumerate(ranking.priced):
            some = rng.permutation(len(priced.seconds))[: max(1, others // len(ranking.priced))]
            picks += [ranking.candidate(n, int(row), "random") for row in some]
        once: dict[str, Any] = {}
        for c in picks:  # the model's come first, and keep their origin
            once.setdefault(c.schedule.digest, c)
        picks = [*once.values()]
        built, failed, wrong, told = [], Counter[str](), list[str](), dict[str, str]()
        for c in picks:
            if self.left() < 0:
                failed["no time"] += 1
                continue
            report = self.worker.build([(program.canonical, c.schedule.to_json())], self.end, check)[0]
            if report.ok:
                built.append((c, report.handle))
            else:
                failed[why := report.reason or str(report.status)] += 1
                told.setdefault(why, report.message[:500])
                wrong += [report.message[:500]] if str(report.status) in ("correctness", "runtime") else []
        policy = Policy(threads=self.spec.cores, race=1e9)
        handles = [h for _, h in built if h is not None]
        times = self.worker.time(handles, policy, 5, max(self.end, time.monotonic() + 1)) if built and top else []
        self.worker.drop(handles)
        found = [
            {"origin": c.origin, "point": c.point, "predicted": c.predicted, "seconds": t.seconds, "minimum": t.minimum}
            for (c, _), t in zip(built, times) if t.ok and t.samples
        ]  # fmt: skip
        return {"candidates": found, "checked": len(built), "failed": dict(failed), "told": told, "wrong": wrong}


def environment(b: Bench) -> dict[str, Any]:
    """Everything that a reader of the numbers needs to know."""
    from autotune.codegen import build, nvrtc
    from autotune.devices.drivers import states
    from autotune.ir.errors import AutotuneError

    names = ("numpy", "llvmlite", "pyopencl", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "hip-python", "torch",
             "triton")  # fmt: skip
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    with suppress(AutotuneError):
        versions["NVRTC"] = nvrtc.version()
    return {
        "device": {"id": b.name, **b.spec.to_json()}, "python": platform.python_version(),
        "system": platform.platform(), "cpus": os.cpu_count(), "versions": versions, "autotune": dict(build.versions()),
        "drivers": [[d.kind, d.module, [s.name for s in specs], problem] for d, specs, problem in states()],
        "nvidia-smi": _told("nvidia-smi"), "rocminfo": _told("rocminfo"), "commit": _told("git", "rev-parse", "HEAD"),
    }  # fmt: skip


def _told(*words: str) -> str:
    if not shutil.which(words[0]):
        return ""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()[:4000]


def correctness(b: Bench) -> Iterator[dict[str, Any]]:
    """Each operation through the decorator beside NumPy in float64, then random candidates of every sketch."""
    import numpy as np

    import autotune
    from autotune.cli.grid import cases
    from autotune.peers import agree

    rng = np.random.default_rng(0)
    for words in CHECKED:
        if b.left() < 0:
            return
        op, *rest = words.split()
        (case,) = cases(op, rest)
        fn, specs, _ = case.make()
        x = [rng.standard_normal(s.shape).astype(s.dtype.numpy) for s in specs]
        row: dict[str, Any] = {"case": words, "right": False, "message": ""}
        start = time.perf_counter()
        try:
            ours = autotune.kernel(fn, device=b.name, cache="off", tune="off")(*x)
            row["right"] = agree(np.asarray(ours), np.asarray(fn(*x)))
        except autotune.AutotuneError as error:
            row["message"] = str(error)[:500]
        row["first_call"] = time.perf_counter() - start
        yield row
    for words in CHECKED if not b.o.inner else ():
        for program in b.kernels(words):
            if b.left() < 0:
                return
            found = b.measured(program, 0, 2 if b.o.quick else 8)
            told = "; ".join(found["wrong"])[:500]
            yield {"case": f"{words}, {found['checked']} candidates", "right": not told, "message": told}


def sanitizer(b: Bench) -> Iterator[dict[str, Any]]:
    """The same operations in a process under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if b.spec.kind != "cuda" or tool is None:
        return
    for check in ("memcheck", "racecheck", "synccheck", "initcheck"):
        if b.left() < 5:
            return
        inner = ["--inner", "--device", b.name, "--budget", str(max(10.0, b.left() / 2))]
        words = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, __file__, *inner]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=max(10.0, b.left()), check=False)
            told = (done.stdout + done.stderr)[-1500:]
            yield {"case": check, "right": done.returncode not in (1, 9), "code": done.returncode, "message": told}
        except subprocess.TimeoutExpired:
            yield {"case": check, "right": True, "message": "not finished in its share of the time"}


def ceilings(b: Bench) -> Iterator[dict[str, Any]]:
    """What our own kernels reach where nothing but arithmetic, or nothing but memory, is asked of the device."""
    import numpy as np

    import autotune
    from autotune.ir.collapse import normal_form
    from autotune.tracer import trace

    def chain(x: Any, y: Any) -> Any:
        z = x[:, None]
        for _ in range(CHAIN):
            z = z * y + x[:, None]
        return z.sum(axis=-1)

    n = 1 << (10 if b.o.quick else 13)
    wide = 1 << (20 if b.o.quick else 26)
    near = min(wide, b.spec.caches[0].bytes // 64)
    rows = max(64, wide >> 14)
    probes: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], str, float]] = {
        "multiply-add f32": (chain, [(2 * n,), (n,)], "flops", 4.0 * CHAIN * n * n),
        "copy": (lambda x: x * np.float32(2), [(wide,)], "bytes", 8.0 * wide),
        "copy in L2": (lambda x: x * np.float32(2), [(near,)], "bytes", 8.0 * near),
        "read": (lambda x: x.sum(axis=-1), [(rows, wide // rows)], "bytes", 4.0 * wide),
    }
    for name, (fn, shapes, unit, work) in probes.items():
        if b.left() < 0:
            return
        program = normal_form(trace(fn, [autotune.spec("f32", s) for s in shapes], {}, name).program)
        found = b.measured(program, 8, 6)
        best = min((c["minimum"] for c in found["candidates"]), default=float("inf"))
        if best < float("inf"):
            b.ceilings[name] = work / best
        yield {"case": name, "right": not found["wrong"], unit: work / best, "seconds": best, **found}
    if torch := _torch():
        size = 4096
        for dtype in (torch.float32, torch.float16):
            x = torch.ones((size, size), dtype=dtype, device="cuda")
            seconds = _timed(torch, partial(torch.matmul, x, x))
            rate = {"flops": 2.0 * size**3 / seconds, "seconds": seconds}
            yield {"case": f"torch's product, {dtype}, {size}", "right": True, **rate}


def shortlist(b: Bench) -> Iterator[dict[str, Any]]:
    """The model's best candidates and others, measured; how well their order is predicted; torch beside the best."""
    shapes, whole = SMALL if b.o.quick else SHAPES, b.end
    for n, words in enumerate(shapes):
        if (now := time.monotonic()) > whole:
            return
        b.end = now + (whole - now) / (len(shapes) - n)  # what others took longer for is shared by those that follow
        kernels = b.kernels(words)
        total, predicted, row = 0.0, list[float](), dict[str, Any](case=words, right=True, kernels=[])
        for program in kernels:
            found = b.measured(program, 6 if b.o.quick else 16, 6 if b.o.quick else 16)
            made = found["candidates"]
            row["right"] &= not found["wrong"]
            total += min((c["seconds"] for c in made), default=float("nan"))
            predicted.append(spearman([c["predicted"] for c in made], [c["seconds"] for c in made]))
            row["kernels"].append(found)
        firsts = [next((c["seconds"] for c in k["candidates"] if c["origin"] == "model"), 0.0) for k in row["kernels"]]
        row |= {"seconds": total, "spearman": predicted, "flops": sum(k.flops for k in kernels) / total,
                "bytes": sum(k.bytes for k in kernels) / total}  # fmt: skip
        row["first_pick"] = total / sum(firsts) if all(firsts) else None
        far = sum(k.bytes for k in kernels) > b.spec.caches[0].bytes
        peak = b.ceilings.get("multiply-add f32") if words.split()[-1] not in HALVES else None
        known = {"flops": peak, "bytes": b.ceilings.get("copy" if far else "copy in L2")}
        row["of_ceiling"] = max((row[unit] / rate for unit, rate in known.items() if rate), default=float("nan"))
        row["peers"] = dict(_peers(words)) if not b.o.quick else {}
        yield row
    b.end = whole


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; ties get their mean rank. NaN of fewer than three pairs."""
    import numpy as np

    if len(x) < 3:
        return float("nan")

    def ranks(values: Sequence[float]) -> Any:
        a = np.asarray(values)
        return np.array([((a < v).sum() + (a <= v).sum() + 1) / 2 for v in a])

    a, b = ranks(x), ranks(y)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else float("nan")


def _torch() -> Any:
    """torch with a GPU (of either vendor); None without."""
    if not find_spec("torch"):
        return None
    import torch

    return torch if bool(torch.cuda.is_available()) else None


def _timed(torch: Any, call: Callable[[], object], rounds: int = 7) -> float:
    """Median seconds of a call by events, after it was warmed up."""
    call()
    samples = list[float]()
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(10):
            call()
        end.record()
        end.synchronize()
        samples.append(float(begin.elapsed_time(end)) / 1e4)
    return sorted(samples)[len(samples) // 2]


def _peers(words: str) -> Iterator[tuple[str, float]]:
    """torch's own function (cuBLAS, cuDNN or the AMD counterparts), and what torch.compile makes of it (Triton)."""
    torch = _torch()
    if torch is None:
        return
    op, *rest = words.split()
    dtype = getattr(torch, HALVES.get(rest[-1], "float32"))
    p = dict(word.split("=", 1) for word in rest if "=" in word)

    def made(*shape: int) -> Any:
        return torch.rand(shape, device="cuda", dtype=dtype) + 0.5

    f = torch.nn.functional
    shape = list(map(int, p.get("shape", "1").split("x")))
    functions: dict[str, Callable[..., Any]] = {
        "gemm": lambda a, b, *c: torch.relu(torch.addmm(c[0], a, b)) if c else a @ b,
        "softmax": lambda a: torch.softmax(a, -1), "layer_norm": lambda a, w, c: f.layer_norm(a, a.shape[-1:], w, c),
        "reduce": lambda a: a.sum(int(p["axes"])), "elementwise": lambda a, b, c: f.gelu(a * b + c),
        "transpose": lambda a: a.T.contiguous(),
    }  # fmt: skip
    fn, x = functions[op], [made(*shape)]
    if op == "gemm":
        m, n, k = (int(p[name]) for name in "mnk")
        x = [made(m, k), made(k, n), *([made(n)] if p.get("bias") else [])]
    elif op in ("softmax", "layer_norm"):
        x = [made(int(p["m"]), int(p["n"])), *(made(int(p["n"])) for _ in range(2 * (op == "layer_norm")))]
    elif op == "elementwise":
        x = [made(int(p["n"])) for _ in range(3)]
    torch.backends.cuda.matmul.allow_tf32 = False
    yield "torch", _timed(torch, lambda: fn(*x))
    if find_spec("triton"):
        compiled = torch.compile(fn)
        yield "torch.compile", _timed(torch, lambda: compiled(*x))


PARTS: dict[str, Callable[[Bench], Iterator[dict[str, Any]]]] = {
    f.__name__: f for f in (correctness, sanitizer, ceilings, shortlist)
}


def run(b: Bench) -> dict[str, Any]:
    """All parts within the time."""
    start = time.monotonic()
    options = {name: value for name, value in vars(b.o).items() if name not in ("json", "inner")}
    told: dict[str, Any] = {"environment": environment(b) if not b.o.inner else {}, "options": options}
    wanted = ["correctness"] if b.o.inner else list(PARTS)
    for n, name in enumerate(wanted):
        left = b.o.budget - (time.monotonic() - start)
        begun, share = time.monotonic(), SHARES[name] / sum(SHARES[later] for later in wanted[n:])
        b.end = begun + left * share
        rows, failed = list[dict[str, Any]](), ""
        try:
            for row in PARTS[name](b):
                rows.append(row)
                told_row = "right" if row["right"] else f"WRONG {row.get('message', '')}"
                print(f"{name}: {row['case']}: {told_row}", file=sys.stderr)
        except Exception:  # the other parts may still tell something; the machine may not be had again
            failed = traceback.format_exc()
            print(failed, file=sys.stderr)
        spent = time.monotonic() - begun
        told[name] = {"rows": rows, "seconds": round(spent, 2), "cut": spent > left * share, "failed": failed}
        if b.o.json:
            b.o.json.write_text(json.dumps(clean(told), indent=1) + "\n", "utf-8")
    b.worker.close()
    return told | {"seconds": round(time.monotonic() - start, 2)}


def show(told: dict[str, Any]) -> None:
    """The tables for people."""
    from rich.console import Console
    from rich.table import Table

    from autotune.report import duration

    console, device = Console(width=140), told["environment"]["device"]
    console.print(f"{device['name']}: {device['vendor']} {device['arch']}, {told['seconds']} s")
    rows = told["correctness"]["rows"] + told["sanitizer"]["rows"]
    wrong = [row["case"] for row in rows if not row["right"]]
    console.print(f"checked: {len(rows)} cases, wrong: {', '.join(wrong) or 'none'}")
    table = Table("ceiling", "best", "rate")
    for row in told["ceilings"]["rows"]:
        rate = f"{row['flops'] / 1e12:.2f} TFLOP/s" if "flops" in row else f"{row['bytes'] / 1e9:.1f} GB/s"
        table.add_row(row["case"], duration(row["seconds"]), rate)
    console.print(table)
    table = Table("case", "best", "GFLOP/s", "GB/s", "of ceiling", "first pick", "Spearman", "torch", "torch.compile")
    for row in told["shortlist"]["rows"]:
        known = row["peers"]
        if not row["seconds"] > 0:
            table.add_row(row["case"], "-", *["no time"] * 7)
            continue
        peers = [f"{known[p] / row['seconds']:.2f}x" if p in known else "-" for p in ("torch", "torch.compile")]
        table.add_row(
            row["case"], duration(row["seconds"]), f"{row['flops'] / 1e9:.0f}", f"{row['bytes'] / 1e9:.0f}",
            f"{100 * row['of_ceiling']:.0f} %", f"{row['first_pick']:.2f}" if row["first_pick"] else "-",
            ", ".join(f"{s:.2f}" for s in row["spearman"]), *peers,
        )  # fmt: skip
    console.print(table)
    if failed := [name for name in PARTS if told[name]["failed"]]:
        console.print(f"failed: {', '.join(failed)}")
    if cut := [name for name in PARTS if told[name]["cut"]]:
        console.print(f"out of time: {', '.join(cut)}")


def clean(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--device", help="cuda:0, hip:0, opencl:0; default: the first GPU, else an OpenCL device")
    parser.add_argument("--budget", type=lambda text: float(text.removesuffix("s")), help="seconds for everything")
    parser.add_argument("--quick", action="store_true", help="small sizes and few candidates, 90 s")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.budget = options.budget or (90.0 if options.quick else 540.0)
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as empty:
        os.environ["AUTOTUNE_CACHE_DIR"] = empty
        import autotune

        try:
            found = [f"{s.kind}:{s.number}" for s in autotune.list_devices() if s.blocks]
            ordered = sorted(found, key=lambda name: name.startswith("opencl"))
            if not options.device and not ordered:
                raise autotune.DeviceError("no GPU and no OpenCL device is here: see `autotune doctor`")
            bench = Bench(options, options.device or ordered[0])
            told = run(bench)
        except autotune.DeviceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    if not options.inner:
        show(told)
    if options.json:
        options.json.write_text(json.dumps(clean(told), indent=1) + "\n", "utf-8")
    parts = [told[name] for name in PARTS if name in told]
    return int(any(part["failed"] or not all(row["right"] for row in part["rows"]) for part in parts))


if __name__ == "__main__":
    sys.exit(main())
