// What the lanes of a warp do together, and what runs beside a thread: shuffles, matrix instructions, copies that are
// waited for, atomic additions. Included by cuda_host.h. The matrix functions stand for instructions that their texts
// give as assembly; element places are those of the vendors' documents: NVIDIA, PTX ISA, "Matrix fragments for mma";
// AMD, the CDNA and RDNA instruction sets.

// What blocks tell each other by atomic operations comes after a fence of one and before a fence of the other.
static inline void __threadfence() {
  at_host::acquire(&at_host::fenced);
  at_host::release(&at_host::fenced);
}
static inline void __threadfence_block() {}
template <class T> static inline T __ldg(const T *from) { return *from; }

namespace at_host {
template <class T> struct Same { using type = T; };
constexpr Mask LANES = AT_WARP == 64 ? ~Mask(0) : (Mask(1) << (AT_WARP & 63)) - 1;

// ---- lanes exchange values ------------------------------------------------------------------------------------------

// Every lane of `mask` that lives comes to the same operation in the same line; `act` sees what all have given.
AT_UNSEEN void join(int line, Mask mask, Act act, void *given) {
  unsigned lane = running->number % AT_WARP;
  if (!(mask >> lane & 1)) {
    fprintf(stderr, "lane %u is not in the mask of the warp operation that it calls in line %d\n", lane, line);
    _exit(3);
  }
  wait(line, act, mask & LANES, given);
}

struct Shuffled { unsigned char value[8], result[8]; int n, width; };
enum How { INDEX, UP, DOWN, XOR };

template <How how> AT_UNSEEN void shuffle(Fiber *warp, Mask group) {
  for (int lane = 0; lane < AT_WARP; ++lane) {
    if (!(group >> lane & 1)) continue;
    Shuffled &s = *(Shuffled *)warp[lane].given;
    int first = lane / s.width * s.width, end = first + s.width, from = lane;
    if (how == INDEX) from = first + (s.n & (s.width - 1));
    if (how == UP) from = lane - s.n;
    if (how == DOWN) from = lane + s.n;
    if (how == XOR) from = lane ^ s.n;
    if ((how == UP && from < first) || (how != UP && from >= end)) from = lane;
    if (from >= 0 && group >> from & 1)
      memcpy(s.result, ((Shuffled *)warp[from].given)->value, 8);
    else
      memset(s.result, 0xff, 8);  // of a lane that takes no part: anything
  }
}
AT_UNSEEN void nothing(Fiber *, Mask) {}

template <How how, class T> static inline T shuffled(int line, Mask mask, T value, int n, int width) {
  static_assert(sizeof(T) <= 8, "shuffles move up to eight bytes");
  Shuffled s = {};
  s.n = n, s.width = width;
  memcpy(s.value, &value, sizeof value);
  join(line, mask, shuffle<how>, &s);
  memcpy(&value, s.result, sizeof value);
  return value;
}
}  // namespace at_host

static inline void __syncwarp(unsigned long long mask = at_host::LANES, int line = __builtin_LINE()) {
  at_host::join(line, mask, at_host::nothing, nullptr);
}
#define AT_SHUFFLE(name, how)                                                                                          \
  template <class T>                                                                                                   \
  static inline T name##_sync(unsigned long long mask, T value, int n, int width = AT_WARP,                            \
                              int line = __builtin_LINE()) {                                                           \
    return at_host::shuffled<at_host::how>(line, mask, value, n, width);                                               \
  }                                                                                                                    \
  template <class T> static inline T name(T value, int n, int width = AT_WARP, int line = __builtin_LINE()) {          \
    return at_host::shuffled<at_host::how>(line, at_host::LANES, value, n, width);                                     \
  }
AT_SHUFFLE(__shfl, INDEX)
AT_SHUFFLE(__shfl_up, UP)
AT_SHUFFLE(__shfl_down, DOWN)
AT_SHUFFLE(__shfl_xor, XOR)

// ---- atomic additions -----------------------------------------------------------------------------------------------

