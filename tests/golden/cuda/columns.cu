extern "C" __global__ void __launch_bounds__(32) kernel0(const float* __restrict__ a, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_acc[32];
  {
    const int i_0 = (int)blockIdx.x;
    {
      {
        const int k_1 = (int)threadIdx.y;
        {
          const int i_1 = (int)threadIdx.x;
          t0_acc[i_1 + 8 * k_1] = 0.0f;
        }
      }
      for (int k_0 = 0; k_0 < 5; ++k_0) {
        {
          const int k_1 = (int)threadIdx.y;
          {
            const int i_1 = (int)threadIdx.x;
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 64 * k_0 + 16 * k_1]);
          }
        }
      }
      {
        const int k_1 = (int)threadIdx.y;
        if (k_1 < 2) {
          {
            const int i_1 = (int)threadIdx.x;
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 16 * k_1 + 320]);
          }
        }
      }
      __syncthreads();
      {
        const int k_1_2 = (int)threadIdx.y;
        if (k_1_2 < 2) {
          {
            const int i_1 = (int)threadIdx.x;
            t0_acc[i_1 + 8 * k_1_2] = (t0_acc[i_1 + 8 * k_1_2] + t0_acc[i_1 + 8 * k_1_2 + 16]);
          }
        }
      }
      __syncthreads();
      {
        const int k_1_1 = (int)threadIdx.y;
        if (k_1_1 < 1) {
          {
            const int i_1 = (int)threadIdx.x;
            t0_acc[i_1 + 8 * k_1_1] = (t0_acc[i_1 + 8 * k_1_1] + t0_acc[i_1 + 8 * k_1_1 + 8]);
          }
        }
      }
      __syncthreads();
      {
        const int i_1 = (int)threadIdx.x;
        if ((int)threadIdx.y == 0) {
          t0[8 * i_0 + i_1] = t0_acc[i_1];
        }
      }
    }
  }
}
