"""CUDA C++ as a dialect of `clike`: needs no header, so that every compiler of the language takes it as it is."""

from __future__ import annotations

from .chelpers import HELPERS
from .clike import Dialect
from .matrix import CUDA_INSTRUCTIONS

TYPES = {
    "f32": "float", "f64": "double", "u16": "unsigned short", "i8": "signed char", "i16": "short", "i32": "int",
    "i64": "long long", "u8": "unsigned char", "u32": "unsigned int", "u64": "unsigned long long",
}  # fmt: skip
_REAL = {name: name for name in ("exp", "exp2", "log", "log2", "sqrt", "sin", "floor", "rint")} | {"abs": "fabs"}
FUNCTIONS = {
    **{f"{name}.f32": f"{function}f({{0}})" for name, function in _REAL.items()},
    **{f"{name}.f64": f"{function}({{0}})" for name, function in _REAL.items()},
    **{f"{n}.{kind}": f"at_{n}_{kind}({{0}}, {{1}})" for n in ("max", "min", "mod") for kind in ("f32", "f64")},
    **{f"{n}.{kind}": f"(({{type}})at_i{n}({{0}}, {{1}}))" for n in ("max", "min", "div", "mod") for kind in "iu"},
    "div.f": "({0} / {1})", "recip.f32": "(1.0f / {0})", "recip.f64": "(1.0 / {0})", "neg.f": "(-{0})",
    "fma.f32": "fmaf({0}, {1}, {2})", "fma.f64": "fma({0}, {1}, {2})",
    "abs.i": "(({type})at_iabs({0}))", "abs.u": "{0}",
    **{f"{name}.{kind}": "{0}" for name in ("floor", "rint") for kind in "iu"},
    "shl": "(({type})((unsigned long long){0} << {1}))",
    "shr": "(({type})({0} >> {1}))",
}  # fmt: skip
ATOMS = {
    "kernel": 'extern "C" __global__ void __launch_bounds__({threads})', "function": "static __device__ inline",
    "global": "", "local": "", "shared": "__shared__ __align__(16)", "restrict": "__restrict__",
    "barrier": "__syncthreads();", "unroll": "#pragma unroll", "long": "LL",
    "block.x": "(int)blockIdx.x", "block.y": "(int)blockIdx.y", "block.z": "(int)blockIdx.z",
    "thread.x": "(int)threadIdx.x", "thread.y": "(int)threadIdx.y", "thread.z": "(int)threadIdx.z",
    "load": "*(const {type}*)({at})", "store": "*({type}*)({at}) = {value}",
    "inf": "__int_as_float(0x7f800000)", "nan": "__int_as_float(0x7fc00000)", "fmod": "fmodf",
}  # fmt: skip
_ASYNC = """#ifndef AT_HOST
FN void at_copy_async{n}(void *to, const void *from) {{
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.{kind}.shared.global [%0], [%1], {n};" :: "r"((U32)__cvta_generic_to_shared(to)), "l"(from)
               : "memory");
#else
  *({word} *)to = *(const {word} *)from;
#endif
}}
#endif"""
_WAIT = """#ifndef AT_HOST
FN void at_copy_wait{n}() {{
#if __CUDA_ARCH__ >= 800
  asm volatile("{wait}" ::: "memory");
#endif
}}
#endif"""
_WAITS = {"at_copy_wait": _WAIT.format(n="", wait="cp.async.wait_all;")} | {
    f"at_copy_wait{n}": _WAIT.format(n=n, wait=f"cp.async.commit_group; cp.async.wait_group {n};") for n in (1, 2, 3)
}
_COPIES = {f"at_copy_async{n}": _ASYNC.format(n=n, kind="cg" if n == 16 else "ca", word=word)
           for n, word in ((4, "float"), (8, "float2"), (16, "float4"))} | _WAITS  # fmt: skip
_SHUFFLE = "FN {type} at_shuffle_{name}({type} x, int ahead) {{ return __shfl_down_sync(0xffffffffu, x, ahead); }}"
_SHUFFLES = {f"at_shuffle_{name}": _SHUFFLE.format(name=name, type=TYPES[name])
             for name in ("f32", "f64", "i32", "i64")}  # fmt: skip
_HALF = {
    "at_from_f16": 'FN float at_from_f16(U16 h) {\n  float x;\n  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));\n'
                   "  return x;\n}",
    "at_as_f16": 'FN U16 at_as_f16(float x) {\n  U16 h;\n  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));\n'
                 "  return h;\n}",
}  # fmt: skip
_HALVES = {name: f"#ifdef AT_HOST\n{HELPERS[name]}\n#else\n{text}\n#endif" for name, text in _HALF.items()}
CUDA = Dialect("cuda", ".cu", "", TYPES, FUNCTIONS, ATOMS, CUDA_INSTRUCTIONS | _COPIES | _SHUFFLES | _HALVES)
