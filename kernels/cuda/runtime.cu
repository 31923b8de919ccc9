// Memory, copies and waiting on one kind of device, through the CUDA runtime or its stand-in.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/caching_allocator.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime_parts.h"

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

// What the allocator has given back since a capture began, and the work of the host in it, by device.
struct HeldMemory {
  std::mutex mutex;
  bool holding[max_devices] = {};
  std::vector<void*> blocks[max_devices];
  std::vector<std::unique_ptr<HostWork>> work[max_devices];
};
HeldMemory& held_memory() {
  static auto* const held = new HeldMemory;
  return *held;
}

void give(void* block, int64_t) {
  int device = 0;
  cudaGetDevice(&device);
  {
    const std::lock_guard lock(held_memory().mutex);
    if (held_memory().holding[device]) return held_memory().blocks[device].push_back(block);
  }
  tell_queued(waited);
  cudaFree(block);
}

int64_t free_bytes() {
  size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
}

// Stream-ordered: freed blocks are reused at once, because all work of a device is queued on one stream, so that
// whatever still reads them comes first. Other streams order themselves with events (copy_queue.cu).
Allocator& allocator(int index) {
  static CachingAllocator* allocators[max_devices] = {};
  use(index);
  static std::mutex making;
  const std::lock_guard lock(making);
  // clang-format off
  if (allocators[index] == nullptr)
    allocators[index] = new CachingAllocator({.device = to_string({kind, index}),
                                              .take = take,
                                              .give = give,
                                              .free_bytes = free_bytes,
                                              .host_memory = LATHE_SIMT,
#if LATHE_SIMT
                                              .work_is_queued = work_is_queued
#endif
    });
  // clang-format on
  return *allocators[index];
}

void fill_zero(Device device, void* pointer, int64_t bytes) {
  use(device.index);
  tell_queued(queued_clear);
  check(cudaMemsetAsync(pointer, 0, static_cast<size_t>(bytes), current_stream()), "clearing memory");
}

[[maybe_unused]] const bool registered =
    (register_device_memory(kind, {.allocator = allocator, .fill_zero = fill_zero}), true);

}  // namespace

void hold_memory(int index) {
  const std::lock_guard lock(held_memory().mutex);
  held_memory().holding[index] = true;
}

void release_memory(int index) {
  std::vector<void*> blocks;
  {
    const std::lock_guard lock(held_memory().mutex);
    held_memory().holding[index] = false;
    blocks.swap(held_memory().blocks[index]);
  }
  for (void* block : blocks) cudaFree(block);
}

std::vector<std::unique_ptr<HostWork>> take_held_work(int index) {
  const std::lock_guard lock(held_memory().mutex);
  return std::exchange(held_memory().work[index], {});
}

cudaStream_t current_stream() {
  static cudaStream_t streams[max_devices] = {};
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  static std::mutex making;
  const std::lock_guard lock(making);
  if (streams[device] == nullptr)
    check(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking), "making a stream");
  return streams[device];
}

namespace {
// Asked for once: launches must not wait for the driver. (simt may pretend to be another card.)
int attribute(cudaDeviceAttr wanted, std::atomic<int> (&known)[max_devices]) {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  int value = known[device];
  if (value == 0 || LATHE_SIMT) {
    check(cudaDeviceGetAttribute(&value, wanted, device), "asking what the device has");
    known[device] = value;
  }
  return value;
}
}  // namespace

int multiprocessors() {
  static std::atomic<int> known[max_devices] = {};
  return attribute(cudaDevAttrMultiProcessorCount, known);
}

int shared_bytes_per_block() {
  static std::atomic<int> known[max_devices] = {};
  return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, known);
}

bool runs_sm_90a() {
  static std::atomic<int> known[max_devices] = {};
  return attribute(cudaDevAttrComputeCapabilityMajor, known) == 9;
}

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  const std::string text = std::string(LATHE_SIMT ? "simt: " : "CUDA: ") + doing + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) throw ResourceError(text);
  throw Error(text);
}

namespace {

struct Devices {
  int count = 0;
  std::string why_none;
};

Devices look_for_devices() {
  Devices found;
  const cudaError_t error = cudaGetDeviceCount(&found.count);
  if (error != cudaSuccess || found.count == 0) {
    cudaGetLastError();
    found.count = 0;
    found.why_none = std::string("--device ") + (LATHE_SIMT ? "simt" : "cuda") +
                     " needs an NVIDIA card and a driver that is new enough; the CUDA runtime says: " +
                     (error != cudaSuccess ? cudaGetErrorString(error) : "no device") + ". Use --device cpu";
  }
  for (int i = 0; i < found.count; ++i) {
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) == cudaSuccess && major >= 8) continue;
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i);
    found.why_none = "device " + to_string(Device{kind, i}) + " has compute capability " + std::to_string(major) + "." +
                     std::to_string(minor) +
                     "; Lathe's kernels need 8.0 (A100, RTX 30) or newer. CUDA_VISIBLE_DEVICES can leave it out";
  }
  return found;
}

