"""`autotune.kernel`: a function that answers a call by the kernel prepared for it.

Knows signatures, plans (one a signature and set of options) and how a result is put together; asks the tracer for the
program, the session for a prepared kernel, and teaches the native call path every new form of call. Must not know how a
kernel is chosen, built or measured.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import tracing_rules as _tracing_rules  # noqa: F401  imported with the package, not in the first call
from .cache.objects import ObjectCache
from .codegen.launch import Array, ArrayGuard, Form, Launch, StaticGuard, Table, aligned_empty
from .codegen.runtime import runtime
from .codegen.trampoline import fast_type
from .ir.errors import BuildError, SignatureError
from .options import CONTEXT, Options, resolve
from .session import Prepared, Said, session
from .signature import (
    ArrayKind,
    Call,
    any_leaf,
    array_kind,
    current,
    from_tensor,
    is_tensor,
    is_tracer,
    locate,
    map_leaves,
    read_call,
    to_tensor,
    wants_gradient,
)
from .tracer import Traced, trace

GRADIENTS: list[Callable[[Any, Any, Any], Any]] = []  # who computes them, once it is imported: kernel, args, kwargs


@dataclass(frozen=True)
class TuningResult:
    """What tuning found. Seconds are medians of one call; `winner` is "tuned" or "default".

    `choice`: the schedule and where it came from; `rejections`: candidates by reason; `history`: one row a trial.
    """

    seconds: float
    default_seconds: float
    trials: int
    elapsed: float
    winner: str
    choice: Any
    rejections: Mapping[str, int] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1, default=str) + "\n", "utf-8")


@dataclass(eq=False)
class _Plan:
    """How calls of one signature under one set of options are answered; where `launch` is None, by NumPy."""

    options: Options
    traced: Traced | None = None
    prepared: Prepared | None = None
    launch: Launch | None = None
    captured: dict[int, tuple[Array, Any, ArrayKind]] = field(default_factory=dict)
    forms: dict[Any, Form] = field(default_factory=dict)

    def valid(self) -> bool:
        """Are the captured arrays still of the kinds that the plan was made for?"""
        now = [(current(place, array), kind) for array, place, kind in self.captured.values()]
        return all(isinstance(a, np.ndarray) and array_kind(a, "a captured array") == kind for a, kind in now)

    @property
    def flat(self) -> bool:
        """Is the result one array, or a tuple of the outputs in order?"""
        result = self.traced.result if self.traced else ()
        order = tuple(("output", i) for i in range(len(self.launch.outputs if self.launch else ())))
        return result == ("output", 0) or result == ("sequence", tuple, order)


class Kernel:
    """A function compiled for each kind of arguments. Make one with `autotune.kernel`."""

    def __init__(
        self, fn: Callable[..., Any], options: Mapping[str, Any] | None = None, owner: Any = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._options, self._session = fn, dict(options or {}), owner
        self._name = str(self._options.get("name") or getattr(fn, "__name__", type(fn).__name__))
        self._plans: dict[Any, _Plan] = {}
        self._table: Table | None = None
        self._lock = threading.RLock()
        _kernels.add(self)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return _answer(self, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<autotune.kernel {self._name}>"

    def __reduce__(self) -> str:
        return str(getattr(self, "__qualname__", self._name))  # like a function: by name; copies are the kernel itself

    def tune(
        self, /, *args: Any, budget: float | None = None, trials: int | None = None, **kwargs: Any
    ) -> TuningResult:
        """Search for a faster kernel for arguments like these, arrays or Specs, within `budget` seconds or `trials`
        candidates; the winner is stored, and calls of this signature run it from now on."""
        plan = self._planned(args, kwargs)
        if plan.prepared is None:
            raise SignatureError(f"{self._name}: nothing to tune, for an array of these arguments or results is empty")
        result: TuningResult = plan.prepared.tune(budget=budget, trials=trials)
        self._renew(plan)
        return result

    def explain(self, /, *args: Any, **kwargs: Any) -> str:
        """The kernel for arguments like these: schedule, exact counts, predicted and measured time, % of roofline."""
        plan = self._planned(args, kwargs)
        return plan.prepared.explain() if plan.prepared else f"{self._name}: something is empty; NumPy computes it"

    def source(self, /, *args: Any, target: str = "llvm", **kwargs: Any) -> str:
        """The text of the kernel for arguments like these: target "llvm", "cuda", "hip" or "opencl"."""
        plan = self._planned(args, kwargs)
        return plan.prepared.source(target) if plan.prepared else ""

    def _planned(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Plan:
        args, kwargs = map_leaves(from_tensor, (args, dict(kwargs)))
        return self._plan(read_call(args, kwargs), resolve(**self._options))

    def _plan(self, call: Call, options: Options) -> _Plan:
        key = call.key, options
        plan = self._plans.get(key)
        if plan is None or not plan.valid():
            with self._lock:
                plan = self._plans.get(key)
                if plan is None or not plan.valid():
                    plan = self._plans[key] = self._make(call, options)
        return plan

    def _make(self, call: Call, options: Options) -> _Plan:
        """Trace, prepare, and say how to launch. Empty arrays are NumPy's business: nothing is to be gained on them."""
        if any(array.size == 0 for array in call.arrays.values()):
            return _Plan(options)
        traced = trace(self._fn, call.args, call.kwargs, self._name)
        program = traced.program
        if any(compute.points == 0 for compute in program.computes):
            return _Plan(options)
        plan = _Plan(options, traced)
        kinds = []
        for i, source in enumerate(traced.arguments):
            if source[0] == "hidden":
                kind = array_kind(source[1], f"an array that {self._name} captured")
                plan.captured[i] = (source[1], locate(self._fn, source[1]), kind)
            else:
                kind = array_kind(call.arrays[source[1], source[2]], str(source[1]))
            kinds.append(kind)
        inputs = tuple(replace(b, strides=kind.strides(b.name)) for b, kind in zip(program.inputs, kinds, strict=True))
        if program.outputs:
            owner = self._session or session()
            plan.prepared = owner.prepare(
                replace(program, inputs=inputs), options, Said(self._name, traced.operations)
            )
            plan.prepared.subscribe(functools.partial(_renew, weakref.ref(self), plan))
        self._renew(plan)
        return plan

    def _renew(self, plan: _Plan) -> None:
        """Let the plan and every form of call that uses it run what is prepared now."""
        assert plan.traced is not None
        if (prepared := plan.prepared) is None:
            plan.launch = Launch(0, 1, 0, ())
            return
        outputs = tuple((b.dtype.numpy, b.shape) for b in prepared.outputs)
        single = plan.traced.result == ("output", 0)
        params, inputs = tuple(prepared.params), len(prepared.inputs)
        code, entry = None, 0
        while code is not prepared.code:  # tuning may change both meanwhile, entry first
            code, entry = prepared.code, prepared.entry
        plan.launch = Launch(entry, prepared.threads, inputs, outputs, params, single, prepared.long, code)
        for key, form in list(plan.forms.items()):
            if self._table is not None:
                self._table.add(key, form, plan.launch)

    def _teach(self, plan: _Plan, call: Call, names: tuple[str, ...], out: Any) -> None:
        """Let the native path answer calls like this one by itself."""
        launch, traced, options = plan.launch, plan.traced, plan.options
        if self._table is None or launch is None or traced is None or not launch.entry or not plan.flat:
            return
        if plan.prepared and plan.prepared.runners:
            return  # what goes wrong on a device is asked for after each call
        nested = any(path for _, path in call.arrays)
        if call.mutable or nested or options.debug >= 2 or options.graph or (out is not None and not launch.single):
            return
        key = (plan, len(call.args), names)
        buffers = {source[1:]: i for i, source in enumerate(traced.arguments) if source[0] == "arg"}
        guards: list[ArrayGuard | StaticGuard] = []
        for place, root in enumerate([*range(len(call.args)), *names]):
            if root == "out" and out is not None:
                dtype, shape = launch.outputs[0]
                axes = array_kind(np.empty(shape, dtype), "out").axes
                guards.append(ArrayGuard(place, dtype, axes, launch.inputs, out=True))
            elif (root, ()) in call.arrays:
                array = call.arrays[root, ()]
                axes = array_kind(array, str(root)).axes
                guards.append(ArrayGuard(place, array.dtype, axes, buffers.get((root, ()))))
            else:
                value = None if root == "out" else call.args[root] if isinstance(root, int) else call.kwargs[root]
                guards.append(StaticGuard(place, value))
        for i, (array, where, kind) in plan.captured.items():
            holder, name = where or (array, None)
            guards.append(ArrayGuard(None, array.dtype, kind.axes, i, holder=holder, name=name))
        plan.forms[key] = form = Form(len(call.args), names, tuple(guards), CONTEXT.get())
        self._table.add(key, form, launch)


