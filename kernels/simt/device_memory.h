// The memory of the simt devices: an address range for each, closed to the host, and to the other device's kernels,
// except while work of that device runs.
#pragma once

#include <cstddef>

namespace lathe::simt {

inline constexpr int device_count = 2;                    // enough to find a call on the wrong one
inline constexpr size_t device_bytes = size_t{16} << 30;  // of address space; memory is used as it is touched

// Blocks are aligned to 256 bytes as cudaMalloc's are. Nullptr when the range is full.
void* take_device_memory(int device, size_t bytes);
bool give_device_memory(void* pointer);  // false: not the start of a block
size_t free_device_bytes(int device);
// The device whose block holds these bytes, −1 where none does.
int device_of(const void* pointer, size_t bytes);

// Opens the memory of one device, or of all, to the code that runs while it lives: kernels and copies.
class HostAccess {
 public:
  HostAccess();
  explicit HostAccess(int device);
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;

 private:
  int first_, last_;
};

}  // namespace lathe::simt
