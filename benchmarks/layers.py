"""Layers on the CPU beside torch, each side in its best layout: paired, interleaved rounds, medians and minima.

`python -m benchmarks.layers [--groups conv,attention] [--threads N] [--compile] [--json F] [--markdown F]` tunes each
case, the store empty at first, and compares its result with that of the first peer. "torch" is the faster of eager and,
with `--compile`, torch.compile. Of blocks it says how long tuning took, how long the first call takes in a new process,
and what Inductor launches. Exits with 1 where a result is wrong, never because of a time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import blocks

ROOT = Path(__file__).resolve().parent.parent
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # change what is compared
Array = Any
Call = Callable[[], object]

# input channels, height, width, output channels, kernel, stride
CONVOLUTIONS = (
    (64, 56, 56, 64, 3, 1), (128, 28, 28, 128, 3, 1), (256, 14, 14, 256, 3, 1), (512, 7, 7, 512, 3, 1),
    (64, 56, 56, 128, 3, 2), (256, 56, 56, 64, 1, 1), (512, 28, 28, 128, 1, 1), (3, 224, 224, 64, 7, 2),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One comparison: a group, a name, our function, its inputs, and torch's calls on the same numbers. `bare`: a
    function of ours and its inputs to time beside. `compiled`: calls torch.compile's function and counts launches."""

    group: str
    name: str
    function: Callable[..., Array]
    inputs: tuple[Array, ...]
    peers: Mapping[str, Call]
    bare: tuple[Callable[..., Array], tuple[Array, ...]] | None = None
    compiled: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Row:
    """Medians, minima, and the median of the rounds' ratios to the fastest peer; above 1 we are faster. `bare`: that
    ratio to our own function without what is fused. `kernels`: how many of them run; `launches`: how many of Inductor's
    do, `first`: seconds of the first call of a new process (both of blocks only)."""

    group: str
    name: str
    seconds: float
    minimum: float
    peers: dict[str, float]
    ratio: float
    against: str
    right: bool
    kernels: int
    bare: float | None
    tuning: float = math.nan
    first: float | None = None
    launches: int | None = None


