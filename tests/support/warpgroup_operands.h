// What tests of the instructions of sm_90a share: operands, what the tensor cores' formula makes of them, the orders of
// simt's fibers, and reports of planted faults.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/tensor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "kernels/simt/tensor_sum.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

class FiberOrders {
 public:
  ~FiberOrders() { simt::set_fiber_order(simt::FiberOrder::ascending); }
  static constexpr simt::FiberOrder all[] = {simt::FiberOrder::ascending, simt::FiberOrder::descending,
                                             simt::FiberOrder::shuffled};
};

// 16-bit values of mixed sizes, so that the sums depend on how they are added.
inline std::vector<std::byte> operand(DType dtype, int64_t count, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::test);
  std::vector<std::byte> bytes(static_cast<size_t>(2 * count));
  for (int64_t i = 0; i < count; ++i) {
    const int exponent = static_cast<int>(random.below(16)) - 8;
    const double value = (static_cast<double>(random.below(511)) - 255) * std::exp2(exponent);
    store_element(bytes.data() + 2 * i, dtype, value);
  }
  return bytes;
}

inline Tensor to_device(Device device, const std::vector<std::byte>& bytes) {
  const auto count = static_cast<int64_t>(bytes.size());
  const Tensor tensor = Tensor::empty({count}, DType::u8, device);
  kernels::copy_bytes(device, tensor.raw(), Device{}, bytes.data(), count);
  return tensor;
}

inline std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.nbytes()) / 4);
  kernels::copy_bytes(Device{}, values.data(), tensor.device(), tensor.raw(), tensor.nbytes());
  return values;
}

inline float add(float c, const std::vector<float>& a, const std::vector<float>& b, int least_exponent = -126) {
  const auto factors = [&](const std::vector<float>& from) {
    return simt::factors_of(from.data(), static_cast<int>(from.size()), least_exponent);
  };
  return simt::add_products(c, factors(a), factors(b));
}

// [rows, columns] = a [rows, k] · b [columns, k]ᵀ, sixteen along k at a time.
inline std::vector<float> by_formula(const std::vector<std::byte>& a, const std::vector<std::byte>& b, DType dtype,
                                     int rows, int columns, int k) {
  std::vector<float> result;
  const auto group = [&](const std::vector<std::byte>& from, int row, int first, float(&values)[16]) {
    for (int i = 0; i < 16; ++i)
      values[i] = first + i < k
                      ? static_cast<float>(load_element(from.data() + 2 * (int64_t{row} * k + first + i), dtype))
                      : 0.0f;
  };
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) {
      float sum = 0;
      for (int first = 0; first < k; first += 16) {
        float x[16], y[16];
        group(a, i, first, x);
        group(b, j, first, y);
        sum = add(sum, {x, x + 16}, {y, y + 16}, dtype == DType::bf16 ? -126 : -14);
      }
      result.push_back(sum);
    }
  return result;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class Run>
void expect_report_of(const Run& run, const std::vector<std::string>& words) {
  std::string report = "no report";
  try {
    run();
  } catch (const Error& error) {
    report = error.what();
  }
  for (const std::string& word : words)
    EXPECT_NE(report.find(word), std::string::npos) << "expected '" << word << "' in: " << report;
}

}  // namespace lathe::testing
