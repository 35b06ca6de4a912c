"""Small loops that measure a machine: peak arithmetic, memory traffic, a clock. LLVM text from numbers, without a nest.

Every probe has the kernels' signature `void name(ptr buffers, ptr params, i64 threads)`; params[0] is the number of its
iterations and buffers[0] its memory (a result is stored there, so that nothing is dead).
"""

from __future__ import annotations

CHAIN = 64  # dependent steps an iteration of `chain`, each of one cycle
STREAM = 8  # vectors an iteration of `stream`


def _loop(name: str, start: list[str], carried: list[tuple[str, str, str]], body: list[str], end: list[str]) -> str:
    """A function around one loop over %i; `carried` rows are (type, name, initial value), updated as %<name>.next."""
    phis = [f"  %{n} = phi {t} [ {v}, %entry ], [ %{n}.next, %loop ]" for t, n, v in carried]
    lines = [f"define void @{name}(ptr %buffers, ptr %params, i64 %threads) {{", "entry:"]
    lines += ["  %p = load ptr, ptr %buffers", "  %n = load i64, ptr %params", *start, "  br label %loop", "loop:"]
    lines += ["  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]", *phis, *body, "  %i.next = add i64 %i, 1"]
    lines += ["  %more = icmp slt i64 %i.next, %n", "  br i1 %more, label %loop, label %end"]
    return "\n".join([*lines, "end:", *end, "  ret void", "}", ""])


def chain(name: str = "chain") -> str:
    """CHAIN dependent one-cycle integer operations an iteration: its rate is the clock's."""
    body, last = [], "%x"
    for s in range(CHAIN):
        out = "%x.next" if s == CHAIN - 1 else f"%s{s}"
        body.append(f"  {out} = {'xor' if s % 2 else 'add'} i64 {last}, %n")
        last = out
    return _loop(name, [], [("i64", "x", "%n")], body, ["  store i64 %x.next, ptr %p"])


def peak(dtype: str, lanes: int, accumulators: int, name: str = "peak") -> str:
    """Independent multiply-adds (fused, for floats), one for each carried vector: 2 * lanes operations each."""
    element = {"f32": "float", "f64": "double"}.get(dtype, dtype)
    vector, floating = f"<{lanes} x {element}>", dtype[0] == "f"
    one = f"  %u = load {vector}, ptr %p, align 1"  # read from memory, so that nothing is folded
    carried = [(vector, f"a{j}", "zeroinitializer") for j in range(accumulators)]
    intrinsic = f"@llvm.fma.v{lanes}{dtype}"
    body: list[str] = []
    for j in range(accumulators):
        if floating:
            body.append(f"  %a{j}.next = call {vector} {intrinsic}({vector} %a{j}, {vector} %u, {vector} %u)")
        else:
            body += [f"  %m{j} = mul {vector} %a{j}, %u", f"  %a{j}.next = add {vector} %m{j}, %u"]
    end, total = [], "%a0.next"
    for j in range(1, accumulators):
        end.append(f"  %t{j} = {'fadd' if floating else 'xor'} {vector} {total}, %a{j}.next")
        total = f"%t{j}"
    end.append(f"  store {vector} {total}, ptr %p, align 1")
    declare = f"declare {vector} {intrinsic}({vector}, {vector}, {vector})\n" if floating else ""
    return declare + _loop(name, [one], carried, body, end)


def stream(kind: str, bits: int, name: str = "stream") -> str:
    """Read, write or copy STREAM vectors of `bits` an iteration; copies go from buffers[0] to buffers[1]."""
    vector, step = f"<{bits // 64} x i64>", bits // 8
    start = ["  %q.at = getelementptr ptr, ptr %buffers, i64 1", "  %q = load ptr, ptr %q.at"]
    start += ["  %first = load i64, ptr %p", f"  %u.0 = insertelement {vector} zeroinitializer, i64 %first, i64 0"]
    carried, body = [], [f"  %o = mul i64 %i, {STREAM * step}"]
    for j in range(STREAM):
        at = f"  %o{j} = add i64 %o, {j * step}"
        source = f"  %s{j} = getelementptr i8, ptr %p, i64 %o{j}"
        target = f"  %d{j} = getelementptr i8, ptr %q, i64 %o{j}"
        read = f"  %v{j} = load {vector}, ptr %s{j}, align 1"
        if kind == "read":
            carried.append((vector, f"x{j}", "zeroinitializer"))
            body += [at, source, read, f"  %x{j}.next = xor {vector} %x{j}, %v{j}"]
        elif kind == "write":
            body += [at, target, f"  store {vector} %u.0, ptr %d{j}, align 1"]
        else:
            body += [at, source, target, read, f"  store {vector} %v{j}, ptr %d{j}, align 1"]
    end, total = [], "%x0.next"
    for j in range(1, STREAM) if kind == "read" else ():
        end.append(f"  %t{j} = xor {vector} {total}, %x{j}.next")
        total = f"%t{j}"
    return _loop(name, start, carried, body, [*end, f"  store {vector} {total}, ptr %q, align 1"] if end else [])
