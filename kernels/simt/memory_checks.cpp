#include "kernels/simt/memory_checks.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <new>
#include <string>
#include <string_view>

#include "kernels/simt/block.h"
#include "kernels/simt/device_memory.h"
#include "kernels/simt/options.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/wgmma.h"

namespace lathe::simt {
namespace {

// Static shared memory, a gap, dynamic shared memory, a gap.
constexpr size_t gap_bytes = 64 << 10;
constexpr size_t static_bytes = max_static_shared_bytes;
constexpr size_t dynamic_offset = static_bytes + gap_bytes;
constexpr size_t arena_bytes = dynamic_offset + most_shared_bytes + gap_bytes;
constexpr size_t redzone_bytes = 64;  // between two static variables

// One access: which thread, between which barriers.
struct Access {
  uint32_t block_epoch = 0;
  // 10 bits of thread, 22 of its warp's epoch above them, by hand: bit fields are stored in pieces, and the next load
  // of the word waits until both have left the store buffer. Two thirds of the time of every kernel went there.
  uint32_t place = 0;
  uint32_t thread() const { return place & 1023u; }
  uint32_t warp_epoch() const { return place >> 10; }
};
struct Byte {
  Access write, first_read, other_read;
  uint32_t copied_in = 0;  // the epoch in which a copy that is still under way was issued; 0: none is
  uint32_t stored_at = 0;  // proxy_clock of the last write by an ordinary store; 0: the asynchronous proxy wrote it
};

struct StaticVariable {
  const void* key;
  size_t offset, bytes;
};

struct Arena {
  unsigned char* memory = nullptr;
  Byte* shadow = nullptr;
  std::vector<StaticVariable> variables;  // of the running kernel
  size_t static_used = 0, dynamic_used = 0;
  uint32_t first_epoch = 0;  // of the running block
};

Arena arena = [] {
  const auto map = [](size_t bytes) {
    void* const block =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    return block;
  };
  Arena made;
  made.memory = static_cast<unsigned char*>(map(arena_bytes));
  made.shadow = static_cast<Byte*>(map(arena_bytes * sizeof(Byte)));
  return made;
}();

// Counts fence.proxy.async, and where each thread of the block had its last one.
uint32_t proxy_clock = 1;
uint32_t last_proxy_fence[max_threads_per_block] = {};

Access now(int thread) { return {running.block_epoch, static_cast<uint32_t>(thread) | running.warp_epoch << 10}; }

bool same_epoch(const Access& a) { return a.block_epoch == running.block_epoch; }

// Neither a barrier nor a __syncwarp stands between that access and one of `thread` now.
bool unordered(const Access& earlier, int thread) {
  if (!same_epoch(earlier) || earlier.thread() == static_cast<uint32_t>(thread)) return false;
  const bool same_warp = earlier.thread() / 32 == static_cast<uint32_t>(thread) / 32;
  return !(same_warp && earlier.warp_epoch() < running.warp_epoch);
}

bool written_in_this_block(const Byte& byte) { return byte.write.block_epoch >= arena.first_epoch; }

bool copy_under_way(const Byte& byte) { return byte.copied_in >= arena.first_epoch; }

char message[200];

const char* conflict(const char* verb, size_t offset, const char* other_verb, const Access& other) {
  std::snprintf(message, sizeof message,
                "%s shared memory (byte %zu) that thread %u of the block %s, with no barrier between: a race", verb,
                offset >= dynamic_offset ? offset - dynamic_offset : offset, static_cast<unsigned>(other.thread()),
                other_verb);
  return message;
}

// What is wrong with the access, or nullptr.
const char* read_fault(size_t offset, size_t bytes, int thread) {
  const Access access = now(thread);
  for (size_t i = offset; i < offset + bytes; ++i) {
    Byte& byte = arena.shadow[i];
    const bool another_reads = same_epoch(byte.first_read) && byte.first_read.thread() != static_cast<uint32_t>(thread);
    (another_reads ? byte.other_read : byte.first_read) = access;
    if (copy_under_way(byte)) return "reads shared memory that a cp.async is still to write: the wait is missing";
    if (!written_in_this_block(byte))
      return "reads shared memory that nobody has written: it never is, or a barrier is missing";
    if (unordered(byte.write, thread)) return conflict("reads", i, "wrote", byte.write);
  }
  return nullptr;
}

const char* write_fault(size_t offset, size_t bytes, int thread) {
  const Access access = now(thread);
  for (size_t i = offset; i < offset + bytes; ++i) {
    Byte& byte = arena.shadow[i];
    if (copy_under_way(byte)) return "writes shared memory that a cp.async is still to write: the wait is missing";
    if (unordered(byte.write, thread)) return conflict("writes", i, "wrote", byte.write);
    if (unordered(byte.first_read, thread)) return conflict("writes", i, "read", byte.first_read);
    if (unordered(byte.other_read, thread)) return conflict("writes", i, "read", byte.other_read);
    byte.write = access;
    byte.stored_at = proxy_clock;
  }
  return nullptr;
}

size_t offset_of(const void* address) {
  return static_cast<size_t>(static_cast<const unsigned char*>(address) - arena.memory);
}

bool in_use(size_t offset, size_t bytes) {
  if (offset >= dynamic_offset) return offset - dynamic_offset + bytes <= arena.dynamic_used;
  for (const StaticVariable& variable : arena.variables)
    if (offset >= variable.offset && offset + bytes <= variable.offset + variable.bytes) return true;
  return false;
}

using Check = const char* (*)(size_t offset, size_t bytes, int thread);

// Called for every instrumented access of device code: nearly all of them are elsewhere.
inline void checked_access(const void* address, size_t bytes, bool aligned, Check check, const void* code) {
  if (running.thread < 0) return;
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0) return report_at("makes a misaligned access", code);
  const size_t offset = offset_of(address);
  if (offset >= arena_bytes) {
    if (running.awaits_grid && device_of(address, bytes) >= 0)
      report_at("touches global memory before it has waited for the kernel before a dependent one", code);
    if (wgmma_under_way() && wgmma_holds(address, bytes))
      report_at("touches a register of a wgmma that it has not waited for", code);
    return;
  }
  if (!in_use(offset, bytes)) return report_at("accesses shared memory outside what the block has", code);
  if (const char* fault = check(offset, bytes, running.thread)) report_at(fault, code);
}

}  // namespace

