"""`autotune emit`: one case as text that compiles without this package: kernel, launcher, description.

Knows what lies in the folder and how C calls a kernel's entry; the kernel's own text comes from `codegen`. The launcher
brings what a kernel asks of a runtime in the simplest form: one thread, and memory from the C library.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..codegen import build, jit
from ..codegen.chain import chain
from ..codegen.llvm import render
from ..devices.spec import DeviceSpec
from ..ir.banks import conflicts
from ..ir.collapse import normal_form
from ..ir.counts import count_nest
from ..ir.errors import DeviceError, UsageError
from ..ir.nest import Nest
from ..ir.program import Buffer, TensorProgram
from ..ir.schedule import Schedule
from ..options import Options
from .grid import Case
from .run import program, save

Chosen = tuple[TensorProgram, Schedule, str]
_C_TYPES = {"f32": "float", "f64": "double", "f16": "uint16_t", "bf16": "uint16_t", "bool": "uint8_t", "u8": "uint8_t"}
_LAUNCHER = """\
#include <stdint.h>
#include <stdlib.h>

/* What a kernel asks of its runtime. A thread pool may take the place of at_parallel: body(context, from, to, thread)
   for parts of 0..count, with thread < threads. */
typedef void body(void *context, int64_t from, int64_t to, int64_t thread);
void *at_scratch_acquire(int64_t bytes) { return aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64); }
void at_scratch_release(void *memory, int64_t bytes) { (void)bytes; free(memory); }
void at_parallel(body *fn, void *context, int64_t count, int64_t chunk, int64_t threads)
{
    (void)chunk; (void)threads;
    fn(context, 0, count, 0);
}

void at_awake(int64_t step) { (void)step; }

void ENTRY(void **buffers, int64_t *strides, int64_t threads);

/* Arrays are C-contiguous, and no output overlaps another array: COMMENT */
void launch(ARGUMENTS)
{
    void *buffers[] = {NAMES};
    int64_t strides[1] = {0};
    ENTRY(buffers, strides, THREADS);
}
"""
_README = """\
# TITLE, for DEVICE

`kernel.ll` is the kernel in LLVM's language; `launch.c` calls it with its arrays; `meta.json` says which arrays they
are, what the schedule is, and counts what one call does.

```
opt -passes=sroa kernel.ll -o kernel.bc
llc -O2 -filetype=obj -relocation-model=pic -mcpu=ARCH -mattr=FEATURES kernel.bc -o kernel.o
cc -O2 -shared -fPIC launch.c kernel.o -lm -o libkernel.so
```
"""
_BLOCKS_README = """\
# TITLE, for DEVICE

`TEXT` holds the kernels and compiles by itself; `HOST` allocates arrays, runs the kernels in order, compares samples of
the results with results from float64, and prints the best of 20 times; `meta.json` has grids, blocks, arguments,
schedules and counts.

