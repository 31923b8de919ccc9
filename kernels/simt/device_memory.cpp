#include "kernels/simt/device_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <new>
#include <string_view>

#include "kernels/simt/sanitizer.h"

namespace lathe::simt {
namespace {

constexpr size_t alignment = 256;
constexpr size_t gap_bytes = 256;  // between blocks: an access just outside one is no other's

struct sigaction previous_handler;

struct Range {
  char* begin = nullptr;
  size_t used = 0;                          // all blocks so far lie below begin + used
  std::map<size_t, size_t> live;            // offset → bytes
  std::multimap<size_t, size_t> free_blocks;  // bytes → offset
  size_t live_bytes = 0;
  int open = 0;
};

void on_fault(int signal, siginfo_t* info, void* context);

Range& range() {
  static Range* const made = [] {
    auto* const fresh = new Range;
    void* const block = ::mmap(nullptr, device_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    fresh->begin = static_cast<char*>(block);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &previous_handler);
    return fresh;
  }();
  return *made;
}

// Says what happened, then lets the fault take its course.
void on_fault(int, siginfo_t* info, void*) {
  const auto* const address = static_cast<const char*>(info->si_addr);
  if (address >= range().begin && address < range().begin + device_bytes) {
    constexpr std::string_view text =
        "The host touched memory of the simt device. Copy it first (kernels/cuda/runtime.h), or call an operation that has a "
        "CUDA body.\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  }
  ::sigaction(SIGSEGV, &previous_handler, nullptr);
}

size_t rounded(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

void* take_device_memory(size_t bytes) {
  Range& memory = range();
  const size_t block = rounded(bytes == 0 ? 1 : bytes);
  size_t offset = 0;
  if (const auto reuse = memory.free_blocks.find(block); reuse != memory.free_blocks.end()) {
    offset = reuse->second;
    memory.free_blocks.erase(reuse);
  } else {
    if (memory.used + block + gap_bytes > device_bytes) return nullptr;
    offset = memory.used;
    memory.used += block + gap_bytes;
    if (memory.open > 0) ::mprotect(memory.begin, (memory.used + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE);
    poison(memory.begin + offset, block + gap_bytes);
  }
  memory.live[offset] = bytes;
  memory.live_bytes += block;
  unpoison(memory.begin + offset, bytes);
  return memory.begin + offset;
}

bool give_device_memory(void* pointer) {
  Range& memory = range();
  const auto found = memory.live.find(static_cast<size_t>(static_cast<char*>(pointer) - memory.begin));
  if (found == memory.live.end()) return false;
  const size_t block = rounded(found->second == 0 ? 1 : found->second);
  poison(pointer, block);
  memory.free_blocks.emplace(block, found->first);
  memory.live_bytes -= block;
  memory.live.erase(found);
  return true;
}

size_t free_device_bytes() { return device_bytes - range().live_bytes; }

bool is_device_memory(const void* pointer, size_t bytes) {
  const Range& memory = range();
  const auto offset = static_cast<size_t>(static_cast<const char*>(pointer) - memory.begin);
  if (offset >= device_bytes) return false;
  const auto after = memory.live.upper_bound(offset);
  if (after == memory.live.begin()) return false;
  const auto block = std::prev(after);
  return offset + bytes <= block->first + block->second;
}

HostAccess::HostAccess() {
  Range& memory = range();
  if (memory.open++ == 0) ::mprotect(memory.begin, (memory.used + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE);
}

HostAccess::~HostAccess() {
  Range& memory = range();
  if (--memory.open == 0) ::mprotect(memory.begin, (memory.used + 4095) / 4096 * 4096, PROT_NONE);
}

}  // namespace lathe::simt