void begin_shared_memory(size_t dynamic_bytes, uint32_t block_epoch) {
  arena.first_epoch = block_epoch;
  std::fill(std::begin(last_proxy_fence), std::end(last_proxy_fence), 0u);
  arena.variables.clear();
  arena.static_used = 0;
  arena.dynamic_used = dynamic_bytes;
  unpoison(arena.memory, arena_bytes);
  std::memset(arena.memory + dynamic_offset, 0xff, dynamic_bytes);
  poison(arena.memory, dynamic_offset);
  poison(arena.memory + dynamic_offset + dynamic_bytes, arena_bytes - dynamic_offset - dynamic_bytes);
}

void end_shared_memory() { poison(arena.memory, arena_bytes); }

bool in_shared_memory(const void* address, size_t bytes) {
  const size_t offset = offset_of(address);
  return offset < arena_bytes && in_use(offset, bytes);
}

void* static_shared(const void* key, size_t bytes, size_t alignment, Where where) {
  for (const StaticVariable& variable : arena.variables)
    if (variable.key == key) return arena.memory + variable.offset;
  const size_t offset = (arena.static_used + alignment - 1) / alignment * alignment;
  if (offset + bytes > static_bytes) {
    report("uses more than the 48 KiB of static shared memory that a kernel may have", where);
    return arena.memory;
  }
  arena.static_used = offset + bytes + redzone_bytes;
  arena.variables.push_back({key, offset, bytes});
  unpoison(arena.memory + offset, bytes);
  std::memset(arena.memory + offset, 0xff, bytes);
  return arena.memory + offset;
}

