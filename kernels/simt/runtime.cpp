// The stand-in's devices, errors, memory and copies; streams and graphs are in stream.cpp.
#include "kernels/simt/runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "kernels/simt/device_memory.h"
#include "kernels/simt/stream.h"

namespace lathe::simt {
namespace {

cudaError_t last_error = cudaSuccess;
std::string failure_text = "no kernel has failed";
int64_t launches = 0;
bool kernels_run = true;
int64_t until_failure[4] = {};  // by Call; 0 is off
Machine machine = Machine::two_cards;
thread_local int device_of_thread = 0;

// Pinned blocks: address → bytes.
std::map<const char*, size_t>& pinned() {
  static auto* const blocks = new std::map<const char*, size_t>;
  return *blocks;
}
bool is_pinned(const void* pointer, size_t bytes) {
  const auto* const address = static_cast<const char*>(pointer);
  const auto after = pinned().upper_bound(address);
  if (after == pinned().begin()) return false;
  const auto block = std::prev(after);
  return address + bytes <= block->first + block->second;
}

}  // namespace

int current_device() { return device_of_thread; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

void set_failure_text(std::string text) { failure_text = std::move(text); }
void count_launch() { ++launches; }

bool fails_now(Call call) {
  int64_t& left = until_failure[static_cast<int>(call)];
  return left > 0 && --left == 0;
}

void fail_nth(Call call, int64_t n) {
  const Lock lock(device_mutex());
  until_failure[static_cast<int>(call)] = n;
}

void pretend(Machine wanted) { machine = wanted; }
bool has_clusters() { return machine == Machine::hopper; }
size_t shared_bytes_of_block() { return machine == Machine::hopper ? most_shared_bytes : size_t{163} << 10; }

void set_runs_kernels(bool run) { kernels_run = run; }
bool runs_kernels() { return kernels_run; }

int64_t launches_run() {
  const Lock lock(device_mutex());
  return launches;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no simt device";
    case cudaErrorInvalidDevice: return "no such simt device";
    case cudaErrorInvalidResourceHandle: return "a stream or graph of another device than the current one";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorGraphExecUpdateFailure: return "the graph update was not performed: its nodes differ";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure: return failure_text.c_str();
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() {
  const Lock lock(device_mutex());
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine == Machine::no_driver ? 0 : device_count;
  return machine == Machine::no_driver ? remember(cudaErrorInsufficientDriver) : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= device_count) return remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 2; break;  // few, so that small shapes in tests fill them
    case cudaDevAttrL2CacheSize: *value = 16 << 10; break;   // little: benches of an emulator shall end
    case cudaDevAttrComputeCapabilityMajor:
      *value = machine == Machine::old_card ? 7 : machine == Machine::hopper ? 9 : 8;
      break;
    case cudaDevAttrComputeCapabilityMinor: *value = machine == Machine::old_card ? 5 : 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(shared_bytes_of_block()); break;
  }
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count) return remember(cudaErrorInvalidDevice);
  device_of_thread = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Lock lock(device_mutex());
  *free_bytes = free_device_bytes(device_of_thread);
  *total_bytes = device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const Lock lock(device_mutex());
  *pointer = fails_now(Call::allocation) ? nullptr : take_device_memory(device_of_thread, bytes);
  return *pointer != nullptr || bytes == 0 ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* pointer) {
  const Lock lock(device_mutex());
  if (pointer == nullptr) return cudaSuccess;
  const int device = device_of(pointer, 0);
  if (device < 0) return remember(cudaErrorInvalidValue);
  const cudaError_t error = synchronize_device(device);  // as CUDA does
  if (!give_device_memory(pointer)) return remember(cudaErrorInvalidValue);
  return error;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const Lock lock(device_mutex());
  *pointer = fails_now(Call::allocation) ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (*pointer == nullptr) return remember(cudaErrorMemoryAllocation);
  pinned()[static_cast<const char*>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  const Lock lock(device_mutex());
  if (pointer == nullptr) return cudaSuccess;
  for (int i = 0; i < device_count; ++i) synchronize_device(i);
  if (pinned().erase(static_cast<const char*>(pointer)) == 0) return remember(cudaErrorInvalidValue);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (fails_now(Call::copy)) return remember(cudaErrorInvalidValue);
  if (bytes == 0) return cudaSuccess;
  const bool to_device = device_of(to, bytes) >= 0, from_device = device_of(from, bytes) >= 0;
  const bool stated = kind == cudaMemcpyDefault || (to_device == (kind != cudaMemcpyDeviceToHost) &&
                                                    from_device == (kind != cudaMemcpyHostToDevice));
  if (!stated) return remember(cudaErrorInvalidValue);
  if (state.capture && !((to_device || is_pinned(to, bytes)) && (from_device || is_pinned(from, bytes))))
    return break_capture(state);
  if (!to_device && !state.capture) std::memset(to, 0xff, bytes);  // until somebody waits
  return hold(state, WorkKind::copy, [=] {
    const HostAccess access;
    std::memmove(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (bytes == 0) return cudaSuccess;
  if (device_of(pointer, bytes) != state.device) return remember(cudaErrorInvalidValue);
  return hold(state, WorkKind::fill, [=, device = state.device] {
    const HostAccess access(device);
    std::memset(pointer, value, bytes);
    return cudaSuccess;
  });
}

}  // namespace lathe::simt
