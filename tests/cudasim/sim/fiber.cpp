#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "sanitizer.h"

// `cudasim_switch(save, load)` pushes the callee-saved registers, stores the stack pointer in
// `*save` and continues from the stack pointer `load`. `swapcontext` does the same, but with a
// system call per switch. The floating-point control words are not saved: no kernel changes them.
extern "C" void cudasim_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch, @function
cudasim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cudasim_switch, .-cudasim_switch
)");
namespace {
/// Six registers, the return address, and one word that aligns the stack as after a call.
constexpr size_t frame_words = 8, entry_word = 6;
}  // namespace
#elif defined(__aarch64__)
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch, %function
cudasim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size cudasim_switch, .-cudasim_switch
)");
namespace {
/// x19 to x30 and d8 to d15; `ret` jumps to x30.
constexpr size_t frame_words = 20, entry_word = 11;
}  // namespace
#else
#error "the simulated CUDA device has fiber switches for x86-64 and aarch64 only"
#endif

namespace cudasim {
namespace {

constexpr size_t stack_size = sanitizer::mode() == sanitizer::Mode::none ? 64 << 10 : 256 << 10;

/// The context that called `resume`, outside all fibers.
struct {
  void* stack_pointer = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
  void* sanitizer = nullptr;
} outside;

Fiber* running = nullptr;

/// A stack with a guard page below it. The start of the stack within its page differs between
/// stacks (`next_colour`), so that the stacks of a block do not compete for the same cache sets.
char* new_stack() {
  auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + stack_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, page, PROT_NONE);
  return static_cast<char*>(memory) + page;
}

size_t next_colour() {
  static size_t colour = 0;
  return colour++ % 16 * 192;
}

}  // namespace

void Fiber::enter() {
  sanitizer::finish_switch(nullptr, &outside.bottom, &outside.size);
  running->body_(*running);
  running->finish();
}

void Fiber::prepare(void (*body)(Fiber&)) {
  if (!stack_) stack_ = new_stack();
  sanitizer::forget_stack(stack_, stack_size);
  body_ = body;
  auto top = reinterpret_cast<uintptr_t>(stack_ + stack_size - next_colour()) & ~uintptr_t{15};
  auto* frame = reinterpret_cast<uintptr_t*>(top) - frame_words;
  for (size_t i = 0; i < frame_words; i++) frame[i] = 0;
  frame[entry_word] = reinterpret_cast<uintptr_t>(&Fiber::enter);
  stack_pointer_ = frame;
  retire();
  sanitizer_ = sanitizer::create_fiber();
}

void Fiber::resume() {
  running = this;
  outside.sanitizer = sanitizer::current_fiber();
  void* fake_stack = nullptr;
  sanitizer::start_switch(&fake_stack, stack_, stack_size);
  sanitizer::switch_to(sanitizer_);
  cudasim_switch(&outside.stack_pointer, stack_pointer_);
  sanitizer::finish_switch(fake_stack, nullptr, nullptr);
  running = nullptr;
}

void Fiber::suspend() {
  void* fake_stack = nullptr;
  sanitizer::start_switch(&fake_stack, outside.bottom, outside.size);
  sanitizer::switch_to(outside.sanitizer);
  cudasim_switch(&stack_pointer_, outside.stack_pointer);
  sanitizer::finish_switch(fake_stack, &outside.bottom, &outside.size);
}

void Fiber::finish() {
  sanitizer::start_switch(nullptr, outside.bottom, outside.size);
  sanitizer::switch_to(outside.sanitizer);
  cudasim_switch(&stack_pointer_, outside.stack_pointer);
  std::abort();  // a finished fiber is never resumed
}

void Fiber::retire() {
  if (sanitizer_) sanitizer::destroy_fiber(sanitizer_);
  sanitizer_ = nullptr;
}

}  // namespace cudasim
