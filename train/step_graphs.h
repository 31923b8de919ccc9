// Training steps of equal shape on a device as one graph: captured once, then replayed, so that the host queues one
// launch and a small copy where there were thousands. Of use where a step's kernels are so short that the host, which
// takes some 4 µs for each, is what a step waits for: small models, few tokens.
//
// What changes from step to step lies in device memory (StepNumbers), or is read by work of the host inside the graph
// (kernels/cuda/host_work.h, HostPart). All else is the step's shape: the sequences of each forward, how many tokens
// have labels, the scale of the gradients. A step of another shape is queued as ever.
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
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/upload.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/transformer.h"
#include "train/data_parallel.h"
#include "train/settings/training_settings.h"
#include "train/training_set.h"

namespace lathe::train {

// Which weights of the vocabulary's size train: sums of their gradients go by ids, and by sequences' labels.
struct TrainedTables {
  bool embedding = false, output = false;
  static TrainedTables of(nn::Transformer& model);
};

// Whether a step's forwards and backwards are the same work on a device whenever its rows have the same shape. Several
// ranks meet between them; experts that are adapted, that train or that no grouped product takes wait for how many rows
// each has.
bool repeats_its_steps(nn::Transformer& model, const TrainingSettings& settings, const DataParallel& parallel);

class StepNumbers {
 public:
  // Of a step whose gradients are scaled by `scale`.
  StepNumbers(double scale, uint32_t dropout_step, TrainedTables trained = {});
  // Forwards are added in their order. `prefixes`: autograd::SharedPrefixes::lengths, where there are any.
  void add(const MicroBatch& forward, std::span<const int32_t> prefixes = {});
  // Between forwards of which not the same is made.
  void separate() { shape_.push_back(-1); }

  // Whether ids and labels are those of a vocabulary of that size. Others are to be queued as ever, where the operation
  // that finds them says which they are: on the device nobody does.
  bool within(int64_t vocabulary) const;

  const std::vector<int64_t>& shape() const { return shape_; }
  const std::vector<int32_t>& values() const { return values_; }
  TrainedTables trained() const { return trained_; }

 private:
  TrainedTables trained_;
  std::vector<int64_t> shape_;
  // The step of dropout; then of each forward its ids, the rows with labels, their labels and, where the embedding
  // trains, kernels::embedding_plan of the ids.
  std::vector<int32_t> values_;
  int32_t least_ = 0, largest_ = 0;  // of ids and labels
};

// What a forward reads: the batch, or the same with its numbers on the device.
struct ForwardInputs {
  nn::TokenBatch tokens;
  Tensor labels;
  kernels::LabelledRows labelled = {};
  const uint32_t* dropout_step = nullptr;  // nn::AdapterMode::stored_dropout_step

  // Those of a batch that is queued as ever.
  static ForwardInputs of(const MicroBatch& batch) { return {.tokens = batch.tokens, .labels = batch.labels}; }
};

// A step's numbers where its kernels read them: forward by forward, in the order in which StepNumbers has them.
class StoredNumbers {
 public:
  // values i32 [n], StepNumbers::values() on a device.
  StoredNumbers(Tensor values, TrainedTables trained) : values_(std::move(values)), trained_(trained) {}
  ForwardInputs next(const MicroBatch& forward);

 private:
  Tensor values_;
  TrainedTables trained_;
  int64_t at_ = 1;
};
// The next of `stored`, or the batch's own where that is null.
ForwardInputs inputs_of(const MicroBatch& forward, StoredNumbers* stored);

// What work of the host finds of its step, be it queued once or a part of a graph: the step that runs has been put
// there, in the device's queue.
template <class Part>
class HostPart {
 public:
  // Of one step. Nobody puts another there.
  static HostPart of(std::shared_ptr<const Part> part) {
    HostPart one;
    *one.place_ = std::move(part);
    return one;
  }
  const Part& operator*() const { return **place_; }
  const Part* operator->() const { return place_->get(); }
  // Puts the step that runs next there, in the device's queue.
  void queue_put(Device device, std::shared_ptr<const Part> part) const {
    kernels::queue_host_work(device, [place = place_, part = std::move(part)] { *place = part; });
  }

 private:
  std::shared_ptr<std::shared_ptr<const Part>> place_ = std::make_shared<std::shared_ptr<const Part>>();
};

struct StepGraphCounts {
  int64_t captured = 0, replayed = 0;  // steps; a captured one has run once
};

class StepGraphs {
 public:
  // Of steps that train these parameters.
  StepGraphs(Device device, std::vector<nn::Parameter> trained);
  ~StepGraphs();

  // Queues a step: `queue` is called with nothing where it is queued as ever, and with the numbers on the device where
  // the work is captured. Where the graph of the step before has its shape, that is replayed and `queue` not called: it
  // writes to the same memory as when `queue` was called last. A shape is captured when it comes again. Where a step
  // cannot be captured (it waits, there is no memory) it is queued as ever, and so are all after it. `put` is called
  // before a graph is queued, and queues what puts the step where the host's work in it looks (HostPart).
  //
  // A graph takes what the steps before have left to the allocator's cache. Its memory is not shared out anew between
  // the parts of a step, as the cache's is, and comes to more than a step has alive; but to no more than that and the
  // cache beside it, which a run may hold without graphs, and which its estimate counts (train/memory_estimate.h).
  void run(
      const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue,
      const std::function<void()>& put = [] {});
  // Gives the graph's memory back to the allocator: before other work that needs much of it, such as an evaluation.
  void forget();

  const StepGraphCounts& counts() const { return counts_; }
  // Why no step is captured any more; empty where that may still be.
  const std::string& given_up() const { return given_up_; }

 private:
  bool capture(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue,
               const std::function<void()>& put);
  // Whatever is made of parameters when they have changed, such as joined factors and DoRA's norms (nn/linear.h).
  void make_of_parameters_again();
  void upload(const std::vector<int32_t>& values);

  Device device_;
  std::vector<nn::Parameter> trained_;
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