def cases(given: argparse.Namespace) -> Iterator[Case]:
    import numpy as np
    import torch

    from autotune import ops

    rng, F = np.random.default_rng(0), torch.nn.functional

    def f(*shape: int) -> Array:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def case(
        group: str, name: str, ours: Callable[..., Array], theirs: Callable[..., Any], *inputs: Array,
        last: bool = False, bare: Callable[..., Array] | None = None, **peers: Call,
    ) -> Case:  # fmt: skip
        tensors = [torch.from_numpy(x) for x in inputs]
        calls: dict[str, Call] = {"torch": partial(theirs, *tensors)}
        if last:  # torch's other layout
            turned = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
            calls["torch, channels last"] = partial(theirs, *turned)
        if given.compile:
            torch._dynamo.reset()  # it stops to compile where it has seen too many of a kind
            calls["torch.compile"] = partial(torch.compile(theirs), *tensors)
        return Case(group, name, ours, inputs, calls | peers, (bare, inputs[:2]) if bare else None)

    for ci, h, w, co, k, s in CONVOLUTIONS:
        ours, theirs = partial(ops.conv2d, stride=s, pad=k // 2), partial(F.conv2d, stride=s, padding=k // 2)
        name = f"{ci}x{h}x{w} -> {co}, {k}x{k} / {s}"
        yield case("conv", name, ours, theirs, f(1, ci, h, w), f(co, ci, k, k), last=True)
    for c, h in ((64, 56), (512, 14)):
        ours, theirs = partial(ops.conv2d, pad=1, groups=c), partial(F.conv2d, padding=1, groups=c)
        yield case("depthwise", f"{c}x{h}x{h}", ours, theirs, f(1, c, h, h), f(c, 1, 3, 3), last=True)
    for ci, h, w, co, k, s in (CONVOLUTIONS[0], CONVOLUTIONS[5]):
        bare = partial(ops.conv2d, stride=s, pad=k // 2)
        yield case("fused", f"{ci}x{h}x{w} -> {co}, {k}x{k}, bias, relu",
                   lambda x, w, b, bare=bare: ops.relu(bare(x, w, b)),
                   lambda x, w, b, s=s, p=k // 2: torch.relu(F.conv2d(x, w, b, s, p)),
                   f(1, ci, h, w), f(co, ci, k, k), f(co), last=True, bare=bare)  # fmt: skip
    x, ones = f(1, 64, 56, 56), (f(64), f(64), f(64), abs(f(64)) + 1)

    def normed(x: Array, weight: Array, bias: Array, mean: Array, var: Array) -> Array:
        return F.batch_norm(x, mean, var, weight, bias)

    yield case("norm", "group_norm 64x56x56, 8", partial(ops.group_norm, groups=8),
               lambda x, w, b: F.group_norm(x, 8, w, b), x, *ones[:2], last=True)  # fmt: skip
    yield case("norm", "batch_norm, relu 64x56x56", lambda *a: ops.relu(ops.batch_norm(*a)),
               lambda *a: torch.relu(normed(*a)), x, *ones, last=True)  # fmt: skip
    yield case("pool", "max 3x3 / 2, 64x112x112", partial(ops.pool2d, size=3, stride=2, pad=1),
               partial(F.max_pool2d, kernel_size=3, stride=2, padding=1), f(1, 64, 112, 112), last=True)  # fmt: skip
    arrays = blocks.arrays("residual")
    tensors = [torch.from_numpy(a) for a in arrays]
    yield replace(
        case("block", "residual", blocks.residual, blocks.torch_residual, *arrays, last=True),
        compiled=partial(launched, torch.compile(blocks.torch_residual), *tensors),
    )
    yield encoder(given.compile)
    sdpa = F.scaled_dot_product_attention
    for heads, n, d, causal in ((12, 384, 64, False), (8, 1024, 64, False), (8, 1024, 64, True)):
        name = f"{heads}x{n}x{d}{', causal' if causal else ''}"
        ours, theirs = partial(ops.attention, causal=causal), partial(sdpa, is_causal=causal)
        yield case("attention", name, ours, theirs, *(f(1, heads, n, d) for _ in "qkv"))
    inputs = f(1, 32, 1, 128), f(1, 32, 2048, 128), f(1, 32, 2048, 128)
    yield case("attention", "decode 32x1x2048x128", ops.attention, sdpa, *inputs)
    for shape, perm in (((512, 512), (1, 0)), ((2000, 2000), (1, 0)), ((2048, 2048), (1, 0)),
                        ((8, 128, 64, 64), (0, 2, 1, 3))):  # fmt: skip
        x = f(*shape)
        out = torch.empty([shape[d] for d in perm])
        copy = partial(out.copy_, torch.from_numpy(x).permute(perm))
        yield Case("transpose", "x".join(map(str, shape)), partial(np.transpose, axes=perm), (x,), {"torch": copy},
                   bare=(np.negative, (x,)))  # fmt: skip
    x = f(1024, 1024)
    for axis in (0, 1):
        yield case("softmax", f"1024x1024 axis {axis}", partial(ops.softmax, axis=axis),
                   partial(torch.softmax, dim=axis), x)  # fmt: skip
    x = f(64, 128, 256)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        yield case("reduce", f"64x128x256 over {axes}", partial(np.sum, axis=axes), partial(torch.sum, dim=axes), x,
                   numpy=partial(np.sum, x, axis=axes))  # fmt: skip
    yield from narrow()
    for n in (512, 1000):
        a, b = rng.standard_normal((n, n)), rng.standard_normal((n, n))
        yield Case("types", f"f64 {n}", np.matmul, (a, b), {"numpy": partial(np.matmul, a, b, out=np.empty((n, n)))})


def encoder(compile: bool) -> Case:
    import torch

    given = blocks.arrays("encoder")
    peers: dict[str, Call] = {}
    for name, turned in (("torch", False), ("torch, linear", True)):
        theirs, tensors = blocks.torch_encoder(turned), blocks.torch_encoder_arrays(given, turned)
        peers[name] = partial(theirs, *tensors)
        if compile:
            peers[name.replace("torch", "torch.compile")] = partial(torch.compile(theirs), *tensors)
    compiled = partial(launched, torch.compile(theirs), *tensors)
    return Case("block", "encoder", blocks.encoder, given, peers, compiled=compiled)


def narrow() -> Iterator[Case]:
    """Products of narrow numbers: 16-bit floats, and integers of 8 bits beside f32."""
    import ml_dtypes
    import numpy as np
    import torch

    rng = np.random.default_rng(1)
    for name, kind, theirs in (
        ("bf16", ml_dtypes.bfloat16, torch.bfloat16), ("f16", np.float16, torch.float16),
    ):  # fmt: skip
        a, b = (rng.standard_normal(s).astype(kind) for s in ((128, 768), (768, 768)))
        x, y = (torch.from_numpy(n.view(np.int16)).view(theirs) for n in (a, b))
        turned = y.t().contiguous().t()
        yield Case("types", f"{name} 128x768x768", np.matmul, (a, b),
                   {"torch": partial(torch.matmul, x, y), "turned": partial(torch.matmul, x, turned)})  # fmt: skip
    a, b = (rng.integers(-128, 128, (512, 512)).astype(np.int8) for _ in "ab")
    single = tuple(n.astype(np.float32) for n in (a, b))
    yield Case("types", "int8 512", partial(np.einsum, "ik,kj->ij", dtype=np.int32), (a, b),
               {"numpy of f32": partial(np.matmul, *single, out=np.empty((512, 512), np.float32))},
               bare=(np.matmul, single))  # fmt: skip


def launched(compiled: Callable[..., Any], *tensors: Any) -> int:
    """How many kernels, its own and others', Inductor's code calls."""
    from torch._inductor.utils import run_and_get_code

    _, (code, *_) = run_and_get_code(compiled, *tensors)
    body = code[code.index("def call(") :].partition("\n\n\n")[0]
    call = r"^\s+(?:cpp_fused|extern_kernels\.|\w+ = (?:extern_kernels|torch\.ops)\.)"
    return len(re.findall(call, body, re.MULTILINE))


def tolerance(*arrays: Array) -> float:
    """What may differ of the greatest element: peers round otherwise, and sums of 16-bit numbers at the end."""
    return 1e-3 if min(a.dtype.itemsize for a in arrays) > 2 else 1e-2


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", default="", help="only these, a,b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of tuning a case (3)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the table, as it is in docs/layers.md")
    given = parser.parse_args()
    for name in UNSET:
        if name in os.environ:
            print(f"{name} is set: it changes what is compared; unset it for this command", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOTUNE_CACHE_DIR"] = folder
        rows = list(run(given))
    for group in dict.fromkeys(r.group for r in rows):
        mean = math.exp(sum(math.log(r.ratio) for r in rows if r.group == group) / sum(r.group == group for r in rows))
        print(f"{group}: geometric mean {mean:.2f}, least {min(r.ratio for r in rows if r.group == group):.2f}")
    if given.json:
        given.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text("\n".join(table(rows)) + "\n", encoding="utf-8")
    return int(not all(r.right for r in rows))


def table(rows: list[Row]) -> Iterator[str]:
    yield "| case | ours, ms | least | ratio | to | kernels |\n|---|---|---|---|---|---|"
    for r in rows:
        launched = f" (Inductor {r.launches})" if r.launches else ""
        times = f"{1e3 * r.seconds:.3f} | {1e3 * r.minimum:.3f} | {r.ratio:.2f}"
        yield f"| {r.group} {r.name} | {times} | {r.against} | {r.kernels}{launched} |"


def run(given: argparse.Namespace) -> Iterator[Row]:
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    import autotune
    from autotune.devices.records import median
    from autotune.peers import paired, ratio

    torch.set_num_threads(given.threads)
    wanted = [g for g in given.groups.split(",") if g]
    with torch.no_grad(), threadpool_limits(given.threads):
        for c in cases(given):
            if wanted and c.group not in wanted:
                continue
            kernel, start = autotune.kernel(c.function, threads=given.threads), time.perf_counter()
            kernel.tune(*c.inputs, budget=given.budget if c.group != "block" else max(given.budget, 25.0))
            tuning = time.perf_counter() - start
            out = kernel(*c.inputs)
            peer: Any = next(iter(c.peers.values()))()
            want = peer if isinstance(peer, np.ndarray) else peer.double().numpy()
            far = np.abs(np.asarray(out, np.float64) - want).max() / max(1.0, np.abs(want).max())
            right = bool(far <= tolerance(out, *c.inputs))
            calls: dict[str, Call] = {"ours": partial(kernel, *c.inputs, out=out), **c.peers}
            if c.bare:
                alone, inputs = autotune.kernel(c.bare[0], threads=given.threads), c.bare[1]
                alone.tune(*inputs, budget=given.budget)
                calls["bare"] = partial(alone, *inputs, out=alone(*inputs))
            times = paired(calls, given.rounds, rest=0.02 if given.threads > 1 else 0.0)
            medians = {name: median(t) for name, t in times.items()}
            against = min(c.peers, key=medians.__getitem__)
            row = Row(c.group, c.name, medians["ours"], min(times["ours"]),
                      {name: t for name, t in medians.items() if name != "ours"},
                      ratio(times[against], times["ours"]), against, right,
                      kernel.explain(*c.inputs).count("\nkernel "),
                      ratio(times["bare"], times["ours"]) if c.bare else None, tuning)  # fmt: skip
            if c.compiled:
                words = [sys.executable, "-m", "benchmarks.blocks", c.name, str(given.threads)]
                first = min(float(subprocess.check_output(words, cwd=ROOT)) for _ in range(3))
                row = replace(row, first=first, launches=c.compiled())
            more = f"  {row.bare:.2f}x bare" if row.bare else ""
            more += f", {row.kernels} kernels" + ("" if right else "  WRONG")
            if row.first:
                more += f", Inductor {row.launches}; tuned in {tuning:.1f} s, first call {1e3 * row.first:.0f} ms"
            print(f"{row.group:10s} {row.name:34s} {1e3 * row.seconds:8.3f} ms (least {1e3 * row.minimum:.3f})  "
                  f"{row.ratio:5.2f}x {against}{more}", flush=True)  # fmt: skip
            yield row


if __name__ == "__main__":
    sys.exit(main())
