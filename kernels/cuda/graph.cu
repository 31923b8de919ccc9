// Capture, update, launch; see graph.h.
#include <utility>

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
    forget(std::move(host_work_));
  }

  void begin_capture() override {
    use(index_);
    // Relaxed: the allocator may take memory from the system meanwhile.
    check(cudaStreamBeginCapture(current_stream(), cudaStreamCaptureModeRelaxed), "capturing a graph");
    hold_memory(index_);
  }

  void end_capture_and_launch() override {
    cudaError_t error = cudaSuccess;
    cudaGraph_t captured = end_capture(&error);
    try {
      check(error, "capturing a graph");
      bring_up_to_date(captured);
      check(cudaGraphLaunch(executable_, current_stream()), "launching a graph");
    } catch (...) {
      if (captured != nullptr) cudaGraphDestroy(captured);
      forget(take_held_work(index_));
      release_memory(index_);
      throw;
    }
    cudaGraphDestroy(captured);
    forget(std::exchange(host_work_, take_held_work(index_)));
    release_memory(index_);
  }

  void abandon_capture() override {
    cudaError_t error = cudaSuccess;
    cudaGraph_t captured = end_capture(&error);
    if (captured != nullptr) cudaGraphDestroy(captured);
    cudaGetLastError();
    take_held_work(index_);
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

  // When the launches that are queued have done it.
  static void forget(std::vector<std::unique_ptr<HostWork>> work) {
    using Work = std::vector<std::unique_ptr<HostWork>>;
    if (work.empty()) return;
    auto held = std::make_unique<Work>(std::move(work));
    const auto forget_all = [](void* data) noexcept { std::unique_ptr<Work>(static_cast<Work*>(data)).reset(); };
    if (cudaLaunchHostFunc(current_stream(), forget_all, held.get()) == cudaSuccess) {
      static_cast<void>(held.release());  // forget_all's
    } else {
      cudaGetLastError();
      cudaStreamSynchronize(current_stream());
    }
  }

  int index_;
  cudaGraphExec_t executable_ = nullptr;
  std::vector<std::unique_ptr<HostWork>> host_work_;  // of its nodes
};

}  // namespace

std::unique_ptr<Graph> make_graph(int index) { return std::make_unique<CapturedGraph>(index); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
