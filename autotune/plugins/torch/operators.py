"""An `@autotune.kernel` as an operator of torch, so that compiled models may contain it.

Knows `torch.library` and that a kernel can be traced without values. Must not know graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ...ir.errors import UsageError
from ...tracer import Spec, trace
from .site import own_dtype

_TYPES = {float: "float", int: "int", bool: "bool", str: "str"}


def custom_op(name: str, kernel: Callable[..., Any], *, results: int = 1) -> Any:
    """Register a kernel of arrays as the operator `name`, such as "mylib::dense", by `torch.library.custom_op`.

    Parameters are tensors, unless their default is a number, truth value or string; those are static. `results`: how
    many tensors the kernel returns. Gradients, if wanted, are added with `register_autograd` of what is returned.
    Raises UsageError for parameters that an operator cannot have.
    """
    function = getattr(kernel, "__wrapped__", kernel)
    parameters = [_parameter(p) for p in inspect.signature(function).parameters.values()]
    returned = ", ".join(["Tensor"] * results)
    schema = f"({', '.join(parameters)}) -> {returned if results == 1 else f'({returned})'}"

    def run(*args: Any, **keywords: Any) -> Any:
        result = kernel(*(a.detach() if isinstance(a, torch.Tensor) else a for a in args), **keywords)
        return result if results == 1 else tuple(result)

    def fake(*args: Any, **keywords: Any) -> Any:
        """The same result without values, from a trace."""
        specs = [Spec(own_dtype(a.dtype), tuple(map(int, a.shape))) if isinstance(a, torch.Tensor) else a for a in args]
        traced = trace(function, specs, keywords, name)
        made = {b.name: b for b in traced.program.buffers}
        device = next(a for a in args if isinstance(a, torch.Tensor)).device
        outputs = [
            torch.empty(made[o].shape, dtype=getattr(torch, made[o].dtype.numpy.name), device=device)
            for o in traced.program.outputs
        ]
        result = traced.rebuild(outputs)
        return result if results == 1 else tuple(result)

    made = torch.library.custom_op(name, run, mutates_args=(), schema=schema)
    made.register_fake(fake)
    return made


def _parameter(parameter: inspect.Parameter) -> str:
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        raise UsageError(f"custom_op: parameter {parameter} is neither a tensor nor has a default")
    if parameter.default is parameter.empty:
        return f"Tensor {parameter.name}"
    if type(parameter.default) not in _TYPES:
        raise UsageError(f"custom_op: the default of {parameter} is no number, truth value or string")
    default = f'"{parameter.default}"' if isinstance(parameter.default, str) else repr(parameter.default)
    return f"{_TYPES[type(parameter.default)]} {parameter.name}={default}"
