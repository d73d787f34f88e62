// Fibers: threads of execution with their own stacks, which one host thread switches between.
#pragma once
#include <cstddef>

namespace cudasim {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes the next `resume` start `body`, on a stack that is reused.
  void prepare(void (*body)(Fiber&));
  /// Runs the fiber until it suspends or finishes. Must be called outside all fibers.
  void resume();
  /// Returns to the caller of `resume`.
  void suspend();
  /// Returns to the caller of `resume` for the last time.
  [[noreturn]] void finish();
  /// Releases the fiber after `finish`, or if it will never be resumed.
  void retire();

 private:
  static void enter();

  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;
  void (*body_)(Fiber&) = nullptr;
  void* sanitizer_ = nullptr;
};

}  // namespace cudasim