void* dynamic_shared_memory() { return arena.memory + dynamic_offset; }

void note_shared_read(const void* address, size_t bytes, int lane, Where where) {
  const size_t offset = offset_of(address);
  if (offset >= arena_bytes || !in_use(offset, bytes)) return report("reads outside the block's shared memory", where);
  if (!checks_shared_memory()) return;
  if (const char* fault = read_fault(offset, bytes, running.warp * 32 + lane)) report(fault, where);
}

size_t shared_window_address(const void* address) {
  const size_t offset = offset_of(address);
  return offset < arena_bytes && offset >= dynamic_offset ? offset - dynamic_offset : SIZE_MAX;
}

void* shared_window_pointer(size_t address) {
  return address < arena.dynamic_used ? arena.memory + dynamic_offset + address : nullptr;
}

void begin_async_write(void* shared, size_t bytes, Where where) {
  const size_t offset = offset_of(shared);
  if (checks_shared_memory()) {
    if (const char* fault = write_fault(offset, bytes, running.thread)) report(fault, where);
    for (size_t i = offset; i < offset + bytes; ++i) arena.shadow[i].copied_in = running.block_epoch;
  }
  std::memset(shared, 0xff, bytes);
  poison(shared, bytes);
}

void end_async_write(void* shared, const void* from, size_t bytes, int thread) {
  unpoison(shared, bytes);
  std::memcpy(shared, from, bytes);
  if (!checks_shared_memory()) return;
  const size_t offset = offset_of(shared);
  for (size_t i = offset; i < offset + bytes; ++i) {
    arena.shadow[i].copied_in = 0;
    arena.shadow[i].write = {running.block_epoch, static_cast<uint32_t>(thread)};
    arena.shadow[i].stored_at = 0;
  }
}

void note_async_read(const void* address, size_t bytes, int thread, Where where) {
  const size_t offset = offset_of(address);
  if (offset >= arena_bytes || !in_use(offset, bytes))
    return report_of_thread(thread, "has wgmma or a copy read outside the block's shared memory", where);
  if (!checks_shared_memory()) return;
  if (const char* fault = read_fault(offset, bytes, thread)) return report_of_thread(thread, fault, where);
  for (size_t i = offset; i < offset + bytes; ++i) {
    const Byte& byte = arena.shadow[i];
    if (byte.stored_at == 0 || last_proxy_fence[byte.write.thread()] > byte.stored_at) continue;
    return report_of_thread(thread,
                            "has wgmma or a copy read shared memory that thread " +
                                std::to_string(byte.write.thread()) +
                                " of the block stored with no fence.proxy.async after it",
                            where);
  }
}

void fence_proxy_async() { last_proxy_fence[running.thread] = ++proxy_clock; }

void AsyncCopies::issue(void* shared, const void* global, int bytes, int valid_bytes, Where where) {
  copies_.push_back({shared, global, bytes, valid_bytes, where});
  if (running.awaits_grid)
    report("copies global memory before it has waited for the kernel before a dependent one", where);
  const size_t offset = offset_of(shared), count = static_cast<size_t>(bytes);
  if (checks_shared_memory()) {
    if (const char* fault = write_fault(offset, count, running.thread)) report(fault, where);
    for (size_t i = offset; i < offset + count; ++i) arena.shadow[i].copied_in = running.block_epoch;
  }
  std::memset(shared, 0xff, count);
  poison(shared, count);
}

void AsyncCopies::commit() { group_ends_.push_back(copies_.size()); }

