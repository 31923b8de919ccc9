#include "kernels/simt/fiber.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <new>

#include "kernels/simt/sanitizer.h"

namespace lathe::simt {
namespace {

namespace context = boost::context::detail;

// A kernel's frame is small; ASan's redzones and unoptimised builds need more.
constexpr size_t stack_bytes = size_t{LATHE_SIMT_ASAN ? 256 : 64} << 10;
constexpr size_t page_bytes = 4096;

}  // namespace

struct FiberEntry {
  static void enter(context::transfer_t from) {
    auto* pool = static_cast<FiberPool*>(from.data);
    pool->scheduler_ = from.fctx;
    pool->run();
  }
};

FiberPool::~FiberPool() {
  for (const Fiber& fiber : fibers_) ::munmap(fiber.stack - page_bytes, stack_bytes + page_bytes);
}

void FiberPool::prepare(int count, void (*entry)(int)) {
  entry_ = entry;
  while (fibers_.size() < static_cast<size_t>(count)) {
    void* const block = ::mmap(nullptr, stack_bytes + page_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    ::mprotect(block, page_bytes, PROT_NONE);  // an overflowing stack faults instead of running into its neighbour
    fibers_.push_back({.stack = static_cast<char*>(block) + page_bytes});
  }
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = fibers_[static_cast<size_t>(i)];
    unpoison(fiber.stack, stack_bytes);  // what an abandoned fiber left
    fiber.fake_stack = nullptr;
    fiber.context = context::make_fcontext(fiber.stack + stack_bytes, stack_bytes, FiberEntry::enter);
  }
}

void FiberPool::run() {
  finish_switch(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
  entry_(running_);
  start_switch(nullptr, scheduler_stack_, scheduler_stack_bytes_);  // nullptr: this stack is done with
  context::jump_fcontext(scheduler_, nullptr);
  __builtin_unreachable();
}

void FiberPool::resume(int index) {
  running_ = index;
  Fiber& fiber = fibers_[static_cast<size_t>(index)];
  start_switch(&scheduler_fake_stack_, fiber.stack, stack_bytes);
  const context::transfer_t back = context::jump_fcontext(fiber.context, this);
  finish_switch(scheduler_fake_stack_, nullptr, nullptr);
  fiber.context = back.fctx;
}

void FiberPool::yield() {
  Fiber& fiber = fibers_[static_cast<size_t>(running_)];
  start_switch(&fiber.fake_stack, scheduler_stack_, scheduler_stack_bytes_);
  const context::transfer_t back = context::jump_fcontext(scheduler_, nullptr);
  finish_switch(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
  scheduler_ = back.fctx;
}

}  // namespace lathe::simt