// No fiber is interrupted: a load and a store are one step. Atomic ones, so that ThreadSanitizer knows what is meant.
template <class T> static inline T atomicAdd(T *where, typename at_host::Same<T>::type value) {
  T old, sum;
  __atomic_load(where, &old, __ATOMIC_RELAXED);
  sum = old + value;
  __atomic_store(where, &sum, __ATOMIC_RELAXED);
  return old;
}

// ---- copies that are waited for -------------------------------------------------------------------------------------

namespace at_host {
AT_UNSEEN void queue(void *to, const unsigned char *data, unsigned bytes) {
  Fiber &f = *running;
  if (f.begun == f.room) f.copies = (Copy *)realloc(f.copies, (f.room = 2 * f.room + 8) * sizeof(Copy));
  Copy &c = f.copies[f.begun++];
  c.to = to, c.bytes = bytes, c.group = f.groups;
  memcpy(c.data, data, bytes);
}
AT_UNSEEN Copy *begun() { return running->copies; }
AT_UNSEEN unsigned all_begun() { unsigned n = running->begun; running->begun = 0; return n; }
// Ends the group of copies that is begun; how many copies are older than the newest `kept` groups. Those stay.
AT_UNSEEN unsigned begun_before(unsigned kept) {
  Fiber &f = *running;
  unsigned n = 0, end = ++f.groups;
  while (n < f.begun && f.copies[n].group + kept < end) ++n;
  return n;
}
AT_UNSEEN void forget(unsigned n) {
  Fiber &f = *running;
  memmove(f.copies, f.copies + n, (f.begun -= n) * sizeof(Copy));
}
static inline void arrive(const Copy *c, unsigned n) {
  for (; n; --n, ++c) {
    if (c->bytes == 4) memcpy(c->to, c->data, 4);
    if (c->bytes == 8) memcpy(c->to, c->data, 8);
    if (c->bytes == 16) memcpy(c->to, c->data, 16);
  }
}

// A device may write any part at any time until the wait: till then the place holds NaN, and nothing of what it held.
template <unsigned bytes> static inline void begin_copy(void *shared, const void *global, int line) {
  if (((size_t)shared | (size_t)global) % bytes) {
    fprintf(stderr, "a copy of %u bytes does not begin at a multiple of that, in line %d\n", bytes, line);
    _exit(3);
  }
  unsigned char data[16];
  memcpy(data, global, bytes);
  memset(shared, 0xff, bytes);
  queue(shared, data, bytes);
}
}  // namespace at_host

static inline void at_copy_async4(void *shared, const void *global, int line = __builtin_LINE()) {
  at_host::begin_copy<4>(shared, global, line);
}
static inline void at_copy_async8(void *shared, const void *global, int line = __builtin_LINE()) {
  at_host::begin_copy<8>(shared, global, line);
}
static inline void at_copy_async16(void *shared, const void *global, int line = __builtin_LINE()) {
  at_host::begin_copy<16>(shared, global, line);
}
// All that this thread has begun is there, for this thread; for others after a barrier.
static inline void at_copy_wait() {
  at_host::Copy *c = at_host::begun();
  at_host::arrive(c, at_host::all_begun());
}
// The same, but for what it has begun since it waited so many times before.
template <unsigned kept> static inline void at_copy_wait_but() {
  unsigned n = at_host::begun_before(kept);
  at_host::arrive(at_host::begun(), n);
  at_host::forget(n);
}
static inline void at_copy_wait1() { at_copy_wait_but<1>(); }
static inline void at_copy_wait2() { at_copy_wait_but<2>(); }
static inline void at_copy_wait3() { at_copy_wait_but<3>(); }

// ---- matrix instructions --------------------------------------------------------------------------------------------

