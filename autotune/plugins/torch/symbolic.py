"""A graph with symbolic sizes as a family of static ones, each made when a call first needs it.

Knows FX graphs, fake tensors and symbolic numbers. Must not know operations or kernels.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from .graphs import FallbackWarning, Graph

_ALIVE: weakref.WeakSet[Specialised] = weakref.WeakSet()
LIMIT = 64  # static graphs of one symbolic graph; what a call needs beyond them is computed by torch
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_UNKNOWN = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


def is_symbolic(module: Any) -> bool:
    """Whether any value of the graph has a size, stride or number that is not known."""
    found = (value for node in module.graph.nodes for value in _leaves(node.meta.get("val")))
    return any(
        isinstance(v, _SYMBOLS)
        or isinstance(v, torch.Tensor)
        and v.layout is torch.strided
        and not all(isinstance(n, int) for n in (*v.shape, *v.stride()))
        for v in found
    )


def _leaves(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)


class Specialised:
    """Answers each call by the static graph for its sizes, strides and numbers. Called as a Graph is."""

    def __init__(self, module: Any, compiler: Callable[[Any], Graph], title: str) -> None:
        self._boxed_call = True
        self._module, self._compiler, self._title = module, compiler, title
        self._made: dict[Any, Graph] = {}
        self._torchs: Graph | None = None
        _ALIVE.add(self)

    def __call__(self, args: list[Any]) -> Any:
        key = tuple(
            (a.dtype, a.device, tuple(a.shape), a.stride()) if isinstance(a, torch.Tensor) else (type(a), a)
            for a in args
        )
        graph = self._made.get(key)
        if graph is None:
            if len(self._made) >= LIMIT:  # not remembered: there may be any number of these
                return self._by_torch(f"it was called with more than {LIMIT} sets of sizes")(args)
            graph = self._made[key] = self._make(args)
        return graph(args)

    def __str__(self) -> str:
        """What was made of it so far, and for which inputs that are not the same in all of its calls."""
        rows = [[str(part[2]) if len(part) == 4 else str(part[1]) for part in key] for key in self._made]
        varying = [n for n in range(len(rows[0])) if len({row[n] for row in rows}) > 1] if rows else []
        sets = "; ".join(" ".join(row[n] for n in varying) for row in rows) if varying else "always the same"
        by = ", the rest by torch" if self._torchs is not None else ""
        return f"{self._title}: {len(rows)} of at most {LIMIT} sets of sizes compiled{by}: {sets}"

    def _make(self, args: Sequence[Any]) -> Graph:
        try:
            return self._compiler(_static(self._module, args))
        except _UNKNOWN as error:
            return self._by_torch(f"sizes or numbers in it are data: {str(error).splitlines()[0]}")

    def _by_torch(self, reason: str) -> Graph:
        if self._torchs is None:
            warnings.warn(f"autotune: torch runs the {self._title}: {reason}", FallbackWarning, stacklevel=3)
            self._torchs = Graph(self._module, {n.name: reason for n in self._module.graph.nodes}, self._title)
        return self._torchs


def sizes() -> list[str]:
    """A line for each graph with symbolic sizes in this process: how many sets of sizes it was compiled for, and
    which."""
    return sorted(map(str, _ALIVE))


def _static(module: Any, args: Sequence[Any]) -> Any:
    """The graph for these inputs: numbers are constants in it, and the metadata of every node is static."""
    graph, mode = torch.fx.Graph(), FakeTensorMode()
    given, nodes, values = iter(args), dict[Any, Any](), dict[Any, Any]()
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output(torch.fx.map_arg(node.args[0], nodes.__getitem__))
            continue
        if node.op == "placeholder":
            value = next(given)
            value = mode.from_tensor(value, static_shapes=True) if isinstance(value, torch.Tensor) else value
            made = graph.node_copy(node)
        else:
            made = graph.node_copy(node, nodes.__getitem__) if node.op == "get_attr" else None
            value = _evaluated(module, node, values, mode)
        if isinstance(value, (int, float, bool)):
            nodes[node] = value  # a placeholder of that place stays, and nothing reads it
        else:
            nodes[node] = made or graph.create_node(
                node.op, node.target, *torch.fx.map_arg((node.args, node.kwargs), nodes.__getitem__), node.name
            )
            nodes[node].meta = {**node.meta, "val": value}
        values[node] = value
    return torch.fx.GraphModule(module, graph)


def _evaluated(module: Any, node: Any, values: dict[Any, Any], mode: Any) -> Any:
    if node.op == "get_attr":
        value = module
        for part in node.target.split("."):
            value = getattr(value, part)
        return mode.from_tensor(value, static_shapes=True) if isinstance(value, torch.Tensor) else value
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
    with mode:
        return node.target(*args, **kwargs)