// Looked for once: cards do not come and go.
const Devices& devices() {
  static const Devices found = look_for_devices();
  return found;
}

std::string why_unavailable(int index) {
  const Devices& found = devices();
  if (!found.why_none.empty()) return found.why_none;
  if (index >= 0 && index < found.count && index < max_devices) return "";
  return "device " + to_string(Device{kind, index}) + " does not exist: this machine has " +
         std::to_string(found.count) + " of that kind";
}

class Runtime final : public DeviceRuntime {
 public:
  std::string why_unavailable(int index) override { return LATHE_CUDA_NAMESPACE::why_unavailable(index); }
  void use(int index) override { LATHE_CUDA_NAMESPACE::use(index); }

  void copy_in(int index, void* to, const void* from, int64_t bytes) override {
    copy(index, to, from, bytes, cudaMemcpyHostToDevice);
  }
  void copy_out(int index, void* to, const void* from, int64_t bytes) override {
    copy(index, to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void copy_within(int index, void* to, const void* from, int64_t bytes) override {
    copy(index, to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void synchronize(int index) override {
    use(index);
    tell_queued(waited);
    check(cudaStreamSynchronize(current_stream()), "waiting for the device");
  }

  void queue_copy_in(int index, void* to, const void* from, int64_t bytes) override {
    queue_copy(index, to, from, bytes, cudaMemcpyHostToDevice);
  }
  void queue_copy_out(int index, void* to, const void* from, int64_t bytes) override {
    queue_copy(index, to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void queue_host_work(int index, std::function<void()> work) override {
    use(index);
    tell_queued(queued_host_work);
    auto held = std::make_unique<HostWork>(std::move(work));
    const auto run = [](void* data) noexcept { (*static_cast<HostWork*>(data))(); };
    const auto run_once = [](void* data) noexcept { (*std::unique_ptr<HostWork>(static_cast<HostWork*>(data)))(); };
    const std::lock_guard lock(held_memory().mutex);
    const bool captured = held_memory().holding[index];
    check(captured ? cudaLaunchHostFunc(current_stream(), run, held.get())
                   : cudaLaunchHostFunc(current_stream(), run_once, held.get()),
          "queueing work of the host");
    if (captured) {
      held_memory().work[index].push_back(std::move(held));
    } else {
      static_cast<void>(held.release());  // run_once's
    }
  }

  void* stream(int index) override {
    use(index);
    return current_stream();
  }
  int64_t free_memory_bytes(int index) override {
    use(index);
    return free_bytes();
  }
  int64_t last_cache_bytes(int index) override {
    use(index);
    int bytes = 0;
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, index), "asking for the size of the cache");
    return bytes;
  }
  std::string device_name(int index) override {
    use(index);
#if LATHE_SIMT
    return "simt";
#else
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, index), "asking for the card's name");
    return properties.name;
#endif
  }

  void* take_pinned(int index, int64_t bytes) override {
    use(index);
    void* pointer = nullptr;
    check(cudaMallocHost(&pointer, static_cast<size_t>(bytes)), "taking pinned memory for copies to the device");
    return pointer;
  }
  void give_pinned(int index, void* pointer) override {
    use(index);
    cudaFreeHost(pointer);
  }
  std::unique_ptr<CopyQueue> make_copy_queue(int index) override {
    return LATHE_CUDA_NAMESPACE::make_copy_queue(index);
  }
  std::unique_ptr<Graph> make_graph(int index) override { return LATHE_CUDA_NAMESPACE::make_graph(index); }

 private:
  void copy(int index, void* to, const void* from, int64_t bytes, cudaMemcpyKind direction) {
    if (bytes == 0) return;
    use(index);
    tell_queued(queued_copy);
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), direction, current_stream()), "copying");
    if (direction != cudaMemcpyDeviceToDevice) synchronize(index);
  }
  void queue_copy(int index, void* to, const void* from, int64_t bytes, cudaMemcpyKind direction) {
    if (bytes == 0) return;
    use(index);
    tell_queued(queued_pinned_copy);
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), direction, current_stream()), "copying");
  }
};

}  // namespace

void use(int index) {
  if (const std::string why = why_unavailable(index); !why.empty()) throw ResourceError(why);
  check(cudaSetDevice(index), "choosing the device");
}

DeviceRuntime& runtime() {
  static Runtime instance;
  return instance;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

extern "C" void LATHE_DEVICE_ANCHOR() {}
