#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }
static inline float at_max_f32(float a, float b) { return a > b || a != a ? a : b; }
__kernel __attribute__((reqd_work_group_size(4, 1, 1))) void kernel0(__global const float* restrict a, __global float* restrict t2) {
  __local float t0[1];
  __local float t1[1];
  __local float t0_acc[4];
  __local float t1_acc[4];
  {
    const int i = (int)get_group_id(0);
    {
      {
        {
          {
            const int r_1 = at_id(0);
            t0_acc[r_1] = ((float)-INFINITY);
          }
          for (int r_0 = 0; r_0 < 2; ++r_0) {
            {
              const int r_1 = at_id(0);
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + 4 * r_0 + r_1]);
            }
          }
          {
            const int r_1 = at_id(0);
            if (r_1 < 2) {
              t0_acc[r_1] = at_max_f32(t0_acc[r_1], a[10 * i + r_1 + 8]);
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int r_1_2 = at_id(0);
            if (r_1_2 < 2) {
              t0_acc[r_1_2] = at_max_f32(t0_acc[r_1_2], t0_acc[r_1_2 + 2]);
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int r_1_1 = at_id(0);
            if (r_1_1 < 1) {
              t0_acc[r_1_1] = at_max_f32(t0_acc[r_1_1], t0_acc[r_1_1 + 1]);
            }
          }
          if (at_id(0) == 0) {
            t0[0] = t0_acc[0];
          }
        }
        {
          {
            const int k_1 = at_id(0);
            t1_acc[k_1] = 0.0f;
          }
          for (int k_0 = 0; k_0 < 2; ++k_0) {
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int k_1 = at_id(0);
              t1_acc[k_1] = (t1_acc[k_1] + exp((a[10 * i + 4 * k_0 + k_1] - t0[0])));
            }
          }
          {
            const int k_1 = at_id(0);
            if (k_1 < 2) {
              t1_acc[k_1] = (t1_acc[k_1] + exp((a[10 * i + k_1 + 8] - t0[0])));
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int k_1_2 = at_id(0);
            if (k_1_2 < 2) {
              t1_acc[k_1_2] = (t1_acc[k_1_2] + t1_acc[k_1_2 + 2]);
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int k_1_1 = at_id(0);
            if (k_1_1 < 1) {
              t1_acc[k_1_1] = (t1_acc[k_1_1] + t1_acc[k_1_1 + 1]);
            }
          }
          if (at_id(0) == 0) {
            t1[0] = t1_acc[0];
          }
        }
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        for (int j_0 = 0; j_0 < 2; ++j_0) {
          {
            const int j_1 = at_id(0);
            t2[10 * i + 4 * j_0 + j_1] = (exp((a[10 * i + 4 * j_0 + j_1] - t0[0])) / t1[0]);
          }
        }
        {
          const int j_1 = at_id(0);
          if (j_1 < 2) {
            t2[10 * i + j_1 + 8] = (exp((a[10 * i + j_1 + 8] - t0[0])) / t1[0]);
          }
        }
      }
    }
  }
}
