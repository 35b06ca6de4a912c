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
static __device__ inline float at_shuffle_f32(float x, int ahead) {
#ifdef AT_HOST
  return __shfl_down(x, ahead);
#else
  int at = ((int)__builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)) + ahead) << 2, words[1];
  __builtin_memcpy(words, &x, sizeof x);
  for (int n = 0; n < 1; ++n) words[n] = __builtin_amdgcn_ds_bpermute(at, words[n]);
  __builtin_memcpy(&x, words, sizeof x);
  return x;
#endif
}
extern "C" __global__ void __launch_bounds__(8) kernel0(const float* __restrict__ a, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_acc[8];
  {
    const int i = AT_BLOCK(x);
    {
      {
        const int k_1 = AT_THREAD(x);
        t0_acc[k_1] = 0.0f;
      }
      for (int k_0 = 0; k_0 < 2; ++k_0) {
        {
          const int k_1 = AT_THREAD(x);
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + 8 * k_0 + k_1]);
        }
      }
      {
        const int k_1 = AT_THREAD(x);
        if (k_1 < 6) {
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + k_1 + 16]);
        }
      }
      __syncthreads();
      {
        const int k_1_4 = AT_THREAD(x);
        if (k_1_4 < 4) {
          t0_acc[k_1_4] = (t0_acc[k_1_4] + t0_acc[k_1_4 + 4]);
        }
      }
      {
        float t0_warp[1];
        {
          const int k_1_lane = AT_THREAD(x);
          if (k_1_lane < 4) {
            t0_warp[0] = t0_acc[k_1_lane];
          }
        }
        {
          const int k_1_2 = AT_THREAD(x);
          const float v1 = at_shuffle_f32(t0_warp[0], 2);
          if (k_1_2 < 2) {
            t0_warp[0] = (t0_warp[0] + v1);
          }
        }
        {
          const int k_1_1 = AT_THREAD(x);
          const float v2 = at_shuffle_f32(t0_warp[0], 1);
          if (k_1_1 < 1) {
            t0_warp[0] = (t0_warp[0] + v2);
          }
        }
        if (AT_THREAD(x) == 0) {
          t0[i] = t0_warp[0];
        }
      }
    }
  }
}
