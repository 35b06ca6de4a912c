"""Layers on the CPU beside torch, each side in its best layout: paired, interleaved rounds, medians and minima.

`python benchmarks/layers.py [--groups conv,attention] [--threads N] [--json F]` tunes each case with an empty store of
its own and compares its result with torch's. "torch" is the faster of eager and, with `--compile`, torch.compile.
Exits with 1 where a result is wrong, never because of a time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # change what is compared
Array = Any
Call = Callable[[], object]
Layer = Callable[..., Any]

# input channels, height, width, output channels, kernel, stride
CONVOLUTIONS = (
    (64, 56, 56, 64, 3, 1), (128, 28, 28, 128, 3, 1), (256, 14, 14, 256, 3, 1), (512, 7, 7, 512, 3, 1),
    (64, 56, 56, 128, 3, 2), (256, 56, 56, 64, 1, 1), (512, 28, 28, 128, 1, 1), (3, 224, 224, 64, 7, 2),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One comparison: a group, a name, our function, its inputs, and torch's calls on the same numbers. `bare`: what
    of ours to time beside, on the first inputs."""

    group: str
    name: str
    function: Callable[..., Array]
    inputs: tuple[Array, ...]
    peers: Mapping[str, Call]
    bare: Callable[..., Array] | None = None


@dataclass(frozen=True)
class Row:
    """Medians, minima, and the median of the rounds' ratios to the fastest peer; above 1 we are faster. `bare`: that
    ratio to our own function without what is fused. `kernels`: how many of them run."""

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


def cases(compile: bool) -> Iterator[Case]:
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
        if compile:
            calls["torch.compile"] = partial(torch.compile(theirs), *tensors)
        return Case(group, name, ours, inputs, calls | peers, bare)

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
    yield case("block", "residual, 64x56x56", partial(residual, ops.conv2d, ops.batch_norm, ops.relu),
               partial(residual, F.conv2d, normed, torch.relu), x, *(f(64, 64, 3, 3) for _ in "ab"),
               *ones, f(64), f(64), f(64), abs(f(64)) + 1, last=True)  # fmt: skip
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
        yield Case("transpose", "x".join(map(str, shape)), partial(np.transpose, axes=perm), (x,), {"torch": copy})
    x = f(1024, 1024)
    for axis in (0, 1):
        yield case("softmax", f"1024x1024 axis {axis}", partial(ops.softmax, axis=axis),
                   partial(torch.softmax, dim=axis), x)  # fmt: skip
    x = f(64, 128, 256)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        yield case("reduce", f"64x128x256 over {axes}", partial(np.sum, axis=axes), partial(torch.sum, dim=axes), x,
                   numpy=partial(np.sum, x, axis=axes))  # fmt: skip
    for n in (512, 1000):
        a, b = rng.standard_normal((n, n)), rng.standard_normal((n, n))
        yield Case("types", f"f64 {n}", np.matmul, (a, b), {"numpy": partial(np.matmul, a, b, out=np.empty((n, n)))})


def residual(conv: Layer, norm: Layer, relu: Layer, x: Array, first: Array, second: Array, *affine: Array) -> Array:
    """The basic block of a ResNet; `affine`: weight, bias, mean and variance of one norm, then of the other."""
    y = relu(norm(conv(x, first, None, 1, 1), *affine[:4]))
    return relu(norm(conv(y, second, None, 1, 1), *affine[4:]) + x)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", default="", help="only these, a,b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of tuning a case (3)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--json", type=Path)
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
    return int(not all(r.right for r in rows))


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
        for c in cases(given.compile):
            if wanted and c.group not in wanted:
                continue
            kernel = autotune.kernel(c.function, threads=given.threads)
            kernel.tune(*c.inputs, budget=given.budget)
            out = kernel(*c.inputs)
            peer = next(iter(c.peers.values()))()
            want = np.asarray(peer)
            right = bool(np.abs(np.asarray(out) - want).max() <= 1e-3 * max(1.0, float(np.abs(want).max())))
            calls: dict[str, Call] = {"ours": partial(kernel, *c.inputs, out=out), **c.peers}
            if c.bare:
                alone = autotune.kernel(c.bare, threads=given.threads)
                alone.tune(*c.inputs[:2], budget=given.budget)
                calls["bare"] = partial(alone, *c.inputs[:2], out=alone(*c.inputs[:2]))
            times = paired(calls, given.rounds)
            medians = {name: median(t) for name, t in times.items()}
            against = min(c.peers, key=medians.__getitem__)
            row = Row(c.group, c.name, medians["ours"], min(times["ours"]),
                      {name: t for name, t in medians.items() if name != "ours"},
                      ratio(times[against], times["ours"]), against, right,
                      kernel.explain(*c.inputs).count("\nkernel "),
                      ratio(times["bare"], times["ours"]) if c.bare else None)  # fmt: skip
            more = f"  {row.bare:.2f}x bare" if row.bare else ""
            more += f", {row.kernels} kernels" + ("" if right else "  WRONG")
            print(f"{row.group:10s} {row.name:34s} {1e3 * row.seconds:8.3f} ms (least {1e3 * row.minimum:.3f})  "
                  f"{row.ratio:5.2f}x {against}{more}", flush=True)  # fmt: skip
            yield row


if __name__ == "__main__":
    sys.exit(main())
