static __device__ inline int at_min(int a, int b) { return a < b ? a : b; }
extern "C" __global__ void __launch_bounds__(32) kernel0_0(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[32];
  const int at_thread = (int)threadIdx.x + 8 * ((int)threadIdx.y + 4 * (int)threadIdx.z);
  {
    const int i_0 = 0;
    {
      const int j_0 = 0;
      {
        float t0_acc[4];
        {
          const int i_1_0 = (int)threadIdx.y;
          {
            const int j_1_0 = (int)threadIdx.x;
            if (j_1_0 < 4) {
              #pragma unroll
              for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                #pragma unroll
                for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                  t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
                }
              }
            }
          }
        }
        for (int k_0 = 0; k_0 < 3; ++k_0) {
          {
            __syncthreads();
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
              __syncthreads();
              {
                const int i_1_0 = (int)threadIdx.y;
                {
                  const int j_1_0 = (int)threadIdx.x;
                  if (j_1_0 < 4) {
                    for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                      #pragma unroll
                      for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                        #pragma unroll
                        for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                          t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
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
          const int i_1_0 = (int)threadIdx.y;
          {
            const int j_1_0 = (int)threadIdx.x;
            if (j_1_0 < 4) {
              #pragma unroll
              for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                #pragma unroll
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

extern "C" __global__ void __launch_bounds__(32) kernel0_1(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[16];
  const int at_thread = (int)threadIdx.x + 8 * ((int)threadIdx.y + 4 * (int)threadIdx.z);
  {
    const int i_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = (int)threadIdx.y;
        {
          const int j_1_0 = (int)threadIdx.x;
          if (j_1_0 < 2) {
            #pragma unroll
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              #pragma unroll
              for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
              }
            }
          }
        }
      }
      for (int k_0 = 0; k_0 < 3; ++k_0) {
        {
          __syncthreads();
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
            __syncthreads();
            {
              const int i_1_0 = (int)threadIdx.y;
              {
                const int j_1_0 = (int)threadIdx.x;
                if (j_1_0 < 2) {
                  for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                    #pragma unroll
                    for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                      #pragma unroll
                      for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                        t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
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
        const int i_1_0 = (int)threadIdx.y;
        {
          const int j_1_0 = (int)threadIdx.x;
          if (j_1_0 < 2) {
            #pragma unroll
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              #pragma unroll
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

extern "C" __global__ void __launch_bounds__(32) kernel0_2(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[4];
  const int at_thread = (int)threadIdx.x + 8 * ((int)threadIdx.y + 4 * (int)threadIdx.z);
  {
    const int i_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = (int)threadIdx.y;
        if ((int)threadIdx.x == 0) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
              t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
            }
          }
        }
      }
      for (int k_0 = 0; k_0 < 3; ++k_0) {
        {
          __syncthreads();
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
            __syncthreads();
            {
              const int i_1_0 = (int)threadIdx.y;
              if ((int)threadIdx.x == 0) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  #pragma unroll
                  for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                    #pragma unroll
                    for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                      t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[2 * i_1_1 + j_1_1]);
                    }
                  }
                }
              }
            }
          }
        }
      }
      {
        const int i_1_0 = (int)threadIdx.y;
        if ((int)threadIdx.x == 0) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
              t0[104 * i_0 + 26 * i_1_0 + 13 * i_1_1 + j_1_1 + 12] = t0_acc[2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(32) kernel0_3(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[32];
  const int at_thread = (int)threadIdx.x + 32 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    const int j_0 = 0;
    {
      float t0_acc[4];
      {
        const int i_1_0 = 0;
        {
          const int j_1_0 = (int)threadIdx.x;
          if (j_1_0 < 4) {
            #pragma unroll
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              #pragma unroll
              for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
              }
            }
          }
        }
      }
      for (int k_0 = 0; k_0 < 3; ++k_0) {
        {
          __syncthreads();
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
            __syncthreads();
            {
              const int i_1_0 = 0;
              {
                const int j_1_0 = (int)threadIdx.x;
                if (j_1_0 < 4) {
                  for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                    #pragma unroll
                    for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                      #pragma unroll
                      for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                        t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
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
          const int j_1_0 = (int)threadIdx.x;
          if (j_1_0 < 4) {
            #pragma unroll
            for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
              #pragma unroll
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

extern "C" __global__ void __launch_bounds__(32) kernel0_4(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[32];
  const int at_thread = (int)threadIdx.x + 32 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    const int j_0 = 0;
    {
      float t0_acc[4];
      {
        const int j_1_0 = (int)threadIdx.x;
        if (j_1_0 < 4) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
            }
          }
        }
      }
      for (int k_0 = 0; k_0 < 3; ++k_0) {
        {
          __syncthreads();
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
            __syncthreads();
            {
              const int j_1_0 = (int)threadIdx.x;
              if (j_1_0 < 4) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  #pragma unroll
                  for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                    #pragma unroll
                    for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                      t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 8 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
                    }
                  }
                }
              }
            }
          }
        }
      }
      {
        const int j_1_0 = (int)threadIdx.x;
        if (j_1_0 < 4) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0[13 * i_1_1 + 8 * j_0 + 2 * j_1_0 + j_1_1 + 130] = t0_acc[2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(16) kernel0_5(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[16];
  const int at_thread = (int)threadIdx.x + 16 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    float t0_acc[4];
    {
      const int i_1_0 = 0;
      {
        const int j_1_0 = (int)threadIdx.x;
        if (j_1_0 < 2) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
            }
          }
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        __syncthreads();
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
          __syncthreads();
          {
            const int i_1_0 = 0;
            {
              const int j_1_0 = (int)threadIdx.x;
              if (j_1_0 < 2) {
                for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                  #pragma unroll
                  for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                    #pragma unroll
                    for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                      t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
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
        const int j_1_0 = (int)threadIdx.x;
        if (j_1_0 < 2) {
          #pragma unroll
          for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
            #pragma unroll
            for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
              t0[26 * i_1_0 + 13 * i_1_1 + 2 * j_1_0 + j_1_1 + 112] = t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1];
            }
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(8) kernel0_6(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[4];
  const int at_thread = (int)threadIdx.x + 8 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    float t0_acc[4];
    {
      const int i_1_0 = 0;
      if ((int)threadIdx.x == 0) {
        #pragma unroll
        for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
          #pragma unroll
          for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
            t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = 0.0f;
          }
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        __syncthreads();
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
          __syncthreads();
          {
            const int i_1_0 = 0;
            if ((int)threadIdx.x == 0) {
              for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                #pragma unroll
                for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
                  #pragma unroll
                  for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                    t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1] = fmaf(t0_load0[2 * i_1_0 + i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1]);
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
      if ((int)threadIdx.x == 0) {
        #pragma unroll
        for (int i_1_1 = 0; i_1_1 < 2; ++i_1_1) {
          #pragma unroll
          for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
            t0[26 * i_1_0 + 13 * i_1_1 + j_1_1 + 116] = t0_acc[4 * i_1_0 + 2 * i_1_1 + j_1_1];
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(16) kernel0_7(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[16];
  const int at_thread = (int)threadIdx.x + 16 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    float t0_acc[4];
    {
      const int j_1_0 = (int)threadIdx.x;
      if (j_1_0 < 2) {
        #pragma unroll
        for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
          #pragma unroll
          for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
            t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
          }
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        __syncthreads();
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
          __syncthreads();
          {
            const int j_1_0 = (int)threadIdx.x;
            if (j_1_0 < 2) {
              for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
                #pragma unroll
                for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                  #pragma unroll
                  for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
                    t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[i_1_1 + 8 * k_1], t0_load1[2 * j_1_0 + j_1_1 + 4 * k_1], t0_acc[2 * i_1_1 + j_1_1]);
                  }
                }
              }
            }
          }
        }
      }
    }
    {
      const int j_1_0 = (int)threadIdx.x;
      if (j_1_0 < 2) {
        #pragma unroll
        for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
          #pragma unroll
          for (int j_1_1 = 0; j_1_1 < 2; ++j_1_1) {
            t0[13 * i_1_1 + 2 * j_1_0 + j_1_1 + 138] = t0_acc[2 * i_1_1 + j_1_1];
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(4) kernel0_8(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) float t0_load0[32];
  __shared__ __align__(16) float t0_load1[4];
  const int at_thread = (int)threadIdx.x + 4 * ((int)threadIdx.y + 1 * (int)threadIdx.z);
  {
    float t0_acc[4];
    if ((int)threadIdx.x == 0) {
      #pragma unroll
      for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
        #pragma unroll
        for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
          t0_acc[2 * i_1_1 + j_1_1] = 0.0f;
        }
      }
    }
    for (int k_0 = 0; k_0 < 3; ++k_0) {
      {
        __syncthreads();
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
          __syncthreads();
          if ((int)threadIdx.x == 0) {
            for (int k_1 = 0; k_1 < at_min(4, -4 * k_0 + 10); ++k_1) {
              #pragma unroll
              for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
                #pragma unroll
                for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
                  t0_acc[2 * i_1_1 + j_1_1] = fmaf(t0_load0[i_1_1 + 8 * k_1], t0_load1[j_1_1 + k_1], t0_acc[2 * i_1_1 + j_1_1]);
                }
              }
            }
          }
        }
      }
    }
    if ((int)threadIdx.x == 0) {
      #pragma unroll
      for (int i_1_1 = 0; i_1_1 < 1; ++i_1_1) {
        #pragma unroll
        for (int j_1_1 = 0; j_1_1 < 1; ++j_1_1) {
          t0[13 * i_1_1 + j_1_1 + 142] = t0_acc[2 * i_1_1 + j_1_1];
        }
      }
    }
  }
}
