// Fibers: threads of execution with a stack of their own that one host thread switches among.
#pragma once
#include <cstddef>

namespace cudasim {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next `resume` begins at the start of `body`, on a stack that is kept from use to use.
  void prepare(void (*body)(Fiber&));
  /// Runs the fiber until it suspends or finishes. Only from outside of fibers.
  void resume();
  /// Goes back to the caller of `resume`.
  void suspend();
  /// The same for good.
  [[noreturn]] void finish();
  /// After `finish`, or instead of ever going on.
  void retire();

 private:
  static void enter();

  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;
  void (*body_)(Fiber&) = nullptr;
  void* sanitizer_ = nullptr;
};

}  // namespace cudasim
