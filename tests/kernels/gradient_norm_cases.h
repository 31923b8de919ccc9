// The cases of gradient_norm.
#pragma once

#include "kernels/gradient_norm/gradient_norm.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace gradient_norm_cases {

inline Case sum(std::string name, int64_t count, DType dtype, Generator x) {
  return {.name = std::move(name),
          .inputs = {{.name = "x", .shape = {count}, .dtype = dtype, .values = std::move(x), .batch = Batch::shared}},
          .outputs = {{.name = "sum", .shape = {1}, .dtype = DType::f64, .batch = Batch::shared, .on_cpu = true}},
          .run = [](const Arguments& a) { a["sum"].data<double>()[0] = kernels::sum_of_squares(a["x"]); },
          .reduction = count,
          .flops = 2.0 * count,
          .bytes = 1.0 * count * size_of(dtype)};
}

}  // namespace gradient_norm_cases

inline std::vector<Operation> gradient_norm_operations() {
  using gradient_norm_cases::sum;
  return {{.name = "sum_of_squares",
           .cases = {sum("n1_f32", 1, DType::f32, normal()), sum("n17_bf16", 17, DType::bf16, normal()),
                     sum("n4113_f16", 4113, DType::f16, normal()), sum("n4095_f32", 4095, DType::f32, extremes()),
                     sum("n4097_f32", 4097, DType::f32, normal()), sum("n40000_bf16", 40000, DType::bf16, normal())},
           .timed = {sum("n16777216_f32", 1 << 24, DType::f32, normal())},
           .cuda_body = true}};
}

}  // namespace lathe::testing
