"""Named operations: plain NumPy functions, on arrays as when traced, and the parameters of their cases in a sweep.

`basic` has what works on elements, matrices and rows, `layers` those of networks, `sweeps` what a sweep may ask for.
"""

from .basic import (
    ACTIVATIONS,
    REDUCTIONS,
    argmax,
    argmin,
    bmm,
    cast,
    concat,
    cumsum,
    elementwise,
    erf,
    gather,
    gelu,
    gemm,
    gemv,
    layer_norm,
    linear,
    log_softmax,
    logsumexp,
    pad,
    reduce,
    relu,
    rms_norm,
    sigmoid,
    silu,
    softmax,
    transpose,
)
from .layers import (
    attention,
    batch_norm,
    conv2d,
    conv_transpose2d,
    cross_entropy,
    embedding,
    group_norm,
    pool2d,
    rope,
    swiglu,
)
from .sweeps import OPS, REQUIRED, OpDef

__all__ = [
    "ACTIVATIONS", "OPS", "OpDef", "REDUCTIONS", "REQUIRED", "argmax", "argmin", "attention", "batch_norm", "bmm",
    "cast", "concat", "conv2d", "conv_transpose2d", "cross_entropy", "cumsum", "elementwise", "embedding", "erf",
    "gather", "gelu", "gemm", "gemv", "group_norm", "layer_norm", "linear", "log_softmax", "logsumexp", "pad", "pool2d",
    "reduce", "relu", "rms_norm", "rope", "sigmoid", "silu", "softmax", "swiglu", "transpose",
]  # fmt: skip
