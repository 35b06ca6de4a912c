"""CUDA text to a cubin without NVRTC: clang makes PTX of it, ptxas, of a toolkit or a wheel, machine code of that.

For static figures where NVRTC is missing, and a second opinion where it is not: LLVM's NVPTX in place of NVIDIA's front
end. The prelude stands for CUDA's headers; functions that LLVM has no instructions for are the hardware's
approximations, so that the code is no more exact than is needed to count it, and is never run.
"""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from ..ir.errors import BuildError, DeviceError
from . import amdgpu, tools
from .nvrtc import resources
from .resources import Resources

_PRELUDE = """
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
#include <__clang_cuda_builtin_vars.h>
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
#define __syncthreads() __nvvm_bar_sync(0)
#define __int_as_float(x) __builtin_bit_cast(float, (int)(x))
#define fmaf __builtin_fmaf
#define fma __builtin_fma
#define sqrtf(x) __nvvm_sqrt_rn_f(x)
#define sqrt(x) __nvvm_sqrt_rn_d(x)
#define floorf __builtin_floorf
#define floor __builtin_floor
#define rintf __builtin_rintf
#define rint __builtin_rint
#define fabsf __builtin_fabsf
#define fabs __builtin_fabs
#define exp2f(x) __nvvm_ex2_approx_f(x)
#define expf(x) __nvvm_ex2_approx_f(1.4426950408889634f * (x))
#define log2f(x) __nvvm_lg2_approx_f(x)
#define logf(x) (0.6931471805599453f * __nvvm_lg2_approx_f(x))
#define sinf(x) __nvvm_sin_approx_f(x)
static __device__ inline unsigned at_lent(unsigned x, int n) { return __nvvm_shfl_sync_down_i32(~0u, x, n, 31); }
template <typename T> static __device__ inline T __shfl_down_sync(unsigned, T x, int n) {
  unsigned words[sizeof(T) / 4];
  __builtin_memcpy(words, &x, sizeof x);
  for (unsigned &word : words) word = at_lent(word, n);
  __builtin_memcpy(&x, words, sizeof x);
  return x;
}
static __device__ inline unsigned long long __cvta_generic_to_shared(const void *at) {
  return (unsigned long long)(__attribute__((address_space(3))) const void *)at;
}
"""
_FLAGS = ("-x", "cuda", "--cuda-device-only", "-nocudainc", "-nocudalib", "-O3", "-ffp-contract=fast", "-w")


@cache
def assembler() -> str:
    """ptxas. Raises DeviceError with the way to get it."""
    site = Path(sysconfig.get_paths()["purelib"])
    for path in (*sorted(site.glob("nvidia/**/bin/ptxas")), shutil.which("ptxas"), "/usr/local/cuda/bin/ptxas"):
        if path and Path(path).is_file():
            return str(path)
    raise DeviceError("ptxas is not here: pip install nvidia-cuda-nvcc, or install a CUDA toolkit")


def programs() -> str:
    """Both compilers by name. Raises DeviceError for the one that is missing."""
    return f"{Path(amdgpu.compiler()[0]).name} and {Path(assembler()).name}"


def compile(text: str, arch: str, seconds: float = tools.LIMIT, given: str = "") -> tuple[bytes, dict[str, Resources]]:
    """A cubin and what each kernel in it uses; `given` is another ptxas than the one found. Raises BuildError with the
    log of the one that refused and a reason: arch | compile | timeout | crash | garbage."""
    words = [*amdgpu.compiler(), f"--cuda-gpu-arch={arch}", *_FLAGS, "-S", "-o", "-", "-"]
    done = tools.run(words, _PRELUDE + text, seconds, f"clang for {arch}")
    if done.returncode:
        reason = "arch" if "arch" in done.stderr and arch in done.stderr else "compile"
        raise BuildError(f"clang refused the text for {arch}: {done.stderr.strip()[:2000]}", done.stderr, reason)
    with tempfile.TemporaryDirectory() as place:
        source, binary = Path(place, "kernel.ptx"), Path(place, "kernel.cubin")
        source.write_text(done.stdout, "utf-8")
        words = [given or assembler(), f"-arch={arch}", "-v", str(source), "-o", str(binary)]
        done = tools.run(words, "", seconds, "ptxas")
        log = done.stdout + done.stderr
        if done.returncode:
            reason = "arch" if "gpu-name" in log or "target" in log else "compile"
            raise BuildError(f"ptxas refused LLVM's PTX for {arch}: {log.strip()[:2000]}", log, reason)
        found = resources(log)
        if not found or not binary.is_file():
            raise tools.garbage("ptxas", log, "there is no binary, or no figures of its kernels")
        return binary.read_bytes(), found
