#include "kernels/cuda/runtime.h"

#include <cstring>
#include <vector>

#include "core/caching_allocator.h"
#include "core/error.h"
#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels {
namespace {

// Of a kind that this program lacks: what to do about it.
const char* why_no_kind([[maybe_unused]] DeviceKind kind) {
#if defined(LATHE_WITHOUT_SIMT)
  if (kind == DeviceKind::simt) return "this program has no emulated device (lathe-model has one); use --device cpu";
#endif
#if !defined(LATHE_WITH_CUDA)
  if (kind == DeviceKind::cuda)
    return "this program was built without CUDA: configure with LATHE_CUDA=ON where the CUDA Toolkit is installed, or "
           "use --device cpu";
#endif
  return "";
}

}  // namespace

DeviceRuntime& device_runtime(Device device) {
  if (const std::string why = why_no_kind(device.kind); !why.empty()) throw ResourceError(why);
#if !defined(LATHE_WITHOUT_SIMT)
  if (device.kind == DeviceKind::simt) return simt::runtime();
#endif
#if defined(LATHE_WITH_CUDA)
  return cuda::runtime();
#else
  __builtin_unreachable();
#endif
}

void use_device(Device device) { device_runtime(device).use(device.index); }

std::string why_unavailable(Device device) {
  if (device.kind == DeviceKind::cpu) return device.index == 0 ? "" : "there is one cpu device, cpu:0";
  if (std::string why = why_no_kind(device.kind); !why.empty()) return why;
  return device_runtime(device).why_unavailable(device.index);
}

void copy_bytes(Device to_device, void* to, Device from_device, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const bool to_cpu = to_device.kind == DeviceKind::cpu, from_cpu = from_device.kind == DeviceKind::cpu;
  if (to_cpu && from_cpu) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  } else if (from_cpu) {
    device_runtime(to_device).copy_in(to_device.index, to, from, bytes);
  } else if (to_cpu) {
    device_runtime(from_device).copy_out(from_device.index, to, from, bytes);
  } else if (to_device == from_device) {
    device_runtime(to_device).copy_within(to_device.index, to, from, bytes);
  } else {  // through the host: peers are another issue's subject
    std::vector<char> staged(static_cast<size_t>(bytes));
    device_runtime(from_device).copy_out(from_device.index, staged.data(), from, bytes);
    device_runtime(to_device).copy_in(to_device.index, to, staged.data(), bytes);
  }
}

int64_t free_memory_bytes(Device device) {
  if (device.kind == DeviceKind::cpu) return system_memory().free_bytes();
  return device_runtime(device).free_memory_bytes(device.index);
}

std::string device_name(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : device_runtime(device).device_name(device.index);
}

int64_t last_cache_bytes(Device device) { return device_runtime(device).last_cache_bytes(device.index); }

void synchronize(Device device) {
  if (device.kind != DeviceKind::cpu) device_runtime(device).synchronize(device.index);
}

}  // namespace lathe::kernels
