"""A graph of ATen operations cut into parts that kernels compute and the rest, which torch runs.

Knows FX passes and how a part becomes a prepared kernel. What an operation means is in the tables; how a call is made,
in `compiled`.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from ...ir.errors import AutotuneError
from ...options import Options
from ...session import Said, session
from ...signature import array_kind
from ...tracer import Spec, trace
from .compiled import KernelCall, Layout
from .site import own_dtype
from .translate import RefusedNode, function_of, operation, refusal
from .views import MOVES


class FallbackWarning(UserWarning):
    """Some operations of a compiled model run in torch; the text names them and says why."""


@dataclass
class Profile:
    """Where the time of compiled graphs goes while it is collected: by (operation, reason), or by kernel."""

    torch_seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    torch_calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    kernel_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    kernel_operations: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        for counter in (self.torch_seconds, self.torch_calls, self.kernel_seconds, self.kernel_operations):
            counter.clear()


PROFILE: ContextVar[Profile | None] = ContextVar("autotune_torch_profile", default=None)
MADE: ContextVar[list[Graph] | None] = ContextVar("autotune_torch_made", default=None)  # collects where it is set


class Graph:
    """A compiled graph: takes the list of its inputs, as AOTAutograd's boxed calls do, and returns the outputs."""

    def __init__(self, module: Any, reasons: Mapping[str, str], title: str) -> None:
        self._boxed_call = True  # of the object, for wrappers copy what an object has
        self.module, self.reasons, self.title = module, dict(reasons), title
        self._forward = module.forward
        if (collected := MADE.get()) is not None:
            collected.append(self)

    @property
    def kernels(self) -> list[KernelCall]:
        """The parts that kernels compute, in the order in which they run."""
        called = (n.target for n in self.module.graph.nodes if n.op == "call_module")
        return [part for name in called if isinstance(part := self.module.get_submodule(name), KernelCall)]

    def __call__(self, args: list[Any]) -> Any:
        given = tuple(args)
        args.clear()
        profile = PROFILE.get()
        if profile is not None:
            return _Timed(self, profile).run(*given)
        return self._forward(*given)


class _Timed(torch.fx.Interpreter):  # type: ignore[misc]
    def __init__(self, graph: Graph, profile: Profile) -> None:
        super().__init__(graph.module)
        self._reasons, self._profile = graph.reasons, profile

    def run_node(self, n: Any) -> Any:
        start = time.perf_counter()
        result = super().run_node(n)
        seconds = time.perf_counter() - start
        if n.op == "call_module" and isinstance(call := self.fetch_attr(n.target), KernelCall):
            self._profile.kernel_seconds[call.title] += seconds
            self._profile.kernel_operations.update(call.operations)
        elif n.op in ("call_function", "call_module") and (name := _called(n)) != "getitem":
            key = name, self._reasons.get(n.name, "")
            self._profile.torch_seconds[key] += seconds
            self._profile.torch_calls[key] += 1
        return result


def _called(node: Any) -> str:
    return operation(node) if node.op == "call_function" else str(node.target)


class _Support(OperatorSupportBase):  # type: ignore[misc]
    def __init__(self, reasons: dict[str, str]) -> None:
        self._reasons = reasons

    def is_node_supported(self, submodules: Any, node: Any) -> bool:
        if node.op != "call_function":
            return False
        if node.name not in self._reasons:
            reason = refusal(node)
            if not reason and operation(node) == "getitem":
                reason = self._reasons.get(node.args[0].name, "")
            if not reason:
                return True
            self._reasons[node.name] = reason
        return False


def compile_graph(module: Any, options: Options, title: str, constants: Collection[int] = ()) -> Graph:
    """Cut, translate and prepare; a node that turns out to be refused is left to torch, and the graph is cut anew.
    `constants`: the places of inputs that are parameters, of which kernels may keep panels."""
    module, views = _views_apart(module)
    given = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    kept = frozenset(given[n] for n in constants)
    reasons = dict.fromkeys(views, "a view that is a result")
    while True:
        try:
            made = _cut(module, options, title, reasons, kept)
            break
        except RefusedNode as error:
            if not set(error.names) - reasons.keys():
                raise AssertionError(f"{error} was refused before") from error
            reasons |= dict.fromkeys(error.names, error.reason)
    graph = Graph(made, reasons, title)
    told(graph)
    return graph


def _views_apart(module: Any) -> tuple[Any, list[str]]:
    """The graph with results that are views of an input, or of what other results are views of too, made again at its
    end, and the names of these nodes: torch makes them, so that they share memory as they do in torch."""
    copy = _copied(module)
    output = next(n for n in reversed(copy.graph.nodes) if n.op == "output")
    results = [n for n in output.args[0] if isinstance(n, torch.fx.Node)]
    bases = {n: _base(n) for n in results}
    owned = Counter(bases.values())
    again: dict[Any, Any] = {}

    def rebuilt(node: Any) -> Any:
        if node is _base(node):
            return node
        if node not in again:
            rebuilt(node.args[0])
            with copy.graph.inserting_before(output):
                again[node] = copy.graph.node_copy(node, lambda n: again.get(n, n))
        return again[node]

    for node in results:
        if bases[node] is not node and (bases[node].op == "placeholder" or owned[bases[node]] > 1):
            output.replace_input_with(node, rebuilt(node))
    copy.graph.eliminate_dead_code()
    copy.recompile()
    return copy, [n.name for n in again.values()]


