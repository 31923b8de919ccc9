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
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorGraphExecUpdateFailure = 910,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
struct StreamState;
struct EventState;
struct GraphState;
using cudaStream_t = StreamState*;
using cudaEvent_t = EventState*;
using cudaGraph_t = GraphState*;
using cudaGraphExec_t = GraphState*;
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

// After cudaErrorLaunchFailure, what the kernel did wrong, with its lines.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();  // takes the error away

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);  // of this thread; 0 at first
cudaError_t cudaGetDevice(int* device);
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, size_t bytes);  // pinned
cudaError_t cudaFreeHost(void* pointer);
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
// The function runs on the thread that waits. CUDA captures it, and so does this: then it runs whenever the graph
// does, with the same data.
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);

// Capture: what is queued on the stream becomes the nodes of a graph, one after another. A wait for a stream that
// captures, a copy from or to host memory that is not pinned, and events on it are errors that end the capture. An
// executable graph is updated in place when the new one has the same kinds of nodes in the same order.
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
struct cudaGraphExecUpdateResultInfo {
  int result = 0;
};
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);

// Whether any stream holds work back, or captures it: it may use memory that the host has done with.
bool work_is_queued();

// kernel<<<…>>>(): queued on the stream.
cudaError_t launch_kernel(KernelLaunch launch, cudaStream_t stream);

}  // namespace lathe::simt
