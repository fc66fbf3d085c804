// Stands in for CUDA on a host: each thread of a block is a fiber, __syncthreads() hands over to the next one.
// Blocks run one after the other on one thread, so what is shared by a block is a static variable.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct Dim3 {
  unsigned x, y, z;
};
static Dim3 threadIdx, blockIdx, blockDim, gridDim;

static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }

namespace host {

enum class State { ready, waiting, done };

struct Fiber {
  ucontext_t context;
  State state;
  std::vector<char> stack;
  void *fake = nullptr;
};

static const size_t STACK = 64 << 10;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber *current = nullptr;
static const void *body = nullptr;
static void (*call)(const void *) = nullptr;
static void *scheduler_fake = nullptr;
static const void *scheduler_stack = nullptr;
static size_t scheduler_size = 0;

// AddressSanitizer is told which stack is in use.
static inline void leave(void **fake, const void *stack, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}
static inline void arrive(void *fake, const void **stack, size_t *size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

static void fiber_main() {
  arrive(nullptr, &scheduler_stack, &scheduler_size);
  call(body);
  current->state = State::done;
  leave(nullptr, scheduler_stack, scheduler_size);  // null: this fiber will not come back
  swapcontext(&current->context, &scheduler);
}

static void wait() {
  Fiber *self = current;
  self->state = State::waiting;
  leave(&self->fake, scheduler_stack, scheduler_size);
  swapcontext(&self->context, &scheduler);
  arrive(self->fake, nullptr, nullptr);
}

static inline Dim3 place(unsigned flat, Dim3 size) {
  return {flat % size.x, flat / size.x % size.y, flat / (size.x * size.y)};
}

// The i-th of n in one of three orders: as they are, backwards, or dealt out (another way in every round).
static inline unsigned ordered(unsigned i, unsigned n, int order, unsigned round) {
  if (order == 0) return i;
  if (order == 1) return n - 1 - i;
  unsigned step = n / 2 + 1 + round % 7;
  auto common = [](unsigned a, unsigned b) {
    while (b) {
      unsigned rest = a % b;
      a = b, b = rest;
    }
    return a;
  };
  while (common(step, n) != 1) ++step;
  return unsigned((uint64_t(i) * step + round) % n);
}

// Run one block; false where some threads wait at a barrier that others never reach.
static bool run_block(int order) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  if (fibers.size() < threads) fibers.resize(threads);
  for (unsigned t = 0; t < threads; ++t) {
    Fiber &fiber = fibers[t];
    if (fiber.stack.empty()) fiber.stack.resize(STACK);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    fiber.state = State::ready;
    fiber.fake = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (unsigned round = 0;; ++round) {
    unsigned waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned t = ordered(i, threads, order, round);
      threadIdx = place(t, blockDim);
      current = &fibers[t];
      leave(&scheduler_fake, current->stack.data(), STACK);
      swapcontext(&scheduler, &current->context);
      arrive(scheduler_fake, nullptr, nullptr);
      waiting += fibers[t].state == State::waiting;
    }
    if (waiting == 0) return true;
    if (waiting != threads) return false;
  }
}

template <class Body> int run(const unsigned *grid, const unsigned *block, int order, const Body &each) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  body = &each;
  call = [](const void *what) { (*static_cast<const Body *>(what))(); };
  const unsigned blocks = grid[0] * grid[1] * grid[2];
  for (unsigned i = 0; i < blocks; ++i) {
    blockIdx = place(ordered(i, blocks, order, 0), gridDim);
    if (!run_block(order)) return 1;
  }
  return 0;
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, void **args, int order,
           std::index_sequence<I...>) {
  return run(grid, block, order, [&] { kernel(*static_cast<std::remove_reference_t<A> *>(args[I])...); });
}

template <class... A>
int launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, void **args, int order) {
  return launch(kernel, grid, block, args, order, std::index_sequence_for<A...>{});
}

// Bytes of the i-th parameter, 0 behind the last: a caller's arguments are checked against them.
template <class... A> int parameter(void (*)(A...), int i) {
  const int sizes[] = {int(sizeof(A))..., 0};
  return i < int(sizeof...(A)) ? sizes[i] : 0;
}

}  // namespace host

#define __syncthreads() host::wait()