def _base(node: Any) -> Any:
    """What the memory of a node's value belongs to."""
    while _is_view(node):
        node = node.args[0]
    return node


def _is_view(node: Any) -> bool:
    """Whether the node's value, or its values, lie in the memory of its first argument."""
    if operation(node) == "getitem":
        return _is_view(node.args[0])
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    schema = node.target._schema
    return bool(schema.arguments) and schema.arguments[0].alias_info is not None and not schema.is_mutable


def _cut(module: Any, options: Options, title: str, reasons: dict[str, str], kept: Collection[str]) -> Any:
    copy = _copied(module)
    partitioner = CapabilityBasedPartitioner(copy, _Support(reasons), allows_single_node_partition=True)
    parts = [p for p in partitioner.propose_partitions() if any(operation(n) not in MOVES for n in p.nodes)]
    fused = partitioner.fuse_partitions(parts, prefix="autotune_")
    called = {n.target: n.args for n in fused.graph.nodes if n.op == "call_module"}
    for n, (name, part) in enumerate([*fused.named_children()]):
        if name.startswith("autotune_"):
            constants = [place for place, node in enumerate(called[name]) if node.name in kept]
            fused.set_submodule(name, _kernel(part, options, f"{title}, kernel {n}", constants))
    fused.recompile()
    return fused


def _copied(module: Any) -> Any:
    """The same nodes, names and metadata, to be changed."""
    graph = torch.fx.Graph()
    seen: dict[Any, Any] = {}
    for node in module.graph.nodes:
        seen[node] = graph.node_copy(node, seen.__getitem__)
    return torch.fx.GraphModule(module, graph)


def _kernel(part: Any, options: Options, title: str, constants: Collection[int]) -> KernelCall:
    nodes = list(part.graph.nodes)
    inputs = [Layout.of(n.meta["val"]) for n in nodes if n.op == "placeholder"]
    if not inputs:
        raise RefusedNode([n.name for n in nodes if n.op == "call_function"], "nothing but constants")
    given = nodes[-1].args[0]
    given = given if isinstance(given, (tuple, list)) else [given]
    outputs = [Layout.of(n.meta["val"]) for n in given]
    specs = [Spec(own_dtype(layout.dtype), layout.shape, layout.strides) for layout in inputs]
    operations = [operation(n) for n in nodes if n.op == "call_function" and operation(n) != "getitem"]
    try:
        traced = trace(function_of(part.graph, tuple(outputs)), specs, name=title)
        buffers = [
            replace(buffer, strides=array_kind(specs[source[1]], title).strides(buffer.name))
            for buffer, source in zip(traced.program.inputs, traced.arguments)
        ]
        names = [b.name for b, source in zip(buffers, traced.arguments) if source[1] in constants]
        program = replace(traced.program, inputs=tuple(buffers))
        prepared = session().prepare(program, options, Said(title, _said(traced.operations)), names)
    except RefusedNode:
        raise
    except AutotuneError as error:
        names = [n.name for n in nodes if n.op == "call_function"]
        raise RefusedNode(names, f"a kernel with it could not be made: {error}") from error
    places = [child[1] for child in traced.result[2]]
    checked = len(places) > len(outputs)
    used = [source[1] for source in traced.arguments]
    return KernelCall(title, prepared, inputs, used, outputs, places, checked, operations, part)


def short(name: str) -> str:
    """An operation as people call it: "add" for "add.Tensor"."""
    return name.partition(".")[0]


def _said(operations: Mapping[str, Sequence[tuple[int, str]]]) -> dict[str, list[tuple[int, str]]]:
    """For people: without what only moves elements, where there is anything else."""
    found = {}
    for compute, calls in operations.items():
        found[compute] = [(n, short(name)) for n, name in calls if name not in MOVES] or [
            (n, short(name)) for n, name in calls
        ]
    return found


def is_parameter(value: Any) -> bool:
    """Whether an input is expected to stay what it is from call to call."""
    return isinstance(value, torch.nn.Parameter)


def told(graph: Graph) -> None:
    """Name what torch computes, but for what only moves elements."""
    found: Counter[str] = Counter()
    for node in graph.module.graph.nodes:
        if node.op == "call_function" and (name := operation(node)) not in MOVES:
            found[f"{name} ({graph.reasons.get(node.name) or 'beside kernels'})"] += 1
    if found:
        each = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in sorted(found.items()))
        warnings.warn(f"autotune: in the {graph.title}, torch runs {each}", FallbackWarning, stacklevel=2)
