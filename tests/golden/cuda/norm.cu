static __device__ inline float at_max_f32(float a, float b) { return a > b || a != a ? a : b; }
extern "C" __global__ void __launch_bounds__(4) kernel0(const float* __restrict__ a, float* __restrict__ t2) {
  __shared__ __align__(16) float t0[1];
  __shared__ __align__(16) float t1[1];
  __shared__ __align__(16) float t0_acc[4];
  __shared__ __align__(16) float t1_acc[4];
  {
    const int i = (int)blockIdx.x;
    {
      {
        {
          {
            const int r_1 = (int)threadIdx.x;
            t0_acc[r_1] = ((float)-__int_as_float(0x7f800000));
          }
          for (int r_0 = 0; r_0 < 2; ++r_0) {
            {
              const int r_1 = (int)threadIdx.x;
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + 4 * r_0 + r_1]);
            }
          }
          {
            const int r_1 = (int)threadIdx.x;
            if (r_1 < 2) {
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + r_1 + 8]);
            }
          }
          __syncthreads();
          {
            const int r_1_2 = (int)threadIdx.x;
            if (r_1_2 < 2) {
              t0_acc[r_1_2] = at_max_f32(t0_acc[r_1_2], t0_acc[r_1_2 + 2]);
            }
          }
          __syncthreads();
          {
            const int r_1_1 = (int)threadIdx.x;
            if (r_1_1 < 1) {
              t0_acc[r_1_1] = at_max_f32(t0_acc[r_1_1], t0_acc[r_1_1 + 1]);
            }
          }
          if ((int)threadIdx.x == 0) {
            t0[0] = t0_acc[0];
          }
        }
        {
          {
            const int k_1 = (int)threadIdx.x;
            t1_acc[k_1] = 0.0f;
          }
          for (int k_0 = 0; k_0 < 2; ++k_0) {
            __syncthreads();
            {
              const int k_1 = (int)threadIdx.x;
              t1_acc[k_1] = (t1_acc[k_1] + expf((a[10 * i + 4 * k_0 + k_1] - t0[0])));
            }
          }
          {
            const int k_1 = (int)threadIdx.x;
            if (k_1 < 2) {
              t1_acc[k_1] = (t1_acc[k_1] + expf((a[10 * i + k_1 + 8] - t0[0])));
            }
          }
          __syncthreads();
          {
            const int k_1_2 = (int)threadIdx.x;
            if (k_1_2 < 2) {
              t1_acc[k_1_2] = (t1_acc[k_1_2] + t1_acc[k_1_2 + 2]);
            }
          }
          __syncthreads();
          {
            const int k_1_1 = (int)threadIdx.x;
            if (k_1_1 < 1) {
              t1_acc[k_1_1] = (t1_acc[k_1_1] + t1_acc[k_1_1 + 1]);
            }
          }
          if ((int)threadIdx.x == 0) {
            t1[0] = t1_acc[0];
          }
        }
        __syncthreads();
        for (int j_0 = 0; j_0 < 2; ++j_0) {
          {
            const int j_1 = (int)threadIdx.x;
            t2[10 * i + 4 * j_0 + j_1] = (expf((a[10 * i + 4 * j_0 + j_1] - t0[0])) / t1[0]);
          }
        }
        {
          const int j_1 = (int)threadIdx.x;
          if (j_1 < 2) {
            t2[10 * i + j_1 + 8] = (expf((a[10 * i + j_1 + 8] - t0[0])) / t1[0]);
          }
        }
      }
    }
  }
}