def _renew(alive: weakref.ref[Kernel], plan: _Plan) -> None:
    if (kernel := alive()) is not None:
        kernel._renew(plan)


def _answer(kernel: Kernel, /, *args: Any, **kwargs: Any) -> Any:
    """Any call that the native path does not know: find or make its plan, run it, and teach the native path."""
    if any_leaf(is_tracer, (args, kwargs)):
        return kernel._fn(*args, **kwargs)  # a kernel inside a function that is being traced
    if any_leaf(is_tensor, (args, kwargs)):
        if GRADIENTS and any_leaf(wants_gradient, (args, kwargs)):
            return GRADIENTS[0](kernel, args, kwargs)
        args, arrays = map_leaves(from_tensor, (args, kwargs))
        result = kernel(*args, **arrays)
        return kwargs["out"] if kwargs.get("out") is not None else map_leaves(to_tensor, result)
    out = kwargs.get("out")
    call = read_call(args, {name: value for name, value in kwargs.items() if name != "out"})
    if call.abstract:
        raise SignatureError("a spec stands for an array in tune, explain and source; a call needs arrays")
    plan = kernel._plan(call, resolve(**kernel._options))
    if plan.launch is None or plan.traced is None:
        return _by_numpy(kernel, call, out)
    sources = plan.traced.arguments
    inputs = [
        current(plan.captured[i][1], source[1]) if source[0] == "hidden" else call.arrays[source[1], source[2]]
        for i, source in enumerate(sources)
    ]  # fmt: skip
    given = _given(out, plan.launch.outputs, plan.launch.single, kernel._name)
    targets = list(_targets(given, inputs))
    outputs = plan.launch.run(inputs, targets) if plan.launch.outputs else []
    if plan.prepared:
        plan.prepared.settle()
        if plan.prepared.watched:
            plan.prepared.launched()
    for array, target in zip(given, targets, strict=True):
        if target is not array:
            np.copyto(array, target)
    kernel._teach(plan, call, tuple(kwargs), out)
    return plan.traced.rebuild(given or outputs)


