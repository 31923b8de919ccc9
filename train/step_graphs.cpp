#include "train/step_graphs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
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

}  // namespace

StepNumbers::StepNumbers(std::span<const MicroBatch> forwards, double scale, uint32_t dropout_step) {
  shape_ = {std::bit_cast<int64_t>(scale)};
  values_ = {std::bit_cast<int32_t>(dropout_step)};
  const auto add = [this](int32_t value) {
    values_.push_back(value);
    least_ = std::min(least_, value);
    largest_ = std::max(largest_, value);
  };
  for (const MicroBatch& forward : forwards) {
    for (const int32_t id : forward.tokens.ids.span<int32_t>()) add(id);
    const auto labels = forward.labels.span<int32_t>();
    const auto first = std::ssize(values_);
    for (size_t row = 0; row < labels.size(); ++row)
      if (labels[row] != kernels::ignored_label) values_.push_back(static_cast<int32_t>(row));
    shape_.push_back(std::ssize(values_) - first);
    for (const int32_t label : labels)
      if (label != kernels::ignored_label) add(label);
    const autograd::SequenceLayout& layout = forward.tokens.layout;
    shape_.push_back(layout.sequences());
    for (const Tensor& part : {layout.cu_seqlens, layout.sample_numbers})
      for (const int32_t number : part.span<int32_t>()) shape_.push_back(number);
  }
}

bool StepNumbers::within(int64_t vocabulary) const { return least_ >= 0 && largest_ < vocabulary; }

StoredNumbers::Forward StoredNumbers::next(const MicroBatch& forward) {
  const auto take = [this](int64_t count) {
    at_ += count;
    return values_.slice(0, at_ - count, at_);
  };
  const int64_t labelled = forward.labelled();
  Forward stored{.ids = take(forward.tokens.ids.numel()), .labelled_rows = {}, .labels = {}};
  stored.labelled_rows = take(labelled);
  stored.labels = take(labelled);
  return stored;
}

StepGraphs::StepGraphs(Device device) : device_(device) {}
StepGraphs::~StepGraphs() = default;

void StepGraphs::run(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue) {
  if (graph_ != nullptr && numbers.shape() == shape_) {
    upload(numbers.values());
    graph_->replay();
    ++replayed_;
    ++counts_.replayed;
    return;
  }
  forget();
  repeats_ = numbers.shape() == shape_ ? repeats_ + 1 : 0;
  shape_ = numbers.shape();
  const bool worth_it = given_up_.empty() && repeats_ >= repeats_to_capture_;
  if (!worth_it || !capture(numbers, queue)) queue(nullptr);
}

bool StepGraphs::capture(const StepNumbers& numbers, const std::function<void(StoredNumbers*)>& queue) {
  try {
    Allocator& allocator = allocator_for(device_);
    const int64_t alive = allocator.stats().total_peak_bytes;
    if (alive > may_hold_) may_hold_ = alive + largest_cache(alive);  // not by a graph, which keeps below
    const MemoryLimit limit(allocator, may_hold_);
    if (!upload_) upload_.emplace(device_, int64_t{256} << 10);
    numbers_ = Tensor::empty({std::ssize(numbers.values())}, DType::i32, device_, MemoryTag::workspace);
    upload(numbers.values());
    graph_ = std::make_unique<kernels::DeviceGraph>(device_);
    graph_->run([&] {
      StoredNumbers stored(numbers_);
      queue(&stored);
    });
  } catch (const Error& error) {
    graph_.reset();
    given_up_ = error.what();
    return false;
  }
  replayed_ = 0;
  ++counts_.captured;
  return true;
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
