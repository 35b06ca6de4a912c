"""A part of an FX graph as a plain function of arrays, by one table from ATen names to rules.

Knows FX graphs and the tables. Must not know how graphs are cut into parts, or what runs the function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...ir.errors import AutotuneError
from ...tracer import called
from . import elementwise, products, reductions, views
from .site import Array, Refused, Rule, Site, own_dtype

if TYPE_CHECKING:
    from .compiled import Layout

_np: Any = np
RULES: dict[str, Rule] = {**elementwise.RULES, **views.RULES, **reductions.RULES, **products.RULES}
_SPACES = ("aten", "prims")


class RefusedNode(Refused):
    """Nodes that are torch's, by name."""

    def __init__(self, names: Sequence[str], reason: str) -> None:
        super().__init__(f"{', '.join(names)}: {reason}")
        self.names, self.reason = tuple(names), reason


def operation(node: Any) -> str:
    """The table's name of what a node calls: "addmm.default"; with its space where that is not ATen's."""
    if node.target is operator.getitem:
        return "getitem"
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", str(node.target))
    space, _, name = str(node.target).partition(".")
    return name if space in _SPACES else f"{space}::{name}"


def refusal(node: Any) -> str:
    """Why the node cannot be translated, by what is known without trying; "" if nothing speaks against it."""
    if node.op != "call_function":
        return f"is a {node.op}"
    name = operation(node)
    if name != "getitem" and name not in RULES:
        return "no rule"
    for each in (node, *node.all_input_nodes):
        for value in _used(each):
            if problem := _unusable(value):
                return problem
    return ""


def _used(node: Any) -> Iterator[Any]:
    """The metadata of the results of a node that something reads."""
    value = node.meta.get("val")
    if not isinstance(value, (tuple, list)):
        yield value
    elif all(user.target is operator.getitem for user in node.users):
        yield from (value[n] for n in sorted({user.args[1] for user in node.users}))
    else:
        yield from value


def _unusable(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "its value is no tensor"
    if value.device.type != "cpu":
        return f"is on {value.device}"
    if value.layout is not torch.strided or type(value) not in _PLAIN:
        return f"is a {value.layout} {type(value).__name__}"
    if not all(isinstance(n, int) for n in (*value.shape, *value.stride())):
        return "its shape is not known"
    if value.is_neg() or value.is_conj():
        return "is a lazy negative or conjugate"
    if 0 in value.shape:
        return "is empty"
    try:
        _ = own_dtype(value.dtype).numpy
    except AutotuneError as error:
        return str(error)
    return ""


_PLAIN = (torch.Tensor, torch.nn.Parameter, torch._subclasses.FakeTensor)


def function_of(graph: Any, layouts: tuple[Layout, ...]) -> Callable[..., tuple[Array, ...]]:
    """The function of arrays that a graph is: its outputs, as `layouts` wants them in memory, then one array of no
    dimension: whether any place was outside of its array. That one is missing where no operation has places.

    Raises RefusedNode, naming the node, where there is no rule for what a node asks.
    """

    def run(*arrays: Array) -> tuple[Array, ...]:
        inputs, wrong = iter(arrays), list[Array]()
        known: dict[Any, Any] = {}

        def read(value: Any) -> Any:
            return torch.fx.map_arg(value, known.__getitem__)

        for node in graph.nodes:
            if node.op == "placeholder":
                known[node] = next(inputs)
            elif node.op == "output":
                given = node.args[0] if isinstance(node.args[0], (tuple, list)) else [node.args[0]]
                results = [layout.stored(known[each]) for layout, each in zip(layouts, given)]
                return (*results, *_any(wrong))
            else:
                site = Site(node, node.meta["val"], arrays[0], wrong)
                known[node] = _translated(site, read(node.args), read(node.kwargs))
        raise Refused("a graph without an output")

    return run


def _any(conditions: list[Array]) -> list[Array]:
    total = None
    for each in conditions:
        found = _np.any(each)
        total = found if total is None else total | found
    return [] if total is None else [total]


def _translated(site: Site, args: Any, kwargs: Any) -> Any:
    node, name = site.node, operation(site.node)
    if name == "getitem":
        value = args[0][args[1]]
        if value is None:
            raise RefusedNode([node.args[0].name], f"no rule for its result {args[1]}")
    else:
        try:
            with called(site.like, name):
                value = RULES[name](site, *args, **kwargs)
        except Exception as error:  # whatever a rule cannot do is torch's, under the name of the node
            raise RefusedNode([node.name], f"{type(error).__name__}: {error}" if not isinstance(error, Refused)
                              else str(error)) from error  # fmt: skip
    if isinstance(value, tuple):
        return value
    if tuple(value.shape) != site.shape or value.dtype != site.dtype:
        both = f"the rule gives {value.dtype}{tuple(value.shape)}, torch {site.dtype}{site.shape}"
        raise RefusedNode([node.name], both)
    return value
