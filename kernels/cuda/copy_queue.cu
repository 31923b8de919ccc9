// Copies from pinned memory on a stream beside the device's own; see upload.h.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/layer.h"

namespace lathe::kernels {

// Handles of either runtime, whose types have the same names.
struct CopyQueue {
  int index = 0;
  void* stream = nullptr;
  void* copied[2] = {};  // by buffer
  void* ordered = nullptr;
};

namespace LATHE_CUDA_NAMESPACE {
namespace {

cudaStream_t stream_of(const CopyQueue* queue) { return static_cast<cudaStream_t>(queue->stream); }

void* make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return event;
}

}  // namespace

void* take_pinned(int index, int64_t bytes) {
  use(index);
  void* pointer = nullptr;
  check(cudaMallocHost(&pointer, static_cast<size_t>(bytes)), "taking pinned memory for copies to the device");
  return pointer;
}

void give_pinned(int index, void* pointer) {
  use(index);
  cudaFreeHost(pointer);
}

CopyQueue* make_copy_queue(int index) {
  use(index);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  auto* const queue = new CopyQueue{.index = index, .stream = stream};
  for (void*& event : queue->copied) event = make_event();
  queue->ordered = make_event();
  return queue;
}

void destroy_copy_queue(CopyQueue* queue) {
  cudaSetDevice(queue->index);
  cudaStreamSynchronize(stream_of(queue));
  for (void* event : queue->copied) cudaEventDestroy(static_cast<cudaEvent_t>(event));
  cudaEventDestroy(static_cast<cudaEvent_t>(queue->ordered));
  cudaStreamDestroy(stream_of(queue));
  delete queue;
}

void follow_compute(CopyQueue* queue) {
  use(queue->index);
  check(cudaEventRecord(static_cast<cudaEvent_t>(queue->ordered), current_stream()), "ordering copies behind the device's work");
  check(cudaStreamWaitEvent(stream_of(queue), static_cast<cudaEvent_t>(queue->ordered), 0), "ordering copies behind the device's work");
}

void queue_copy(CopyQueue* queue, int buffer, void* to, const void* from, int64_t bytes) {
  use(queue->index);
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_of(queue)), "copying to the device");
  check(cudaEventRecord(static_cast<cudaEvent_t>(queue->copied[buffer]), stream_of(queue)), "copying to the device");
}

void wait_for_buffer(CopyQueue* queue, int buffer) {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(queue->copied[buffer])), "waiting for a copy to the device");
}

void lead_compute(CopyQueue* queue) {
  use(queue->index);
  check(cudaEventRecord(static_cast<cudaEvent_t>(queue->ordered), stream_of(queue)), "ordering work behind copies");
  check(cudaStreamWaitEvent(current_stream(), static_cast<cudaEvent_t>(queue->ordered), 0), "ordering work behind copies");
}

}  // namespace LATHE_CUDA_NAMESPACE
}  // namespace lathe::kernels
