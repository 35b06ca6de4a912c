"""Several kernels behind one entry: a function that calls them in turn and gives them memory for what passes between
them.

Knows the kernel ABI (arrays of pointers and of strides) and nothing of what the kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.memory import memory
from ..ir.program import TensorProgram

TIMES = "times"  # the symbol of a timed chain's array: seconds and nanoseconds before the first kernel and after each


def chain(
    program: TensorProgram, kernels: Sequence[TensorProgram], symbol: str = "chain", clock: int | None = None
) -> str:
    """LLVM text of `void symbol(ptr buffers, ptr params, i64 threads)`; kernel n is the external function
    `kernel<n>`. Buffers are the program's inputs, what kernels read beside the program's arrays, and the outputs.
    `clock`: with this clock of POSIX's `clock_gettime` the chain is timed; TIMES then holds when its last call came to
    each kernel (of two calls at a time, one or the other)."""
    known = {b.name for b in program.buffers}
    more = dict.fromkeys(b for k in kernels for b in k.inputs if b.name not in known)
    outer = [*program.inputs, *more, *(b for name in program.outputs for b in program.buffers if b.name == name)]
    where = {b.name: n for n, b in enumerate(outer)}
    strides = list(dict.fromkeys(s for b in outer for s in b.strides or () if isinstance(s, str)))
    between = memory(program, kernels)
    offsets, total = between.offsets, between.peak
    lines = [f"define void @{symbol}(ptr %buffers, ptr %params, i64 %threads) {{"]
    most = max(len(k.inputs) + len(k.outputs) for k in kernels)
    lines += [f"%args = alloca [{most} x ptr]", f"%steps = alloca [{max(len(strides), 1)} x i64]"]
    if total:
        lines.append(f"%memory = call ptr @at_scratch_acquire(i64 {total})")
    count = 0
    lines += ["%several = icmp sgt i64 %threads, 1", "%step = zext i1 %several to i64"]
    lines.append("call void @at_awake(i64 %step)")
    lines += _tick(clock, 0)
    for n, k in enumerate(kernels):
        names = [b.name for b in k.inputs] + list(k.outputs)
        for at, name in enumerate(names):
            count += 1
            if name in where:
                lines += [
                    f"%p{count} = getelementptr ptr, ptr %buffers, i64 {where[name]}",
                    f"%v{count} = load ptr, ptr %p{count}",
                ]
            else:
                lines.append(f"%v{count} = getelementptr i8, ptr %memory, i64 {offsets[name]}")
            lines += [f"%a{count} = getelementptr ptr, ptr %args, i64 {at}", f"store ptr %v{count}, ptr %a{count}"]
        own = list(dict.fromkeys(s for b in k.inputs for s in b.strides or () if isinstance(s, str)))
        for at, stride in enumerate(own):
            count += 1
            lines += [
                f"%p{count} = getelementptr i64, ptr %params, i64 {strides.index(stride)}",
                f"%v{count} = load i64, ptr %p{count}",
                f"%a{count} = getelementptr i64, ptr %steps, i64 {at}",
                f"store i64 %v{count}, ptr %a{count}",
            ]
        lines.append(f"call void @kernel{n}(ptr %args, ptr %steps, i64 %threads)")
        lines += _tick(clock, n + 1)
    if total:
        lines.append(f"call void @at_scratch_release(ptr %memory, i64 {total})")
    lines += ["%back = sub i64 0, %step", "call void @at_awake(i64 %back)"]
    lines += ["ret void", "}", "declare ptr @at_scratch_acquire(i64)", "declare void @at_scratch_release(ptr, i64)"]
    lines.append("declare void @at_awake(i64)")
    lines += [f"declare void @kernel{n}(ptr, ptr, i64)" for n in range(len(kernels))]
    if clock is not None:
        lines.append(f"@{TIMES} = global [{2 * len(kernels) + 2} x i64] zeroinitializer")
        lines.append("declare i32 @clock_gettime(i32, ptr)")
    return "\n".join(lines) + "\n"



def _tick(clock: int | None, n: int) -> list[str]:
    """Note the time at place n, if the chain is timed."""
    if clock is None:
        return []
    at = f"%tick{n} = getelementptr i64, ptr @{TIMES}, i64 {2 * n}"
    return [at, f"%told{n} = call i32 @clock_gettime(i32 {clock}, ptr %tick{n})"]
