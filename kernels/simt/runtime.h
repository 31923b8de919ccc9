// A stand-in for the part of the CUDA runtime that Lathe calls, with its names and meanings, so that the host code of
// --device cuda runs on the simt device as it stands.
//
// Device memory is an address range of its own that the host cannot touch: a host access stops the program and says so.
// Work on a stream is held back until something waits for it (a stream, an event, the device), so that a missing wait
// shows as poisoned results.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/simt/block.h"

namespace lathe::simt {

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3, cudaMemcpyDefault = 4 };
struct StreamState;
struct EventState;
using cudaStream_t = StreamState*;
using cudaEvent_t = EventState*;
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

// After cudaErrorLaunchFailure, what the kernel did wrong, with its lines.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();  // takes the error away

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaDeviceSynchronize();

// kernel<<<…>>>(): queued on the stream.
cudaError_t launch_kernel(KernelLaunch launch, cudaStream_t stream);

}  // namespace lathe::simt
