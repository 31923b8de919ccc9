#include "kernels/simt/memory_checks.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>

#include "kernels/simt/block.h"
#include "kernels/simt/cluster.h"
#include "kernels/simt/device_memory.h"
#include "kernels/simt/options.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/wgmma.h"

namespace lathe::simt {
namespace {

// Static shared memory, a gap, dynamic shared memory, a gap; and so again for the next block of a cluster.
constexpr size_t gap_bytes = 64 << 10;
constexpr size_t static_bytes = max_static_shared_bytes;
constexpr size_t dynamic_offset = static_bytes + gap_bytes;
constexpr size_t arena_bytes = 512 << 10;
static_assert(dynamic_offset + most_shared_bytes + gap_bytes <= arena_bytes);
constexpr size_t all_arenas_bytes = arena_bytes * most_cluster_blocks;
constexpr size_t redzone_bytes = 64;  // between two static variables

// One access: which thread, between which barriers.
struct Access {
  uint32_t block_epoch = 0;  // of the thread's block
  // 13 bits of block and thread, 19 of the warp's epoch above them, by hand: bit fields are stored in pieces, and the
  // next load of the word waits until both have left the store buffer. Two thirds of the time of every kernel went
  // there. Epochs that have more bits pass for earlier ones.
  uint32_t place = 0;
  uint32_t who() const { return place & 8191u; }
  uint32_t thread() const { return place & 1023u; }
  uint32_t rank() const { return place >> 10 & 7u; }
  uint32_t warp_epoch() const { return place >> 13; }
};
// What has happened to a byte, or to a word of four of which none was touched without the others, as nearly all are:
// a quarter of the work.
struct History {
  Access write, first_read, other_read;  // the reads since that write
  uint32_t copied_in = 0;                // the epoch in which a copy that is still under way was issued; 0: none is
  uint32_t stored_at = 0;  // proxy_clock of the last write by an ordinary store; 0: the asynchronous proxy wrote it
};
constexpr size_t word_bytes = 4;

struct StaticVariable {
  const void* key;
  size_t offset, bytes;
};

struct BlockVariables {
  std::vector<StaticVariable> variables;
  size_t static_used = 0;
};

struct Arena {
  unsigned char* memory = nullptr;  // of all blocks; places in it are offsets
  History* words = nullptr;
  History* bytes = nullptr;                    // of words that are
  bool* apart = nullptr;                       // in bytes
  BlockVariables blocks[most_cluster_blocks];  // of the running kernel
  int block_count = 1;
  size_t dynamic_used = 0;
  uint32_t first_epoch = 0;  // of the running cluster
};

Arena arena;

// Room for all blocks of a cluster, which nobody touches but those: 165 MiB of addresses that a program gets with its
// first kernel, and not before.
void map_arena() {
  const auto map = [](size_t bytes) {
    void* const block =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    return block;
  };
  arena.memory = static_cast<unsigned char*>(map(all_arenas_bytes));
  arena.words = static_cast<History*>(map(all_arenas_bytes / word_bytes * sizeof(History)));
  arena.bytes = static_cast<History*>(map(all_arenas_bytes * sizeof(History)));
  arena.apart = static_cast<bool*>(map(all_arenas_bytes / word_bytes));
}

// Counts fence.proxy.async, and where each thread of the cluster had its last one.
uint32_t proxy_clock = 1;
uint32_t last_proxy_fence[max_threads_per_block * most_cluster_blocks] = {};

uint32_t who(int thread) { return static_cast<uint32_t>(thread) | static_cast<uint32_t>(running.rank) << 10; }

Access now(int thread) { return {running.block_epoch, who(thread) | running.warp_epoch << 13}; }

// No barrier that both threads wait at stands between that access and one of the running block now.
bool same_epoch(const Access& a) {
  return a.rank() == static_cast<uint32_t>(running.rank) ? a.block_epoch == running.block_epoch
                                                         : a.block_epoch >= running.cluster_epoch;
}

// Neither a barrier nor a __syncwarp stands between that access and one of `thread` now.
bool unordered(const Access& earlier, int thread) {
  if (!same_epoch(earlier) || earlier.who() == who(thread)) return false;
  const bool same_warp = earlier.who() / 32 == who(thread) / 32;
  return !(same_warp && earlier.warp_epoch() < running.warp_epoch);
}

bool written_in_this_block(const History& history) { return history.write.block_epoch >= arena.first_epoch; }

bool copy_under_way(const History& history) { return history.copied_in >= arena.first_epoch; }

// The histories of a word's bytes, which have been touched or are about to be touched without each other.
inline History* histories_apart(size_t word) {
  History* const of_bytes = arena.bytes + word * word_bytes;
  if (!arena.apart[word]) std::fill_n(of_bytes, word_bytes, arena.words[word]);
  arena.apart[word] = true;
  return of_bytes;
}

// check(history, offset) of bytes [offset, offset + bytes), word by word where it can: the first fault, or nullptr.
template <class Check>
inline const char* first_fault(size_t offset, size_t bytes, Check check) {
  const size_t end = offset + bytes;
  for (size_t i = offset; i < end;) {
    const size_t word = i / word_bytes, next = std::min(end, (word + 1) * word_bytes);
    if (!arena.apart[word] && next - i == word_bytes) {
      if (const char* fault = check(arena.words[word], i)) return fault;
      i = next;
      continue;
    }
    History* const of_bytes = histories_apart(word);
    for (; i < next; ++i)
      if (const char* fault = check(of_bytes[i % word_bytes], i)) return fault;
  }
  return nullptr;
}

// What happened to bytes before no longer matters: whoever has no barrier after it has none after this either.
inline void write_history(size_t offset, size_t bytes, const History& history) {
  const size_t end = offset + bytes;
  for (size_t i = offset; i < end;) {
    const size_t word = i / word_bytes, next = std::min(end, (word + 1) * word_bytes);
    if (next - i == word_bytes) {
      arena.words[word] = history;
      arena.apart[word] = false;
    } else {
      History* const of_bytes = histories_apart(word);
      std::fill(of_bytes + i % word_bytes, of_bytes + (next - word * word_bytes), history);
    }
    i = next;
  }
}

char message[200];

const char* conflict(const char* verb, size_t offset, const char* other_verb, const Access& other) {
  const size_t within = offset % arena_bytes;
  std::snprintf(message, sizeof message,
                "%s shared memory (byte %zu) that thread %u of the %s %s, with no barrier between: a race", verb,
                within >= dynamic_offset ? within - dynamic_offset : within, static_cast<unsigned>(other.thread()),
                other.rank() == static_cast<uint32_t>(running.rank) ? "block" : "cluster's block of another rank",
                other_verb);
  return message;
}

// What is wrong with the access, or nullptr.
const char* read_fault(size_t offset, size_t bytes, int thread) {
  const Access access = now(thread);
  return first_fault(offset, bytes, [&](History& history, size_t i) -> const char* {
    const bool another_reads = same_epoch(history.first_read) && history.first_read.who() != who(thread);
    (another_reads ? history.other_read : history.first_read) = access;
    if (copy_under_way(history)) return "reads shared memory that a cp.async is still to write: the wait is missing";
    if (!written_in_this_block(history))
      return "reads shared memory that nobody has written: it never is, or a barrier is missing";
    if (unordered(history.write, thread)) return conflict("reads", i, "wrote", history.write);
    return nullptr;
  });
}

// The same, without putting the write down.
const char* fault_of_write(size_t offset, size_t bytes, int thread) {
  return first_fault(offset, bytes, [&](const History& history, size_t i) -> const char* {
    if (copy_under_way(history)) return "writes shared memory that a cp.async is still to write: the wait is missing";
    if (unordered(history.write, thread)) return conflict("writes", i, "wrote", history.write);
    if (unordered(history.first_read, thread)) return conflict("writes", i, "read", history.first_read);
    if (unordered(history.other_read, thread)) return conflict("writes", i, "read", history.other_read);
    return nullptr;
  });
}

const char* write_fault(size_t offset, size_t bytes, int thread) {
  if (const char* fault = fault_of_write(offset, bytes, thread)) return fault;
  write_history(offset, bytes, {.write = now(thread), .stored_at = proxy_clock});
  return nullptr;
}

size_t offset_of(const void* address) {
  return static_cast<size_t>(static_cast<const unsigned char*>(address) - arena.memory);
}

bool in_use(size_t offset, size_t bytes) {
  const size_t rank = offset / arena_bytes, within = offset % arena_bytes;
  if (rank >= static_cast<size_t>(arena.block_count)) return false;
  if (within >= dynamic_offset) return within - dynamic_offset + bytes <= arena.dynamic_used;
  for (const StaticVariable& variable : arena.blocks[rank].variables)
    if (within >= variable.offset && within + bytes <= variable.offset + variable.bytes) return true;
  return false;
}

BlockVariables& variables_of_block() { return arena.blocks[running.rank]; }
unsigned char* memory_of_block() { return arena.memory + static_cast<size_t>(running.rank) * arena_bytes; }

using Check = const char* (*)(size_t offset, size_t bytes, int thread);

template <Check check>
[[gnu::noinline]] void check_access(const void* address, size_t bytes, bool misaligned, const void* code) {
  if (running.thread < 0) return;
  if (misaligned) return report_at("makes a misaligned access", code);
  const size_t offset = offset_of(address);
  if (offset >= all_arenas_bytes) {
    if (running.awaits_grid && device_of(address, bytes) >= 0)
      report_at("touches global memory before it has waited for the kernel before a dependent one", code);
    if (wgmma_products_under_way > 0 && wgmma_holds(address, bytes))
      report_at("touches a register of a wgmma that it has not waited for", code);
    return;
  }
  if (!in_use(offset, bytes)) return report_at("accesses shared memory outside what the block has", code);
  if (const int rank = static_cast<int>(offset / arena_bytes); rank != running.rank)
    if (const char* fault = why_no_peer(rank)) return report_at(fault, code);
  if (const char* fault = check(offset, bytes, running.thread)) report_at(fault, code);
}

// Called for every instrumented access of device code. Nearly all of them are elsewhere, and leave before anything is
// pushed on the stack: a sixth of the time of every kernel went there.
template <Check check>
inline void checked_access(const void* address, size_t bytes, bool aligned, const void* code) {
  const bool misaligned = aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0;
  const bool elsewhere = offset_of(address) >= all_arenas_bytes;
  if (elsewhere && !misaligned && !running.awaits_grid && wgmma_products_under_way == 0) [[likely]]
    return;
  check_access<check>(address, bytes, misaligned, code);
}

}  // namespace

void begin_shared_memory(size_t dynamic_bytes, int blocks) {
  if (arena.memory == nullptr) map_arena();
  arena.first_epoch = running.block_epoch;
  std::fill_n(last_proxy_fence, static_cast<size_t>(blocks) * max_threads_per_block, 0u);
  arena.block_count = blocks;
  arena.dynamic_used = dynamic_bytes;
  for (int rank = 0; rank < blocks; ++rank) {
    arena.blocks[rank].variables.clear();
    arena.blocks[rank].static_used = 0;
    unsigned char* const memory = arena.memory + static_cast<size_t>(rank) * arena_bytes;
    unpoison(memory, arena_bytes);
    std::memset(memory + dynamic_offset, 0xff, dynamic_bytes);
    poison(memory, dynamic_offset);
    poison(memory + dynamic_offset + dynamic_bytes, arena_bytes - dynamic_offset - dynamic_bytes);
  }
}

void end_shared_memory() { poison(arena.memory, static_cast<size_t>(arena.block_count) * arena_bytes); }

bool in_shared_memory(const void* address, size_t bytes) {
  const size_t offset = offset_of(address);
  return offset < all_arenas_bytes && rank_of_shared(address) == running.rank && in_use(offset, bytes);
}

int rank_of_shared(const void* address) { return static_cast<int>(offset_of(address) / arena_bytes); }

void* shared_memory_of(int rank, void* own, Where where) {
  const size_t offset = offset_of(own);
  const char* fault = nullptr;
  if (offset >= all_arenas_bytes || rank_of_shared(own) != running.rank) {
    fault = "asks where something that does not lie in its shared memory lies in another block";
  } else if (rank < 0 || rank >= arena.block_count) {
    fault = "reaches for a block that its cluster has not";
  } else if (rank != running.rank) {
    fault = why_no_peer(rank);
  }
  if (fault == nullptr) return arena.memory + offset % arena_bytes + static_cast<size_t>(rank) * arena_bytes;
  report(fault, where);
  return own;
}

void* static_shared(const void* key, size_t bytes, size_t alignment, Where where) {
  BlockVariables& block = variables_of_block();
  unsigned char* const memory = memory_of_block();
  for (const StaticVariable& variable : block.variables)
    if (variable.key == key) return memory + variable.offset;
  const size_t offset = (block.static_used + alignment - 1) / alignment * alignment;
  if (offset + bytes > static_bytes) {
    report("uses more than the 48 KiB of static shared memory that a kernel may have", where);
    return memory;
  }
  block.static_used = offset + bytes + redzone_bytes;
  block.variables.push_back({key, offset, bytes});
  unpoison(memory + offset, bytes);
  std::memset(memory + offset, 0xff, bytes);
  return memory + offset;
}

void* dynamic_shared_memory() { return memory_of_block() + dynamic_offset; }

void note_shared_read(const void* address, size_t bytes, int lane, Where where) {
  const size_t offset = offset_of(address);
  if (!in_shared_memory(address, bytes)) return report("reads outside the block's shared memory", where);
  if (!checks_shared_memory()) return;
  if (const char* fault = read_fault(offset, bytes, running.warp * 32 + lane)) report(fault, where);
}

size_t shared_window_address(const void* address) {
  const size_t offset = offset_of(address), within = offset % arena_bytes;
  return offset < all_arenas_bytes && within >= dynamic_offset ? within - dynamic_offset : SIZE_MAX;
}

void* shared_window_pointer(size_t address) {
  return address < arena.dynamic_used ? memory_of_block() + dynamic_offset + address : nullptr;
}

void begin_async_write(void* shared, size_t bytes, Where where) {
  const size_t offset = offset_of(shared);
  if (checks_shared_memory()) {
    if (const char* fault = fault_of_write(offset, bytes, running.thread)) report(fault, where);
    write_history(offset, bytes,
                  {.write = now(running.thread), .copied_in = running.block_epoch, .stored_at = proxy_clock});
  }
  std::memset(shared, 0xff, bytes);
  poison(shared, bytes);
}

void end_async_write(void* shared, const void* from, size_t bytes, int thread) {
  unpoison(shared, bytes);
  std::memcpy(shared, from, bytes);
  if (!checks_shared_memory()) return;
  write_history(offset_of(shared), bytes, {.write = {running.block_epoch, who(thread)}});
}

bool async_write_under_way(const void* shared, size_t bytes) {
  if (!checks_shared_memory()) return false;
  const auto fault = [](const History& history, size_t) { return copy_under_way(history) ? "is under way" : nullptr; };
  return first_fault(offset_of(shared), bytes, fault) != nullptr;
}

void note_async_read(const void* address, size_t bytes, int thread, Where where) {
  const size_t offset = offset_of(address);
  if (!in_shared_memory(address, bytes))
    return report_of_thread(thread, "has wgmma or a copy read outside the block's shared memory", where);
  if (!checks_shared_memory()) return;
  if (const char* fault = read_fault(offset, bytes, thread)) return report_of_thread(thread, fault, where);
  const char* const fault = first_fault(offset, bytes, [](const History& history, size_t) -> const char* {
    if (history.stored_at == 0 || last_proxy_fence[history.write.who()] > history.stored_at) return nullptr;
    std::snprintf(message, sizeof message,
                  "has wgmma or a copy read shared memory that thread %u of the block stored with no fence.proxy.async "
                  "after it",
                  static_cast<unsigned>(history.write.thread()));
    return message;
  });
  if (fault != nullptr) report_of_thread(thread, fault, where);
}

void fence_proxy_async() { last_proxy_fence[who(running.thread)] = ++proxy_clock; }

void AsyncCopies::issue(void* shared, const void* global, int bytes, int valid_bytes, Where where) {
  copies_.push_back({shared, global, bytes, valid_bytes, where});
  if (running.awaits_grid)
    report("copies global memory before it has waited for the kernel before a dependent one", where);
  begin_async_write(shared, static_cast<size_t>(bytes), where);
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
    write_history(offset, static_cast<size_t>(copy.bytes), {.write = now(running.thread), .stored_at = proxy_clock});
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
      std::string_view place(line, std::strcspn(line, "\n"));
      if (place.starts_with("./")) place.remove_prefix(2);  // the build folder, where the compiler ran
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
    ::lathe::simt::checked_access<::lathe::simt::check>(address, bytes, aligned, __builtin_return_address(0)); \
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
  ::lathe::simt::checked_access<::lathe::simt::read_fault>(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  ::lathe::simt::checked_access<::lathe::simt::write_fault>(address, bytes, false, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
#endif