def _given(out: Any, outputs: Sequence[tuple[np.dtype[Any], tuple[int, ...]]], single: bool, name: str) -> list[Array]:
    """The arrays of `out=`, checked; none if it is None."""
    if out is None:
        return []
    given: list[Any] = list(out) if isinstance(out, (tuple, list)) else [out]
    if len(given) != len(outputs):
        raise SignatureError(f"{name}: out= has {len(given)} arrays, the result {len(outputs)}")
    for array, (dtype, shape) in zip(given, outputs, strict=True):
        if type(array) is not np.ndarray:
            raise SignatureError(f"{name}: out= must be a NumPy array or a tuple of them, not {type(array).__name__}")
        if array.shape != shape or array.dtype != dtype:
            raise SignatureError(f"{name}: out= is {array.dtype}{list(array.shape)}, the result {dtype}{list(shape)}")
        if not array.flags.writeable:
            raise SignatureError(f"{name}: out= is read-only")
    if any(np.may_share_memory(a, b) for a, b in itertools.combinations(given, 2)):
        raise SignatureError(f"{name}: two arrays of out= overlap")
    return given


def _targets(given: Sequence[Array], inputs: Sequence[Array]) -> Iterator[Array]:
    """Where to compute: in `out` itself, or beside it where it is no plain array or overlaps an input."""
    for array in given:
        plain = array.flags.c_contiguous and array.flags.aligned
        beside = not plain or any(np.may_share_memory(array, other) for other in inputs)
        yield aligned_empty(array.dtype, array.shape) if beside else array


