#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }
__kernel __attribute__((reqd_work_group_size(8, 4, 1))) void kernel0(__global const float* restrict a, __global float* restrict t0) {
  __local float t0_acc[32];
  {
    const int i_0 = (int)get_group_id(0);
    {
      {
        const int k_1 = at_id(1);
        {
          const int i_1 = at_id(0);
          t0_acc[i_1 + 8 * k_1] = 0.0f;
        }
      }
      for (int k_0 = 0; k_0 < 5; ++k_0) {
        {
          const int k_1 = at_id(1);
          {
            const int i_1 = at_id(0);
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 64 * k_0 + 16 * k_1]);
          }
        }
      }
      {
        const int k_1 = at_id(1);
        if (k_1 < 2) {
          {
            const int i_1 = at_id(0);
            t0_acc[i_1 + 8 * k_1] = (t0_acc[i_1 + 8 * k_1] + a[8 * i_0 + i_1 + 16 * k_1 + 320]);
          }
        }
      }
      barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
      {
        const int k_1_2 = at_id(1);
        if (k_1_2 < 2) {
          {
            const int i_1 = at_id(0);
            t0_acc[i_1 + 8 * k_1_2] = (t0_acc[i_1 + 8 * k_1_2] + t0_acc[i_1 + 8 * k_1_2 + 16]);
          }
        }
      }
      barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
      {
        const int k_1_1 = at_id(1);
        if (k_1_1 < 1) {
          {
            const int i_1 = at_id(0);
            t0_acc[i_1 + 8 * k_1_1] = (t0_acc[i_1 + 8 * k_1_1] + t0_acc[i_1 + 8 * k_1_1 + 8]);
          }
        }
      }
      barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
      {
        const int i_1 = at_id(0);
        if (at_id(1) == 0) {
          t0[8 * i_0 + i_1] = t0_acc[i_1];
        }
      }
    }
  }
}
