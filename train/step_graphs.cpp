#include "train/step_graphs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/embedding/embedding.h"
#include "train/memory_estimate.h"

namespace lathe::train {
namespace {

// A capture takes the host as long as a step, and some milliseconds to make the graph. One that served fewer steps than
// this was not worth it: the next waits for a shape to come twice as often in a row.
constexpr int64_t worth_capturing = 4, most_repeats_to_capture = 64;

// While it lives, a device's allocator has a limit, as nobody gives it another while a run trains.
class MemoryLimit {
 public:
  MemoryLimit(Allocator& allocator, int64_t bytes) : allocator_(allocator) { allocator_.set_limit(bytes); }
  ~MemoryLimit() { allocator_.set_limit(0); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  Allocator& allocator_;
};

bool names(const nn::Parameter& parameter, const char* part) { return parameter.name.find(part) != std::string::npos; }

// Of each sequence's tokens with labels among all of those.
Tensor labelled_bounds(const MicroBatch& forward) {
  const auto labels = forward.labels.span<int32_t>(), ends = forward.tokens.layout.cu_seqlens.span<int32_t>();
  std::vector<int32_t> bounds{0};
  for (size_t s = 0; s + 1 < ends.size(); ++s)
    bounds.push_back(bounds.back() + static_cast<int32_t>(
                                         std::count_if(labels.begin() + ends[s], labels.begin() + ends[s + 1],
                                                       [](int32_t label) { return label != kernels::ignored_label; })));
  return Tensor::of<int32_t>(bounds, {std::ssize(bounds)});
}

}  // namespace

TrainedTables TrainedTables::of(nn::Transformer& model) {
  const std::vector<nn::Parameter> trained = model.trainable_parameters();
  return {.embedding = std::ranges::any_of(trained, [](const nn::Parameter& p) { return names(p, "embed_tokens"); }),
          .output = model.output_weight().dense().requires_grad()};
}

bool repeats_its_steps(nn::Transformer& model, const TrainingSettings& settings, const DataParallel& parallel) {
  return settings.cuda_graphs && model.device().kind != DeviceKind::cpu && parallel.world_size() == 1 &&
         !model.asks_the_host_in_training();
}

StepNumbers::StepNumbers(double scale, uint32_t dropout_step, TrainedTables trained)
    : trained_(trained), shape_{std::bit_cast<int64_t>(scale)}, values_{std::bit_cast<int32_t>(dropout_step)} {}

void StepNumbers::add(const MicroBatch& forward, std::span<const int32_t> prefixes) {
  const auto add_number = [this](int32_t value) {
    values_.push_back(value);
    least_ = std::min(least_, value);
    largest_ = std::max(largest_, value);
  };
  const autograd::SequenceLayout& layout = forward.tokens.layout;
  for (const int32_t id : forward.tokens.ids.span<int32_t>()) add_number(id);
  const auto labels = forward.labels.span<int32_t>();
  for (size_t row = 0; row < labels.size(); ++row)
    if (labels[row] != kernels::ignored_label) values_.push_back(static_cast<int32_t>(row));
  for (const int32_t label : labels)
    if (label != kernels::ignored_label) add_number(label);
  if (trained_.embedding) {
    const Tensor plan = kernels::embedding_plan(forward.tokens.ids, layout.cu_seqlens);
    values_.insert(values_.end(), plan.span<int32_t>().begin(), plan.span<int32_t>().end());
  }
  shape_.push_back(layout.sequences());
  const auto add_shape = [this](std::span<const int32_t> numbers) {
    shape_.insert(shape_.end(), numbers.begin(), numbers.end());
  };
  add_shape(layout.cu_seqlens.span<int32_t>());
  add_shape(layout.sample_numbers.span<int32_t>());
  add_shape(prefixes);
  shape_.push_back(forward.labelled());
  if (trained_.output) add_shape(labelled_bounds(forward).span<int32_t>());
}

bool StepNumbers::within(int64_t vocabulary) const { return least_ >= 0 && largest_ < vocabulary; }

ForwardInputs StoredNumbers::next(const MicroBatch& forward) {
  const auto take = [this](int64_t count) {
    at_ += count;
    return values_.slice(0, at_ - count, at_);
  };
  const int64_t tokens = forward.tokens.ids.numel(), labelled = forward.labelled();
  ForwardInputs stored = ForwardInputs::of(forward);
  stored.tokens.ids = take(tokens);
  stored.labelled.rows = take(labelled);
  stored.labels = take(labelled);
  if (trained_.embedding) stored.tokens.embedding_plan = take(kernels::embedding_plan_length(tokens));
  if (trained_.output) stored.labelled.bounds = labelled_bounds(forward);
  stored.dropout_step = reinterpret_cast<const uint32_t*>(values_.data<int32_t>());
  return stored;
}

ForwardInputs inputs_of(const MicroBatch& forward, StoredNumbers* stored) {
  return stored != nullptr ? stored->next(forward) : ForwardInputs::of(forward);
}

StepGraphs::StepGraphs(Device device, std::vector<nn::Parameter> trained)
    : device_(device), trained_(std::move(trained)) {}
StepGraphs::~StepGraphs() = default;

void StepGraphs::run(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue,
                     const std::function<void()>& put) {
  if (graph_ != nullptr && numbers.shape() == shape_) {
    upload(numbers.values());
    put();
    graph_->replay();
    ++replayed_;
    ++counts_.replayed;
    return;
  }
  forget();
  repeats_ = numbers.shape() == shape_ ? repeats_ + 1 : 0;
  shape_ = numbers.shape();
  const bool worth_it = given_up_.empty() && repeats_ >= repeats_to_capture_;
  if (!worth_it || !capture(numbers, queue, put)) queue(nullptr);
}

bool StepGraphs::capture(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue,
                         const std::function<void()>& put) {
  try {
    Allocator& allocator = allocator_for(device_);
    const int64_t alive = allocator.stats().total_peak_bytes;
    if (alive > may_hold_) may_hold_ = alive + largest_cache(alive);  // not by a graph, which keeps below
    const MemoryLimit limit(allocator, may_hold_);
    if (!upload_) upload_.emplace(device_, int64_t{256} << 10);
    numbers_ = Tensor::empty({std::ssize(numbers.values())}, DType::i32, device_, MemoryTag::workspace);
    upload(numbers.values());
    put();
    make_of_parameters_again();  // in every replay
    graph_ = std::make_unique<kernels::DeviceGraph>(device_);
    graph_->run([&] {
      StoredNumbers stored(numbers_, numbers.trained());
      queue(&stored);
    });
  } catch (const Error& error) {
    graph_.reset();
    make_of_parameters_again();  // what was captured has not run
    given_up_ = error.what();
    return false;
  }
  replayed_ = 0;
  ++counts_.captured;
  return true;
}

void StepGraphs::make_of_parameters_again() {
  for (const nn::Parameter& parameter : trained_) parameter.leaf.value().bump_version();
}

void StepGraphs::forget() {
  if (graph_ == nullptr) return;
  graph_.reset();
  if (replayed_ >= worth_capturing) {
    repeats_to_capture_ = 1;
  } else {
    repeats_to_capture_ = std::min(2 * repeats_to_capture_, most_repeats_to_capture);
    repeats_ = 0;
  }
}

void StepGraphs::upload(const std::vector<int32_t>& values) {
  upload_->write(numbers_.raw(), numbers_.nbytes(), sizeof(int32_t), [&](char* buffer, int64_t first, int64_t bytes) {
    std::memcpy(buffer, reinterpret_cast<const char*>(values.data()) + first, static_cast<size_t>(bytes));
  });
  upload_->publish();
}

}  // namespace lathe::train
