#include "kernels/cuda/runtime.h"

#include <cstring>
#include <vector>

#include "core/caching_allocator.h"
#include "core/error.h"
#include "kernels/cuda/on_device.h"

namespace lathe::kernels {

void no_cuda_in_this_build() {
  throw ResourceError("this program was built without CUDA: configure with LATHE_CUDA=ON where the CUDA Toolkit is installed, or use --device cpu");
}

bool built_with_cuda() {
#if defined(LATHE_WITH_CUDA)
  return true;
#else
  return false;
#endif
}

void use_device(Device device) { LATHE_ON_DEVICE(device, use(device.index)); }

std::string why_unavailable(Device device) {
  if (device.kind == DeviceKind::cpu) return device.index == 0 ? "" : "there is one cpu device, cpu:0";
#if !defined(LATHE_WITH_CUDA)
  if (device.kind == DeviceKind::cuda) return "this program was built without CUDA; use --device cpu";
#endif
  return LATHE_ON_DEVICE(device, why_unavailable(device.index));
}

void copy_bytes(Device to_device, void* to, Device from_device, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const bool to_cpu = to_device.kind == DeviceKind::cpu, from_cpu = from_device.kind == DeviceKind::cpu;
  if (to_cpu && from_cpu) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  } else if (from_cpu) {
    LATHE_ON_DEVICE(to_device, copy_in(to_device.index, to, from, bytes));
  } else if (to_cpu) {
    LATHE_ON_DEVICE(from_device, copy_out(from_device.index, to, from, bytes));
  } else if (to_device == from_device) {
    LATHE_ON_DEVICE(to_device, copy_within(to_device.index, to, from, bytes));
  } else {  // through the host: peers are another issue's subject
    std::vector<char> staged(static_cast<size_t>(bytes));
    LATHE_ON_DEVICE(from_device, copy_out(from_device.index, staged.data(), from, bytes));
    LATHE_ON_DEVICE(to_device, copy_in(to_device.index, to, staged.data(), bytes));
  }
}

int64_t free_memory_bytes(Device device) {
  if (device.kind == DeviceKind::cpu) return system_memory().free_bytes();
  return LATHE_ON_DEVICE(device, free_memory_bytes(device.index));
}

std::string device_name(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : LATHE_ON_DEVICE(device, device_name(device.index));
}

int64_t last_cache_bytes(Device device) { return LATHE_ON_DEVICE(device, last_cache_bytes(device.index)); }

void synchronize(Device device) {
  if (device.kind != DeviceKind::cpu) LATHE_ON_DEVICE(device, synchronize(device.index));
}

}  // namespace lathe::kernels
