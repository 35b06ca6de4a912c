#ifndef AT_HOST
static __device__ inline void at_copy_async8(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" :: "r"((unsigned int)__cvta_generic_to_shared(to)), "l"(from)
               : "memory");
#else
  *(float2 *)to = *(const float2 *)from;
#endif
}
#endif
#ifndef AT_HOST
static __device__ inline void at_copy_wait1() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group; cp.async.wait_group 1;" ::: "memory");
#endif
}
#endif
#ifndef AT_HOST
static __device__ inline void at_mma_m16n8k16_f16(float *c, const unsigned int *a, const unsigned int *b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
extern "C" __global__ void __launch_bounds__(128) kernel0(const unsigned short* __restrict__ a, const unsigned short* __restrict__ b, float* __restrict__ t0) {
  __shared__ __align__(16) unsigned short t0_load0[1536];
  __shared__ __align__(16) unsigned short t0_load1[768];
  const int at_thread = (int)threadIdx.x + 32 * ((int)threadIdx.y + 2 * (int)threadIdx.z);
  {
    const int i_0 = 0;
    {
      const int j_0 = (int)blockIdx.x;
      {
        float t0_acc[4];
        {
          const int i_1_0 = (int)threadIdx.z;
          {
            const int j_1_0 = (int)threadIdx.y;
            {
              const int t0_lane = (int)threadIdx.x;
              #pragma unroll
              for (int i_1_1_0 = 0; i_1_1_0 < 1; ++i_1_1_0) {
                #pragma unroll
                for (int j_1_1_0 = 0; j_1_1_0 < 1; ++j_1_1_0) {
                  #pragma unroll
                  for (int t0_element = 0; t0_element < 4; ++t0_element) {
                    t0_acc[4 * i_1_1_0 + 4 * j_1_1_0 + t0_element] = 0.0f;
                  }
                }
              }
            }
          }
        }
        {
          {
            {
              const int t0_load0_a = at_thread / 4;
              if (t0_load0_a < 32) {
                {
                  const int t0_load0_b_0 = (at_thread) % 4;
                  if (t0_load0_b_0 < 4) {
                    at_copy_async8(t0_load0 + 16 * t0_load0_a + 4 * t0_load0_b_0, a + 80 * t0_load0_a + 4 * t0_load0_b_0);
                  }
                }
              }
            }
            {
              const int t0_load1_a = at_thread / 4;
              if (t0_load1_a < 16) {
                {
                  const int t0_load1_b_0 = (at_thread) % 4;
                  if (t0_load1_b_0 < 4) {
                    at_copy_async8(t0_load1 + 16 * t0_load1_a + 4 * t0_load1_b_0, b + 16 * j_0 + 32 * t0_load1_a + 4 * t0_load1_b_0);
                  }
                }
              }
            }
            at_copy_wait1();
            __syncthreads();
            {
              const int t0_load0_a = at_thread / 4;
              if (t0_load0_a < 32) {
                {
                  const int t0_load0_b_0 = (at_thread) % 4;
                  if (t0_load0_b_0 < 4) {
                    at_copy_async8(t0_load0 + 16 * t0_load0_a + 4 * t0_load0_b_0 + 512, a + 80 * t0_load0_a + 4 * t0_load0_b_0 + 16);
                  }
                }
              }
            }
            {
              const int t0_load1_a = at_thread / 4;
              if (t0_load1_a < 16) {
                {
                  const int t0_load1_b_0 = (at_thread) % 4;
                  if (t0_load1_b_0 < 4) {
                    at_copy_async8(t0_load1 + 16 * t0_load1_a + 4 * t0_load1_b_0 + 256, b + 16 * j_0 + 32 * t0_load1_a + 4 * t0_load1_b_0 + 512);
                  }
                }
              }
            }
            for (int k_0 = 0; k_0 < 3; ++k_0) {
              at_copy_wait1();
              __syncthreads();
              {
                const int t0_load0_a = at_thread / 4;
                if (t0_load0_a < 32) {
                  {
                    const int t0_load0_b_0 = (at_thread) % 4;
                    if (t0_load0_b_0 < 4) {
                      at_copy_async8(t0_load0 + 512 * ((k_0 + 2) % 3) + 16 * t0_load0_a + 4 * t0_load0_b_0, a + 16 * k_0 + 80 * t0_load0_a + 4 * t0_load0_b_0 + 32);
                    }
                  }
                }
              }
              {
                const int t0_load1_a = at_thread / 4;
                if (t0_load1_a < 16) {
                  {
                    const int t0_load1_b_0 = (at_thread) % 4;
                    if (t0_load1_b_0 < 4) {
                      at_copy_async8(t0_load1 + 256 * ((k_0 + 2) % 3) + 16 * t0_load1_a + 4 * t0_load1_b_0, b + 16 * j_0 + 512 * k_0 + 32 * t0_load1_a + 4 * t0_load1_b_0 + 1024);
                    }
                  }
                }
              }
              {
                const int i_1_0 = (int)threadIdx.z;
                {
                  const int j_1_0 = (int)threadIdx.y;
                  {
                    const int t0_lane = (int)threadIdx.x;
                    for (int k_1_0 = 0; k_1_0 < 1; ++k_1_0) {
                      #pragma unroll
                      for (int i_1_1_0 = 0; i_1_1_0 < 1; ++i_1_1_0) {
                        #pragma unroll
                        for (int j_1_1_0 = 0; j_1_1_0 < 1; ++j_1_1_0) {
                          {
                            const unsigned int a[4] = {*(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 128), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 8), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 136)};
                            const unsigned int b[2] = {(unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0] | (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 16] << 16, (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 128] | (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 144] << 16};
                            at_mma_m16n8k16_f16(t0_acc + 4 * i_1_1_0 + 4 * j_1_1_0, a, b);
                          }
                        }
                      }
                    }
                  }
                }
              }
            }
            at_copy_wait1();
            __syncthreads();
            for (int k_0 = 0; k_0 < 2; ++k_0) {
              at_copy_wait1();
              __syncthreads();
              {
                const int i_1_0 = (int)threadIdx.z;
                {
                  const int j_1_0 = (int)threadIdx.y;
                  {
                    const int t0_lane = (int)threadIdx.x;
                    for (int k_1_0 = 0; k_1_0 < 1; ++k_1_0) {
                      #pragma unroll
                      for (int i_1_1_0 = 0; i_1_1_0 < 1; ++i_1_1_0) {
                        #pragma unroll
                        for (int j_1_1_0 = 0; j_1_1_0 < 1; ++j_1_1_0) {
                          {
                            const unsigned int a[4] = {*(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 128), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 8), *(const unsigned int*)(t0_load0 + 2 * ((t0_lane) % 4) + 16 * ((t0_lane) / 4) + 256 * i_1_0 + 256 * i_1_1_0 + 512 * k_0 + 16 * k_1_0 + 136)};
                            const unsigned int b[2] = {(unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0] | (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 16] << 16, (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 128] | (unsigned int)(unsigned short)t0_load1[32 * ((t0_lane) % 4) + ((t0_lane) / 4) + 8 * j_1_0 + 8 * j_1_1_0 + 256 * k_0 + 256 * k_1_0 + 144] << 16};
                            at_mma_m16n8k16_f16(t0_acc + 4 * i_1_1_0 + 4 * j_1_1_0, a, b);
                          }
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
          const int i_1_0 = (int)threadIdx.z;
          {
            const int j_1_0 = (int)threadIdx.y;
            {
              const int t0_lane = (int)threadIdx.x;
              #pragma unroll
              for (int i_1_1_0 = 0; i_1_1_0 < 1; ++i_1_1_0) {
                #pragma unroll
                for (int j_1_1_0 = 0; j_1_1_0 < 1; ++j_1_1_0) {
                  #pragma unroll
                  for (int t0_element = 0; t0_element < 4; ++t0_element) {
                    t0[((t0_element) % 2) + 256 * ((t0_element) / 2) + 2 * ((t0_lane) % 4) + 32 * ((t0_lane) / 4) + 512 * i_1_0 + 512 * i_1_1_0 + 16 * j_0 + 8 * j_1_0 + 8 * j_1_1_0] = t0_acc[4 * i_1_1_0 + 4 * j_1_1_0 + t0_element];
                  }
                }
              }
            }
          }
        }
      }
    }
  }
}
