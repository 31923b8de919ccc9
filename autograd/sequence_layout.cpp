#include "autograd/sequence_layout.h"

#include <numeric>
#include <vector>

#include "core/error.h"

namespace lathe::autograd {

SequenceLayout SequenceLayout::of(std::span<const int32_t> lengths, int32_t first_sample) {
  std::vector<int32_t> bounds{0}, positions, samples;
  for (const int32_t length : lengths) {
    if (length < 0) throw ShapeError("a sequence of " + std::to_string(length) + " tokens");
    positions.resize(positions.size() + static_cast<size_t>(length));
    std::iota(positions.end() - length, positions.end(), 0);
    bounds.push_back(bounds.back() + length);
    samples.push_back(first_sample + static_cast<int32_t>(samples.size()));
  }
  const auto tensor = [](const std::vector<int32_t>& values) {
    return Tensor::of(std::span<const int32_t>(values), Shape{static_cast<int64_t>(values.size())}, MemoryTag::other);
  };
  return {tensor(bounds), tensor(positions), tensor(samples)};
}

Tensor SequenceLayout::bounds_of_rows(int64_t rows) const {
  if (rows == tokens()) return cu_seqlens;
  if (tokens() == 0 || rows % tokens() != 0) {
    throw ShapeError("an operation over " + std::to_string(rows) + " rows with a layout of " +
                     std::to_string(tokens()) + " tokens: each token must have the same number of rows");
  }
  Tensor bounds = cu_seqlens.clone();
  for (int32_t& bound : bounds.span<int32_t>()) bound *= static_cast<int32_t>(rows / tokens());
  return bounds;
}

SequenceRun SequenceLayout::run(int64_t first, int64_t last) const {
  if (first < 0 || first > last || last > sequences()) {
    throw ShapeError("sequences " + std::to_string(first) + " to " + std::to_string(last) + " of " +
                     std::to_string(sequences()));
  }
  Tensor bounds = cu_seqlens.slice(0, first, last + 1).clone();
  const int32_t begin = bounds.data<int32_t>()[0];
  for (int32_t& bound : bounds.span<int32_t>()) bound -= begin;
  const int64_t end = begin + bounds.data<int32_t>()[last - first];
  // Generation has no sample numbers: nothing random happens there.
  const Tensor samples = sample_numbers.defined() ? sample_numbers.slice(0, first, last) : Tensor();
  return {begin, {bounds, positions.slice(0, begin, end), samples}};
}

}  // namespace lathe::autograd
