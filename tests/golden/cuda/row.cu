extern "C" __global__ void __launch_bounds__(4) kernel0(const float* __restrict__ a, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_acc[4];
  {
    const int i = (int)blockIdx.x;
    {
      {
        const int k_1 = (int)threadIdx.x;
        t0_acc[k_1] = 0.0f;
      }
      for (int k_0 = 0; k_0 < 5; ++k_0) {
        {
          const int k_1 = (int)threadIdx.x;
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + 4 * k_0 + k_1]);
        }
      }
      {
        const int k_1 = (int)threadIdx.x;
        if (k_1 < 2) {
          t0_acc[k_1] = (t0_acc[k_1] + a[22 * i + k_1 + 20]);
        }
      }
      __syncthreads();
      {
        const int k_1_2 = (int)threadIdx.x;
        if (k_1_2 < 2) {
          t0_acc[k_1_2] = (t0_acc[k_1_2] + t0_acc[k_1_2 + 2]);
        }
      }
      __syncthreads();
      {
        const int k_1_1 = (int)threadIdx.x;
        if (k_1_1 < 1) {
          t0_acc[k_1_1] = (t0_acc[k_1_1] + t0_acc[k_1_1 + 1]);
        }
      }
      if ((int)threadIdx.x == 0) {
        t0[i] = t0_acc[0];
      }
    }
  }
}
