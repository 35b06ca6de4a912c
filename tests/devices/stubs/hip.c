// A libamdhip64.so for tests: memory is the process's own, and a module is the path of a library with its kernels.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int E;

E hipSetDevice(int n) { return n ? 101 : 0; }
E hipGetDeviceCount(int *n) { *n = 1; return 0; }
E hipDeviceGetAttribute(int *v, int a, int d) {
  switch (a) {  // hipDeviceAttribute_t of ROCm 6 and later
    case 63: *v = 304; return 0;         // MultiprocessorCount
    case 5: *v = 2100000; return 0;      // ClockRate
    case 60: *v = 1300000; return 0;     // MemoryClockRate
    case 59: *v = 8192; return 0;        // MemoryBusWidth
    case 19: *v = 4 << 20; return 0;     // L2CacheSize
    case 56: *v = 1024; return 0;        // MaxThreadsPerBlock
    case 74: *v = 65536; return 0;       // MaxSharedMemoryPerBlock
    case 87: *v = 64; return 0;          // WarpSize
  }
  return 1;
}
E hipGetDevicePropertiesR0600(char *p, int d) {
  strcpy(memset(p, 0, 1472), "AMD stub");
  strcpy(p + 1160, "gfx942:sramecc+:xnack-");  // gcnArchName
  return 0;
}
E hipMalloc(void **p, size_t n) { *p = memset(aligned_alloc(256, (n + 511) / 256 * 256), 0xcd, n); return 0; }
E hipFree(void *p) { free(p); return 0; }
E hipMemcpy(void *a, const void *b, size_t n, int kind) {
  if (kind != 1 && kind != 2) return 1;
  memcpy(a, b, n);
  return 0;
}
E hipModuleLoadData(void **m, const void *image) { return (*m = dlopen(image, RTLD_NOW | RTLD_LOCAL)) ? 0 : 209; }
E hipModuleUnload(void *m) { return 0; }
E hipModuleGetFunction(void **f, void *m, const char *name) {
  char text[256];
  snprintf(text, sizeof text, "run_%s", name);
  return (*f = dlsym(m, text)) ? 0 : 500;
}
E hipModuleLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned shared,
                        void *stream, void **params, void **extra) {
  if (shared || stream || params || extra[0] != (void *)1 || extra[2] != (void *)2 || extra[4] != (void *)3) return 1;
  uint64_t *args = extra[1];
  void *p[64];
  for (size_t i = 0; i < *(size_t *)extra[3] / 8; i++) p[i] = &args[i];
  unsigned sizes[6] = {a, b, c, d, e, g};
  ((void (*)(unsigned *, void **))f)(sizes, p);
  return 0;
}
E hipDeviceSynchronize(void) { return 0; }
E hipEventCreate(void **e) { *e = malloc(8); return 0; }
E hipEventDestroy(void *e) { free(e); return 0; }
E hipEventRecord(double *e, void *s) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  *e = t.tv_sec * 1e3 + t.tv_nsec / 1e6;
  return 0;
}
E hipEventSynchronize(void *e) { return 0; }
E hipEventElapsedTime(float *m, double *a, double *b) { *m = *b - *a; return 0; }
E hipRuntimeGetVersion(int *v) { *v = 60200000; return 0; }
