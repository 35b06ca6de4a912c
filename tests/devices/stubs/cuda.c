// A libcuda.so.1 for tests: memory is the process's own, and a library is the path of one with its kernels.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int E;
typedef uint64_t P;  // CUdeviceptr
#define X(name) E stub_##name

static void *current;
static char context[64], pool[64];

X(cuInit)(unsigned f) { return 0; }
X(cuDriverGetVersion)(int *v) { *v = 13000; return 0; }
X(cuDeviceGetCount)(int *n) { *n = 1; return 0; }
X(cuDeviceGet)(int *d, int n) { *d = n; return n ? 101 : 0; }
X(cuDeviceGetName)(char *s, int l, int d) { strncpy(s, "NVIDIA stub H100", l); return 0; }
X(cuDeviceGetUuid)(char *u, int d) { memset(u, 7, 16); return 0; }
X(cuDeviceGetAttribute)(int *v, int a, int d) {
  switch (a) {  // CUdevice_attribute
    case 16: *v = 132; return 0;           // multiprocessors
    case 13: *v = 1980000; return 0;       // clock, kHz
    case 36: *v = 2619000; return 0;       // memory clock, kHz
    case 37: *v = 5120; return 0;          // bits of the memory bus
    case 38: *v = 50 << 20; return 0;      // L2
    case 1: *v = 1024; return 0;           // threads of a block
    case 8: *v = 49152; return 0;          // shared bytes of a block
    case 10: *v = 32; return 0;            // warp
    case 75: *v = 9; return 0;             // compute capability
    case 115: case 41: *v = 1; return 0;   // memory pools, unified addressing
  }
  *v = 0;
  return 0;
}
X(cuDevicePrimaryCtxRetain)(void **c, int d) { *c = context; return 0; }
X(cuDevicePrimaryCtxRelease)(int d) { return 0; }
X(cuCtxSetCurrent)(void *c) { current = c; return 0; }
X(cuCtxGetCurrent)(void **c) { *c = current; return 0; }
X(cuCtxPushCurrent)(void *c) { current = c; return 0; }
X(cuCtxPopCurrent)(void **c) { *c = current; return 0; }
X(cuCtxGetDevice)(int *d) { *d = 0; return 0; }
X(cuCtxSynchronize)(void) { return 0; }
X(cuCtxGetStreamPriorityRange)(int *a, int *b) { *a = 0; *b = -5; return 0; }
X(cuStreamCreateWithPriority)(void **s, unsigned f, int p) { *s = malloc(8); return 0; }
X(cuStreamDestroy)(void *s) { return 0; }
X(cuStreamSynchronize)(void *s) { return 0; }
X(cuStreamGetCtx)(void *s, void **c) { *c = context; return 0; }
X(cuStreamGetDevice)(void *s, int *d) { *d = 0; return 0; }
X(cuStreamGetFlags)(void *s, unsigned *f) { *f = 1; return 0; }
X(cuStreamIsCapturing)(void *s, int *c) { *c = 0; return 0; }
X(cuDeviceGetDefaultMemPool)(void **p, int d) { *p = pool; return 0; }
X(cuDeviceGetMemPool)(void **p, int d) { *p = pool; return 0; }
X(cuMemPoolGetAttribute)(void *p, int a, uint64_t *v) { *v = 0; return 0; }
X(cuMemPoolSetAttribute)(void *p, int a, void *v) { return 0; }
X(cuMemGetMemPool)(void **p, void *l, int t) { *p = pool; return 0; }
X(cuMemGetDefaultMemPool)(void **p, void *l, int t) { *p = pool; return 0; }
X(cuMemAllocFromPoolAsync)(P *p, size_t n, void *of, void *s) {
  *p = (P)memset(aligned_alloc(256, (n + 511) / 256 * 256), 0xcd, n);
  return 0;
}
X(cuMemAllocAsync)(P *p, size_t n, void *s) { return stub_cuMemAllocFromPoolAsync(p, n, 0, s); }
X(cuMemFreeAsync)(P p, void *s) { free((void *)p); return 0; }
X(cuMemcpyHtoDAsync)(P d, const void *s, size_t n, void *on) { return on ? (memcpy((void *)d, s, n), 0) : 1; }
X(cuMemcpyDtoHAsync)(void *d, P s, size_t n, void *on) { return on ? (memcpy(d, (void *)s, n), 0) : 1; }
X(cuLibraryLoadData)(void **l, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
  return (*l = dlopen(code, RTLD_NOW | RTLD_LOCAL)) ? 0 : 209;
}
X(cuLibraryUnload)(void *l) { return 0; }
X(cuLibraryGetKernel)(void **k, void *l, const char *name) {
  char text[256];
  snprintf(text, sizeof text, "run_%s", name);
  return (*k = dlsym(l, text)) ? 0 : 500;
}
X(cuKernelGetFunction)(void **f, void *k) { *f = k; return 0; }
struct config { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; };
X(cuLaunchKernelEx)(const struct config *c, void *f, void **p, void **extra) {
  if (c->shared || extra || !c->stream) return 1;
  unsigned sizes[6] = {c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2]};
  ((void (*)(unsigned *, void **))f)(sizes, p);
  return 0;
}
X(cuLaunchKernel)(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned shared,
                  void *stream, void **p, void **extra) {
  struct config how = {{a, b, c}, {d, e, g}, shared, stream, 0, 0};
  return stub_cuLaunchKernelEx(&how, f, p, extra);
}
X(cuEventCreate)(void **e, unsigned f) { *e = malloc(16); return f & 2 ? 1 : 0; }  // 2: without times
X(cuEventDestroy)(void *e) { return 0; }
X(cuEventRecord)(double *e, void *s) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  *e = t.tv_sec * 1e3 + t.tv_nsec / 1e6;
  return s ? 0 : 1;
}
X(cuEventSynchronize)(void *e) { return 0; }
X(cuEventElapsedTime)(float *m, double *a, double *b) { *m = *b - *a; return 0; }
X(cuGetErrorName)(int e, const char **s) { *s = "CUDA_ERROR_STUB"; return 0; }
X(cuGetErrorString)(int e, const char **s) { *s = "stub error"; return 0; }

static E unsupported(void) { return 801; }
E cuGetProcAddress_v2(const char *name, void **f, int version, uint64_t flags, int *found) {
  char text[256];
  snprintf(text, sizeof text, "stub_%s", name);
  *f = dlsym(dlopen("libcuda.so.1", RTLD_NOW), text);
  if (!strncmp(name, "cuGetProcAddress", 16)) *f = cuGetProcAddress_v2;
  if (!*f) *f = unsupported;
  if (found) *found = 0;
  return 0;
}
E cuGetProcAddress(const char *name, void **f, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, f, version, flags, 0);
}
