// Host bytes to a device through two pinned buffers: while one is copied, the next is being filled (read from a mapped
// file, dequantised). The copies run on a stream of their own, beside the device's work.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/device.h"

namespace lathe::kernels {

class CopyQueue;

class Upload {
 public:
  // 8 MiB: at 25 GB/s a copy of 0.3 ms, long beside its launch and short beside a weight.
  static constexpr int64_t default_buffer_bytes = int64_t{8} << 20;

  // For the cpu there are no buffers: destinations are filled in place.
  explicit Upload(Device device, int64_t buffer_bytes = default_buffer_bytes);
  ~Upload();  // waits for the copies
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  // Writes `bytes` bytes at `to` on the device. `fill(buffer, first, count)` makes bytes [first, first + count) at
  // `buffer`; first is a multiple of `unit` (a row's bytes, say), and so is count but for the last. Returns before the
  // last copies are done. ResourceError when a unit is larger than a buffer.
  void write(void* to, int64_t bytes, int64_t unit,
             const std::function<void(char* buffer, int64_t first, int64_t count)>& fill);

  // Whatever is queued on the device after this sees everything written so far. The host does not wait.
  void publish();

 private:
  static constexpr int buffer_count = 2;

  Device device_;
  int64_t buffer_bytes_;
  std::unique_ptr<CopyQueue> queue_;  // none for the cpu
  std::array<char*, buffer_count> buffers_{};
  int next_ = 0;
};

}  // namespace lathe::kernels
