extern "C" __global__ void __launch_bounds__(6) kernel0_0(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0_part) {
  {
    const int k_part = (int)blockIdx.z;
    {
      const int i = (int)blockIdx.y;
      {
        const int j = (int)threadIdx.x;
        for (int k = 0; k < 4; ++k) {
          t0_part[6 * i + j + 24 * k_part] = (k == 0) ? (a[12 * i + k + 4 * k_part] * b[j + 6 * k + 24 * k_part]) : fmaf(a[12 * i + k + 4 * k_part], b[j + 6 * k + 24 * k_part], t0_part[6 * i + j + 24 * k_part]);
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(6) kernel0_1(float* __restrict__ t0, const float* __restrict__ t0_part) {
  {
    const int i = (int)blockIdx.y;
    {
      const int j = (int)threadIdx.x;
      for (int k_part = 0; k_part < 3; ++k_part) {
        t0[6 * i + j] = (k_part == 0) ? t0_part[6 * i + j + 24 * k_part] : (t0[6 * i + j] + t0_part[6 * i + j + 24 * k_part]);
      }
    }
  }
}
