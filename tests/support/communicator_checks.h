// What every Communicator must do, whatever its ranks, transport and device. Every rank calls each check.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/collectives/communicator.h"
#include "core/error.h"

namespace lathe::testing {

// How tests of any device fill and read tensors.
struct DeviceTensors {
  Device device;
  std::function<Tensor(const Tensor& on_cpu)> put = [](const Tensor& tensor) { return tensor; };
  std::function<Tensor(const Tensor& on_device)> get = [](const Tensor& tensor) { return tensor; };
};

// Values that no sum in f32 holds exactly: another order gives other bits. The same on every rank that asks for them.
template <class T>
std::vector<T> rank_values(int rank, int64_t count) {
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) {
    const double value =
        std::sin(static_cast<double>(i * 7 + rank * 13 + 1)) * std::pow(3.0, static_cast<double>((i + rank * 5) % 11));
    if constexpr (std::is_integral_v<T>) {
      values.push_back(static_cast<T>(value * 1000));
    } else {
      values.push_back(static_cast<T>(static_cast<float>(value)));
    }
  }
  return values;
}

template <class T>
auto bits_of(const T& value) {
  if constexpr (sizeof(T) == 2) {
    return value.bits;
  } else if constexpr (std::is_same_v<T, float>) {
    return std::bit_cast<uint32_t>(value);
  } else if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<uint64_t>(value);
  } else {
    return value;
  }
}

// Σ over the ranks, ascending, rounded once: what all_reduce_sum promises.
template <class T>
std::vector<T> sum_by_rank(int ranks, int64_t count) {
  using Sum =
      std::conditional_t<std::is_same_v<T, double>, double, std::conditional_t<std::is_integral_v<T>, T, float>>;
  std::vector<Sum> sums(static_cast<size_t>(count));
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<T> values = rank_values<T>(rank, count);
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] = rank == 0 ? static_cast<Sum>(values[i]) : static_cast<Sum>(sums[i] + static_cast<Sum>(values[i]));
  }
  std::vector<T> rounded;
  for (const Sum sum : sums) rounded.push_back(static_cast<T>(sum));
  return rounded;
}

template <class T>
void expect_same_bits(const Tensor& found, std::span<const T> wanted, const char* what) {
  ASSERT_EQ(found.numel(), static_cast<int64_t>(wanted.size())) << what;
  for (size_t i = 0; i < wanted.size(); ++i)
    ASSERT_EQ(bits_of(found.data<T>()[i]), bits_of(wanted[i]))
        << what << ", " << name_of(dtype_of<T>) << ", element " << i;
}

// Sums of `count` elements are those of ascending ranks, bit for bit.
template <class T>
void check_sums(Communicator& group, int64_t count, const DeviceTensors& tensors = {}) {
  const auto put = [&](const std::vector<T>& values) {
    return tensors.put(Tensor::of<T>(values, {static_cast<int64_t>(values.size())}));
  };
  const Tensor tensor = put(rank_values<T>(group.rank(), count));
  const uint64_t version = tensor.version();
  group.all_reduce_sum(tensor);
  EXPECT_GE(tensor.version(), version);
  const std::vector<T> sums = sum_by_rank<T>(group.size(), count);
  expect_same_bits<T>(tensors.get(tensor), sums, "all_reduce_sum");

  const int64_t all = count * group.size();
  const Tensor whole = put(rank_values<T>(group.rank(), all));
  const Tensor part = Tensor::empty({count}, dtype_of<T>, tensors.device);
  group.reduce_scatter_sum(part, whole);
  const std::vector<T> every_part = sum_by_rank<T>(group.size(), all);
  expect_same_bits<T>(
      tensors.get(part),
      std::span(every_part).subspan(static_cast<size_t>(group.rank() * count), static_cast<size_t>(count)),
      "reduce_scatter_sum");
}

template <class T>
void check_moves(Communicator& group, int64_t count, const DeviceTensors& tensors = {}) {
  for (int root = 0; root < group.size(); ++root) {
    const Tensor tensor = tensors.put(Tensor::of<T>(rank_values<T>(group.rank(), count), {count}));
    group.broadcast(tensor, root);
    expect_same_bits<T>(tensors.get(tensor), rank_values<T>(root, count), "broadcast");
  }
  const Tensor out = Tensor::empty({count * group.size()}, dtype_of<T>, tensors.device);
  group.all_gather(out, tensors.put(Tensor::of<T>(rank_values<T>(group.rank(), count), {count})));
  std::vector<T> wanted;
  for (int rank = 0; rank < group.size(); ++rank)
    for (const T value : rank_values<T>(rank, count)) wanted.push_back(value);
  expect_same_bits<T>(tensors.get(out), wanted, "all_gather");
}

// Refused on every rank alike, before anything is sent: the group goes on.
inline void check_refusals(Communicator& group, const DeviceTensors& tensors = {}) {
  const Tensor bytes = Tensor::zeros({4}, DType::u8, tensors.device);
  const Tensor matrix = Tensor::zeros({4, 4}, DType::f32, tensors.device);
  EXPECT_THROW(group.all_reduce_sum(bytes), ShapeError);
  EXPECT_THROW(group.all_reduce_sum(matrix.transpose(0, 1)), ShapeError);
  EXPECT_THROW(group.all_reduce_sum(Tensor()), ShapeError);
  EXPECT_THROW(group.broadcast(matrix, group.size()), ShapeError);
  EXPECT_THROW(group.all_gather(Tensor::empty({5 * group.size()}, DType::f32, tensors.device), matrix.select(0, 0)),
               ShapeError);
  EXPECT_THROW(
      group.reduce_scatter_sum(matrix.select(0, 0), Tensor::empty({4 * group.size()}, DType::bf16, tensors.device)),
      ShapeError);
  group.all_reduce_sum(matrix);
}

}  // namespace lathe::testing
