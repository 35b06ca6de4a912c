"""`torch.compile(model, backend="autotune")`: graphs of Dynamo go through AOTAutograd, forward and backward alike.

Knows Dynamo's and AOTAutograd's protocols and which decompositions are wanted. Must not know operations or kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd

from ...options import Options, resolve
from . import graphs

# Kept whole although torch would take them apart: there is a rule for each, or torch's own is better than its parts.
_WHOLE = (
    "_scaled_dot_product_flash_attention_for_cpu.default", "embedding_dense_backward.default", "mv.default",
    "dot.default", "silu.default", "square.default", "stack.default", "unbind.int", "tril.default", "triu.default",
    "roll.default", "var_mean.dim", "masked_fill.Scalar", "rsub.Scalar", "baddbmm.default", "addcmul.default",
    "lerp.Scalar", "squeeze.default", "squeeze.dim", "zeros_like.default",
)  # fmt: skip


@functools.cache
def decompositions() -> dict[Any, Any]:
    """Core ATen, but for what is kept whole."""
    table = dict(core_aten_decompositions())
    for name in _WHOLE:
        packet, _, overload = name.partition(".")
        table.pop(getattr(getattr(torch.ops.aten, packet), overload), None)
    return table


def backend(
    module: Any, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, mode: str | None = None
) -> Callable[..., Any]:
    """Compile a graph of Dynamo. `options`: those of `autotune.kernel`, as in options={"tune": "off", "threads": 1}.

    Threads, if not given here, in a context or in the environment, are torch's. Shapes are static: a graph with
    symbolic ones is compiled for each set of shapes that it is called with.
    """
    settings = _settings(options or {})
    if any(isinstance(x, torch.SymInt) or _symbolic(x) for x in inputs):
        return _Specialised(module, settings)
    return _compile(module, inputs, settings)


def _settings(given: Mapping[str, Any]) -> Options:
    settings = resolve(**given)
    return settings if settings.threads else resolve(**{**given, "threads": torch.get_num_threads()})


def _compile(module: Any, inputs: Sequence[Any], settings: Options) -> Callable[..., Any]:
    def compiler(title: str) -> Callable[..., graphs.Graph]:
        return lambda graph, _: graphs.compile_graph(graph, settings, title)

    made = aot_autograd(
        fw_compiler=compiler("forward graph"), bw_compiler=compiler("backward graph"),
        inference_compiler=compiler("graph"), decompositions=decompositions(),
    )  # fmt: skip
    return made(module, inputs)  # type: ignore[no-any-return]


def _symbolic(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not all(isinstance(n, int) for n in value.shape)


class _Specialised:
    """A graph with symbolic shapes: compiled for each set of shapes, strides and integers that a call has."""

    def __init__(self, module: Any, settings: Options) -> None:
        self._module, self._settings = module, settings
        self._made: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        key = tuple(
            (a.dtype, tuple(a.shape), a.stride(), a.requires_grad) if isinstance(a, torch.Tensor) else (type(a), a)
            for a in args
        )
        key = (*key, torch.is_grad_enabled())
        if key not in self._made:
            self._made[key] = _compile(self._module, args, self._settings)
        return self._made[key](*args)
