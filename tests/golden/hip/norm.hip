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
static __device__ inline float at_max_f32(float a, float b) { return a > b || a != a ? a : b; }
extern "C" __global__ void __launch_bounds__(4) kernel0(const float* __restrict__ a, float* __restrict__ t2) {
  __shared__ __align__(16) float t0[1];
  __shared__ __align__(16) float t1[1];
  __shared__ __align__(16) float t0_acc[4];
  __shared__ __align__(16) float t1_acc[4];
  {
    const int i = AT_BLOCK(x);
    {
      {
        {
          {
            const int r_1 = AT_THREAD(x);
            t0_acc[r_1] = ((float)-__builtin_inff());
          }
          for (int r_0 = 0; r_0 < 2; ++r_0) {
            {
              const int r_1 = AT_THREAD(x);
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + 4 * r_0 + r_1]);
            }
          }
          {
            const int r_1 = AT_THREAD(x);
            if (r_1 < 2) {
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + r_1 + 8]);
            }
          }
          __syncthreads();
          {
            const int r_1_2 = AT_THREAD(x);
            if (r_1_2 < 2) {
              t0_acc[r_1_2] = at_max_f32(t0_acc[r_1_2], t0_acc[r_1_2 + 2]);
            }
          }
          __syncthreads();
          {
            const int r_1_1 = AT_THREAD(x);
            if (r_1_1 < 1) {
              t0_acc[r_1_1] = at_max_f32(t0_acc[r_1_1], t0_acc[r_1_1 + 1]);
            }
          }
          if (AT_THREAD(x) == 0) {
            t0[0] = t0_acc[0];
          }
        }
        {
          {
            const int k_1 = AT_THREAD(x);
            t1_acc[k_1] = 0.0f;
          }
          for (int k_0 = 0; k_0 < 2; ++k_0) {
            __syncthreads();
            {
              const int k_1 = AT_THREAD(x);
              t1_acc[k_1] = (t1_acc[k_1] + __builtin_expf((a[10 * i + 4 * k_0 + k_1] - t0[0])));
            }
          }
          {
            const int k_1 = AT_THREAD(x);
            if (k_1 < 2) {
              t1_acc[k_1] = (t1_acc[k_1] + __builtin_expf((a[10 * i + k_1 + 8] - t0[0])));
            }
          }
          __syncthreads();
          {
            const int k_1_2 = AT_THREAD(x);
            if (k_1_2 < 2) {
              t1_acc[k_1_2] = (t1_acc[k_1_2] + t1_acc[k_1_2 + 2]);
            }
          }
          __syncthreads();
          {
            const int k_1_1 = AT_THREAD(x);
            if (k_1_1 < 1) {
              t1_acc[k_1_1] = (t1_acc[k_1_1] + t1_acc[k_1_1 + 1]);
            }
          }
          if (AT_THREAD(x) == 0) {
            t1[0] = t1_acc[0];
          }
        }
        __syncthreads();
        for (int j_0 = 0; j_0 < 2; ++j_0) {
          {
            const int j_1 = AT_THREAD(x);
            t2[10 * i + 4 * j_0 + j_1] = (__builtin_expf((a[10 * i + 4 * j_0 + j_1] - t0[0])) / t1[0]);
          }
        }
        {
          const int j_1 = AT_THREAD(x);
          if (j_1 < 2) {
            t2[10 * i + j_1 + 8] = (__builtin_expf((a[10 * i + j_1 + 8] - t0[0])) / t1[0]);
          }
        }
      }
    }
  }
}