void AsyncCopies::wait(int groups_left) {
  const size_t left = static_cast<size_t>(groups_left);
  if (group_ends_.size() <= left) return;
  const size_t done = group_ends_[group_ends_.size() - 1 - left];
  for (size_t i = 0; i < done; ++i) {
    const Copy& copy = copies_[i];
    const size_t offset = offset_of(copy.shared);
    unpoison(copy.shared, static_cast<size_t>(copy.bytes));
    std::memset(copy.shared, 0, static_cast<size_t>(copy.bytes));
    std::memcpy(copy.shared, copy.global, static_cast<size_t>(copy.valid_bytes));
    if (!checks_shared_memory()) continue;
    for (size_t b = offset; b < offset + static_cast<size_t>(copy.bytes); ++b) {
      arena.shadow[b].copied_in = 0;
      arena.shadow[b].write = now(running.thread);
      arena.shadow[b].stored_at = proxy_clock;
    }
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<int64_t>(done));
  group_ends_.erase(group_ends_.begin(), group_ends_.end() - static_cast<int64_t>(left));
  for (size_t& end : group_ends_) end -= done;
}

const Where* AsyncCopies::unfinished() const { return copies_.empty() ? nullptr : &copies_.front().where; }

std::string source_line(const void* code_address) {
  Dl_info found{};
  ::link_map* object = nullptr;
  if (::dladdr1(code_address, &found, reinterpret_cast<void**>(&object), RTLD_DL_LINKMAP) == 0 || object == nullptr)
    return "an unknown place";
  // dladdr gives the program's name as it was called, which is found neither in another current folder nor through
  // PATH.
  std::error_code unreadable;
  const bool is_program = object->l_name[0] == '\0';
  const std::string file =
      is_program ? std::filesystem::read_symlink("/proc/self/exe", unreadable).string() : object->l_name;
  const auto offset = static_cast<const char*>(code_address) - static_cast<const char*>(found.dli_fbase) - 1;
  char hex[32], line[1024];
  std::snprintf(hex, sizeof hex, "0x%zx", static_cast<size_t>(offset));
  std::string text;  // innermost inlined function first
  if (std::FILE* const pipe = ::popen(("addr2line -ie '" + file + "' " + hex + " 2>/dev/null").c_str(), "r")) {
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
      const std::string_view place(line, std::strcspn(line, "\n"));
      text += (text.empty() ? "" : ", inlined at ") + std::string(place.substr(0, place.find(" (discriminator")));
    }
    ::pclose(pipe);
  }
  return !text.empty() && text.find("??") == std::string::npos ? text : file + "+" + hex;
}

bool checks_shared_memory() {
#if defined(LATHE_SIMT_INSTRUMENTED)
  return true;
#else
  return false;
#endif
}

}  // namespace lathe::simt

// The kernels are compiled with -fsanitize=thread, for the calls that the compiler then puts before every access; what
// they call is this, not ThreadSanitizer's runtime.
#if defined(LATHE_SIMT_INSTRUMENTED)
#define LATHE_ACCESS(name, bytes, aligned, check)                                                              \
  void name(void* address) {                                                                                   \
    ::lathe::simt::checked_access(address, bytes, aligned, ::lathe::simt::check, __builtin_return_address(0)); \
  }
#define LATHE_ACCESSES(bytes)                                          \
  LATHE_ACCESS(__tsan_read##bytes, bytes, true, read_fault)            \
  LATHE_ACCESS(__tsan_write##bytes, bytes, true, write_fault)          \
  LATHE_ACCESS(__tsan_unaligned_read##bytes, bytes, false, read_fault) \
  LATHE_ACCESS(__tsan_unaligned_write##bytes, bytes, false, write_fault)

extern "C" {
LATHE_ACCESSES(1)
LATHE_ACCESSES(2)
LATHE_ACCESSES(4)
LATHE_ACCESSES(8)
LATHE_ACCESSES(16)
void __tsan_read_range(void* address, unsigned long bytes) {
  ::lathe::simt::checked_access(address, bytes, false, ::lathe::simt::read_fault, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  ::lathe::simt::checked_access(address, bytes, false, ::lathe::simt::write_fault, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
#endif
