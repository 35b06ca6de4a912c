#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
static inline int at_id(uint axis) { volatile int n = (int)get_local_id(axis); return n; }
static inline int at_min(int a, int b) { return a < b ? a : b; }
__kernel __attribute__((reqd_work_group_size(8, 4, 1))) void kernel0_0(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[32];
  const int at_thread = at_id(0) + 8 * (at_id(1) + 4 * at_id(2));
  {
    const int i_0 = 0;
    {
      const int j_0 = 0;
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
                  if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                    t0_load0[t0_load0_a + 8 * t0_load0_b] = a[80 * i_0 + 4 * k_0 + 10 * t0_load0_a + t0_load0_b];
                  }
                }
              }
            }
            {
              {
                const int t0_load1_a = at_thread / 8;
                if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
                  {
                    const int t0_load1_b = (at_thread) % 8;
                    if (t0_load1_b < 8) {
                      t0_load1[8 * t0_load1_a + t0_load1_b] = b[8 * j_0 + 52 * k_0 + 13 * t0_load1_a + t0_load1_b];
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
                    for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
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
                  t0[104 * i_0 + 26 * i_1_0 + 13 * i_1_1 + 8 * j_0 + 2 * j_1_0 + j_1_1] = t0_acc[2 * i_1_1 + j_1_1];
                }
              }
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(8, 4, 1))) void kernel0_1(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[16];
  const int at_thread = at_id(0) + 8 * (at_id(1) + 4 * at_id(2));
  {
    const int i_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = at_id(1);
        {
          const int j_1_0 = at_id(0);
          if (j_1_0 < 2) {
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
                if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                  t0_load0[t0_load0_a + 8 * t0_load0_b] = a[80 * i_0 + 4 * k_0 + 10 * t0_load0_a + t0_load0_b];
                }
              }
            }
          }
          {
            {
              const int t0_load1_a = at_thread / 4;
              if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
                {
                  const int t0_load1_b = (at_thread) % 4;
                  if (t0_load1_b < 4) {
                    t0_load1[4 * t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 8];
                  }
                }
              }
            }
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int i_1_0 = at_id(1);
              {
                const int j_1_0 = at_id(0);
                if (j_1_0 < 2) {
                  for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                    __attribute__((opencl_unroll_hint))
                    for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                      __attribute__((opencl_unroll_hint))
                      for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                        t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
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
          if (j_1_0 < 2) {
            __attribute__((opencl_unroll_hint))
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              __attribute__((opencl_unroll_hint))
              for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                t0[104 * i_0 + 26 * i_1_0 + 13 * i_1_1 + 2 * j_1_0 + j_1_1 + 8] = t0_acc[2 * i_1_1 + j_1_1];
              }
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(8, 4, 1))) void kernel0_2(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[4];
  const int at_thread = at_id(0) + 8 * (at_id(1) + 4 * at_id(2));
  {
    const int i_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = at_id(1);
        if (at_id(0) == 0) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
              t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
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
                if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                  t0_load0[t0_load0_a + 8 * t0_load0_b] = a[80 * i_0 + 4 * k_0 + 10 * t0_load0_a + t0_load0_b];
                }
              }
            }
          }
          {
            {
              const int t0_load1_a = at_thread;
              if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
                {
                  const int t0_load1_b = (at_thread) % 1;
                  if (t0_load1_b < 1) {
                    t0_load1[t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 12];
                  }
                }
              }
            }
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int i_1_0 = at_id(1);
              if (at_id(0) == 0) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  __attribute__((opencl_unroll_hint))
                  for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                    __attribute__((opencl_unroll_hint))
                    for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                      t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[2 * i_1_1 + j_1_1]);
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
        if (at_id(0) == 0) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
              t0[104 * i_0 + 26 * i_1_0 + 13 * i_1_1 + j_1_1 + 12] = t0_acc[2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(32, 1, 1))) void kernel0_3(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[32];
  const int at_thread = at_id(0) + 32 * (at_id(1) + 1 * at_id(2));
  {
    const int j_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = 0;
        {
          const int j_1_0 = at_id(0);
          if (j_1_0 < 4) {
            __attribute__((opencl_unroll_hint))
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              __attribute__((opencl_unroll_hint))
              for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
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
            if (t0_load0_a < 2) {
              {
                const int t0_load0_b = (at_thread) % 4;
                if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                  t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 80];
                }
              }
            }
          }
          {
            {
              const int t0_load1_a = at_thread / 8;
              if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
                {
                  const int t0_load1_b = (at_thread) % 8;
                  if (t0_load1_b < 8) {
                    t0_load1[8 * t0_load1_a + t0_load1_b] = b[8 * j_0 + 52 * k_0 + 13 * t0_load1_a + t0_load1_b];
                  }
                }
              }
            }
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int i_1_0 = 0;
              {
                const int j_1_0 = at_id(0);
                if (j_1_0 < 4) {
                  for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                    __attribute__((opencl_unroll_hint))
                    for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                      __attribute__((opencl_unroll_hint))
                      for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                        t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
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
        const int i_1_0 = 0;
        {
          const int j_1_0 = at_id(0);
          if (j_1_0 < 4) {
            __attribute__((opencl_unroll_hint))
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              __attribute__((opencl_unroll_hint))
              for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                t0[26 * i_1_0 + 13 * i_1_1 + 8 * j_0 + 2 * j_1_0 + j_1_1 + 104] = t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1];
              }
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(32, 1, 1))) void kernel0_4(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[32];
  const int at_thread = at_id(0) + 32 * (at_id(1) + 1 * at_id(2));
  {
    const int j_0 = 0;
    {
      float t0_acc[4];
      {
        const int j_1_0 = at_id(0);
        if (j_1_0 < 4) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
            }
          }
        }
      }
      for (int k_0 = 0; k_0 < 3; ++k_0) {
        {
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int t0_load0_a = at_thread / 4;
            if (t0_load0_a < 1) {
              {
                const int t0_load0_b = (at_thread) % 4;
                if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                  t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 100];
                }
              }
            }
          }
          {
            {
              const int t0_load1_a = at_thread / 8;
              if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
                {
                  const int t0_load1_b = (at_thread) % 8;
                  if (t0_load1_b < 8) {
                    t0_load1[8 * t0_load1_a + t0_load1_b] = b[8 * j_0 + 52 * k_0 + 13 * t0_load1_a + t0_load1_b];
                  }
                }
              }
            }
            barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
            {
              const int j_1_0 = at_id(0);
              if (j_1_0 < 4) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  __attribute__((opencl_unroll_hint))
                  for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                    __attribute__((opencl_unroll_hint))
                    for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                      t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
                    }
                  }
                }
              }
            }
          }
        }
      }
      {
        const int j_1_0 = at_id(0);
        if (j_1_0 < 4) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0[13 * i_1_1 + 8 * j_0 + 2 * j_1_0 + j_1_1 + 130] = t0_acc[2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(16, 1, 1))) void kernel0_5(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[16];
  const int at_thread = at_id(0) + 16 * (at_id(1) + 1 * at_id(2));
  {
    float t0_acc[4];
    {
      const int i_1_0 = 0;
      {
        const int j_1_0 = at_id(0);
        if (j_1_0 < 2) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
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
          if (t0_load0_a < 2) {
            {
              const int t0_load0_b = (at_thread) % 4;
              if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 80];
              }
            }
          }
        }
        {
          {
            const int t0_load1_a = at_thread / 4;
            if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
              {
                const int t0_load1_b = (at_thread) % 4;
                if (t0_load1_b < 4) {
                  t0_load1[4 * t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 8];
                }
              }
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int i_1_0 = 0;
            {
              const int j_1_0 = at_id(0);
              if (j_1_0 < 2) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  __attribute__((opencl_unroll_hint))
                  for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                    __attribute__((opencl_unroll_hint))
                    for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                      t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
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
      const int i_1_0 = 0;
      {
        const int j_1_0 = at_id(0);
        if (j_1_0 < 2) {
          __attribute__((opencl_unroll_hint))
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            __attribute__((opencl_unroll_hint))
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0[26 * i_1_0 + 13 * i_1_1 + 2 * j_1_0 + j_1_1 + 112] = t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(8, 1, 1))) void kernel0_6(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[4];
  const int at_thread = at_id(0) + 8 * (at_id(1) + 1 * at_id(2));
  {
    float t0_acc[4];
    {
      const int i_1_0 = 0;
      if (at_id(0) == 0) {
        __attribute__((opencl_unroll_hint))
        for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
          __attribute__((opencl_unroll_hint))
          for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
            t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
          }
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        {
          const int t0_load0_a = at_thread / 4;
          if (t0_load0_a < 2) {
            {
              const int t0_load0_b = (at_thread) % 4;
              if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 80];
              }
            }
          }
        }
        {
          {
            const int t0_load1_a = at_thread;
            if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
              {
                const int t0_load1_b = (at_thread) % 1;
                if (t0_load1_b < 1) {
                  t0_load1[t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 12];
                }
              }
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int i_1_0 = 0;
            if (at_id(0) == 0) {
              for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                __attribute__((opencl_unroll_hint))
                for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                  __attribute__((opencl_unroll_hint))
                  for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                    t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fma(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
                  }
                }
              }
            }
          }
        }
      }
    }
    {
      const int i_1_0 = 0;
      if (at_id(0) == 0) {
        __attribute__((opencl_unroll_hint))
        for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
          __attribute__((opencl_unroll_hint))
          for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
            t0[26 * i_1_0 + 13 * i_1_1 + j_1_1 + 116] = t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1];
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(16, 1, 1))) void kernel0_7(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[16];
  const int at_thread = at_id(0) + 16 * (at_id(1) + 1 * at_id(2));
  {
    float t0_acc[4];
    {
      const int j_1_0 = at_id(0);
      if (j_1_0 < 2) {
        __attribute__((opencl_unroll_hint))
        for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
          __attribute__((opencl_unroll_hint))
          for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
            t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
          }
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        {
          const int t0_load0_a = at_thread / 4;
          if (t0_load0_a < 1) {
            {
              const int t0_load0_b = (at_thread) % 4;
              if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 100];
              }
            }
          }
        }
        {
          {
            const int t0_load1_a = at_thread / 4;
            if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
              {
                const int t0_load1_b = (at_thread) % 4;
                if (t0_load1_b < 4) {
                  t0_load1[4 * t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 8];
                }
              }
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          {
            const int j_1_0 = at_id(0);
            if (j_1_0 < 2) {
              for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                __attribute__((opencl_unroll_hint))
                for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                  __attribute__((opencl_unroll_hint))
                  for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                    t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
                  }
                }
              }
            }
          }
        }
      }
    }
    {
      const int j_1_0 = at_id(0);
      if (j_1_0 < 2) {
        __attribute__((opencl_unroll_hint))
        for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
          __attribute__((opencl_unroll_hint))
          for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
            t0[13 * i_1_1 + 2 * j_1_0 + j_1_1 + 138] = t0_acc[2 * i_1_1 + j_1_1];
          }
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(4, 1, 1))) void kernel0_8(__global const float* restrict a, __global const float* restrict b, __global float* restrict t0) {
  __local float t0_load0[32];
  __local float t0_load1[4];
  const int at_thread = at_id(0) + 4 * (at_id(1) + 1 * at_id(2));
  {
    float t0_acc[4];
    if (at_id(0) == 0) {
      __attribute__((opencl_unroll_hint))
      for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
        __attribute__((opencl_unroll_hint))
        for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
          t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        {
          const int t0_load0_a = at_thread / 4;
          if (t0_load0_a < 1) {
            {
              const int t0_load0_b = (at_thread) % 4;
              if (t0_load0_b < at_min(-4 * k_0 + 10, 4)) {
                t0_load0[t0_load0_a + 8 * t0_load0_b] = a[4 * k_0 + 10 * t0_load0_a + t0_load0_b + 100];
              }
            }
          }
        }
        {
          {
            const int t0_load1_a = at_thread;
            if (t0_load1_a < at_min(-4 * k_0 + 10, 4)) {
              {
                const int t0_load1_b = (at_thread) % 1;
                if (t0_load1_b < 1) {
                  t0_load1[t0_load1_a + t0_load1_b] = b[52 * k_0 + 13 * t0_load1_a + t0_load1_b + 12];
                }
              }
            }
          }
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          if (at_id(0) == 0) {
            for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
              __attribute__((opencl_unroll_hint))
              for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                __attribute__((opencl_unroll_hint))
                for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                  t0_acc[2 * i_1_1 + j_1_1] = fma(t0_load0[i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[2 * i_1_1 + j_1_1]);
                }
              }
            }
          }
        }
      }
    }
    if (at_id(0) == 0) {
      __attribute__((opencl_unroll_hint))
      for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
        __attribute__((opencl_unroll_hint))
        for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
          t0[13 * i_1_1 + j_1_1 + 142] = t0_acc[2 * i_1_1 + j_1_1];
        }
      }
    }
  }
}
