"""Compiled graphs of inference, kept beside their machine code: a later process finds them by Dynamo's graph.

What is found spares AOTAutograd, translation and planning; what Dynamo does comes before and remains. Kept are graphs
that depend on torch and this package alone, and around which AOTAutograd has nothing to do when they are called. Knows
FX graphs as rows of a table; must not know operations or kernels.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.precompile_context import BackendCacheArtifact, PrecompileContext

from ...codegen.build import versions
from ...ir.program import from_json, to_json
from ...options import Options
from ...session import Said, session
from .compiled import KernelCall, Layout
from .graphs import Graph, is_parameter, told

_SPACES = ("aten", "prims")
_PLAIN = (int, float, bool, str, type(None))
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, torch._subclasses.FakeTensor)
_LAYOUTS = ("inputs", "outputs")
_GETITEM = "getitem"
_QUIET = ("num_mutated_inp_runtime_indices", "num_outputs_aliased", "num_intermediate_bases")


class _Unkept(Exception):
    """Something in a graph has no name that another process would understand."""


# ---- names ----------------------------------------------------------------------------------------------------------


def name_of(module: Any, inputs: Sequence[Any], options: Options) -> str | None:
    """A digest of Dynamo's graph and of all that its compilation depends on; None where that cannot be told."""
    if torch.is_autocast_enabled("cpu") or next(module.parameters(), None) is not None:
        return None
    try:
        rows = [*map(_row, module.graph.nodes), *map(_input, inputs)]
    except _Unkept:
        return None
    used = replace(options, debug=0, graph=None, budget=None, trials=None, name=None, study=None)
    rows += [repr(used), session().spec(options).digest, repr(sorted(versions().items())), _sources(), repr(_state())]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _row(node: Any) -> str:
    if node.op in ("get_attr", "call_module"):
        raise _Unkept
    target = _function(node.target) if node.op == "call_function" else node.target
    return f"{node.name} {node.op} {target} {_text(node.args)} {_text(node.kwargs)}"


def _function(target: Any) -> str:
    """The name of a function of torch's or Python's own; its meaning goes with the version."""
    if isinstance(target, torch._ops.OpOverload):
        if target.namespace not in _SPACES:
            raise _Unkept
        return str(target)
    module, name = getattr(target, "__module__", None) or "torch", getattr(target, "__qualname__", "<locals>")
    if module.partition(".")[0] not in ("torch", "_operator", "math", "builtins") or "<locals>" in name:
        raise _Unkept
    return f"{module}.{name}"


def _text(value: Any) -> str:
    """Raises _Unkept for a value that does not say all of itself."""
    if isinstance(value, torch.fx.Node):
        return f"%{value.name}"
    if isinstance(value, (tuple, list)):
        return f"{'(' if isinstance(value, tuple) else '['}{', '.join(map(_text, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in sorted(value.items()))}}}"
    if isinstance(value, slice):
        return f"slice{_text((value.start, value.stop, value.step))}"
    if type(value) in (*_PLAIN, *_NAMED, complex, type(Ellipsis)):
        return repr(value)
    raise _Unkept


def _input(value: Any) -> str:
    if type(value) not in _TENSORS or value.layout is not torch.strided:
        raise _Unkept
    if not all(isinstance(n, int) for n in (*value.shape, *value.stride(), value.storage_offset())):
        raise _Unkept
    more = value.requires_grad, value.is_conj(), value.is_neg(), value.storage_offset(), is_parameter(value)
    return f"{value.dtype} {value.device} {tuple(value.shape)} {tuple(value.stride())} {more}"


def _state() -> tuple[Any, ...]:
    """What decides beside the graph how torch takes operations apart."""
    attention = torch.backends.cuda
    return (
        torch.__version__, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled,
        attention.flash_sdp_enabled(), attention.mem_efficient_sdp_enabled(), attention.math_sdp_enabled(),
    )  # fmt: skip


