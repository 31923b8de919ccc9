// The cases of kernels/matmul/products.h.
#pragma once

#include <string>
#include <vector>

#include "kernels/matmul/products.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace matmul_products_cases {

inline Operand weight(std::string name, int64_t rows, int64_t columns, DType dtype) {
  return {
      .name = std::move(name), .shape = {rows, columns}, .dtype = dtype, .values = normal(), .batch = Batch::shared};
}

// A query's projection and those of a key and a value.
inline Case each_case(std::string name, int64_t rows, int64_t q, int64_t kv, int64_t k, DType dtype) {
  const double weights = static_cast<double>(q + 2 * kv) * static_cast<double>(k);
  return {.name = std::move(name),
          .inputs = {{.name = "x", .shape = {rows, k}, .dtype = dtype, .values = normal()},
                     weight("q_weight", q, k, dtype),
                     weight("k_weight", kv, k, dtype),
                     weight("v_weight", kv, k, dtype)},
          .outputs = {{.name = "q", .shape = {rows, q}, .dtype = dtype},
                      {.name = "k", .shape = {rows, kv}, .dtype = dtype},
                      {.name = "v", .shape = {rows, kv}, .dtype = dtype}},
          .run =
              [](const Arguments& a) {
                kernels::linear_forward_each(
                    a["x"], std::vector<kernels::LinearProduct>{
                                {a["q"], a["q_weight"]}, {a["k"], a["k_weight"]}, {a["v"], a["v_weight"]}});
              },
          .reduction = k,
          .flops = 2.0 * static_cast<double>(rows) * weights};
}

inline Case gated_case(std::string name, int64_t rows, int64_t n, int64_t k, DType dtype,
                       kernels::Activation activation = kernels::Activation::silu) {
  return {.name = std::move(name),
          .inputs = {{.name = "x", .shape = {rows, k}, .dtype = dtype, .values = normal(0.1)},
                     weight("gate_weight", n, k, dtype),
                     weight("up_weight", n, k, dtype)},
          .outputs = {{.name = "out", .shape = {rows, n}, .dtype = dtype}},
          .run =
              [=](const Arguments& a) {
                const Tensor& out = a["out"];
                const Tensor up = Tensor::empty(out.shape(), out.dtype(), out.device());
                kernels::gated_linear_forward(out, a["x"], {out, a["gate_weight"]}, {up, a["up_weight"]}, activation);
              },
          .reduction = k,
          .flops = 4.0 * static_cast<double>(rows * n) * static_cast<double>(k)};
}

}  // namespace matmul_products_cases

inline std::vector<Operation> matmul_products_operations() {
  using namespace matmul_products_cases;
  const DType f32 = DType::f32, bf16 = DType::bf16;
  return {
      {.name = "linear_forward_each",
       .cases = {each_case("5_40_24_104_f32", 5, 40, 24, 104, f32), each_case("5_40_24_104_bf16", 5, 40, 24, 104, bf16),
                 each_case("1_7_9_64_bf16", 1, 7, 9, 64, bf16)},
       .timed = {each_case("llama1b_1_bf16", 1, 2048, 512, 2048, bf16),
                 each_case("llama8b_1_bf16", 1, 4096, 1024, 4096, bf16)}},
      {.name = "gated_linear_forward",
       .cases = {gated_case("5_43_104_f32", 5, 43, 104, f32), gated_case("5_43_104_bf16", 5, 43, 104, bf16),
                 gated_case("3_32_64_bf16_geglu", 3, 32, 64, bf16, kernels::Activation::gelu_tanh)},
       .timed = {gated_case("llama1b_1_bf16", 1, 8192, 2048, bf16),
                 gated_case("llama8b_1_bf16", 1, 14336, 4096, bf16)}}};
}

}  // namespace lathe::testing
