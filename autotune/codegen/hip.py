"""HIP C++ as a dialect of `clike`. The prelude stands for HIP's header: clang compiles the text with or without it."""

from __future__ import annotations

from .chelpers import HELPERS
from .clike import Dialect
from .cuda import ATOMS, FUNCTIONS, TYPES
from .matrix import HIP_INSTRUCTIONS

PRELUDE = """#ifdef __HIP_PLATFORM_AMD__
#include <hip/hip_runtime.h>
#define AT_BLOCK(a) ((int)blockIdx.a)
#define AT_THREAD(a) ((int)threadIdx.a)
#elif !defined AT_BLOCK
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n) __attribute__((amdgpu_flat_work_group_size(1, n)))
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
#define AT_BLOCK(a) ((int)__builtin_amdgcn_workgroup_id_##a())
#define AT_THREAD(a) ((int)__builtin_amdgcn_workitem_id_##a())
#define __syncthreads() do { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"); __builtin_amdgcn_s_barrier(); \\
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"); } while (0)
#endif"""
_BUILTIN = {
    f"{name}.{kind}": f"__builtin_{function}{end}({{0}})"
    for kind, end in (("f32", "f"), ("f64", ""))
    for name, function in {"sqrt": "sqrt", "floor": "floor", "rint": "rint", "abs": "fabs", "exp": "exp",
                           "exp2": "exp2", "log": "log", "log2": "log2", "sin": "sin"}.items()
} | {"fma.f32": "__builtin_fmaf({0}, {1}, {2})", "fma.f64": "__builtin_fma({0}, {1}, {2})"}  # fmt: skip
_SHUFFLE = """FN {type} at_shuffle_{name}({type} x, int ahead) {{
#ifdef AT_HOST
  return __shfl_down(x, ahead);
#else
  int at = ((int)__builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)) + ahead) << 2, words[{words}];
  __builtin_memcpy(words, &x, sizeof x);
  for (int n = 0; n < {words}; ++n) words[n] = __builtin_amdgcn_ds_bpermute(at, words[n]);
  __builtin_memcpy(&x, words, sizeof x);
  return x;
#endif
}}"""
_SHUFFLES = {f"at_shuffle_{name}": _SHUFFLE.format(name=name, type=TYPES[name], words=1 if name.endswith("32") else 2)
             for name in ("f32", "f64", "i32", "i64")}  # fmt: skip
_HALF = {
    "at_from_f16": "FN float at_from_f16(U16 h) { _Float16 x; __builtin_memcpy(&x, &h, 2); return (float)x; }",
    "at_as_f16": "FN U16 at_as_f16(float x) { _Float16 y = (_Float16)x; U16 h; __builtin_memcpy(&h, &y, 2); "
                 "return h; }",
}  # fmt: skip
_HALVES = {name: f"#ifdef AT_HOST\n{HELPERS[name]}\n#else\n{text}\n#endif" for name, text in _HALF.items()}
HIP = Dialect(
    "hip", ".hip", PRELUDE, TYPES, FUNCTIONS | _BUILTIN,
    ATOMS | {f"block.{a}": f"AT_BLOCK({a})" for a in "xyz"} | {f"thread.{a}": f"AT_THREAD({a})" for a in "xyz"}
    | {"inf": "__builtin_inff()", "nan": '__builtin_nanf("")', "fmod": "__builtin_fmodf"},
    HIP_INSTRUCTIONS | _SHUFFLES | _HALVES,
)  # fmt: skip