def _by_numpy(kernel: Kernel, call: Call, out: Any) -> Any:
    """NumPy's own result, or error, as fresh arrays."""

    def fresh(value: Any) -> Any:
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        made = aligned_empty(value.dtype, value.shape)
        made[...] = value
        return made

    result = map_leaves(fresh, kernel._fn(*call.args, **call.kwargs))
    if out is None:
        return result
    single = isinstance(result, np.ndarray)
    values = [result] if single else list(result)
    given = _given(out, [(value.dtype, value.shape) for value in values], single, kernel._name)
    for array, value in zip(given, values, strict=True):
        np.copyto(array, value)
    return out


# ---- one a process -------------------------------------------------------------------------------------------------

_kernels: weakref.WeakSet[Kernel] = weakref.WeakSet()


def _after_fork() -> None:
    """Another thread of the parent may have held these locks, and is not here to release them."""
    for kernel in list(_kernels):
        kernel._lock = threading.RLock()
        if kernel._table is not None:
            kernel._table.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def call_path() -> Any:
    """The type of natively called kernels, or the BuildError that says why calls go through Python here."""
    directory = resolve().directory()
    store = ObjectCache(directory / "objects" if directory else None)
    try:
        return fast_type(Kernel, _answer, CONTEXT, runtime(store), store)
    except BuildError as error:
        return error


def make_kernel(
    fn: Callable[..., Any], options: Mapping[str, Any], owner: Any = None, native: bool = True
) -> Kernel:
    """A Kernel. `owner`: what prepares, if not the process's session. `native=False`: calls stay in Python."""
    if not callable(fn):
        raise TypeError(f"autotune.kernel wraps a function, not {type(fn).__name__}")
    resolve(**options)  # a wrong option is the decorated line's error
    path = call_path() if native else None
    if path is None or isinstance(path, BuildError):
        return Kernel(fn, options, owner)
    made: Kernel = path.type(fn, options, owner)
    made._table = Table()
    path.attach(made, made._table)
    return made


def kernel(
    fn: Callable[..., Any] | None = None, *, device: str | None = None, threads: int | None = None,
    tune: str | None = None, budget: float | None = None, cache: Any = None, name: str | None = None,
) -> Any:  # fmt: skip
    """Compile a function of NumPy arrays: `@autotune.kernel`, or `@autotune.kernel(threads=1, tune="first-call")`.

    device: where to run, "cpu" if not given. threads: how many; not given: the affinity mask and the cgroup quota.
    tune: "off" always takes the model's first choice; "cached" (the default) uses what is stored and never measures;
    "first-call" tunes within `budget` seconds before the first call of a signature returns; "background" answers at
    once and changes to the winner when it is found; "auto" measures only where the model is unsure. cache: None (the
    default store), "off", "readonly", a path or a URL. name: for display.
    The function must be pure. Arrays make the signature; scalars and strings are static. Raises UsageError for a wrong
    option; calls raise SignatureError or TraceError for what no kernel can compute.
    """
    options = dict(device=device, threads=threads, tune=tune, budget=budget, cache=cache, name=name)
    options = {key: value for key, value in options.items() if value is not None}
    if fn is None:
        return lambda function: make_kernel(function, options)
    return make_kernel(fn, options)
