// One fiber for each CUDA thread: a stack and a place to go on. Switching costs some nanoseconds (Boost.Context's
// assembly); AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lathe::simt {

// The fibers of one block. They run one at a time, on the OS thread that calls resume().
class FiberPool {
 public:
  FiberPool() = default;
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // Makes `count` fibers that will call entry(i) when first resumed. Fibers of an earlier call are abandoned wherever
  // they stand: device code owns nothing that needs a destructor.
  void prepare(int count, void (*entry)(int index));
  void resume(int index);  // until it yields or its entry returns
  void yield();            // called by the running fiber

 private:
  struct Fiber {
    void* context = nullptr;
    char* stack = nullptr;  // lowest address
    void* fake_stack = nullptr;
  };
  [[noreturn]] void run();
  friend struct FiberEntry;

  std::vector<Fiber> fibers_;
  void (*entry_)(int) = nullptr;
  int running_ = -1;
  void* scheduler_ = nullptr;
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
};

}  // namespace lathe::simt
