"""Blocks of networks as NumPy functions, and the same in torch: an encoder's and a ResNet's.

`python -m benchmarks.blocks NAME THREADS` prints the seconds of the first call in a new process, whose store is that of
AUTOTUNE_CACHE_DIR.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autotune import ops

Array = Any
HEADS = 12


def encoder(
    x: Array, wq: Array, wk: Array, wv: Array, wo: Array, bq: Array, bk: Array, bv: Array, bo: Array, u: Array,
    bu: Array, v: Array, bw: Array, g: Array, b: Array, h: Array, c: Array,
) -> Array:  # fmt: skip
    """An encoder block: (sequence, width) -> the same; weights are (inputs, outputs), norms come behind."""

    def heads(t: Array) -> Array:
        return t.reshape(1, len(x), HEADS, -1).transpose(0, 2, 1, 3)

    mixed = ops.attention(heads(x @ wq + bq), heads(x @ wk + bk), heads(x @ wv + bv))
    y = ops.layer_norm(x + mixed.transpose(0, 2, 1, 3).reshape(x.shape) @ wo + bo, g, b)
    return ops.layer_norm(y + ops.gelu(y @ u + bu) @ v + bw, h, c)


def residual(x: Array, first: Array, second: Array, *affine: Array) -> Array:
    """The basic block of a ResNet on (1, channels, height, width); `affine`: weight, bias, mean and variance of one
    norm, then of the other."""
    y = ops.relu(ops.batch_norm(ops.conv2d(x, first, pad=1), *affine[:4]))
    return ops.relu(ops.batch_norm(ops.conv2d(y, second, pad=1), *affine[4:]) + x)


def torch_encoder(turned: bool) -> Callable[..., Any]:
    """The same with torch's functions; `turned`: of weights (outputs, inputs), and those of q, k and v in one."""
    import torch

    f = torch.nn.functional

    def linear(x: Any, w: Any, b: Any) -> Any:
        return f.linear(x, w, b) if turned else torch.addmm(b, x, w)

    def block(x: Any, wqkv: Any, wo: Any, bqkv: Any, bo: Any, u: Any, bu: Any, v: Any, bw: Any, *norms: Any) -> Any:
        n, width = x.shape
        q, k, p = linear(x, wqkv, bqkv).view(1, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind()
        mixed = f.scaled_dot_product_attention(q, k, p).transpose(1, 2).reshape(n, width)
        y = f.layer_norm(x + linear(mixed, wo, bo), (width,), norms[0], norms[1])
        return f.layer_norm(y + linear(f.gelu(linear(y, u, bu)), v, bw), (width,), norms[2], norms[3])

    return block


def torch_encoder_arrays(arrays: tuple[Array, ...], turned: bool) -> list[Any]:
    """The tensors of `torch_encoder` from the arrays of `encoder`."""
    import torch

    x, wq, wk, wv, wo, bq, bk, bv, *rest = arrays
    given = [x, np.concatenate([wq, wk, wv], axis=1), wo, np.concatenate([bq, bk, bv]), *rest]
    tensors = [torch.from_numpy(a) for a in given]
    return [t.t().contiguous() if turned and t.ndim == 2 and t is not tensors[0] else t for t in tensors]


def torch_residual(x: Any, first: Any, second: Any, *affine: Any) -> Any:
    """The same with torch's functions."""
    import torch

    f = torch.nn.functional
    weight, bias, mean, var = affine[:4]
    y = torch.relu(f.batch_norm(f.conv2d(x, first, None, 1, 1), mean, var, weight, bias))
    weight, bias, mean, var = affine[4:]
    return torch.relu(f.batch_norm(f.conv2d(y, second, None, 1, 1), mean, var, weight, bias) + x)


def arrays(name: str) -> tuple[Array, ...]:
    """Inputs of a block, f32."""
    rng = np.random.default_rng(0)

    def f(*shape: int) -> Array:
        return (rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) == 2 else 1)).astype(np.float32)

    if name == "encoder":
        n, w, wide = 128, 384, 1536
        x = rng.standard_normal((n, w)).astype(np.float32)
        biases = [0.1 * f(w) for _ in range(4)]
        weights = [f(w, w) for _ in range(4)]
        return (x, *weights, *biases, f(w, wide), 0.1 * f(wide), f(wide, w), *(f(w) for _ in "abcde"))
    affine = [a for _ in "ab" for a in (f(64), f(64), f(64), np.abs(f(64)) + np.float32(0.5))]
    return (f(1, 64, 56, 56), *(f(64, 64, 3, 3) / np.float32(24) for _ in "ab"), *affine)


BLOCKS: dict[str, Callable[..., Array]] = {"encoder": encoder, "residual": residual}


def first_call(name: str, threads: int) -> float:
    """Seconds of the first call: tracing, planning, lookup, loading, running."""
    import autotune

    given = arrays(name)
    kernel = autotune.kernel(BLOCKS[name], threads=threads)
    start = time.perf_counter()
    kernel(*given)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(first_call(sys.argv[1], int(sys.argv[2])))
