#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }
__kernel __attribute__((reqd_work_group_size(8, 4, 1))) void kernel0(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[32];
  const int at_thread = at_id(0) + 8 * (at_id(1) + 4 * at_id(2));
  {
    const int i_0 = (int)get_group_id(1);
    {
      const int j_0 = (int)get_group_id(0);
      {
        float t0_acc[4];
        {
          const int i_1_0 = at_id(1);
          {
            const int j_1_0 = at_id(0);
            if (j_1_0 < 4) {
              __attribute__((opencl_unroll_hint))
              for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                __attribute__((opencl_unroll_hint))
                for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                  t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
                }
              }
            }
          }
        }
        for (int k_0 = 0; k_0 < 3; ++k_0) {
          {
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int t0_load0_a = at_thread / 4;
              if (t0_load0_a < 8) {
                {
                  const int t0_load0_b = (at_thread) % 4;
                  if (t0_load0_b < 4) {
                    t0_load0[t0_load0_a + 8 * t0_load0_b] = a[96 * i_0 + 4 * k_0 + 12 * t0_load0_a + t0_load0_b];
                  }
                }
              }
            }
            {
              {
                const int t0_load1_a = at_thread / 8;
                if (t0_load1_a < 4) {
                  {
                    const int t0_load1_b = (at_thread) % 8;
                    if (t0_load1_b < 8) {
                      t0_load1[8 * t0_load1_a + t0_load1_b] = b[8 * j_0 + 64 * k_0 + 16 * t0_load1_a + t0_load1_b];
                    }
                  }
                }
              }
              barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
              {
                const int i_1_0 = at_id(1);
                {
                  const int j_1_0 = at_id(0);
                  if (j_1_0 < 4) {
                    for (int k_1 = 0; k_1 < 4; ++k_1) {
                      __attribute__((opencl_unroll_hint))
                      for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                        __attribute__((opencl_unroll_hint))
                        for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                          t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
                        }
                      }
                    }
                  }
                }
              }
            }
          }
        }
        {
          const int i_1_0 = at_id(1);
          {
            const int j_1_0 = at_id(0);
            if (j_1_0 < 4) {
              __attribute__((opencl_unroll_hint))
              for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                __attribute__((opencl_unroll_hint))
                for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                  t0[128 * i_0 + 32 * i_1_0 + 16 * i_1_1 + 8 * j_0 + 2 * j_1_0 + j_1_1] = t0_acc[2 * i_1_1 + j_1_1];
                }
              }
            }
          }
        }
      }
    }
  }
}
