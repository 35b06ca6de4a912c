// Runs CUDA or HIP text on a CPU, unchanged: every thread of a block is a fiber, and fibers take turns where threads
// meet: all of a block at a barrier, those of a warp at a warp operation (cuda_twins.h). Blocks and threads run in an
// order that the caller chooses. Shared memory is filled with NaN before each block. Threads that do not meet as they
// must end the program with status 3 and the lines at which they wait.
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS  // C's functions alone: what the overloads of C++ bring takes long to compile
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cuda_fibers.h"

#define AT_HOST 1  // texts hide here what only their own compilers take, such as assembly
#ifndef AT_WARP
#define AT_WARP 32
#endif
#define AT_BLOCK(a) ((int)blockIdx.a)
#define AT_THREAD(a) ((int)threadIdx.a)
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#if AT_ADDRESS
#define __shared__ static  // with red zones around it, and so without NaN in it
#else
#define __shared__ static __attribute__((section("at_shared")))
#endif
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define warpSize AT_WARP
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class A, class B> static inline A at_bits(B from) {
  static_assert(sizeof(A) == sizeof(B), "the same bits");
  A to;
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __int_as_float(int bits) { return at_bits<float>(bits); }
static inline float __uint_as_float(unsigned bits) { return at_bits<float>(bits); }
static inline int __float_as_int(float x) { return at_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return at_bits<unsigned>(x); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

extern "C" char __start_at_shared[] __attribute__((weak));
extern "C" char __stop_at_shared[] __attribute__((weak));
namespace at_host {
using Mask = unsigned long long;  // lanes of a warp
struct Place { unsigned x, y, z; };

struct Fiber;
using Act = void (*)(Fiber *warp, Mask group);  // what a warp operation does once its lanes have met
struct Copy { void *to; unsigned char data[16]; unsigned bytes, group; };
struct Fiber {
  Context context;
  char *stack;
  Place thread;
  unsigned number;        // in its block
  bool done, ready;
  int line;               // at which it waits
  Act act;                // null at a barrier
  Mask mask;
  void *given;            // the lane's part in a warp operation
  Copy *copies;           // begun and not waited for
  unsigned begun, room, groups;
  void *seen;             // the fiber as ThreadSanitizer knows it
  char meets, warp_meets; // what it orders them by, of the first of a block and of a warp
};
static Place block, grid, threads;
static Fiber *running, *all, *fibers;  // of all, those of the block that runs
static unsigned *turns, made;
static Context scheduler;
static void (*body)(const void *);
static const void *kernel;
static void *seen_scheduler;
static char block_begins, block_ends, fenced;

AT_UNSEEN Place here() { return running->thread; }

// Threads give way to the scheduler here, and go on when the others have come.
AT_UNSEEN void wait(int line, Act act, Mask mask, void *given) {
  Fiber *f = running;
  f->line = line, f->act = act, f->mask = mask, f->given = given, f->ready = false;
  seen_as(seen_scheduler);
  at_host_switch(&f->context, &scheduler);
}

AT_UNSEEN void begin() {
  body(kernel);
  running->done = true;
  seen_as(seen_scheduler);
  at_host_switch(&running->context, &scheduler);
}

// Whatever these threads did is before whatever they will do. The variable is one: nobody is between its two uses.
AT_UNSEEN void order(Fiber *first, Mask group, unsigned count, char *where) {
  if (!AT_THREADS) return;
  for (int turn = 0; turn < 2; ++turn)
    for (unsigned n = 0; n < count; ++n) {
      if (count <= 64 && !(group >> n & 1)) continue;
      seen_as(first[n].seen);
      turn ? acquire(where) : release(where);
    }
  seen_as(seen_scheduler);
}

// The groups of a warp whose lanes, all that live, have come to the same operation: they act, and go on.
AT_UNSEEN bool met(Fiber *warp, unsigned lanes) {
  bool any = false;
  for (unsigned n = 0; n < lanes; ++n) {
    Fiber &f = warp[n];
    if (f.done || f.ready || !f.act) continue;
    Mask group = 0;
    bool all = true;
    for (unsigned m = 0; m < lanes; ++m) {
      Fiber &g = warp[m];
      if (g.done || !(f.mask >> m & 1)) continue;
      all &= !g.ready && g.act == f.act && g.line == f.line && g.mask == f.mask;
      group |= Mask(1) << m;
    }
    if (!all) continue;
    order(warp, group, lanes, &warp[0].warp_meets);
    f.act(warp, group);
    for (unsigned m = 0; m < lanes; ++m)
      if (group >> m & 1) warp[m].ready = true;
    any = true;
  }
  return any;
}

AT_UNSEEN void stuck(unsigned count, unsigned ended) {
  for (unsigned n = 0; n < count; ++n) {
    Fiber &f = fibers[n];
    if (f.done || !f.act) continue;
    for (unsigned first = n / AT_WARP * AT_WARP, m = first; m < count && m < first + AT_WARP; ++m) {
      Fiber &g = fibers[m];
      if (g.done || !(f.mask >> (m - first) & 1) || (g.act == f.act && g.line == f.line && g.mask == f.mask)) continue;
      fprintf(stderr, "lanes %u and %u of warp %u part: one is at the warp operation in line %d, the other at %s in "
              "line %d\n", n - first, m - first, n / AT_WARP, f.line, g.act ? "that" : "the barrier", g.line);
      _exit(3);
    }
  }
  unsigned one = 0;
  while (fibers[one].done) ++one;
  unsigned other = one;
  while (other < count && (fibers[other].done || fibers[other].line == fibers[one].line)) ++other;
  if (other < count)
    fprintf(stderr, "threads wait at different barriers: lines %d and %d\n", fibers[one].line, fibers[other].line);
  else
    fprintf(stderr, "%u of %u threads never reach the barrier in line %d\n", ended, count, fibers[one].line);
  _exit(3);
}

// Number n of `count` in an order: 0 as they are, 1 the last first, 2 permuted by `seed` (prepared in `row`).
AT_UNSEEN void permute(unsigned *row, unsigned count, unsigned seed) {
  for (unsigned n = 0; n < count; ++n) row[n] = n;
  for (unsigned n = count; n > 1; --n) {
    seed = seed * 1664525u + 1013904223u;
    unsigned other = (seed >> 8) % n, last = row[n - 1];
    row[n - 1] = row[other], row[other] = last;
  }
}
static inline unsigned turn(const unsigned *row, unsigned n, unsigned count, int how) {
  return how == 0 ? n : how == 1 ? count - 1 - n : row[n];
}

AT_UNSEEN void prepare(unsigned count) {
  for (unsigned n = 0; n < count; ++n) {
    Fiber &f = fibers[n];
    f.thread = {n % threads.x, n / threads.x % threads.y, n / threads.x / threads.y};
    f.number = n, f.done = false, f.ready = true, f.begun = 0, f.groups = 0;
    fresh(f.context, f.stack, begin);
  }
}

AT_UNSEEN void run_block(unsigned count, int how) {
  if (__start_at_shared) memset(__start_at_shared, 0xff, __stop_at_shared - __start_at_shared);
  prepare(count);
  release(&block_begins);
  for (unsigned n = 0; n < count; ++n) seen_as(fibers[n].seen), acquire(&block_begins);
  seen_as(seen_scheduler);
  for (unsigned phase = 0, ended = 0; ended < count; ++phase) {
    if (how == 2) permute(turns, count, phase + 11);
    for (unsigned n = 0; n < count; ++n) {
      running = &fibers[turn(turns, n, count, how)];
      if (running->done || !running->ready) continue;
      seen_as(running->seen);
      at_host_switch(&scheduler, &running->context);
      ended += running->done;
    }
    bool some = false, all = ended == 0;
    for (unsigned n = 0; n < count; n += AT_WARP) some |= met(fibers + n, min(count - n, (unsigned)AT_WARP));
    if (some || ended == count) continue;
    for (unsigned n = 0; n < count; ++n) all &= !fibers[n].done && !fibers[n].act && fibers[n].line == fibers[0].line;
    if (!all) stuck(count, ended);
    order(fibers, ~Mask(0), count, &fibers[0].meets);
    for (unsigned n = 0; n < count; ++n) fibers[n].ready = true;
  }
  for (unsigned n = 0; n < count; ++n) seen_as(fibers[n].seen), release(&block_ends);
  seen_as(seen_scheduler);
}

// How many blocks are strangers to each other: their threads are others, and nothing orders them. An odd number, so that
// neighbours in a grid of even sizes are among them.
static inline unsigned strangers(unsigned count, unsigned total, bool apart) {
  unsigned sets = count > 512 ? 2 : count > 64 ? 3 : 256 / count | 1;
  return apart ? min(sets, total) : 1;
}

// `how`: the order; and 4 for blocks that nothing orders: ThreadSanitizer then sees what they do to each other, but nothing
// of shared memory, which they have one after another.
template <class Kernel> AT_UNSEEN void launch(Place blocks, Place size, int how, const Kernel &call) {
  unsigned count = size.x * size.y * size.z, total = blocks.x * blocks.y * blocks.z;
  bool apart = how >= 4;
  unsigned sets = strangers(count, total, apart), wanted = sets * count;
  how %= 4;
  if (apart && __start_at_shared) unwatched(__start_at_shared, __stop_at_shared - __start_at_shared);
  grid = blocks, threads = size, kernel = &call, seen_scheduler = seen_now();
  body = [](const void *self) { (*(const Kernel *)self)(); };
  if (made < wanted) {
    all = (Fiber *)realloc(all, wanted * sizeof(Fiber));
    turns = (unsigned *)realloc(turns, wanted * sizeof(unsigned));
    for (; made < wanted; ++made) {  // a page below each stack cannot be touched
      void *stack = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stack == MAP_FAILED || mprotect(stack, PAGE, PROT_NONE)) perror("no memory for a thread"), _exit(2);
      memset(&all[made], 0, sizeof(Fiber));
      all[made].stack = (char *)stack + PAGE;
      all[made].seen = seen_new();
    }
  }
  unsigned *row = (unsigned *)malloc(total * sizeof(unsigned));
  permute(row, total, 7);
  for (unsigned n = 0; n < total; ++n) {
    unsigned b = turn(row, n, total, how);
    block = {b % blocks.x, b / blocks.x % blocks.y, b / blocks.x / blocks.y};
    fibers = all + b % sets * count;
    run_block(count, how);
    if (!apart) acquire(&block_ends);
  }
  acquire(&block_ends);
  free(row);
}
AT_UNSEEN Place here_block() { return block; }
AT_UNSEEN Place here_grid() { return grid; }
AT_UNSEEN Place here_threads() { return threads; }
}  // namespace at_host

static inline void __syncthreads(int line = __builtin_LINE()) { at_host::wait(line, nullptr, 0, nullptr); }

#include "cuda_twins.h"

#define threadIdx (at_host::here())
#define blockIdx (at_host::here_block())
#define blockDim (at_host::here_threads())
#define gridDim (at_host::here_grid())
