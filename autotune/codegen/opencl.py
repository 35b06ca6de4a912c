"""OpenCL C 1.2 as a dialect of `clike`."""

from __future__ import annotations

from .clike import Dialect
from .cuda import FUNCTIONS

TYPES = {
    "f32": "float", "f64": "double", "u16": "ushort", "i8": "char", "i16": "short", "i32": "int", "i64": "long",
    "u8": "uchar", "u32": "uint", "u64": "ulong",
}  # fmt: skip
_GENERIC = {
    f"{name}.f": f"{function}({{0}})"
    for name, function in {"exp": "exp", "exp2": "exp2", "log": "log", "log2": "log2", "sqrt": "sqrt", "sin": "sin",
                           "floor": "floor", "rint": "rint", "abs": "fabs"}.items()
}  # fmt: skip
# The number of a work-item goes through memory: where the compiler of PoCL 3.1 sees that conditions before and after a
# barrier are the same, it merges them across the barrier, and its work-items no longer meet.
PRELUDE = """#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }"""
OPENCL = Dialect(
    "opencl", ".cl", PRELUDE, TYPES,
    {key: text for key, text in FUNCTIONS.items() if key.split(".")[0] + ".f" not in _GENERIC or key[-1] in "iu"}
    | _GENERIC | {"fma.f32": "fma({0}, {1}, {2})", "shl": "(({type})((ulong){0} << {1}))"},
    {
        "kernel": "__kernel __attribute__((reqd_work_group_size({block}))) void", "function": "static inline",
        "global": "__global ", "local": "__local ", "shared": "__local", "restrict": "restrict",
        "barrier": "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);", "long": "L",
        "unroll": "__attribute__((opencl_unroll_hint))",
        **{f"block.{a}": f"(int)get_group_id({n})" for n, a in enumerate("xyz")},
        **{f"thread.{a}": f"at_id({n})" for n, a in enumerate("xyz")},
        "load": "vload{n}(0, {at})", "store": "vstore{n}({value}, 0, {at})", "inf": "INFINITY", "nan": "NAN",
        "fmod": "fmod",
    },
)  # fmt: skip
