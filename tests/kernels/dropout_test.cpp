// dropout: against the f64 reference on every device and instruction set, its definition element by element, and what
// it must refuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/dropout_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

LATHE_CHECK_OPERATIONS(testing::dropout_operations());

Tensor i32(std::vector<int32_t> values) {
  return Tensor::of(std::span<const int32_t>(values), Shape{static_cast<int64_t>(values.size())});
}

Tensor ones(int64_t tokens, int64_t columns, DType dtype) {
  Tensor x = Tensor::empty({tokens, columns}, dtype);
  fill(x, 1.0);
  return x;
}

constexpr DropoutParams params{.probability = 0.25f, .seed = 42, .step = 7, .stream = 3};

TEST(Dropout, KeepsWhatItsDefinitionSays) {
  constexpr int64_t columns = 7;
  const Tensor x = ones(5, columns, DType::f64);
  dropout(x, x, i32({0, 2, 5}), i32({9, 4}), params);  // in place
  for (int64_t t = 0; t < 5; ++t) {
    const uint64_t sample = t < 2 ? 9 : 4, position = static_cast<uint64_t>(t < 2 ? t : t - 2);
    for (uint64_t k = 0; k < columns; ++k) {
      const PhiloxCounter words =
          random_bits(42, RandomPurpose::dropout, (uint64_t{7} << 16) + 3, (sample << 32) + (position << 14) + k / 4);
      EXPECT_EQ(x.data<double>()[t * columns + static_cast<int64_t>(k)],
                words[k % 4] >= 0x40000000u ? 1.0 / 0.75 : 0.0);
    }
  }
}

TEST(Dropout, KeepsTheExpectedShareAndDiffersByStepStreamAndSeed) {
  constexpr int64_t tokens = 64, columns = 256;
  const auto kept = [&](DropoutParams p) {
    Tensor out = Tensor::empty({tokens, columns}, DType::f32);
    dropout(out, ones(tokens, columns, DType::f32), i32({0, tokens}), i32({0}), p);
    std::vector<bool> mask;
    for (const float value : out.span<float>()) mask.push_back(value != 0);
    return mask;
  };
  const std::vector<bool> mask = kept(params);
  const double share = static_cast<double>(std::count(mask.begin(), mask.end(), true)) / (tokens * columns);
  EXPECT_NEAR(share, 0.75, 5 * std::sqrt(0.75 * 0.25 / (tokens * columns)));  // five standard deviations
  DropoutParams other = params;
  other.step = 8;
  EXPECT_NE(kept(other), mask);
  other = params;
  other.stream = 4;
  EXPECT_NE(kept(other), mask);
  other = params;
  other.seed = 43;
  EXPECT_NE(kept(other), mask);
}

// Steps of more than 16 bits have a part in two words of the counter.
TEST(Dropout, AStoredStepIsTheStep) {
  constexpr int64_t tokens = 9, columns = 67;
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    const Tensor x = moved(ones(tokens, columns, DType::bf16), device), stored = moved(i32({0}), device);
    const auto dropped = [&](const DropoutParams& p) {
      const Tensor out = Tensor::empty({tokens, columns}, DType::bf16, device);
      dropout(out, x, i32({0, 5, tokens}), i32({9, 65535}), p);
      const Tensor there = moved(out, {});
      return std::string(static_cast<const char*>(there.raw()), static_cast<size_t>(there.nbytes()));
    };
    DropoutParams sent = params, read = params;
    read.stored_step = reinterpret_cast<const uint32_t*>(stored.data<int32_t>());
    std::vector<std::string> seen;
    for (const int32_t step : {0, 7, 8, 65535, 65536, 70000}) {
      copy(stored, i32({step}));
      sent.step = static_cast<uint32_t>(step);
      const std::string expected = dropped(sent);
      EXPECT_TRUE(dropped(read) == expected) << step;
      EXPECT_EQ(std::count(seen.begin(), seen.end(), expected), 0) << step;
      seen.push_back(expected);
    }
  }
}

TEST(Dropout, RefusesWhatItCannotNumber) {
  const Tensor x = ones(4, 3, DType::f32);
  DropoutParams all = params;
  all.probability = 1.0f;
  EXPECT_THROW(dropout(x, x, i32({0, 4}), i32({0}), all), ConfigError);
  EXPECT_THROW(dropout(x, x, i32({0, 3}), i32({0}), params), ShapeError);
  EXPECT_THROW(dropout(x, x, i32({0, 4}), i32({0, 1}), params), ShapeError);
  EXPECT_THROW(dropout(x, x, i32({0, 4}), i32({65536}), params), ShapeError);
  EXPECT_THROW(dropout(x, x, i32({0, 4}), i32({-1}), params), ShapeError);
  EXPECT_THROW(dropout(x, x, i32({1, 4}), i32({0}), params), ShapeError);
  const Tensor wide = ones(1, 65537, DType::f32);
  EXPECT_THROW(dropout(wide, wide, i32({0, 1}), i32({0}), params), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
