// Memory, copies and waiting on one kind of device, through the CUDA runtime or its stand-in.
#include <string>

#include "core/caching_allocator.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/layer.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr DeviceKind kind = LATHE_SIMT ? DeviceKind::simt : DeviceKind::cuda;
constexpr int max_devices = 8;

void* take(int64_t bytes) {
  void* pointer = nullptr;
  if (cudaMalloc(&pointer, static_cast<size_t>(bytes)) == cudaSuccess) return pointer;
  cudaGetLastError();  // the allocator reports it
  return nullptr;
}

void give(void* block, int64_t) { cudaFree(block); }

int64_t free_bytes() {
  size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
}

void use(int index) {
  if (const std::string why = why_unavailable(index); !why.empty()) throw ResourceError(why);
  check(cudaSetDevice(index), "choosing the device");
}

// Freed blocks are reused at once: all work of a device is queued on one stream, so whatever still reads them comes first.
Allocator& allocator(int index) {
  static CachingAllocator* allocators[max_devices] = {};
  use(index);
  if (allocators[index] == nullptr)
    allocators[index] = new CachingAllocator({.device = to_string({kind, index}), .take = take, .give = give, .free_bytes = free_bytes, .host_memory = LATHE_SIMT});
  return *allocators[index];
}

void fill_zero(Device device, void* pointer, int64_t bytes) {
  use(device.index);
  check(cudaMemsetAsync(pointer, 0, static_cast<size_t>(bytes), current_stream()), "clearing memory");
}

void copy(int index, void* to, const void* from, int64_t bytes, cudaMemcpyKind direction) {
  if (bytes == 0) return;
  use(index);
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), direction, current_stream()), "copying");
  if (direction != cudaMemcpyDeviceToDevice) synchronize(index);
}

[[maybe_unused]] const bool registered = (register_device_memory(kind, {.allocator = allocator, .fill_zero = fill_zero}), true);

}  // namespace

cudaStream_t current_stream() {
  static cudaStream_t streams[max_devices] = {};
  static thread_local int device = 0;
#if !LATHE_SIMT
  check(cudaGetDevice(&device), "asking for the device");
#endif
  if (streams[device] == nullptr) check(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking), "making a stream");
  return streams[device];
}

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  const std::string text = std::string(LATHE_SIMT ? "simt: " : "CUDA: ") + doing + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) throw ResourceError(text);
  throw Error(text);
}

// Asked before every use of the device: remembered once the answer is yes.
std::string why_unavailable(int index) {
  static int count = 0;
  if (count == 0) {
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
      cudaGetLastError();
      count = 0;
      return std::string("--device cuda needs an NVIDIA card and its driver, and the CUDA runtime finds none here: ") +
             cudaGetErrorString(error) + "; use --device cpu";
    }
  }
  if (index < 0 || index >= (count < max_devices ? count : max_devices))
    return "device " + to_string(Device{kind, index}) + " does not exist: this machine has " + std::to_string(count) + " of that kind";
#if !LATHE_SIMT
  static bool checked[max_devices] = {};
  if (!checked[index]) {
    int major = 0;
    if (const cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index); error != cudaSuccess)
      return std::string("device ") + to_string(Device{kind, index}) + " does not answer: " + cudaGetErrorString(error);
    if (major < 8)
      return "device " + to_string(Device{kind, index}) + " has compute capability " + std::to_string(major) +
             ".x; Lathe's kernels need 8.0 (A100, RTX 30) or newer";
    checked[index] = true;
  }
#endif
  return "";
}

void copy_in(int index, void* to, const void* from, int64_t bytes) { copy(index, to, from, bytes, cudaMemcpyHostToDevice); }
void copy_out(int index, void* to, const void* from, int64_t bytes) { copy(index, to, from, bytes, cudaMemcpyDeviceToHost); }
void copy_within(int index, void* to, const void* from, int64_t bytes) { copy(index, to, from, bytes, cudaMemcpyDeviceToDevice); }

void synchronize(int index) {
  use(index);
  check(cudaStreamSynchronize(current_stream()), "waiting for the device");
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

extern "C" void LATHE_DEVICE_ANCHOR() {}
