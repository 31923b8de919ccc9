// Five steps of an optimiser beside another implementation's: param.0, then grad.N, param.N and (with a state) state.N.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/support/golden.h"

namespace lathe::testing {

// `roundoffs` of the dtype are allowed, relative to the largest element of each tensor.
inline void follow_optimizer(const std::string& file, int states, DType dtype, double roundoffs,
                             const std::function<void(const Tensor&, const Tensor&, const Tensor&)>& step) {
  auto golden = golden_tensors(file);
  const Tensor weight = kernels::cast(golden["param.0"], dtype).clone();
  const Tensor state = Tensor::zeros(weight.shape(), dtype);
  const double roundoff = dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
  for (int n = 1; n <= 5; ++n) {
    const std::string number = "." + std::to_string(n);
    step(weight, kernels::cast(golden["grad" + number], dtype), state);
    const auto compare = [&](const Tensor& found, const std::string& name) {
      const Tensor wide = kernels::cast(found, DType::f64), expected = kernels::cast(golden[name + number], DType::f64);
      double largest = 0;
      for (const double x : expected.span<double>()) largest = std::max(largest, std::abs(x));
      for (int64_t i = 0; i < wide.numel(); ++i)
        EXPECT_NEAR(wide.data<double>()[i], expected.data<double>()[i], roundoffs * roundoff * largest)
            << name << number << "[" << i << "]";
    };
    compare(weight, "param");
    if (states > 0) compare(state, "state");
  }
}

}  // namespace lathe::testing
