#ifdef __HIP_PLATFORM_AMD__
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
#define __syncthreads() do { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"); __builtin_amdgcn_s_barrier(); \
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"); } while (0)
#endif
extern "C" __global__ void __launch_bounds__(6) kernel0_0(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0_part) {
  {
    const int k_part = AT_BLOCK(z);
    {
      const int i = AT_BLOCK(y);
      {
        const int j = AT_THREAD(x);
        for (int k = 0; k < 4; ++k) {
          t0_part[6 * i + j + 24 * k_part] = (k == 0) ? (a[12 * i + k + 4 * k_part] * b[j + 6 * k + 24 * k_part]) : __builtin_fmaf(a[12 * i + k + 4 * k_part], b[j + 6 * k + 24 * k_part], t0_part[6 * i + j + 24 * k_part]);
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(6) kernel0_1(float* __restrict__ t0, const float* __restrict__ t0_part) {
  {
    const int i = AT_BLOCK(y);
    {
      const int j = AT_THREAD(x);
      for (int k_part = 0; k_part < 3; ++k_part) {
        t0[6 * i + j] = (k_part == 0) ? t0_part[6 * i + j + 24 * k_part] : (t0[6 * i + j] + t0_part[6 * i + j + 24 * k_part]);
      }
    }
  }
}
