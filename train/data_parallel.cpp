#include "train/data_parallel.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::train {
DataParallel::DataParallel(int64_t world_size, Communicator& processes)
    : world_size_(world_size), processes_(&processes) {
  if (processes.size() == 1 || processes.size() == world_size) return;
  throw ConfigError("world_size", "is " + std::to_string(world_size) + ", and " + std::to_string(processes.size()) +
                                      " processes were started: start one for each rank, or one alone");
}

std::pair<int64_t, int64_t> DataParallel::ranks() const {
  if (!several()) return {0, world_size_};
  return {processes_->rank(), processes_->rank() + 1};
}

void DataParallel::sum(std::span<double> values) const {
  if (!several()) return;
  const Tensor tensor = Tensor::of<double>(values, {std::ssize(values)});
  processes_->all_reduce_sum(tensor);
  std::memcpy(values.data(), tensor.raw(), values.size_bytes());
}

void DataParallel::sum(const Tensor& tensor) const {
  if (!several()) return;
  const Tensor on_cpu = kernels::moved(tensor, {});
  processes_->all_reduce_sum(on_cpu);
  if (on_cpu.raw() != tensor.raw()) kernels::copy(tensor, on_cpu);
}

void DataParallel::gather(std::span<double> values, size_t begin, size_t end) const {
  if (!several()) return;
  std::fill(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(begin), 0.0);
  std::fill(values.begin() + static_cast<std::ptrdiff_t>(end), values.end(), 0.0);
  sum(values);  // with zeros alone, which changes no bit of a number but the sign of zero
}

void DataParallel::from_main_process(const Tensor& tensor) const {
  if (!several()) return;
  const Tensor on_cpu = kernels::moved(tensor, {});
  processes_->broadcast(on_cpu, 0);
  if (on_cpu.raw() != tensor.raw()) kernels::copy(tensor, on_cpu);
  tensor.bump_version();
}

int64_t DataParallel::number_from(int rank, int64_t value) const {
  const Tensor tensor = Tensor::of<int64_t>(std::span<const int64_t>(&value, 1), {1});
  processes_->broadcast(tensor, rank);
  return *tensor.data<int64_t>();
}

int64_t DataParallel::from_main_process(int64_t value) const { return several() ? number_from(0, value) : value; }

std::string DataParallel::text_from(int rank, const std::string& text) const {
  const int64_t bytes = number_from(rank, std::ssize(text));
  const Tensor tensor = Tensor::empty({bytes}, DType::u8);
  if (processes_->rank() == rank) std::memcpy(tensor.raw(), text.data(), text.size());
  processes_->broadcast(tensor, rank);
  return {static_cast<const char*>(tensor.raw()), static_cast<size_t>(bytes)};
}

std::string DataParallel::text_from_main_process(const std::string& text) const {
  return several() ? text_from(0, text) : text;
}

std::vector<std::string> DataParallel::texts_of_all(const std::string& text) const {
  if (!several()) return {text};
  std::vector<std::string> texts;
  for (int rank = 0; rank < processes_->size(); ++rank) texts.push_back(text_from(rank, text));
  return texts;
}

void DataParallel::expect_same(const std::string& key, uint64_t value, const std::string& what) const {
  if (from_main_process(static_cast<int64_t>(value)) == static_cast<int64_t>(value)) return;
  throw ConfigError(key, "rank " + std::to_string(processes_->rank()) + " has " + what + " than rank 0");
}

void DataParallel::wait_for_all() const {
  if (several()) processes_->barrier();
}

void RankGradients::end_rank() {
  const auto [first, last] = parallel_.ranks();
  if (last - first == 1) return;
  const bool is_first = sums_.empty();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor gradient = parameters_[i].leaf.grad();
    const Tensor on_cpu = kernels::moved(gradient, {});
    if (is_first) {
      sums_.push_back(Tensor::empty(on_cpu.shape(), on_cpu.dtype(), {}, MemoryTag::gradients));
      kernels::copy(sums_.back(), on_cpu);
    } else {
      kernels::add(sums_[i], sums_[i], on_cpu);  // as a communicator adds
    }
    parameters_[i].leaf.zero_grad();
  }
}

void RankGradients::end_step() {
  for (size_t i = 0; i < sums_.size(); ++i) kernels::copy(parameters_[i].leaf.grad(), sums_[i]);
  if (parallel_.world_size() > 1)
    for (const nn::Parameter& parameter : parameters_) parallel_.sum(parameter.leaf.grad());
}

}  // namespace lathe::train
