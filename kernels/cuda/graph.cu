// Capture, update, launch; see graph.h.
#include "core/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/layer.h"
#include "kernels/cuda/memory_hold.h"

namespace lathe::kernels {

// A handle of either runtime, whose types have the same names.
struct Graph {
  int index = 0;
  void* executable = nullptr;
};

namespace LATHE_CUDA_NAMESPACE {
namespace {

// The graph that current_stream() has captured; null where the capture failed.
cudaGraph_t end_capture(Graph* graph, cudaError_t* error) {
  use(graph->index);
  cudaGraph_t captured = nullptr;
  *error = cudaStreamEndCapture(current_stream(), &captured);
  return captured;
}

// Brings the executable to what was captured; makes it anew where it has other nodes.
void bring_up_to_date(Graph* graph, cudaGraph_t captured) {
  auto executable = static_cast<cudaGraphExec_t>(graph->executable);
  if (executable != nullptr) {
    cudaGraphExecUpdateResultInfo result;
    if (cudaGraphExecUpdate(executable, captured, &result) == cudaSuccess) return;
    cudaGetLastError();  // that is no fault: the step has changed
    cudaGraphExecDestroy(executable);
    graph->executable = nullptr;
  }
  check(cudaGraphInstantiate(&executable, captured, 0), "making a graph");
  graph->executable = executable;
}

}  // namespace

Graph* make_graph(int index) { return new Graph{.index = index}; }

void destroy_graph(Graph* graph) {
  cudaSetDevice(graph->index);
  if (graph->executable != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph->executable));
  delete graph;
}

void begin_capture(Graph* graph) {
  use(graph->index);
  // Relaxed: the allocator may take memory from the system meanwhile.
  check(cudaStreamBeginCapture(current_stream(), cudaStreamCaptureModeRelaxed), "capturing a graph");
  hold_memory(graph->index);
}

void end_capture_and_launch(Graph* graph) {
  cudaError_t error = cudaSuccess;
  const cudaGraph_t captured = end_capture(graph, &error);
  try {
    check(error, "capturing a graph");
    bring_up_to_date(graph, captured);
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph->executable), current_stream()), "launching a graph");
  } catch (...) {
    if (captured != nullptr) cudaGraphDestroy(captured);
    release_memory(graph->index);
    throw;
  }
  cudaGraphDestroy(captured);
  release_memory(graph->index);
}

void launch_graph(Graph* graph) {
  use(graph->index);
  if (graph->executable == nullptr) throw Error("a graph cannot be replayed before it has run");
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph->executable), current_stream()), "launching a graph");
}

void abandon_capture(Graph* graph) {
  cudaError_t error = cudaSuccess;
  const cudaGraph_t captured = end_capture(graph, &error);
  if (captured != nullptr) cudaGraphDestroy(captured);
  cudaGetLastError();
  release_memory(graph->index);
}

}  // namespace LATHE_CUDA_NAMESPACE
}  // namespace lathe::kernels
