// What fibers are made of: a switch from one stack to another, and what ThreadSanitizer is told of it. Included by
// cuda_host.h.
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined __SANITIZE_ADDRESS__ || __has_feature(address_sanitizer)
#define AT_ADDRESS 1
#else
#define AT_ADDRESS 0
#endif
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
#define AT_THREADS 1
#else
#define AT_THREADS 0
#endif
// What threads do to the scheduler's memory is none of the kernel's accesses: ThreadSanitizer must not see it.
#define AT_UNSEEN __attribute__((no_sanitize("thread"), noinline)) static

extern "C" void *__tsan_get_current_fiber();
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
extern "C" void __tsan_acquire(void *address);
extern "C" void __tsan_release(void *address);
extern "C" void AnnotateBenignRaceSized(const char *file, int line, void *address, size_t bytes, const char *why);

namespace at_host {
constexpr size_t STACK = 1 << 18, PAGE = 1 << 12;

// A context is what a fiber goes on with. POSIX's own switch asks the kernel for its signal mask each time: this one is
// ten times as fast. It keeps what the System V ABI lets a function expect.
#ifdef __x86_64__
struct Context { void *top; };
asm(R"(.text
at_host_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov (%rsi), %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");
extern "C" void at_host_switch(Context *from, const Context *to);
static inline void fresh(Context &c, char *stack, void (*start)()) {
  void **top = (void **)(stack + STACK) - 8;  // six registers, where to start, and nowhere to return to
  memset(top, 0, 64);
  top[6] = (void *)start;
  c.top = top;
}
#else
using Context = ucontext_t;
static inline void at_host_switch(Context *from, const Context *to) { swapcontext(from, to); }
static inline void fresh(Context &c, char *stack, void (*start)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack, c.uc_stack.ss_size = STACK, c.uc_link = nullptr;
  makecontext(&c, start, 0);
}
#endif

#if AT_THREADS  // 1: a switch by itself orders nothing
static inline void seen_as(void *fiber) { __tsan_switch_to_fiber(fiber, 1); }
static inline void release(char *where) { __tsan_release(where); }
static inline void acquire(char *where) { __tsan_acquire(where); }
static inline void *seen_new() { return __tsan_create_fiber(0); }
static inline void *seen_now() { return __tsan_get_current_fiber(); }
static inline void unwatched(char *from, size_t bytes) { AnnotateBenignRaceSized(__FILE__, __LINE__, from, bytes, ""); }
#else
static inline void seen_as(void *) {}
static inline void release(char *) {}
static inline void acquire(char *) {}
static inline void *seen_new() { return nullptr; }
static inline void *seen_now() { return nullptr; }
static inline void unwatched(char *, size_t) {}
#endif
}  // namespace at_host
