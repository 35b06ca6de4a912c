"""Functions of tensors that a compiled graph must compute as torch does: name, function, and shapes of its inputs.

A shape may carry a type and a low and high bound: ("i64", (2, 3), 0, 5). Everything else is normal and of f32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
F = torch.nn.functional
Case = tuple[str, Callable[..., Any], tuple[Any, ...]]

V, M, P = (7,), (3, 5), ("f32", (3, 5), 0.1, 3.0)  # a vector, a matrix, a matrix of positive numbers
INTS, BITS = ("i64", (3, 5), -9, 9), ("bool", (3, 5), 0, 2)
IMAGE = (2, 4, 7, 6)

UNARY: list[Case] = [
    *((name, getattr(torch, name), (M,)) for name in (
        "neg", "abs", "sign", "square", "floor", "ceil", "trunc", "round", "exp", "exp2", "expm1", "sin", "cos", "tan",
        "sinh", "cosh", "tanh", "atan", "erf", "sigmoid", "relu", "isnan", "isinf", "isfinite", "logical_not", "frac",
        "logit", "positive",
    )),
    *((name, getattr(torch, name), (P,)) for name in (
        "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal",
    )),
    *((name, getattr(F, name), (M,)) for name in (
        "gelu", "silu", "elu", "selu", "celu", "leaky_relu", "hardtanh", "relu6", "hardswish", "hardsigmoid",
        "softplus", "softsign", "mish", "logsigmoid", "tanhshrink", "softshrink", "hardshrink",
    )),
    ("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), (M,)),
    ("threshold", lambda x: F.threshold(x, 0.1, -3.0), (M,)),
    ("pow 2", lambda x: x**2, (M,)), ("pow 3", lambda x: x**3, (M,)), ("pow -1", lambda x: x**-1, (P,)),
    ("pow 0.5", lambda x: x**0.5, (P,)), ("pow 1.7", lambda x: x**1.7, (P,)), ("2 to the", lambda x: 2.0**x, (M,)),
    ("clamp", lambda x: x.clamp(-0.5, 0.7), (M,)), ("clamp min", lambda x: x.clamp(min=0.1), (M,)),
    ("clamp max", lambda x: x.clamp(max=0.1), (M,)), ("to f64", lambda x: x.double() * 3, (M,)),
    ("to i32", lambda x: (x * 10).to(torch.int32) + 1, (M,)), ("to bool", lambda x: ~(x.round().bool()), (M,)),
    ("integers + float", lambda x: x + 1.5, (INTS,)), ("integers by number", lambda x: x // 4 + x % 4, (INTS,)),
    ("integers /", lambda x: x / 4, (INTS,)), ("bits", lambda x: (x & 5) ^ (x | 3), (INTS,)),
    ("not bits", lambda x: ~x, (INTS,)),
]  # fmt: skip

BINARY: list[Case] = [
    ("add", torch.add, (M, M)), ("add alpha", lambda a, b: torch.add(a, b, alpha=2.5), (M, M)),
    ("add row", torch.add, (M, (5,))), ("add column", torch.add, (M, (3, 1))), ("add number", lambda a: a + 2, (M,)),
    ("sub", torch.sub, (M, M)), ("rsub", lambda a: 3 - a, (M,)), ("mul", torch.mul, (M, M)), ("div", torch.div, (M, P)),
    ("div floor", lambda a, b: torch.div(a, b, rounding_mode="floor"), (M, P)),
    ("div trunc", lambda a, b: torch.div(a, b, rounding_mode="trunc"), (M, P)), ("remainder", torch.remainder, (M, P)),
    ("pow", torch.pow, (P, M)), ("maximum", torch.maximum, (M, M)), ("minimum", torch.minimum, (M, M)),
    ("fmax-like where", lambda a, b: torch.where(a > b, a, b), (M, M)),
    ("lerp", lambda a, b: torch.lerp(a, b, 0.3), (M, M)),
    ("addcmul", lambda a, b, c: torch.addcmul(a, b, c, value=0.5), (M, M, M)),
    ("addcdiv", lambda a, b, c: torch.addcdiv(a, b, c, value=0.5), (M, M, P)),
    ("mixed types", lambda a, b: a * b, (M, INTS)), ("mixed numbers", lambda a, b: a > b, (M, INTS)),
    ("compare", lambda a, b: (a < b) | (a >= b + 1) & (a != b), (M, M)), ("xor", torch.logical_xor, (BITS, BITS)),
    ("bool +", lambda a, b: a + b.to(torch.int64), (BITS, BITS)),
    ("masked_fill", lambda a, m: a.masked_fill(m, -7.0), (M, BITS)),
    ("mse", F.mse_loss, (M, M)), ("smooth l1", F.smooth_l1_loss, (M, M)),
    ("hypot-like", lambda a, b: (a * a + b * b).sqrt(), (P, P)),
]  # fmt: skip

MOVES: list[Case] = [
    ("reshape", lambda x: x.reshape(5, 3) + 1, (M,)), ("permute", lambda x: x.permute(2, 0, 1) * 2, ((2, 3, 4),)),
    ("transposed result", lambda x: (x * 2).t(), (M,)), ("expand", lambda x: x.expand(4, 3, 5) + 1, (M,)),
    ("expanded result", lambda x: (x + 1).expand(4, 3, 5), (M,)),
    ("squeeze", lambda x: (x * 2).squeeze(1), ((3, 1, 4),)),
    ("unsqueeze", lambda x: (x * 2).unsqueeze(1), (M,)), ("select", lambda x: x[1] + x[-1], (M,)),
    ("slice", lambda x: x[:, 1:4:2] * 3, (M,)), ("narrow", lambda x: x.narrow(1, 2, 2) * 3, (M,)),
    ("split", lambda x: torch.relu(x.split(2, 1)[1]) + 1, (M,)), ("chunk", lambda x: sum(x.chunk(2, 1)), ((3, 6),)),
    ("unbind", lambda x: x.unbind(0)[0] * x.unbind(0)[2], (M,)),
    ("cat", lambda a, b: torch.cat([a, b * 2], 1), (M, (3, 2))),
    ("stack", lambda a, b: torch.stack([a, b * 2], 1), (M, M)), ("flip", lambda x: x.flip(1) + x, (M,)),
    ("roll", lambda x: x.roll(2, 1) + x, (M,)), ("repeat", lambda x: x.repeat(2, 3) + 1, (M,)),
    ("pad", lambda x: F.pad(x, (1, 2, 0, 1), value=0.5) + 1, (M,)), ("crop", lambda x: F.pad(x, (-1, 1)) + 1, (M,)),
    ("tril", lambda x: torch.tril(x) + 1, (M,)), ("triu", lambda x: torch.triu(x, 1) + 1, (M,)),
    ("diagonal", lambda x: x.diagonal() * 2, (M,)), ("arange", lambda x: x + torch.arange(5), (M,)),
    ("zeros_like", lambda x: torch.zeros_like(x) + x, (M,)), ("full", lambda x: torch.full((3, 5), 2.0) * x, (M,)),
    ("embedding", F.embedding, (("i64", (2, 3), 0, 6), (6, 4))),
    ("index", lambda x, i: x[i] * 2, (M, ("i64", (4,), -3, 3))),
    ("index two", lambda x, i, j: x[i, j] * 2, (M, ("i64", (4,), 0, 3), ("i64", (4,), 0, 5))),
    ("index_select", lambda x, i: torch.index_select(x, 1, i) * 2, (M, ("i64", (4,), 0, 5))),
    ("gather", lambda x, i: torch.gather(x, 1, i) * 2, (M, ("i64", (3, 2), 0, 5))),
    ("pixel shuffle", lambda x: F.pixel_shuffle(x, 2) * 2, ((2, 4, 3, 3),)),
    ("nearest", lambda x: F.interpolate(x, scale_factor=2) * 2, ((1, 2, 3, 4),)),
    ("meshed", lambda x: x[:, None] * x[None, :], (V,)),
    ("masked mean", lambda x, m: (x * m).sum(1) / m.sum(1).clamp(min=1), (M, BITS)),
]  # fmt: skip


def _along(name: str, dim: int, **options: Any) -> Callable[..., Any]:
    return lambda x: getattr(torch, name)(x, dim, **options)


def _trained_norm(x: Any, m: Any, v: Any, w: Any, b: Any) -> Any:
    """Running mean and variance change, and are results."""
    mean, var = m.detach().clone(), v.detach().clone()
    return F.batch_norm(x, mean, var, w, b, True, 0.3), mean, var


REDUCTIONS: list[Case] = [
    *((f"{name} all", getattr(torch, name), (M,)) for name in (
        "sum", "mean", "prod", "amax", "var", "std", "argmax", "max",
    )),
    *((f"{name} row", _along(name, 1), (M,)) for name in (
        "sum", "mean", "prod", "amax", "amin", "argmin", "logsumexp", "cumsum", "cumprod", "softmax", "log_softmax",
    )),
    *((f"{name} kept", _along(name, 0, keepdim=True), (M,)) for name in ("sum", "var", "argmax")),
    ("any", lambda x: (x > 1).any(1), (M,)), ("all", lambda x: (x > -1).all(), (M,)),
    ("max dim", lambda x: x.max(1), (M,)),
    ("min dim", lambda x: x.min(0), (M,)), ("two axes", lambda x: x.sum((0, 2)), ((2, 3, 4),)),
    ("var_mean", lambda x: torch.var_mean(x, 1, correction=0), (M,)), ("norm", lambda x: x.norm(dim=1), (M,)),
    ("normalize", lambda x: F.normalize(x, dim=1), (M,)), ("count", lambda x: (x > 0).sum(1), (M,)),
    ("cosine", F.cosine_similarity, (M, M)), ("sum of integers", lambda x: x.sum(0), (INTS,)),
    ("layer_norm", lambda x, w, b: F.layer_norm(x, (5,), w, b), (M, (5,), (5,))),
    ("layer_norm plain", lambda x: F.layer_norm(x, (3, 5)), ((2, 3, 5),)),
    ("rms_norm", lambda x, w: F.rms_norm(x, (5,), w), (M, (5,))),
    ("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGE, (4,), (4,))),
   
    ("batch_norm", lambda x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach(), w, b),
     (IMAGE, (4,), ("f32", (4,), 0.5, 2.0), (4,), (4,))),
    ("batch_norm trained", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (IMAGE, (4,), (4,))),
    ("batch_norm statistics", _trained_norm, (IMAGE, (4,), ("f32", (4,), 0.5, 2.0), (4,), (4,))),
    ("instance_norm", F.instance_norm, (IMAGE,)),
]  # fmt: skip

PRODUCTS: list[Case] = [
    ("mm", torch.mm, (M, (5, 4))), ("bmm", torch.bmm, ((2, 3, 5), (2, 5, 4))),
    ("matmul", torch.matmul, ((2, 3, 5), (5, 4))),
    ("mv", torch.mv, (M, (5,))), ("dot", torch.dot, (V, V)), ("outer", torch.outer, (V, (3,))),
    ("addmm", torch.addmm, ((4,), M, (5, 4))), ("baddbmm", torch.baddbmm, ((2, 3, 4), (2, 3, 5), (2, 5, 4))),
    ("addmm scaled", lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), ((4,), M, (5, 4))),
    ("linear", F.linear, ((2, 3, 5), (4, 5), (4,))), ("transposed", lambda a, b: a.t() @ b.t(), ((5, 3), (4, 5))),
    ("einsum", lambda a, b: torch.einsum("bij,bkj->bik", a, b), ((2, 3, 5), (2, 4, 5))),
    ("conv2d", F.conv2d, (IMAGE, (3, 4, 3, 3), (3,))), ("conv2d 1x1", F.conv2d, (IMAGE, (3, 4, 1, 1))),
    ("conv2d strided", lambda x, w: F.conv2d(x, w, None, 2, 1), (IMAGE, (3, 4, 3, 3))),
    ("conv2d dilated", lambda x, w: F.conv2d(x, w, None, 1, 2, 2), (IMAGE, (3, 4, 3, 2))),
    ("conv2d groups", lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 2), (IMAGE, (6, 2, 3, 3))),
    ("conv2d depthwise", lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 4), (IMAGE, (4, 1, 3, 3))),
    ("conv1d", lambda x, w, b: F.conv1d(x, w, b, 2, 1), ((2, 3, 9), (4, 3, 3), (4,))),
    ("conv_transpose2d", lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1), ((1, 3, 4, 3), (3, 2, 3, 3))),
    ("max_pool2d", lambda x: F.max_pool2d(x, 2), (IMAGE,)),
    ("max_pool2d padded", lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGE,)),
    ("avg_pool2d", lambda x: F.avg_pool2d(x, 2), (IMAGE,)),
    ("avg_pool2d uncounted", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), (IMAGE,)),
    ("adaptive pool", lambda x: F.adaptive_avg_pool2d(x, 1), (IMAGE,)),
    ("adaptive pool 2", lambda x: F.adaptive_avg_pool2d(x, (7, 3)), (IMAGE,)),
    ("attention", F.scaled_dot_product_attention, ((2, 2, 5, 4),) * 3),
    ("attention causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), ((1, 2, 5, 4),) * 3),
   
    ("attention masked", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
     (*((2, 2, 5, 4),) * 3, ("bool", (2, 1, 5, 5), 0, 2))),
   
    ("attention biased", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=0.3),
     (*((2, 2, 5, 4),) * 3, (5, 5))),
    ("cross_entropy", F.cross_entropy, (M, ("i64", (3,), 0, 5))),
    ("bce", F.binary_cross_entropy_with_logits, (M, ("f32", (3, 5), 0.0, 1.0))),
]  # fmt: skip
CASES = UNARY + BINARY + MOVES + REDUCTIONS + PRODUCTS


def tensors(shapes: tuple[Any, ...], seed: int = 0) -> list[Any]:
    """Inputs of a case."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for shape in shapes:
        if shape and isinstance(shape[0], str):
            name, shape, low, high = shape
            if name == "f32":
                made.append(torch.rand(shape, generator=generator) * (high - low) + low)
            else:
                value = torch.randint(int(low), int(high), shape, generator=generator)
                made.append(value.bool() if name == "bool" else value)
        else:
            made.append(torch.randn(shape, generator=generator))
    return made
