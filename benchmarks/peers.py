"""Our kernels beside NumPy/OpenBLAS and torch, in one process: paired, interleaved rounds of samples of at least 1 ms.

`python benchmarks/peers.py` tunes each case with an empty store of its own, checks its result (products of small
integers must be exactly NumPy's), and prints medians and ratios; above 1 is faster than the faster peer. Exits with 1
where a result is wrong, never because of a time. Each library is called through its own Python function, with `out=`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = re.compile(r"(?<=<!-- results:begin -->\n).*?(?=<!-- results:end -->)", re.DOTALL)
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # change what is compared
SHAPES = (
    *((n, n, n) for n in (64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 1000, 255, 100)), (1, 4096, 4096),
    (16, 4096, 4096), (128, 768, 768), (512, 3072, 768), (384, 64, 384), (384, 384, 64), (31, 57, 93), (17, 1000, 33),
    (3136, 64, 576),
)  # fmt: skip
ROWS, DENSE = ((1024, 1024), (256, 4096), (512, 768)), ((128, 768, 768), (512, 768, 3072))
Call = Callable[[], object]
Made = tuple[str, Mapping[str, Any], Callable[..., Any], list[Any]]  # operation, parameters, function, inputs


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio`: the faster peer's time by ours; `first`: the tuned time by that of the first pick."""

    group: str
    case: str
    seconds: float
    minimum: float
    peers: dict[str, float] = field(default_factory=dict)
    ratio: float = math.nan
    against: str = ""
    right: bool = True
    first: float = math.nan
    trials: int = 0
    elapsed: float = 0.0


class Bench:
    """What every group uses: options, tuning, and the comparison itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        import numpy as np

        self.o, self.np, self.rng = options, np, np.random.default_rng(0)
        self.tuned(lambda x: x + 1, [np.ones(32, np.float32)], trials=1)  # the measuring process starts here

    def case(self, words: str, integers: bool = False) -> Made:
        """What `autotune sweep` would be asked for."""
        from autotune.cli.grid import cases

        op, *rest = words.split()
        (case,) = cases(op, rest)
        fn, specs, _ = case.make()
        some = partial(self.rng.integers, -4, 5) if integers else self.rng.standard_normal
        return op, case.params, fn, [some(s.shape).astype(s.dtype.numpy) for s in specs]

    def tuned(self, fn: Callable[..., Any], x: Sequence[Any], **how: Any) -> tuple[Any, Any]:
        """The kernel of a function, tuned for these inputs, and what tuning found."""
        import autotune

        kernel = autotune.kernel(fn, threads=how.get("threads", self.o.threads), cache=how.get("cache"))
        try:
            return kernel, kernel.tune(*x, budget=how.get("budget", self.o.budget), trials=how.get("trials"))
        except autotune.MeasureError as error:  # the first pick runs, and is compared
            print(f"not tuned: {error}", file=sys.stderr)
            return kernel, argparse.Namespace(seconds=1.0, default_seconds=1.0, trials=0, elapsed=self.o.budget)

    def row(self, group: str, case: str, calls: Mapping[str, Call], against: Sequence[str] = (), **more: Any) -> Row:
        """Time the calls in turns, the first is ours. The ratio is to the fastest of `against`, or of all others."""
        from autotune.devices.records import median
        from autotune.peers import paired, ratio

        samples = paired(calls, self.o.rounds)
        ours, *others = samples
        middle = {name: median(row) for name, row in samples.items()}
        fastest = min(against or others, key=lambda name: middle[name])
        more |= {"ratio": ratio(samples[fastest], samples[ours]), "against": fastest}
        return show(Row(group, case, middle.pop(ours), min(samples[ours]), middle, **more))

    def compare(self, group: str, words: str, integers: bool = False) -> Row:
        """A named operation, tuned, beside what the peers have for it."""
        from autotune.peers import agree, numpy_call, torch_call

        op, params, fn, x = self.case(words, integers)
        kernel, found = self.tuned(fn, x)
        wanted = self.np.asarray(fn(*x))
        out, theirs, third = (self.np.empty(wanted.shape, wanted.dtype) for _ in range(3))
        calls: dict[str, Call] = {"ours": partial(kernel, *x, out=out), "numpy": numpy_call(fn, op, params, x, theirs)}
        if self.o.torch:
            calls["torch"] = torch_call(op, params, x, third)
        kernel(*x, out=out)
        right = self.np.array_equal(out, wanted) if integers else agree(out, wanted)
        how = {"first": found.seconds / found.default_seconds, "trials": found.trials, "elapsed": found.elapsed}
        return self.row(group, words, calls, right=right, **how)


def gemm(b: Bench) -> Iterator[Row]:
    return (b.compare("gemm", f"gemm m={m} n={n} k={k}", integers=True) for m, n, k in SHAPES)


def linear(b: Bench) -> Iterator[Row]:
    return (b.compare("linear", f"linear m={m} n={n} k={k}", integers=True) for m, n, k in SHAPES[-8:])


def dense(b: Bench) -> Iterator[Row]:
    """The fused layer beside the bare product: ours, and the faster peer's."""
    from autotune.peers import numpy_call, torch_call

    for m, n, k in DENSE:
        op, _, fn, x = b.case(f"gemm m={m} n={n} k={k} bias=1 act=relu", integers=True)
        bare = b.case(f"gemm m={m} n={n} k={k}")[2]
        out, product, theirs, third = (b.np.empty((m, n), x[0].dtype) for _ in range(4))
        (fused, found), (plain, _) = b.tuned(fn, x), b.tuned(bare, x[:2])
        calls: dict[str, Call] = {"ours": partial(fused, *x, out=out)}
        calls["our product"] = partial(plain, *x[:2], out=product)
        calls["numpy"] = numpy_call(bare, op, {}, x[:2], theirs)
        if b.o.torch:
            calls["torch"] = torch_call(op, {}, x[:2], third)
        fused(*x, out=out)
        right = b.np.array_equal(out, fn(*x))
        for peers in ["our product"], [*calls][2:]:
            yield b.row("dense", f"dense {m}x{n}x{k}", calls, peers, right=right, trials=found.trials)