namespace at_host {
static inline double half_value(unsigned bits) {
  unsigned sign = bits >> 15 & 1, power = bits >> 10 & 31, rest = bits & 1023;
  double size = power == 0    ? rest * 5.9604644775390625e-8  // 2^-24
                : power == 31 ? at_bits<float>(0x7f800000u | rest << 13)
                              : at_bits<float>((power + 112) << 23 | rest << 13);
  return sign ? -size : size;
}
// The numbers of a 32-bit register, low part first.
struct F16 { using Sum = float; enum { PACKED = 2 };
  static double value(unsigned word, int part) { return half_value(word >> 16 * part & 0xffff); } };
struct BF16 { using Sum = float; enum { PACKED = 2 };
  static double value(unsigned word, int part) { return at_bits<float>((word >> 16 * part & 0xffff) << 16); } };
struct TF32 { using Sum = float; enum { PACKED = 1 };
  static double value(unsigned word, int) { return at_bits<float>(word & 0xffffe000u); } };
struct S8 { using Sum = int; enum { PACKED = 4 };
  static double value(unsigned word, int part) { return (signed char)(word >> 8 * part & 0xff); } };

static inline float added(float c, double sum) { return (float)(c + sum); }
static inline int added(int c, double sum) { return (int)((unsigned)c + (unsigned)(int)sum); }  // it wraps

struct Spot { int row, col; };
// Element e of a lane's registers: its place in A (m x k), B (k x n) and C (m x n). P: elements of one register.
template <int P> struct Mma {  // m16n8 and m8n8 of NVIDIA, every k
  static Spot a(int lane, int e) { int r = e / P; return {lane / 4 + r % 2 * 8, lane % 4 * P + e % P + r / 2 * 4 * P}; }
  static Spot b(int lane, int e) { return {lane % 4 * P + e % P + e / P * 4 * P, lane / 4}; }
  static Spot c(int lane, int e) { return {lane / 4 + e / 2 * 8, lane % 4 * 2 + e % 2}; }
};
template <int E> struct Mfma {  // 16x16 of CDNA: E neighbours along k for each quarter of the wave
  static Spot a(int lane, int e) { return {lane % 16, lane / 16 * E + e}; }
  static Spot b(int lane, int e) { return {lane / 16 * E + e, lane % 16}; }
  static Spot c(int lane, int e) { return {lane / 16 * 4 + e, lane % 16}; }
};
struct Wmma {  // RDNA3: both halves of the wave hold all of A and B; rows of C alternate between them
  static Spot a(int lane, int e) { return {lane % 16, e}; }
  static Spot b(int lane, int e) { return {e, lane % 16}; }
  static Spot c(int lane, int e) { return {2 * e + lane / 16, lane % 16}; }
};
struct Wmma12 {  // RDNA4: each half of the wave holds half of k, and half of the rows of C
  static Spot a(int lane, int e) { return {lane % 16, lane / 16 * 8 + e}; }
  static Spot b(int lane, int e) { return {lane / 16 * 8 + e, lane % 16}; }
  static Spot c(int lane, int e) { return {lane / 16 * 8 + e, lane % 16}; }
};

// Registers of one lane: A and B have as many elements as share the matrix among the lanes, RDNA3 has them twice.
template <class Kind, class Layout, int M, int N, int K, int WARP, int TWICE = 1> struct Matrix {
  using Sum = typename Kind::Sum;
  enum { A = M * K / WARP * TWICE, B = K * N / WARP * TWICE, C = M * N / WARP, PACKED = Kind::PACKED };
  unsigned a[A / PACKED], b[B / PACKED];
  Sum c[C];

  AT_UNSEEN void act(Fiber *warp, Mask group) {
    static double a[M][K], b[K][N];
    int line = 0;
    for (int lane = WARP - 1; lane >= 0; --lane)
      if (group >> lane & 1) line = warp[lane].line;
    if (group != LANES) {
      fprintf(stderr, "a matrix instruction in line %d without all lanes of its warp\n", line);
      _exit(3);
    }
    for (int lane = 0; lane < WARP; ++lane) {
      Matrix &own = *(Matrix *)warp[lane].given;
      for (int e = 0; e < A; ++e)
        put(&a[0][0], K, Layout::a(lane, e), Kind::value(own.a[e / PACKED], e % PACKED), lane, line);
      for (int e = 0; e < B; ++e)
        put(&b[0][0], N, Layout::b(lane, e), Kind::value(own.b[e / PACKED], e % PACKED), lane, line);
    }
    for (int lane = 0; lane < WARP; ++lane) {
      Matrix &own = *(Matrix *)warp[lane].given;
      for (int e = 0; e < C; ++e) {
        Spot s = Layout::c(lane, e);
        double sum = 0;
        for (int k = 0; k < K; ++k) sum += a[s.row][k] * b[k][s.col];
        own.c[e] = added(own.c[e], sum);
      }
    }
  }

  AT_UNSEEN void put(double *matrix, int width, Spot s, double value, int lane, int line) {
    double &old = matrix[s.row * width + s.col];
    if (TWICE == 2 && lane >= 16 && memcmp(&old, &value, sizeof value)) {
      fprintf(stderr, "lanes %d and %d hold different copies for the matrix instruction in line %d\n", lane - 16, lane,
              line);
      _exit(3);
    }
    old = value;
  }

  static void call(Sum *c, const unsigned *a, const unsigned *b, int line) {
    if (WARP != AT_WARP) {
      fprintf(stderr, "the matrix instruction in line %d is one of %d lanes, and a warp has %d\n", line, WARP, AT_WARP);
      _exit(3);
    }
    Matrix own;  // read and written by the lane itself, so that sanitizers see its accesses
    for (int n = 0; n < A / PACKED; ++n) own.a[n] = a[n];
    for (int n = 0; n < B / PACKED; ++n) own.b[n] = b[n];
    for (int n = 0; n < C; ++n) own.c[n] = c[n];
    join(line, LANES, act, &own);
    for (int n = 0; n < C; ++n) c[n] = own.c[n];
  }
};
}  // namespace at_host

