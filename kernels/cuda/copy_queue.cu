// Copies from pinned memory on a stream beside the device's own; see upload.h.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime_parts.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return event;
}

class StreamOfCopies final : public CopyQueue {
 public:
  explicit StreamOfCopies(int index) : index_(index) {
    use(index_);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    for (cudaEvent_t& event : copied_) event = make_event();
    ordered_ = make_event();
  }

  ~StreamOfCopies() override {
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    for (cudaEvent_t event : copied_) cudaEventDestroy(event);
    cudaEventDestroy(ordered_);
    cudaStreamDestroy(stream_);
  }

  void follow_compute() override {
    use(index_);
    check(cudaEventRecord(ordered_, current_stream()), "ordering copies behind the device's work");
    check(cudaStreamWaitEvent(stream_, ordered_, 0), "ordering copies behind the device's work");
  }

  void queue_copy(int buffer, void* to, const void* from, int64_t bytes) override {
    use(index_);
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
          "copying to the device");
    check(cudaEventRecord(copied_[buffer], stream_), "copying to the device");
  }

  void wait_for_buffer(int buffer) override {
    check(cudaEventSynchronize(copied_[buffer]), "waiting for a copy to the device");
  }

  void lead_compute() override {
    use(index_);
    check(cudaEventRecord(ordered_, stream_), "ordering work behind copies");
    check(cudaStreamWaitEvent(current_stream(), ordered_, 0), "ordering work behind copies");
  }

 private:
  int index_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t copied_[2] = {};  // by buffer
  cudaEvent_t ordered_ = nullptr;
};

}  // namespace

std::unique_ptr<CopyQueue> make_copy_queue(int index) { return std::make_unique<StreamOfCopies>(index); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