```
BUILD
```
"""
_BUILD = {
    "cuda": "nvcc -O3 -arch=ARCH launch.cpp -x cu -o launch && ./launch",
    "hip": "hipcc -O3 --offload-arch=ARCH launch.cpp -o launch && ./launch",
    "opencl": "cc -O2 launch.c -lOpenCL -lm -o launch && ./launch 0   # 0: the first platform",
}


def write(case: Case, options: Options, folder: Path, target: str = "llvm") -> list[Path]:
    """Write the kernels' text, a launcher, meta.json and README.md; the paths, in this order."""
    files = _llvm(case, options) if target == "llvm" else _blocks(case, options, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            save(folder / name, content)
    except OSError as error:
        raise UsageError(f"-o {folder}: {error.strerror or error}") from None
    return [folder / name for name in files]


def _blocks(case: Case, options: Options, target: str) -> dict[str, str]:
    """The files of a device with blocks and threads."""
    from ..codegen.offload import dialect
    from ..shipping import file, texts, usual
    from .launchers import launcher

    language, made = dialect(target), program(case)
    spec = usual(target, options.device)
    kernels = texts(made, target, spec)
    rows = [
        {"name": e.symbol, "grid": list(e.launch.grid), "block": list(e.launch.block),
         "shared_bytes": e.launch.shared_bytes, "arguments": [k.names[b] for b in e.buffers],
         "strides": list(e.strides), "aligned_to_16_bytes": [k.names[b] for b in e.aligned]}
        for k in kernels for e in k.text.entries
    ]  # fmt: skip
    arrays = [{"name": b.name, "role": b.scope, "dtype": b.dtype.name, "shape": list(b.shape)} for b in made.buffers]
    meta = {
        "target": target, "op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": spec.id,
        "program": made.digest, "arrays": arrays, "entry_points": rows,
        "kernels": [{"program": k.program.digest, "schedule": k.schedule.to_json(), "source": "model",
                     "counts": count_nest(k.nest).to_json(),
                     "memory": conflicts(k.nest, spec.memory()).to_json()} for k in kernels],
    }  # fmt: skip
    told = {"TITLE": f"{case} {case.dtype}", "DEVICE": spec.id, "ARCH": spec.arch, "BUILD": _BUILD[target],
            "TEXT": f"kernel{language.suffix}", "HOST": "launch.c" if target == "opencl" else "launch.cpp"}  # fmt: skip
    host = launcher(target, told["TITLE"], spec.id, made, kernels)
    return {told["TEXT"]: file(kernels, target), told["HOST"]: host, "meta.json": json.dumps(meta, indent=1) + "\n",
            "README.md": _filled(_filled(_BLOCKS_README, told), told)}  # fmt: skip


def _llvm(case: Case, options: Options) -> dict[str, str]:
    from ..session import session

    made, spec, threads = program(case), session().spec(options), options.threads or 1
    chosen = _choose(made, spec, options)
    nests = [build.plan(normal_form(kernel), schedule, spec) for kernel, schedule, _ in chosen]
    text, entry = _kernel(made, [kernel for kernel, _, _ in chosen], nests, spec, threads)
    buffers = [*made.inputs, *(b for name in made.outputs for b in made.buffers if b.name == name)]
    signature = f"void {entry}(void **buffers, int64_t *strides, int64_t threads)"
    arguments = [{"name": b.name, "role": b.scope, "dtype": b.dtype.name, "shape": list(b.shape)} for b in buffers]
    meta = {
        "target": "llvm", "op": case.op, "params": dict(case.params), "dtype": case.dtype, "device": spec.id,
        "features": list(spec.features), "threads": threads, "program": made.digest,
        "entry_points": [{"name": entry, "signature": signature, "arguments": arguments}],
        "kernels": [{"program": k.digest, "schedule": s.to_json(), "source": how, "counts": count_nest(nest).to_json()}
                    for (k, s, how), nest in zip(chosen, nests)],
    }  # fmt: skip
    features = ",".join(spec.features)
    told = {"TITLE": f"{case} {case.dtype}", "DEVICE": spec.id, "ARCH": spec.arch, "FEATURES": features}
    return {"kernel.ll": text, "launch.c": _filled(_LAUNCHER, _words(buffers, entry, threads)),
            "meta.json": json.dumps(meta, indent=1) + "\n", "README.md": _filled(_README, told)}  # fmt: skip


def _choose(made: TensorProgram, spec: DeviceSpec, options: Options) -> list[Chosen]:
    """Each kernel's schedule and its source: what would run here; for a device that is not here the model's choice."""
    from ..search.plans import plans
    from ..session import session
    from ..shipping import modelled

    threads = options.threads or 1
    try:
        return [(k.original, k.choice.schedule, k.choice.source) for k in session().prepare(made, options).kernels]
    except DeviceError:
        compiled = lambda nest: jit.assemble(render(nest, spec, "kernel", threads).text, spec.arch, spec.features)
        kernels = plans(made, spec, threads)[0].kernels
        best = [modelled(normal_form(k), spec, threads, compiled)[0] for k in kernels]
        return [(k, chosen.schedule, "model") for k, chosen in zip(kernels, best)]


def _kernel(
    made: TensorProgram, kernels: list[TensorProgram], nests: list[Nest], spec: DeviceSpec, threads: int
) -> tuple[str, str]:
    """LLVM text in one module, and its entry."""
    if len(nests) == 1:
        return render(nests[0], spec, "kernel", threads).text, "kernel"
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(chain(made, kernels))
    for n, nest in enumerate(nests):
        module.link_in(llvm.parse_assembly(render(nest, spec, f"kernel{n}", threads).text))
    return str(module), "chain"


def _words(buffers: list[Buffer], entry: str, threads: int) -> dict[str, str]:
    """What the launcher's words in capitals stand for."""
    rows = []
    for n, b in enumerate(buffers):  # with a prefix: neither a keyword nor another argument's name
        name = f"in{n}_{re.sub(r'[^A-Za-z0-9_]', '_', b.name)}" if b.scope == "input" else f"out{n}"
        rows.append((name, _C_TYPES.get(b.dtype.name, f"int{b.dtype.bits}_t"), b))
    return {
        "ENTRY": entry, "THREADS": str(threads), "NAMES": ", ".join(f"(void *){name}" for name, _, _ in rows),
        "ARGUMENTS": ", ".join(f"{'const ' * (b.scope == 'input')}{kind} *{name}" for name, kind, b in rows),
        "COMMENT": ", ".join(f"{name} {b.dtype}[{', '.join(map(str, b.shape))}]" for name, _, b in rows),
    }  # fmt: skip


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\b[A-Z]{4,}\b", lambda found: words.get(found[0], found[0]), text)