#define AT_MATRIX(name, ...)                                                                                           \
  static inline void name(at_host::Matrix<__VA_ARGS__>::Sum *c, const unsigned *a, const unsigned *b,                  \
                          int line = __builtin_LINE()) {                                                               \
    at_host::Matrix<__VA_ARGS__>::call(c, a, b, line);                                                                 \
  }
AT_MATRIX(at_mma_m16n8k16_f16, at_host::F16, at_host::Mma<2>, 16, 8, 16, 32)
AT_MATRIX(at_mma_m16n8k16_bf16, at_host::BF16, at_host::Mma<2>, 16, 8, 16, 32)
AT_MATRIX(at_mma_m16n8k8_f16, at_host::F16, at_host::Mma<2>, 16, 8, 8, 32)
AT_MATRIX(at_mma_m16n8k8_tf32, at_host::TF32, at_host::Mma<1>, 16, 8, 8, 32)
AT_MATRIX(at_mma_m16n8k32_s8, at_host::S8, at_host::Mma<4>, 16, 8, 32, 32)
AT_MATRIX(at_mma_m8n8k16_s8, at_host::S8, at_host::Mma<4>, 8, 8, 16, 32)
AT_MATRIX(at_mfma_16x16x16_f16, at_host::F16, at_host::Mfma<4>, 16, 16, 16, 64)
AT_MATRIX(at_mfma_16x16x16_bf16, at_host::BF16, at_host::Mfma<4>, 16, 16, 16, 64)
AT_MATRIX(at_mfma_16x16x16_s8, at_host::S8, at_host::Mfma<4>, 16, 16, 16, 64)
AT_MATRIX(at_mfma_16x16x32_s8, at_host::S8, at_host::Mfma<8>, 16, 16, 32, 64)
AT_MATRIX(at_wmma_16x16x16_f16, at_host::F16, at_host::Wmma, 16, 16, 16, 32, 2)
AT_MATRIX(at_wmma_16x16x16_bf16, at_host::BF16, at_host::Wmma, 16, 16, 16, 32, 2)
AT_MATRIX(at_wmma_16x16x16_s8, at_host::S8, at_host::Wmma, 16, 16, 16, 32, 2)
AT_MATRIX(at_wmma12_16x16x16_f16, at_host::F16, at_host::Wmma12, 16, 16, 16, 32)
AT_MATRIX(at_wmma12_16x16x16_bf16, at_host::BF16, at_host::Wmma12, 16, 16, 16, 32)
AT_MATRIX(at_wmma12_16x16x16_s8, at_host::S8, at_host::Wmma12, 16, 16, 16, 32)
