// Capture, update, launch; see graph.h.
#include "core/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime_parts.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

class CapturedGraph final : public Graph {
 public:
  explicit CapturedGraph(int index) : index_(index) {}

  ~CapturedGraph() override {
    cudaSetDevice(index_);
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }

  void begin_capture() override {
    use(index_);
    // Relaxed: the allocator may take memory from the system meanwhile.
    check(cudaStreamBeginCapture(current_stream(), cudaStreamCaptureModeRelaxed), "capturing a graph");
    hold_memory(index_);
  }

  void end_capture_and_launch() override {
    cudaError_t error = cudaSuccess;
    const cudaGraph_t captured = end_capture(&error);
    try {
      check(error, "capturing a graph");
      bring_up_to_date(captured);
      check(cudaGraphLaunch(executable_, current_stream()), "launching a graph");
    } catch (...) {
      if (captured != nullptr) cudaGraphDestroy(captured);
      release_memory(index_);
      throw;
    }
    cudaGraphDestroy(captured);
    release_memory(index_);
  }

  void abandon_capture() override {
    cudaError_t error = cudaSuccess;
    const cudaGraph_t captured = end_capture(&error);
    if (captured != nullptr) cudaGraphDestroy(captured);
    cudaGetLastError();
    release_memory(index_);
  }

  void launch() override {
    use(index_);
    if (executable_ == nullptr) throw Error("a graph cannot be replayed before it has run");
    check(cudaGraphLaunch(executable_, current_stream()), "launching a graph");
  }

 private:
  // The graph that current_stream() has captured; null where the capture failed.
  cudaGraph_t end_capture(cudaError_t* error) {
    use(index_);
    cudaGraph_t captured = nullptr;
    *error = cudaStreamEndCapture(current_stream(), &captured);
    return captured;
  }

  // Brings the executable to what was captured; makes it anew where it has other nodes.
  void bring_up_to_date(cudaGraph_t captured) {
    if (executable_ != nullptr) {
      cudaGraphExecUpdateResultInfo result;
      if (cudaGraphExecUpdate(executable_, captured, &result) == cudaSuccess) return;
      cudaGetLastError();  // that is no fault: the step has changed
      cudaGraphExecDestroy(executable_);
      executable_ = nullptr;
    }
    check(cudaGraphInstantiate(&executable_, captured, 0), "making a graph");
  }

  int index_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::unique_ptr<Graph> make_graph(int index) { return std::make_unique<CapturedGraph>(index); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
