#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }
__kernel __attribute__((reqd_work_group_size(6, 1, 1))) void kernel0_0(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0_part) {
  {
    const int k_part = (int)get_group_id(2);
    {
      const int i = (int)get_group_id(1);
      {
        const int j = at_id(0);
        for (int k = 0; k < 4; ++k) {
          t0_part[6 * i + j + 24 * k_part] = (k == 0) ? (a[12 * i + k + 4 * k_part] * b[j + 6 * k + 24 * k_part]) : fma(a[12 * i + k + 4 * k_part], b[j + 6 * k + 24 * k_part], t0_part[6 * i + j + 24 * k_part]);
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(6, 1, 1))) void kernel0_1(__global float* restrict t0, __global const float* restrict t0_part) {
  {
    const int i = (int)get_group_id(1);
    {
      const int j = at_id(0);
      for (int k_part = 0; k_part < 3; ++k_part) {
        t0[6 * i + j] = (k_part == 0) ? t0_part[6 * i + j + 24 * k_part] : (t0[6 * i + j] + t0_part[6 * i + j + 24 * k_part]);
      }
    }
  }
}
