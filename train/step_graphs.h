// Training steps of equal shape on a device as one graph: captured once, then replayed, so that the host queues one
// launch and a small copy where there were thousands. Of use where a step's kernels are so short that the host, which
// takes some 4 µs for each, is what a step waits for: small models, few tokens.
//
// What changes from step to step lies in device memory (StepNumbers). All else is the step's shape: the sequences of
// each forward, how many tokens have labels, the scale of the gradients. A step of another shape is queued as ever.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/upload.h"
#include "train/training_set.h"

namespace lathe::train {

class StepNumbers {
 public:
  // Of the forwards of a step, in their order, whose gradients are scaled by `scale`.
  StepNumbers(std::span<const MicroBatch> forwards, double scale, uint32_t dropout_step);

  // Whether ids and labels are those of a vocabulary of that size. Others are to be queued as ever, where the operation
  // that finds them says which they are: on the device nobody does.
  bool within(int64_t vocabulary) const;

  const std::vector<int64_t>& shape() const { return shape_; }
  const std::vector<int32_t>& values() const { return values_; }

 private:
  std::vector<int64_t> shape_;
  // The step of dropout; then of each forward its ids, the rows with labels, and their labels.
  std::vector<int32_t> values_;
  int32_t least_ = 0, largest_ = 0;  // of ids and labels
};

// A step's numbers where its kernels read them: forward by forward, in the order in which StepNumbers has them.
class StoredNumbers {
 public:
  // values i32 [n], StepNumbers::values() on a device.
  explicit StoredNumbers(Tensor values) : values_(std::move(values)) {}

  const uint32_t* dropout_step() const { return reinterpret_cast<const uint32_t*>(values_.data<int32_t>()); }
  struct Forward {
    Tensor ids;                    // i32 [T]
    Tensor labelled_rows, labels;  // i32 [R]: kernels::CrossEntropyInputs
  };
  Forward next(const MicroBatch& forward);

 private:
  Tensor values_;
  int64_t at_ = 1;
};

struct StepGraphCounts {
  int64_t captured = 0, replayed = 0;  // steps; a captured one has run once
};

class StepGraphs {
 public:
  explicit StepGraphs(Device device);
  ~StepGraphs();

  // Queues a step: `queue` is called with nothing where it is queued as ever, and with the numbers on the device where
  // the work is captured. Where the graph of the step before has its shape, that is replayed and `queue` not called: it
  // writes to the same memory as when `queue` was called last. A shape is captured when it comes again. Where a step
  // cannot be captured (it waits, there is no memory) it is queued as ever, and so are all after it.
  //
  // A graph takes what the steps before have left to the allocator's cache. Its memory is not shared out anew between
  // the parts of a step, as the cache's is, and comes to more than a step has alive; but to no more than that and the
  // cache beside it, which a run may hold without graphs, and which its estimate counts (train/memory_estimate.h).
  void run(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue);
  // Gives the graph's memory back to the allocator: before other work that needs much of it, such as an evaluation.
  void forget();

  const StepGraphCounts& counts() const { return counts_; }
  // Why no step is captured any more; empty where that may still be.
  const std::string& given_up() const { return given_up_; }

 private:
  bool capture(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue);
  void upload(const std::vector<int32_t>& values);

  Device device_;
  std::optional<kernels::Upload> upload_;  // with the first capture
  std::vector<int64_t> shape_;             // of the step before
  int64_t repeats_ = 0;                    // of it
  int64_t repeats_to_capture_ = 1;
  Tensor numbers_;  // of the graph
  std::unique_ptr<kernels::DeviceGraph> graph_;
  int64_t replayed_ = 0;  // since it was captured
  int64_t may_hold_ = 0;  // the device's allocator, live and cached, while a step is captured
  StepGraphCounts counts_;
  std::string given_up_;
};

}  // namespace lathe::train
