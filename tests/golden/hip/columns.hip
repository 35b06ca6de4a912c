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
extern "C" __global__ void __launch_bounds__(32) kernel0(const float* __restrict__ a, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_acc[32];
  {
    const int i_0 = AT_BLOCK(x);
    {
      {
        const int k_1 = AT_THREAD(y);
        {
          const int i_1 = AT_THREAD(x);
          t0_acc[i_1 + 8 * k_1] = 0.0f;
        }
      }
      for (int k_0 = 0; k_0 < 5; ++k_0) {
        {
          const int k_1 = AT_THREAD(y);
          {
            const int i_1 = AT_THREAD(x);
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 64 * k_0 + 16 * k_1]);
          }
        }
      }
      {
        const int k_1 = AT_THREAD(y);
        if (k_1 < 2) {
          {
            const int i_1 = AT_THREAD(x);
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 16 * k_1 + 320]);
          }
        }
      }
      __syncthreads();
      {
        const int k_1_2 = AT_THREAD(y);
        if (k_1_2 < 2) {
          {
            const int i_1 = AT_THREAD(x);
            t0_acc[i_1 + 8 * k_1_2] = (t0_acc[i_1 + 8 * k_1_2] + t0_acc[i_1 + 8 * k_1_2 + 16]);
          }
        }
      }
      __syncthreads();
      {
        const int k_1_1 = AT_THREAD(y);
        if (k_1_1 < 1) {
          {
            const int i_1 = AT_THREAD(x);
            t0_acc[i_1 + 8 * k_1_1] = (t0_acc[i_1 + 8 * k_1_1] + t0_acc[i_1 + 8 * k_1_1 + 8]);
          }
        }
      }
      __syncthreads();
      {
        const int i_1 = AT_THREAD(x);
        if (AT_THREAD(y) == 0) {
          t0[8 * i_0 + i_1] = t0_acc[i_1];
        }
      }
    }
  }
}
