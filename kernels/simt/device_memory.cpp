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
  size_t used = 0;                            // all blocks so far lie below begin + used
  std::map<size_t, size_t> live;              // offset → bytes
  std::multimap<size_t, size_t> free_blocks;  // bytes → offset
  size_t live_bytes = 0;
  int open = 0;
};

void on_fault(int signal, siginfo_t* info, void* context);

char* map_range() {
  void* const block = ::mmap(nullptr, device_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(block);
}

Range& range(int device) {
  static Range* const made = [] {
    auto* const fresh = new Range[device_count];
    for (int i = 0; i < device_count; ++i) fresh[i].begin = map_range();
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &previous_handler);
    return fresh;
  }();
  return made[device];
}

// The range that an address lies in, −1 for the host's memory.
int range_of(const void* pointer) {
  for (int i = 0; i < device_count; ++i)
    if (static_cast<size_t>(static_cast<const char*>(pointer) - range(i).begin) < device_bytes) return i;
  return -1;
}

// Says what happened, then lets the fault take its course.
void on_fault(int, siginfo_t* info, void*) {
  if (range_of(info->si_addr) >= 0) {
    constexpr std::string_view text =
        "The host touched memory of a simt device, or a kernel that of another one. Copy it first (kernels/cuda/runtime.h), or "
        "call an operation that has a CUDA body.\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  }
  ::sigaction(SIGSEGV, &previous_handler, nullptr);
}

void protect(const Range& memory, int protection) {
  ::mprotect(memory.begin, (memory.used + 4095) / 4096 * 4096, protection);
}

size_t rounded(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

void* take_device_memory(int device, size_t bytes) {
  Range& memory = range(device);
  const size_t block = rounded(bytes == 0 ? 1 : bytes);
  size_t offset = 0;
  if (const auto reuse = memory.free_blocks.find(block); reuse != memory.free_blocks.end()) {
    offset = reuse->second;
    memory.free_blocks.erase(reuse);
  } else {
    if (memory.used + block + gap_bytes > device_bytes) return nullptr;
    offset = memory.used;
    memory.used += block + gap_bytes;
    if (memory.open > 0) protect(memory, PROT_READ | PROT_WRITE);
    poison(memory.begin + offset, block + gap_bytes);
  }
  memory.live[offset] = bytes;
  memory.live_bytes += block;
  unpoison(memory.begin + offset, bytes);
  return memory.begin + offset;
}

bool give_device_memory(void* pointer) {
  const int device = range_of(pointer);
  if (device < 0) return false;
  Range& memory = range(device);
  const auto found = memory.live.find(static_cast<size_t>(static_cast<char*>(pointer) - memory.begin));
  if (found == memory.live.end()) return false;
  const size_t block = rounded(found->second == 0 ? 1 : found->second);
  poison(pointer, block);
  memory.free_blocks.emplace(block, found->first);
  memory.live_bytes -= block;
  memory.live.erase(found);
  return true;
}

size_t free_device_bytes(int device) { return device_bytes - range(device).live_bytes; }

int device_of(const void* pointer, size_t bytes) {
  const int device = range_of(pointer);
  if (device < 0) return -1;
  const Range& memory = range(device);
  const auto offset = static_cast<size_t>(static_cast<const char*>(pointer) - memory.begin);
  const auto after = memory.live.upper_bound(offset);
  if (after == memory.live.begin()) return -1;
  const auto block = std::prev(after);
  return offset + bytes <= block->first + block->second ? device : -1;
}

HostAccess::HostAccess() : first_(0), last_(device_count - 1) {
  for (int i = first_; i <= last_; ++i)
    if (range(i).open++ == 0) protect(range(i), PROT_READ | PROT_WRITE);
}

HostAccess::HostAccess(int device) : first_(device), last_(device) {
  if (range(device).open++ == 0) protect(range(device), PROT_READ | PROT_WRITE);
}

HostAccess::~HostAccess() {
  for (int i = first_; i <= last_; ++i)
    if (--range(i).open == 0) protect(range(i), PROT_NONE);
}

}  // namespace lathe::simt