def rowwise(b: Bench) -> Iterator[Row]:
    return (b.compare("rowwise", f"{op} m={m} n={n}") for op in ("softmax", "layer_norm") for m, n in ROWS)


def elementwise(b: Bench) -> Iterator[Row]:
    return (b.compare("elementwise", f"elementwise n={1 << 20} expr={act}(a*b+c)") for act in ("gelu", "relu"))


def reduce(b: Bench) -> Iterator[Row]:
    return (b.compare("reduce", f"reduce shape=4096x4096 axes={axis}") for axis in (1, 0))


def call(b: Bench) -> Iterator[Row]:
    """What a call costs: kernels of 32 elements beside np.add and a ctypes call."""
    import ctypes

    import autotune

    np, copy = b.np, ctypes.CDLL(None).memcpy
    copy.argtypes, copy.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
    k, k3 = autotune.kernel(lambda p, q: p + q, threads=1), autotune.kernel(lambda p, q, r: p * q + r, threads=1)
    x, y, z, out = np.ones((4, 32), np.float32)
    known = {"k": k, "k3": k3, "x": x, "y": y, "z": z, "out": out, "np": np, "copy": copy}
    ours = ("k(x, y)", "k(x, y, out=out)", "k3(x, y, z)", "k3(x, y, z, out=out)")
    peers = {"np.add": "np.add(x, y, out=out)", "ctypes memcpy": f"copy({out.ctypes.data}, {x.ctypes.data}, 128)"}
    timers = {text: timeit.Timer(text, globals=known) for text in (*ours, *peers.values())}
    rounds = [{text: timer.timeit(5000) / 5000 for text, timer in timers.items()} for _ in range(b.o.rounds + 1)]
    samples = {text: sorted(row[text] for row in rounds[1:]) for text in timers}  # without the round that compiles
    middle = {text: row[len(row) // 2] for text, row in samples.items()}
    right = bool((k(x, y, out=out) == 2).all() and (k3(x, y, z) == 2).all())
    beside = {name: middle[text] for name, text in peers.items()}
    for text in ours:
        yield show(Row("call", text, middle[text], min(samples[text]), beside, right=right))


def threads(b: Bench) -> Iterator[Row]:
    """Two threads beside one; and beside torch's two while another process keeps a core busy."""
    from autotune.peers import threads as held
    from autotune.peers import torch_call

    for n in (1024, 512):
        op, params, fn, x = b.case(f"gemm m={n} n={n} k={n}", integers=True)
        one, two = (b.tuned(fn, x, threads=count)[0] for count in (1, 2))
        out, theirs = b.np.empty((2, n, n), b.np.float32)
        calls: dict[str, Call] = {"ours": partial(two, *x, out=out), "one thread": partial(one, *x, out=theirs)}
        two(*x, out=out)
        right = b.np.array_equal(out, fn(*x))
        yield b.row("threads", f"{n}x{n}x{n}, 2 threads", calls, right=right)
    if b.o.torch:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            calls = {"ours": partial(two, *x, out=out), "torch": torch_call(op, params, x, theirs)}
            with held(2):
                yield b.row("threads", f"{n}x{n}x{n}, 2 threads, a core busy", calls, right=right)
        finally:
            busy.kill()
            busy.wait()


FIRST = """import sys, time; import numpy as np
n = int(sys.argv[1]); a, b = np.ones((2, n, n), "f4")
start = time.perf_counter(); import autotune
ready = time.perf_counter(); out = autotune.kernel(lambda a, b: a @ b, threads=1)(a, b)
done = time.perf_counter(); print(ready - start, done - ready, int((out == n).all()))"""


def first_call(b: Bench) -> Iterator[Row]:
    """A new process: its import, and its first call with an empty store and with a warm one."""
    times: dict[str, list[float]] = {}
    right = True
    for n in [n for n in (64, 512) for _ in range(5)]:
        with tempfile.TemporaryDirectory() as store:
            for how in ("cold", "warm"):
                words, env = [sys.executable, "-c", FIRST, str(n)], {**os.environ, "AUTOTUNE_CACHE_DIR": store}
                loaded, first, good = map(float, subprocess.check_output(words, cwd=ROOT, env=env, text=True).split())
                right &= bool(good)
                times.setdefault("import autotune", []).append(loaded)
                times.setdefault(f"first call {n}x{n}x{n}, {how} store", []).append(first)
    for name, row in times.items():
        yield show(Row("first_call", name, sorted(row)[len(row) // 2], min(row), right=right))


def quality(b: Bench) -> Iterator[Row]:
    """What 2 s of tuning find beside 30 s: a ratio of 0.95 or more is within 5 %."""
    for m, n, k in [shape for shape in SHAPES if max(shape) <= 512]:
        _, _, fn, x = b.case(f"gemm m={m} n={n} k={k}", integers=True)
        calls: dict[str, Call] = {}
        for budget in (2.0, 30.0):
            with tempfile.TemporaryDirectory() as store:
                kernel, _ = b.tuned(fn, x, budget=budget, cache=str(Path(store, "records.db")))
                calls[f"{budget:g} s"] = partial(kernel, *x, out=b.np.empty((m, n), b.np.float32))
                calls[f"{budget:g} s"]()
        yield b.row("quality", f"gemm m={m} n={n} k={k}", calls)


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    f.__name__: f for f in (gemm, linear, dense, rowwise, elementwise, reduce, call, threads, first_call, quality)
}


def mean(values: Sequence[float]) -> float:
    """Geometric; NaN of none."""
    known = [v for v in values if v == v]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """What is asked of the products beyond ratios: share of the measured FMA peak, rate of trials, first picks."""
    from autotune import calibrate

    products = {row.case: row for row in rows if row.group == "gemm"}
    if row := products.get("gemm m=512 n=512 k=512"):
        peak = calibrate.calibrate(calibrate.device("cpu"), 1, seconds=2.0).peak("f32")
        rate = 2 * 512**3 / row.minimum
        yield f"512x512x512: {rate / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s, {100 * rate / peak:.1f} % (best over best)"
    if row := products.get("gemm m=192 n=192 k=192"):
        yield f"192x192x192: {row.trials / row.elapsed:.1f} candidates a second built, checked and measured"
    if products:
        first = mean([row.first for row in products.values()])
        yield f"gemm: the first pick, without a search, has {first:.2f} of the tuned speed"


def show(row: Row) -> Row:
    from autotune.report import duration

    parts = [f"{row.case:44} {duration(row.seconds):>8}", *(f"{name} {duration(s)}" for name, s in row.peers.items())]
    parts += [f"{row.ratio:.2f}x {row.against}"] * (row.ratio == row.ratio) + ["WRONG RESULT"] * (not row.right)
    print("  ".join(parts), flush=True)
    return row


def markdown(rows: Sequence[Row], told: Mapping[str, Any]) -> str:
    """The README's table: a line a case, and the means."""
    from autotune.report import duration

    how = f"threads: {told['threads']}, {told['budget']:g} s of tuning a kernel, {told['rounds']} rounds"
    lines = [", ".join([told["cpu"], how, *map(" ".join, told["versions"].items())]) + ".", ""]
    lines += ["| case | autotune | NumPy | torch | ratio | to |", "|---|---|---|---|---|---|"]
    for group in dict.fromkeys(row.group for row in rows):
        for row in [row for row in rows if row.group == group]:
            numpy, torch = (duration(row.peers.get(name)) for name in ("numpy", "torch"))
            rate = "" if row.ratio != row.ratio else f"{row.ratio:.2f}"
            lines.append(f"| `{row.case}` | {duration(row.seconds)} | {numpy} | {torch} | {rate} | {row.against} |")
        if group in told["means"]:
            lines.append(f"| **{group}**, geometric mean | | | | **{told['means'][group]:.2f}** | |")
    return "\n".join([*lines, *(f"\n{line}" for line in told["notes"])]) + "\n"


def run(options: argparse.Namespace) -> int:
    import numpy as np

    from autotune import calibrate
    from autotune.peers import threads as held

    rows: list[Row] = []
    versions = {"Python": platform.python_version(), "NumPy": np.__version__}
    if options.torch:
        versions["torch"] = __import__("torch").__version__
    with held(options.threads) as limited:
        if not limited:
            print("threadpoolctl is missing: NumPy's threads are not limited", file=sys.stderr)
        bench = Bench(options)
        for name in options.groups:
            rows += GROUPS[name](bench)
    means = {name: mean([row.ratio for row in rows if row.group == name]) for name in options.groups}
    told: dict[str, Any] = {
        "cpu": calibrate.device("cpu").name, "versions": versions, "threads": options.threads,
        "budget": options.budget, "rounds": options.rounds, "notes": list(notes(rows)),
        "means": {name: value for name, value in means.items() if value == value},
    }  # fmt: skip
    print("# geometric means", *map("{0[0]:12} {0[1]:.3f}".format, told["means"].items()), *told["notes"], sep="\n")
    if options.json:
        told["rows"] = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
        options.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    wrong, page = [row.case for row in rows if not row.right], ROOT / "README.md"
    if options.update_readme and not wrong:
        page.write_text(README.sub(lambda _: markdown(rows, told), page.read_text("utf-8")), "utf-8")
    print(f"wrong results: {', '.join(wrong)}" if wrong else "every result is right")
    return int(bool(wrong))


def main() -> int:
    usual = [name for name in GROUPS if name != "quality"]
    seconds = lambda text: float(text.removesuffix("s"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=lambda text: text.split(","), default=usual, help=f"of {','.join(GROUPS)}")
    for name, kind, default in (("--threads", int, 1), ("--budget", seconds, 2.0), ("--rounds", int, 15)):
        parser.add_argument(name, type=kind, default=default, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--update-readme", action="store_true", help="rewrite the results in README.md")
    parser.add_argument("--cache-dir", help="keep the store here, not in an empty temporary directory")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no group {min(unknown)!r}; there are {', '.join(GROUPS)}")
    clean = {name: value for name, value in os.environ.items() if name not in UNSET}
    if len(clean) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], clean)
    sys.path.insert(0, str(ROOT))
    options.torch = find_spec("torch") is not None
    with tempfile.TemporaryDirectory() as empty:
        os.environ["AUTOTUNE_CACHE_DIR"] = options.cache_dir or empty
        return run(options)


if __name__ == "__main__":
    sys.exit(main())
