"""`autotune emit`: one case as text that compiles without this package: kernel, launcher, description.

Knows what lies in the folder and how C calls a kernel's entry; the kernel's own text comes from `codegen`. The launcher brings
the few functions that a kernel asks of a runtime, in their simplest form: one thread, and memory from the C library.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from ..codegen import build
from ..codegen.chain import chain
from ..codegen.llvm import render
from ..devices.spec import DeviceSpec
from ..ir.equiv import equivalent
from ..ir.errors import DeviceError, UsageError, VerifyError
from ..ir.partition import partition
from ..ir.program import Buffer, TensorProgram, canonical_names
from ..ir.schedule import Schedule
from ..options import Options
from .grid import Case
from .output import save
from .run import program

_C_TYPES = {"f32": "float", "f64": "double", "f16": "uint16_t", "bf16": "uint16_t", "bool": "uint8_t", "u8": "uint8_t"}
_RUNTIME = """\
#include <stdint.h>
#include <stdlib.h>

/* What a kernel asks of its runtime. A thread pool may take the place of at_parallel: fn(context, from, to, thread)
   for parts of 0..count, with thread < threads. */
void *at_scratch_acquire(int64_t bytes) { return aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64); }
void at_scratch_release(void *memory, int64_t bytes) { (void)bytes; free(memory); }
void at_parallel(void (*fn)(void *, int64_t, int64_t, int64_t), void *context, int64_t count, int64_t chunk, int64_t threads)
{
    (void)chunk; (void)threads;
    fn(context, 0, count, 0);
}
"""


def write(case: Case, options: Options, folder: Path) -> list[Path]:
    """Write kernel.ll, launch.c, meta.json and README.md; the paths, in this order."""
    made = program(case)
    spec, threads, chosen = _choose(made, options)
    kernels = [k for k, _, _ in chosen]
    schedules = [schedule for _, schedule, _ in chosen]
    text, entry = _kernel(made, kernels, schedules, spec, threads)
    buffers = [*made.inputs, *(b for name in made.outputs for b in made.buffers if b.name == name)]
    meta = {
        "target": "llvm", "op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": spec.id,
        "features": list(spec.features), "threads": threads, "program": made.digest,
        "entry_points": [{"name": entry, "signature": f"void {entry}(void **buffers, int64_t *strides, int64_t threads)",
                          "arguments": [_argument(b) for b in buffers]}],
        "kernels": [{"program": k.digest, "schedule": s.to_json(), "source": source,
                     "counts": build.plan(canonical_names(k), s, spec)[1].to_json()} for k, s, source in chosen],
    }  # fmt: skip
    files = {"kernel.ll": text, "launch.c": _launcher(buffers, entry, threads),
             "meta.json": json.dumps(meta, indent=1) + "\n", "README.md": _readme(case, spec, buffers)}  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            save(folder / name, content)
    except OSError as error:
        raise UsageError(f"-o {folder}: {error.strerror or error}") from None
    return [folder / name for name in files]


def _choose(made: TensorProgram, options: Options) -> tuple[DeviceSpec, int, list[tuple[TensorProgram, Schedule, str]]]:
    """Each kernel with its schedule and where that came from: what would run here, or the model's first choice for a
    device that is not here."""
    from ..search.ranking import Ranking, first_valid
    from ..session import session

    spec, threads = session().spec(options), session().threads(options)
    try:
        prepared = session().prepare(made, options)
    except DeviceError:
        out = []
        for k in partition(made):
            named = canonical_names(k)
            valid = partial(_valid, named, spec, threads)
            best = first_valid(Ranking(named, spec, threads), valid)
            out.append((k, best.schedule, "model"))
        return spec, threads, out
    return spec, threads, [(k.original, k.choice.schedule, k.choice.source) for k in prepared.kernels]


def _valid(kernel: TensorProgram, spec: DeviceSpec, threads: int, candidate: Any) -> None:
    build.build(kernel, candidate.schedule, spec, threads)
    report = equivalent(kernel, candidate.schedule)
    if not report.ok:
        raise VerifyError(f"the schedule computes another function: {report.message}")


def _kernel(
    made: TensorProgram, kernels: list[TensorProgram], schedules: list[Schedule], spec: DeviceSpec, threads: int
) -> tuple[str, str]:  # fmt: skip
    """LLVM text in one module, and its entry."""
    texts = []
    for n, (kernel, schedule) in enumerate(zip(kernels, schedules)):
        symbol = f"kernel{n}" if len(kernels) > 1 else "kernel"
        texts.append(render(build.plan(canonical_names(kernel), schedule, spec)[0], spec, symbol, threads).text)
    if len(texts) == 1:
        return texts[0], "kernel"
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(chain(made, kernels))
    for text in texts:
        module.link_in(llvm.parse_assembly(text))
    return str(module), "chain"


def _argument(b: Buffer) -> dict[str, Any]:
    return {"name": b.name, "role": b.scope, "dtype": b.dtype.name, "shape": list(b.shape)}


def _c_type(b: Buffer) -> str:
    return _C_TYPES.get(b.dtype.name, f"int{b.dtype.bits}_t")


def _name(n: int, b: Buffer) -> str:
    """In C: neither a keyword nor any other argument's."""
    return f"in{n}_{re.sub(r'[^A-Za-z0-9_]', '_', b.name)}" if b.scope == "input" else f"out{n}"


def _launcher(buffers: list[Buffer], entry: str, threads: int) -> str:
    const = lambda b: "const " if b.scope == "input" else ""
    arguments = [f"{const(b)}{_c_type(b)} *{_name(n, b)}" for n, b in enumerate(buffers)]
    names = ", ".join(f"(void *){_name(n, b)}" for n, b in enumerate(buffers))
    comments = "".join(f"   {_name(n, b)}: {b.dtype}[{', '.join(map(str, b.shape))}] {b.scope}\n" for n, b in enumerate(buffers))
    return f"""{_RUNTIME}
void {entry}(void **buffers, int64_t *strides, int64_t threads);

/* C-contiguous arrays, none of which overlaps an output:
{comments}*/
void launch({", ".join(arguments)})
{{
    void *buffers[] = {{{names}}};
    int64_t strides[1] = {{0}};
    {entry}(buffers, strides, {threads});
}}
"""


def _readme(case: Case, spec: DeviceSpec, buffers: list[Buffer]) -> str:
    features = ",".join(spec.features)
    return f"""# {case} {case.dtype}, for {spec.id}

`kernel.ll` is the kernel in LLVM's language, for LLVM 17 or later; `launch.c` calls it with {len(buffers)} arrays; `meta.json` says
which arrays, under which schedule, and counts what one call does.

```
opt -passes=sroa kernel.ll -o kernel.bc
llc -O2 -filetype=obj -relocation-model=pic -mcpu={spec.arch} -mattr={features} kernel.bc -o kernel.o
cc -O2 -shared -fPIC launch.c kernel.o -lm -o libkernel.so
```
"""
