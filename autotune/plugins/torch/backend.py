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

from ...options import resolve
from . import graphs, kept
from .symbolic import Specialised, is_symbolic

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

    Threads, if not given here, in a context or in the environment, are torch's. Kernels are static: a graph with
    symbolic sizes is compiled for each set of sizes that it is called with. `mode` means nothing here.
    """
    settings = resolve(**(options or {}))
    if not settings.threads:
        settings = resolve(**{**(options or {}), "threads": torch.get_num_threads()})

    name = kept.name_of(module, inputs, settings)
    if name is not None and (found := kept.get(name, module, settings)) is not None:
        return kept.call_of(found)

    parameters = [n for n, value in enumerate(inputs) if graphs.is_parameter(value)]

    def compiled(title: str, graph: Any, _: Any, constants: Sequence[int] = ()) -> Callable[..., Any]:
        if is_symbolic(graph):
            return Specialised(graph, lambda g: graphs.compile_graph(g, settings, title, constants), title)
        return graphs.compile_graph(graph, settings, title, constants)

    def inference(graph: Any, given: Sequence[Any]) -> Callable[..., Any]:
        same = len(given) == len(inputs) and next(module.parameters(), None) is None
        made = compiled("graph", graph, given, parameters if same else ())
        if name is not None and same and isinstance(made, graphs.Graph) and kept.quiet():
            kept.put(name, module, made, settings)
        return made

    made = aot_autograd(
        fw_compiler=functools.partial(compiled, "forward graph"), inference_compiler=inference,
        bw_compiler=functools.partial(compiled, "backward graph"), decompositions=decompositions(),
    )  # fmt: skip
    return made(module, inputs)  # type: ignore[no-any-return]
