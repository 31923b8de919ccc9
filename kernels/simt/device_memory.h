// The memory of the simt device: an address range that is closed to the host except while device work runs.
#pragma once

#include <cstddef>

namespace lathe::simt {

inline constexpr size_t device_bytes = size_t{16} << 30;  // of address space; memory is used as it is touched

// Blocks are aligned to 256 bytes as cudaMalloc's are. Nullptr when the range is full.
void* take_device_memory(size_t bytes);
bool give_device_memory(void* pointer);  // false: not the start of a block
size_t free_device_bytes();
bool is_device_memory(const void* pointer, size_t bytes);

// Opens device memory to the code that runs while it lives: kernels and copies.
class HostAccess {
 public:
  HostAccess();
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;
};

}  // namespace lathe::simt
