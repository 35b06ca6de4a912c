"""Text for people about prepared kernels: what they do exactly, what was predicted and measured, and how near that is
to the roof."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .codegen import build
from .devices.spec import DeviceSpec
from .ir.banks import conflicts
from .ir.counts import count_nest
from .ir.expr import gathers, loads, show
from .ir.program import TensorProgram
from .planning import times

if TYPE_CHECKING:
    from .session import Prepared
    from .workshop import PreparedKernel


def roofline_seconds(program: TensorProgram, spec: DeviceSpec, threads: int) -> float:
    """The least time that peak arithmetic and the bandwidth of the level that holds the data allow."""
    widest = max((c.dtype.compute for c in program.computes), key=lambda d: d.bits, default=None)
    arithmetic = program.flops / spec.peak(widest, threads) if widest is not None else 0.0
    least = moved(program)
    return max(arithmetic, least / spec.bytes_per_second(spec.level_of(least), "copy", threads))


def moved(program: TensorProgram) -> int:
    """Bytes that an execution must move: each input and output once, but of an input that is read at places which are
    data no more elements than there are such reads."""
    whole, reads = Counter[str](), Counter[str]()  # by buffer: reads at known places, elements read at others
    for c in program.computes:
        whole.update(ld.buffer for ld in loads(c.body))
        for source, *_ in gathers(c.body):
            whole[source.buffer] -= 1
            reads[source.buffer] += c.points
    saved = (
        b.bytes - reads[b.name] * b.dtype.bytes for b in program.inputs if reads[b.name] and whole[b.name] == 0
    )  # fmt: skip
    return program.bytes - sum(max(each, 0) for each in saved)


def duration(seconds: float | None) -> str:
    """A time with a unit that fits it."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def describe(program: TensorProgram) -> list[str]:
    """The computations of a program, a line each."""
    lines = []
    for c in program.computes:
        index = ", ".join(f"{a.name}<{a.extent}" for a in c.axes)
        over = f" {c.combiner} over {', '.join(f'{a.name}<{a.extent}' for a in c.reduce_axes)} of" if c.combiner else ""
        lines.append(f"{c.name}[{index}] ={over} {show(c.body)}")
    return lines


def explain(prepared: Prepared) -> str:
    """The plan with its reasons; then every kernel: its program, schedule, exact counts, predicted and measured time,
    and share of the roofline."""
    spec = prepared.workshop.spec
    count, threads = len(prepared.kernels), prepared.threads
    out = [f"{count} kernel{'s' * (count != 1)} on {spec.name} ({spec.id}), {threads} thread{'s' * (threads != 1)}"]
    if len(prepared.program.computes) > 1:
        out += ["plan:", *(f"  {line}" for line in prepared.plan.lines(_times(prepared)))]
    for n, k in enumerate(prepared.kernels):
        out += ["", f"kernel {n}: {', '.join(k.original.outputs)}", *(f"  {line}" for line in explained(prepared, n))]
    return "\n".join(out) + "\n"


def _times(prepared: Prepared) -> dict[int, str]:
    """What was measured of both ways of those regions of the plan that have two."""
    known = {n: times(prepared.plan, n, prepared.workshop.seconds) for n in prepared.plan.open}
    return {
        n: f"measured {duration(theirs)}, so {duration(mine)}" for n, (mine, theirs) in known.items() if mine and theirs
    }


def explained(prepared: Prepared, n: int, seconds: float | None = None) -> list[str]:
    """One kernel: its program, schedule, exact counts, predicted and measured time, and share of the roofline.
    `seconds`: what it was measured to take, if that is not what is stored."""
    k, spec = prepared.kernels[n], prepared.workshop.spec
    operations = counted(prepared.operations(n))
    lines = [f"operations: {operations}"] if operations else []
    return [*lines, *describe(k.original), *_details(prepared, k, spec, seconds or k.choice.seconds)]


def _details(prepared: Prepared, k: PreparedKernel, spec: DeviceSpec, measured: float | None) -> list[str]:
    choice = k.choice
    nest = build.plan(k.program, choice.schedule, spec)
    counts = count_nest(nest)
    names = dict(zip((b.name for b in k.program.buffers), (b.name for b in k.original.buffers)))
    out = [f"chosen by: {choice.source} ({choice.reason})", "schedule:"]
    out += [f"  {step}" for step in choice.schedule.steps] or ["  (the plain nest)"]
    out.append(f"counts: {counts.flops:,} flops, {moved(k.program):,} bytes at least")
    for t in counts.traffic:
        if t.scope in ("input", "output", "temp"):
            touched = f"{t.loads:,} loads, {t.stores:,} stores, {t.footprint:,} elements touched"
            out.append(f"  {names.get(t.buffer, t.buffer)}: {touched}")
    if spec.blocks:
        out.append(f"{conflicts(nest, spec.memory()).summary()}")
    roof = roofline_seconds(k.program, spec, prepared.threads)
    out.append(
        f"predicted: {duration(choice.predicted)}"
        + "".join(f", {name} {duration(s)}" for name, s in choice.terms.items())
    )
    if choice.promise:
        out.append(f"promise: {choice.promise}")
    if measured:
        rate = f", {k.program.flops / measured / 1e9:.1f} GFLOP/s, {moved(k.program) / measured / 1e9:.1f} GB/s"
        out.append(
            f"measured: {duration(measured)}{rate}, {100 * roof / measured:.0f} % of the roofline ({duration(roof)})"
        )
    else:
        out.append(f"measured: not yet (roofline {duration(roof)})")
    return out


def counted(operations: Iterable[str]) -> str:
    """Names with how often they occur: "add x2, exp"."""
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in Counter(operations).items())


def launched(prepared: Prepared, seconds: Sequence[float]) -> None:
    """Where debugging asks for it: a line for each kernel on standard error, of the `seconds` that it took in a call,
    and the graph of all that this process has launched."""
    options, spec, count = prepared.options, prepared.workshop.spec, len(prepared.kernels)
    if options.graph is not None:
        from .page.launches import launches

        launches(options.graph).add(prepared, seconds)
    for n, (k, time) in enumerate(zip(prepared.kernels, seconds if options.debug >= 2 else ())):
        roof = roofline_seconds(k.program, spec, prepared.threads)
        flops, least = k.program.flops, moved(k.program)
        which = f"{prepared.said.title}{f' [{n + 1}/{count}]' if count > 1 else ''}"
        what = counted(prepared.operations(n)) or ", ".join(k.original.outputs)
        print(
            f"autotune: {which} ({what}) {duration(time)} {flops:,} flops {least:,} bytes"
            f" {flops / time / 1e9:.1f} GFLOP/s {least / time / 1e9:.1f} GB/s {100 * roof / time:.0f} % of roofline",
            file=sys.stderr,
        )
        if options.debug >= 3:
            print("\n".join(f"  {step}" for step in k.choice.schedule.steps), file=sys.stderr)
        if options.debug >= 5:
            print(build.plan(k.program, k.choice.schedule, spec), file=sys.stderr)
    if options.debug >= 4:
        print(prepared.source(), file=sys.stderr)