@functools.cache
def _sources() -> str:
    """A digest of what translates and records: this plugin, the tracer and the named operations."""
    here = Path(__file__).parent
    files = [f for d in (here, here.parents[1], here.parents[1] / "ops") for f in sorted(d.glob("*.py"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


# ---- rows -----------------------------------------------------------------------------------------------------------


def quiet() -> bool:
    """Whether AOTAutograd, compiling at the moment, has nothing to do around a call: no input changes, no result is a
    view of an input or of another one."""
    context = torch._guards.TracingContext.try_get()
    found = getattr(context, "fw_metadata", None)
    return all(getattr(found, name, None) == 0 for name in _QUIET) and not getattr(found, "tokens", True)


def put(name: str, module: Any, graph: Graph, options: Options) -> None:
    """Keep what a graph of Dynamo's was compiled to, unless it holds something that cannot be kept."""
    try:
        rows = _rows(graph.module.graph)
        kernels = {n: _kernel_state(k) for n, k in graph.module.named_children() if isinstance(k, KernelCall)}
    except _Unkept:
        return
    content = json.dumps([rows, kernels, graph.reasons, graph.title])
    session().objects(options).put(name, content.encode())
    _record(module, content, options)


def get(name: str, module: Any, options: Options) -> Graph | None:
    """What was kept for a graph of Dynamo's, ready to be called."""
    content = session().objects(options).get(name)
    if content is None:
        return None
    _record(module, content.decode(), options)
    return restored(content.decode(), options)


def call_of(graph: Graph) -> Callable[..., Any]:
    """The graph as Dynamo calls it: tensors in, no gradients recorded."""

    def call(*args: Any) -> Any:
        with torch.no_grad():
            return graph([*args])

    return torch._dynamo.disable(call, reason="a compiled graph")  # type: ignore[no-any-return]


def restored(content: str, options: Options) -> Graph:
    """The graph that `put` wrote: its programs are proved already, and linked anew."""
    rows, kernels, reasons, title = json.loads(content)
    root = torch.nn.Module()
    for n, state in kernels.items():
        root.add_module(n, _kernel(state, options))
    graph = Graph(_module(root, rows), reasons, title)
    told(graph)
    return graph


def _rows(graph: Any) -> list[list[Any]]:
    """Every node as kind, name, target and arguments, in JSON."""
    rows = []
    for node in graph.nodes:
        target = node.target
        if node.op == "get_attr" or node.op == "call_function" and not _kept_call(target):
            raise _Unkept
        name = _GETITEM if target is operator.getitem else str(target)
        rows.append([node.op, node.name, name, _written(node.args), _written(node.kwargs)])
    return rows


def _kept_call(target: Any) -> bool:
    return target is operator.getitem or isinstance(target, torch._ops.OpOverload) and target.namespace in _SPACES


def _written(value: Any) -> Any:
    """An argument in JSON: what JSON has no form for as a pair of kind and content."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.fx.Node):
        return ["node", value.name]
    if isinstance(value, (tuple, list)):
        return ["tuple" if isinstance(value, tuple) else "list", [*map(_written, value)]]
    if isinstance(value, dict):
        return ["dict", [[key, _written(item)] for key, item in value.items()]]
    if isinstance(value, slice):
        return ["slice", [*map(_written, (value.start, value.stop, value.step))]]
    if isinstance(value, _NAMED):
        return ["device" if isinstance(value, torch.device) else "torch", str(value).removeprefix("torch.")]
    raise _Unkept


def _read(value: Any, nodes: Mapping[str, Any]) -> Any:
    """What `_written` wrote."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "node":
        return nodes[content]
    if kind in ("torch", "device"):
        return torch.device(content) if kind == "device" else getattr(torch, content)
    if kind == "dict":
        return {key: _read(item, nodes) for key, item in content}
    items = [_read(item, nodes) for item in content]
    return slice(*items) if kind == "slice" else tuple(items) if kind == "tuple" else items


def _module(root: Any, rows: Sequence[Sequence[Any]]) -> Any:
    graph, nodes = torch.fx.Graph(), dict[str, Any]()
    for op, name, target, args, kwargs in rows:
        called = _called(target) if op == "call_function" else target
        nodes[name] = graph.create_node(op, called, _read(args, nodes), _read(kwargs, nodes), name)
    return torch.fx.GraphModule(root, graph)


def _called(name: str) -> Any:
    return operator.getitem if name == _GETITEM else functools.reduce(getattr, name.split("."), torch.ops)


def _kernel_state(call: KernelCall) -> dict[str, Any]:
    state = call.state()
    layouts = {n: [[str(v.dtype).removeprefix("torch."), v.shape, v.strides] for v in state[n]] for n in _LAYOUTS}
    prepared, original = state["prepared"], _rows(state["original"].graph)
    constants = [name for name, _ in prepared.widths]
    about = [to_json(prepared.program), constants, asdict(prepared.said)]
    return {**state, **layouts, "prepared": about, "original": original}


def _kernel(state: Mapping[str, Any], options: Options) -> KernelCall:
    program, constants, said = state["prepared"]
    operations = {compute: [(n, name) for n, name in calls] for compute, calls in said["operations"].items()}
    prepared = session().prepare(from_json(program), options, Said(said["title"], operations), constants)
    layouts = {n: [Layout(getattr(torch, d), tuple(e), tuple(s)) for d, e, s in state[n]] for n in _LAYOUTS}
    return KernelCall(**{**state, **layouts, "prepared": prepared, "original": _Later(state["original"])})


class _Later:
    """A graph of torch's operations, made of its rows when it is first called."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = rows

    @functools.cached_property
    def _made(self) -> Any:
        return _module(torch.nn.Module(), self._rows)

    def __call__(self, *args: Any) -> Any:
        return self._made(*args)


# ---- torch's own packages -------------------------------------------------------------------------------------------


@dataclass
class Artifact(BackendCacheArtifact[Callable[..., Any]]):  # type: ignore[misc]
    """A kept graph inside a package of Dynamo's (`TORCH_CACHING_PRECOMPILE=1`): `content` is what `put` returned, its
    options, and a digest of the sources that wrote it."""

    def after_deserialization(self) -> Callable[..., Any]:
        content, options, sources = self.content
        if sources != _sources():
            raise RuntimeError("autotune: the package was written by another version; it is compiled again")
        return call_of(restored(content, Options(**options)))


def _record(module: Any, content: str, options: Options) -> None:
    """Hand a kept graph to the package that Dynamo makes of this compilation, if it makes one."""
    if (name := getattr(module, "_backend_id", None)) is not None:
        PrecompileContext.record_artifact(Artifact(name, (content, asdict(options), _sources())))
