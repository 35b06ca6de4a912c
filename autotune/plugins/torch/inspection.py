"""A model looked at while it runs: seconds of every kernel within its calls, what torch computes, the same by others.

Knows compiled graphs and prepared programs. Must not know how a report looks, but for boxes and arrows.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ...devices.records import median
from ...options import resolve
from ...page.graph import Edge, Node, draw
from ...page.launches import boxes, joints
from ...peers import paired, ratio, threads
from .backend import backend
from .compiled import KernelCall
from .graphs import MADE, PROFILE, Graph, Profile, short
from .translate import operation
from .views import MOVES

WARM, CALLS = 3, 15
Call = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """A part of a graph: seconds of each of its kernels, medians of `calls` calls of the model."""

    prepared: Any
    seconds: tuple[float, ...]
    calls: int


@dataclass
class Inspection:
    """What was seen. `ways`: median seconds, and how many times faster ours is, by name, "autotune" among them;
    `rest`: what is spent outside of kernels: title, count, seconds, reason."""

    parts: tuple[Part, ...]
    ways: dict[str, tuple[float, float]]
    rest: tuple[tuple[str, int, float, str], ...]
    notes: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    graphs: tuple[Graph, ...]

    def graph(self, names: Sequence[Sequence[str]], firsts: Sequence[int]) -> str:
        """SVG of all graphs; `names` of the kernels of each part, and the number of each part's first."""
        drawn = _Drawing({id(p.prepared): (p, n, first) for p, n, first in zip(self.parts, names, firsts)})
        for graph in self.graphs:
            drawn.add(graph)
        return draw(drawn.nodes, drawn.edges)


def ways(model: Any, inputs: Sequence[Any], names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Call]:
    """A call of the model by each of "autotune" (with these options of the backend), "eager", "inductor" and, where
    images come in, "channels last", which is eager too."""

    def ours(module: Any, given: Any) -> Any:
        return backend(module, given, options=options)

    def made(name: str) -> Call:
        if name == "autotune":
            return partial(torch.compile(model, backend=ours, dynamic=False), *inputs)
        if name == "inductor":
            return partial(torch.compile(copy.deepcopy(model), dynamic=False), *inputs)
        if name == "eager":
            return partial(model, *inputs)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return partial(last, *(x.contiguous(memory_format=torch.channels_last) for x in inputs))

    return {name: made(name) for name in names if name != "channels last" or inputs[0].ndim == 4}


