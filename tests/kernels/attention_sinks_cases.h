// The cases of attention_sinks and its backward.
#pragma once

#include "kernels/attention_sinks/attention_sinks.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace attention_sinks_cases {

inline Operand of_heads(const char* name, const Shape& shape, DType dtype, int64_t padding) {
  return {.name = name, .shape = shape, .dtype = dtype, .values = normal(), .padding = padding};
}
inline Operand lse(const char* name, const Shape& shape, Generator values) {
  return {.name = name, .shape = {shape[1], shape[0]}, .values = std::move(values), .batch_dimension = 1};
}
inline Operand sinks(const Shape& shape, DType dtype) {
  return {.name = "sinks", .shape = {shape[1]}, .dtype = dtype, .values = normal(3), .batch = Batch::shared};
}

inline Case forward(std::string name, const Shape& shape, DType dtype, const Generator& sums = normal(3),
                    int64_t padding = 0, std::string in_place_of = "") {
  return {
      .name = std::move(name),
      .inputs = {of_heads("x", shape, dtype, padding), lse("lse", shape, sums), sinks(shape, dtype)},
      .outputs = {{.name = "out", .shape = shape, .dtype = dtype, .in_place_of = std::move(in_place_of)},
                  lse("lse_out", shape, {})},
      .run = [](const Arguments& a) { kernels::attention_sinks(a["out"], a["lse_out"], a["x"], a["lse"], a["sinks"]); },
      .flops = static_cast<double>(shape.numel()),
      .bytes = 2.0 * static_cast<double>(shape.numel() * size_of(dtype))};
}

inline Case backward(std::string name, const Shape& shape, DType dtype, int64_t padding = 0) {
  const Shape per_head{shape[0], shape[1]};
  return {.name = std::move(name),
          .inputs = {of_heads("grad_out", shape, dtype, padding), of_heads("out", shape, dtype, padding),
                     lse("lse_out", shape, uniform(3, 6)), sinks(shape, dtype)},
          .outputs = {{.name = "dots", .shape = per_head}, {.name = "shares", .shape = per_head}},
          .run =
              [](const Arguments& a) {
                kernels::attention_sinks_backward(a["dots"], a["shares"], a["grad_out"], a["out"], a["lse_out"],
                                                  a["sinks"]);
              },
          .reduction = shape[2],
          .flops = 2.0 * static_cast<double>(shape.numel()),
          .bytes = 2.0 * static_cast<double>(shape.numel() * size_of(dtype))};
}

}  // namespace attention_sinks_cases

// Head sizes: below and above a group of eight, a power of two of groups and not, the largest.
inline std::vector<Operation> attention_sinks_operations() {
  using namespace attention_sinks_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const Generator far = values({-1e30, -200, -30, 0, 30, 90, 1e30});
  return {
      {.name = "attention_sinks",
       .cases = {forward("d5_f32", {3, 2, 5}, f32), forward("d16_bf16_in_place", {5, 3, 16}, bf16, normal(3), 0, "x"),
                 forward("d17_f16", {4, 3, 17}, f16), forward("d64_bf16", {9, 8, 64}, bf16),
                 forward("d24_f32_strided", {4, 2, 24}, f32, normal(3), 3), forward("d256_f32", {2, 1, 256}, f32),
                 forward("far_f32", {7, 2, 8}, f32, far)},
       .timed = {forward("t512_h64_d64_bf16", {512, 64, 64}, bf16)},
       .cuda_body = true},
      {.name = "attention_sinks_backward",
       .cases = {backward("d5_f32", {3, 2, 5}, f32), backward("d16_bf16", {5, 3, 16}, bf16),
                 backward("d17_f16", {4, 3, 17}, f16), backward("d64_bf16", {9, 8, 64}, bf16),
                 backward("d24_f32_strided", {4, 2, 24}, f32, 3), backward("d256_f32", {2, 1, 256}, f32)},
       .timed = {backward("t512_h64_d64_bf16", {512, 64, 64}, bf16)},
       .cuda_body = true}};
}

}  // namespace lathe::testing
