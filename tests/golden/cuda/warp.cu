static __device__ inline float at_shuffle_f32(float x, int ahead) { return __shfl_down_sync(0xffffffffu, x, ahead); }
extern "C" __global__ void __launch_bounds__(8) kernel0(const float* __restrict__ a, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_acc[8];
  {
    const int i = (int)blockIdx.x;
    {
      {
        const int k_1 = (int)threadIdx.x;
        t0_acc[k_1] = 0.0f;
      }
      for (int k_0 = 0; k_0 < 2; ++k_0) {
        {
          const int k_1 = (int)threadIdx.x;
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + 8 * k_0 + k_1]);
        }
      }
      {
        const int k_1 = (int)threadIdx.x;
        if (k_1 < 6) {
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + k_1 + 16]);
        }
      }
      __syncthreads();
      {
        const int k_1_4 = (int)threadIdx.x;
        if (k_1_4 < 4) {
          t0_acc[k_1_4] = (t0_acc[k_1_4] + t0_acc[k_1_4 + 4]);
        }
      }
      {
        float t0_warp[1];
        {
          const int k_1_lane = (int)threadIdx.x;
          if (k_1_lane < 4) {
            t0_warp[0] = t0_acc[k_1_lane];
          }
        }
        {
          const int k_1_2 = (int)threadIdx.x;
          const float v1 = at_shuffle_f32(t0_warp[0], 2);
          if (k_1_2 < 2) {
            t0_warp[0] = (t0_warp[0] + v1);
          }
        }
        {
          const int k_1_1 = (int)threadIdx.x;
          const float v2 = at_shuffle_f32(t0_warp[0], 1);
          if (k_1_1 < 1) {
            t0_warp[0] = (t0_warp[0] + v2);
          }
        }
        if ((int)threadIdx.x == 0) {
          t0[i] = t0_warp[0];
        }
      }
    }
  }
}