def inspect(
    model: Any, *inputs: Any, options: Mapping[str, Any] | None = None, against: Sequence[str] = (),
    rounds: int = CALLS, progress: Callable[[str], object] = str,
) -> Inspection:  # fmt: skip
    """Compile the model, call it with these inputs, and time its kernels within the calls; then time the model beside
    others, in turn. A way that cannot be compiled here is named in `notes`. Gradients are off."""
    plain = getattr(model, "_orig_mod", model)
    graphs: list[Graph] = []
    notes: list[str] = []
    token = MADE.set(graphs)
    count = resolve(**(options or {})).threads or torch.get_num_threads()
    try:
        with torch.no_grad(), threads(count):
            calls = ways(plain, inputs, ("autotune", *against), options or {})
            for name, call in [*calls.items()]:
                progress(f"compiling with {name}" if name != "eager" else "calling eager")
                try:
                    call()
                except torch._dynamo.exc.BackendCompilerFailed as error:
                    if name == "autotune":
                        raise
                    notes.append(f"without {name}: {str(error).splitlines()[0]}")
                    del calls[name]
            parts = [call for graph in graphs for call in graph.kernels]
            progress(f"timing {sum(len(p.prepared.kernels) for p in parts)} kernels within {CALLS} calls")
            seconds, left, profile = _watched(calls["autotune"], parts)
            paired(calls, WARM, 0.0)
            samples = paired(calls, rounds, 0.0, 0.02 if count > 1 and len(calls) > 1 else 0.0)
    finally:
        MADE.reset(token)
    ours = samples["autotune"]
    known = {name: (median(row), ratio(row, ours)) for name, row in samples.items()}
    outside = [
        (name, profile.torch_calls[name, why] // CALLS, spent / CALLS, why or "torch computes it")
        for (name, why), spent in sorted(profile.torch_seconds.items(), key=lambda item: -item[1])
    ]
    left -= sum(row[2] for row in outside)
    if left > 0:
        outside.append(("Python", 1, left, "Dynamo's guards, allocation of results, calls of kernels"))
    found = tuple(Part(p.prepared, tuple(s), CALLS) for p, s in zip(parts, seconds))
    versions = (("torch", torch.__version__),)
    return Inspection(found, known, tuple(outside), tuple(notes), versions, tuple(graphs))


def _watched(call: Call, parts: Sequence[KernelCall]) -> tuple[list[list[float]], float, Profile]:
    """Median seconds of every kernel of every part in calls of the model, what is left of these calls, and, of as many
    others, what torch's operations take of that."""
    for part in parts:
        part.prepared.watch(True)
    rows: list[list[list[float]]] = []  # by call, part and kernel
    left: list[float] = []
    try:
        for _ in range(WARM + CALLS):
            start = time.perf_counter()
            call()
            whole = time.perf_counter() - start
            rows.append([part.prepared.launched() for part in parts])
            left.append(whole - sum(map(sum, rows[-1])))
    finally:
        for part in parts:
            part.prepared.watch(False)
    profile = Profile()
    token = PROFILE.set(profile)
    try:
        for _ in range(CALLS):
            call()
    finally:
        PROFILE.reset(token)
    seconds = [[median(each) for each in zip(*part)] for part in zip(*rows[WARM:])]
    return seconds, median(left[WARM:]), profile


class _Drawing:
    """Boxes and arrows of graphs: kernels, what torch runs between them, and what passes."""

    def __init__(self, known: Mapping[int, tuple[Part, Sequence[str], int]]) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self._known = known

    def add(self, graph: Graph) -> None:
        """Draw a graph; results of views and of `getitem` come from where their memory does."""
        made: dict[Any, Sequence[str | None]] = {}  # of each node, the box of each of its results
        for node in graph.module.graph.nodes:
            sources = [source for other in node.all_input_nodes for source in made.get(other, ()) if source]
            call = graph.module.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(call, KernelCall):
                made[node] = [*self._kernels(call, [next(iter(made.get(a, ())), None) for a in node.args])]
            elif node.op != "call_function":
                made[node] = ()
            elif operation(node) == "getitem":
                results = made.get(node.args[0], ())
                made[node] = [results[node.args[1] if len(results) > 1 else 0]] if results else ()
            elif operation(node) in MOVES:
                made[node] = sources[:1]
            else:
                key = f"torch {len(self.nodes)}"
                why = graph.reasons.get(node.name, "beside kernels")
                self.nodes.append(Node(key, (short(operation(node)), "by torch", why), kind="torch"))
                self.edges += [Edge(source, key) for source in dict.fromkeys(sources)]
                made[node] = (key,)

    def _kernels(self, call: KernelCall, given: Sequence[str | None]) -> Iterator[str]:
        part, names, first = self._known[id(call.prepared)]
        prepared, prefix = call.prepared, f"part {first}."
        self.nodes += boxes(prepared, names, part.seconds, prefix, first)
        self.edges += joints(prepared, prefix)
        arrays = {b.name: given[used] for b, used in zip(prepared.program.inputs, call.used)}
        for n, k in enumerate(prepared.kernels):
            feeding = dict.fromkeys(source for b in k.original.inputs if (source := arrays.get(b.name)))
            self.edges += [Edge(source, f"{prefix}{n}") for source in feeding]
        maker = {name: n for n, k in enumerate(prepared.kernels) for name in k.original.outputs}
        for place in call.places:
            yield f"{prefix}{maker[prepared.program.outputs[place]]}"
