// The cases of DoRA's norms.
#pragma once

#include "kernels/dora_norm/dora_norm.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace dora_norm_cases {

inline constexpr float scaling = 1.75f;

inline Case squares(std::string name, int64_t rows, int64_t columns, DType dtype, Generator values,
                    int64_t padding = 0) {
  return {
      .name = std::move(name),
      .inputs =
          {{.name = "rows", .shape = {rows, columns}, .dtype = dtype, .values = std::move(values), .padding = padding}},
      .outputs = {{.name = "squares", .shape = {rows}, .dtype = DType::f64}},
      .run = [](const Arguments& a) { kernels::row_squares(a["squares"], a["rows"]); },
      .reduction = columns,
      .flops = 2.0 * rows * columns};
}

// ‖w‖², A·Wᵀ and A·Aᵀ of the operands w and a, in f64.
inline void find_products(const Arguments& arguments) {
  const Tensor &w = arguments["w"], &a = arguments["a"];
  const auto dot = [](const Tensor& x, int64_t i, const Tensor& y, int64_t j) {
    double sum = 0;
    for (int64_t k = 0; k < x.dim(1); ++k)
      sum += x.data<double>()[i * x.dim(1) + k] * y.data<double>()[j * y.dim(1) + k];
    return sum;
  };
  const int64_t rows = w.dim(0), rank = a.dim(0);
  for (int64_t n = 0; n < rows; ++n) arguments["squares"].data<double>()[n] = dot(w, n, w, n);
  for (int64_t j = 0; j < rank; ++j) {
    for (int64_t n = 0; n < rows; ++n) arguments["products"].data<double>()[j * rows + n] = dot(a, j, w, n);
    for (int64_t k = 0; k < rank; ++k) arguments["gram"].data<double>()[j * rank + k] = dot(a, j, a, k);
  }
}

inline Operand factor(int64_t rows, int64_t rank, DType dtype) {
  return {.name = "b", .shape = {rows, rank}, .dtype = dtype, .values = normal(0.3)};
}
inline std::vector<Operand> results(int64_t rows) {
  return {{.name = "norm", .shape = {rows}}, {.name = "inverse", .shape = {rows}}};
}
inline void run_norm(const Arguments& a) {
  kernels::dora_norm({.norm = a["norm"],
                      .inverse = a["inverse"],
                      .squares = a["squares"],
                      .products = a["products"],
                      .gram = a["gram"],
                      .b = a["b"],
                      .scaling = scaling});
}

inline Case norm(std::string name, int64_t rows, int64_t rank, DType dtype) {
  constexpr int64_t columns = 9;
  return {.name = std::move(name),
          .inputs = {{.name = "w", .shape = {rows, columns}, .values = normal()},
                     {.name = "a", .shape = {rank, columns}, .values = normal(), .batch = Batch::shared},
                     {.name = "squares", .shape = {rows}, .dtype = DType::f64, .values = computed()},
                     {.name = "products", .shape = {rank, rows}, .values = computed(), .batch_dimension = 1},
                     {.name = "gram", .shape = {rank, rank}, .values = computed(), .batch = Batch::shared},
                     factor(rows, rank, dtype)},
          .outputs = results(rows),
          .run = run_norm,
          .prepare = find_products,
          .reduction = rank};
}

// For the bench: of whatever numbers.
inline Case timed_norm(std::string name, int64_t rows, int64_t rank, DType dtype) {
  return {.name = std::move(name),
          .inputs = {{.name = "squares", .shape = {rows}, .dtype = DType::f64, .values = constant(100)},
                     {.name = "products", .shape = {rank, rows}, .values = normal(), .batch_dimension = 1},
                     {.name = "gram", .shape = {rank, rank}, .values = constant(1), .batch = Batch::shared},
                     factor(rows, rank, dtype)},
          .outputs = results(rows),
          .run = run_norm,
          .reduction = rank,
          .flops = 2.0 * rows * rank * (rank + 2)};
}

}  // namespace dora_norm_cases

inline std::vector<Operation> dora_norm_operations() {
  using namespace dora_norm_cases;
  return {
      {.name = "row_squares",
       .cases = {squares("k1_f32", 3, 1, DType::f32, normal()), squares("k17_bf16", 5, 17, DType::bf16, normal(), 3),
                 squares("k264_f16", 6, 264, DType::f16, normal()), squares("k1030_f32", 2, 1030, DType::f32, normal()),
                 squares("extremes_bf16", 3, 520, DType::bf16, extremes())},
       .timed = {squares("n4096_k4096_bf16", 4096, 4096, DType::bf16, normal())},
       .cuda_body = true},
      {.name = "dora_norm",
       .cases = {norm("r1_f32", 5, 1, DType::f32), norm("r8_bf16", 37, 8, DType::bf16),
                 norm("r13_f16", 17, 13, DType::f16), norm("r16_f32", 20, 16, DType::f32),
                 norm("r40_bf16", 9, 40, DType::bf16)},
       .timed = {timed_norm("n4096_r16_bf16", 4096, 16, DType::bf16),
                 timed_norm("n14336_r64_bf16", 14336, 64, DType::bf16)},
       .cuda_body = true}};
}

}  // namespace lathe::testing
