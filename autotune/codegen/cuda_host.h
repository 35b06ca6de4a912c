// Runs CUDA or HIP text on a CPU, unchanged: every thread of a block is a fiber, a barrier is where fibers take turns.
// Shared memory is filled with NaN before each block; blocks and threads run in an order that the caller chooses. A
// barrier that some threads of a block do not reach, or that is another one for some of them, ends the program.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#define AT_BLOCK(a) ((int)blockIdx.a)
#define AT_THREAD(a) ((int)threadIdx.a)
#define __global__
#define __device__
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // with red zones around it, and so without NaN in it
#else
#define __shared__ static __attribute__((section("at_shared")))
#endif
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n)
#define __syncthreads() at_host::meet(__LINE__)

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float __int_as_float(int bits) { float x; std::memcpy(&x, &bits, 4); return x; }

extern "C" char __start_at_shared[] __attribute__((weak));
extern "C" char __stop_at_shared[] __attribute__((weak));

namespace at_host {
struct Place { unsigned x, y, z; };
struct Fiber { ucontext_t context; std::vector<char> stack; Place thread; int line = 0; bool done = false; };
static Place block;
static Fiber *running;
static ucontext_t scheduler;
static const std::function<void()> *body;

static inline void meet(int line) {
  running->line = line;
  swapcontext(&running->context, &scheduler);
}

static void begin() {
  (*body)();
  running->done = true;
  swapcontext(&running->context, &scheduler);
}

static inline std::vector<unsigned> order(unsigned count, int how, unsigned seed) {
  std::vector<unsigned> out(count);
  std::iota(out.begin(), out.end(), 0u);
  if (how == 1) std::reverse(out.begin(), out.end());
  if (how == 2) { std::mt19937 random(seed); std::shuffle(out.begin(), out.end(), random); }
  return out;
}

static inline void launch(Place grid, Place threads, int how, const std::function<void()> &kernel) {
  unsigned count = threads.x * threads.y * threads.z;
  static std::vector<Fiber> fibers;
  if (fibers.size() < count) fibers = std::vector<Fiber>(count);
  body = &kernel;
  for (unsigned b : order(grid.x * grid.y * grid.z, how, 7)) {
    block = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    if (__start_at_shared) std::memset(__start_at_shared, 0xff, __stop_at_shared - __start_at_shared);
    for (unsigned t = 0; t < count; ++t) {
      Fiber &f = fibers[t];
      f.stack.resize(1 << 16);
      f.thread = {t % threads.x, t / threads.x % threads.y, t / threads.x / threads.y};
      f.done = false;
      f.line = 0;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.data();
      f.context.uc_stack.ss_size = f.stack.size();
      f.context.uc_link = nullptr;
      makecontext(&f.context, begin, 0);
    }
    for (unsigned phase = 0, left = count; left; ++phase) {
      unsigned ended = 0;
      int line = 0;
      for (unsigned t : order(count, how, phase + 11)) {
        running = &fibers[t];
        swapcontext(&scheduler, &running->context);
        ended += running->done;
        if (running->done) continue;
        if (line && running->line != line) {
          std::fprintf(stderr, "threads wait at different barriers: lines %d and %d\n", line, running->line);
          std::exit(3);
        }
        line = running->line;
      }
      if (ended && ended != count) {
        std::fprintf(stderr, "%u of %u threads never reach the barrier in line %d\n", ended, count, line);
        std::exit(3);
      }
      left = ended ? 0 : count;
    }
  }
}
}  // namespace at_host

#define threadIdx (at_host::running->thread)
#define blockIdx (at_host::block)
