// What threads of a block do together: barriers, warp collectives, shared memory, atomics. Every wait knows its source
// line, so that a barrier that not all threads reach is reported with the lines where they stand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "kernels/simt/types.h"

namespace lathe::simt {

#if __has_builtin(__builtin_source_location)
using Where = std::source_location;
#else  // clang 14 has not got it, but what it is made of
class Where {
 public:
  static constexpr Where current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE(),
                                 unsigned column = __builtin_COLUMN()) {
    Where where;
    where.file_ = file, where.line_ = line, where.column_ = column;
    return where;
  }
  constexpr const char* file_name() const { return file_; }
  constexpr unsigned line() const { return line_; }
  constexpr unsigned column() const { return column_; }

 private:
  const char* file_ = "";
  unsigned line_ = 0, column_ = 0;
};
#endif

const uint3& thread_index();
const uint3& block_index();
const dim3& block_shape();
const dim3& grid_shape();

void __syncthreads(Where where = Where::current());
void __syncwarp(unsigned mask = 0xffffffffu, Where where = Where::current());
inline void __threadfence() {}  // threads run one at a time and see memory in order
inline void __threadfence_block() {}

// A collective of the lanes in `mask`. Each lane hands over a request that stays where it is while the lane waits; the
// last to arrive completes them all: complete(requests by lane, mask), null for lanes outside the mask.
using Complete = void (*)(void* const* requests, unsigned mask);
void warp_collective(const char* name, unsigned mask, void* request, Complete complete, Where where);
int lane();

// Records a fault of the running thread; the kernel goes on where it can.
void report(const char* what, Where where);

namespace detail {

struct Exchange {
  alignas(16) unsigned char value[16];
  int source;  // lane to take from
  unsigned result;
  bool outside = false;
};

inline void complete_shuffle(void* const* requests, unsigned mask) {
  alignas(16) unsigned char values[32][16];
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u) std::memcpy(values[i], static_cast<Exchange*>(requests[i])->value, 16);
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1u)) continue;
    auto* request = static_cast<Exchange*>(requests[i]);
    request->outside = !(mask >> request->source & 1u);
    if (request->outside) {
      std::memset(request->value, 0xff, 16);  // what the hardware returns is undefined
    } else {
      std::memcpy(request->value, values[request->source], 16);
    }
  }
}

template <class T>
T shuffle(const char* name, unsigned mask, T value, int source, Where where) {
  static_assert(sizeof(T) <= 16);
  Exchange exchange{.source = source};
  std::memcpy(exchange.value, &value, sizeof value);
  warp_collective(name, mask, &exchange, complete_shuffle, where);
  if (exchange.outside) report("shuffles from a lane that is not in the mask", where);
  std::memcpy(&value, exchange.value, sizeof value);
  return value;
}

}  // namespace detail

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, Where where = Where::current()) {
  return detail::shuffle("__shfl_sync", mask, value, (lane() & ~(width - 1)) | (source & (width - 1)), where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, Where where = Where::current()) {
  const int source = lane() ^ lanes;
  return detail::shuffle("__shfl_xor_sync", mask, value, source / width == lane() / width ? source : lane(), where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, Where where = Where::current()) {
  const int source = lane() + static_cast<int>(lanes);
  return detail::shuffle("__shfl_down_sync", mask, value, source / width == lane() / width ? source : lane(), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, Where where = Where::current()) {
  const int source = lane() - static_cast<int>(lanes);
  return detail::shuffle("__shfl_up_sync", mask, value, source >= (lane() & ~(width - 1)) ? source : lane(), where);
}

unsigned __ballot_sync(unsigned mask, int predicate, Where where = Where::current());
inline int __any_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}
unsigned __match_any_sync(unsigned mask, uint64_t value, Where where = Where::current());
unsigned __reduce_add_sync(unsigned mask, unsigned value, Where where = Where::current());
unsigned __reduce_max_sync(unsigned mask, unsigned value, Where where = Where::current());
unsigned __reduce_min_sync(unsigned mask, unsigned value, Where where = Where::current());
unsigned __activemask();

// Threads switch only where they wait, so a plain read and write are atomic here. The checks of shared memory leave
// them out.
#define LATHE_UNCHECKED __attribute__((no_sanitize("thread")))
template <class T>
LATHE_UNCHECKED T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <class T>
LATHE_UNCHECKED T atomicMax(T* address, T value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <class T>
LATHE_UNCHECKED T atomicCAS(T* address, T expected, T value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
template <class T>
LATHE_UNCHECKED T atomicExch(T* address, T value) {
  const T old = *address;
  *address = value;
  return old;
}

// Shared memory of the block: one place for each key, poisoned when a block starts.
void* static_shared(const void* key, size_t bytes, size_t alignment, Where where);
void* dynamic_shared_memory();

// cp.async: the copy happens at the wait, not before; until then its destination may not be touched.
void async_copy(void* shared, const void* global, int bytes, int valid_bytes, Where where);
void async_commit();
void async_wait(int groups_left);

// Vector accesses state their alignment, so that one that would trap on a card is named here.
void check_aligned(const void* address, size_t bytes, Where where);
// An access made by an emulated instruction, for the checks of shared memory. The thread is that of the lane.
void note_shared_read(const void* address, size_t bytes, int lane, Where where);

}  // namespace lathe::simt
