#include "kernels/cuda/upload.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels {

Upload::Upload(Device device, int64_t buffer_bytes) : device_(device), buffer_bytes_(buffer_bytes) {
  if (device_.kind == DeviceKind::cpu) return;
  DeviceRuntime& runtime = device_runtime(device_);
  queue_ = runtime.make_copy_queue(device_.index);
  try {
    for (char*& buffer : buffers_) buffer = static_cast<char*>(runtime.take_pinned(device_.index, buffer_bytes_));
  } catch (...) {
    for (char* buffer : buffers_)
      if (buffer != nullptr) runtime.give_pinned(device_.index, buffer);
    throw;
  }
}

Upload::~Upload() {
  if (queue_ == nullptr) return;
  queue_.reset();
  for (char* buffer : buffers_) device_runtime(device_).give_pinned(device_.index, buffer);
}

void Upload::write(void* to, int64_t bytes, int64_t unit, const std::function<void(char*, int64_t, int64_t)>& fill) {
  if (bytes == 0) return;
  if (queue_ == nullptr) return fill(static_cast<char*>(to), 0, bytes);
  if (unit > buffer_bytes_)
    throw ResourceError("a row of " + std::to_string(unit) + " bytes does not fit into a staging buffer of " +
                        std::to_string(buffer_bytes_));
  // The memory may have been another tensor's, which queued work still reads.
  queue_->follow_compute();
  const int64_t piece = buffer_bytes_ / unit * unit;
  for (int64_t first = 0; first < bytes; first += piece) {
    const int64_t count = std::min(piece, bytes - first);
    queue_->wait_for_buffer(next_);
    fill(buffers_[static_cast<size_t>(next_)], first, count);
    queue_->queue_copy(next_, static_cast<char*>(to) + first, buffers_[static_cast<size_t>(next_)], count);
    next_ = (next_ + 1) % buffer_count;
  }
}

void Upload::publish() {
  if (queue_ != nullptr) queue_->lead_compute();
}

}  // namespace lathe::kernels
