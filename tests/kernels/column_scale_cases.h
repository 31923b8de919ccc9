// The cases of column_scale and its gradient.
#pragma once

#include <algorithm>

#include "kernels/column_scale/column_scale.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace column_scale_cases {

inline Operand vector(const char* name, int64_t columns, DType dtype = DType::f32) {
  return {.name = name, .shape = {columns}, .dtype = dtype, .values = uniform(0.5, 1.5), .batch = Batch::shared};
}

// `in_place_of`: what out shares its memory with.
inline Case forward(std::string name, int64_t tokens, int64_t columns, DType dtype, bool bias, bool residual,
                    std::string in_place_of = {}, int64_t padding = 0) {
  const Shape shape{tokens, columns};
  Case result{
      .name = std::move(name),
      .inputs = {{.name = "x", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                 vector("scale", columns)},
      .outputs =
          {{.name = "out", .shape = shape, .dtype = dtype, .padding = padding, .in_place_of = std::move(in_place_of)}},
      .run =
          [](const Arguments& a) {
            kernels::column_scale(a["out"], a["x"], a["scale"], a.has("bias") ? a["bias"] : Tensor{},
                                  a.has("residual") ? a["residual"] : Tensor{});
          },
      .flops = 3.0 * tokens * columns,
      .bytes = (residual ? 3.0 : 2.0) * tokens * columns * size_of(dtype)};
  if (bias) result.inputs.push_back(vector("bias", columns, dtype));
  if (residual)
    result.inputs.push_back(
        {.name = "residual", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding});
  return result;
}

inline Case gradient(std::string name, int64_t columns, DType dtype, std::vector<double> cu_seqlens) {
  const auto tokens = static_cast<int64_t>(cu_seqlens.back());
  const Shape shape{tokens, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "grad_out", .shape = shape, .dtype = dtype, .values = normal()},
                     {.name = "x", .shape = shape, .dtype = dtype, .values = normal()},
                     vector("factor", columns),
                     sequence_bounds(cu_seqlens)},
          .outputs = {{.name = "grad_scale",
                       .shape = {columns},
                       .values = normal(),
                       .batch = Batch::shared,
                       .accumulates = true,
                       .factor = 3}},
          .run =
              [](const Arguments& a) {
                kernels::column_scale_gradient(a["grad_scale"], a["grad_out"], a["x"], a["factor"], a["cu_seqlens"]);
              },
          .reduction = tokens,
          .flops = 2.0 * tokens * columns,
          .bytes = 2.0 * tokens * columns * size_of(dtype)};
}

}  // namespace column_scale_cases

inline std::vector<Operation> column_scale_operations() {
  using namespace column_scale_cases;
  return {{.name = "column_scale",
           .cases = {forward("n17_f32", 5, 17, DType::f32, false, false),
                     forward("n64_bf16", 4, 64, DType::bf16, false, false, "x"),
                     forward("n61_f16_all", 5, 61, DType::f16, true, true),
                     forward("n61_bf16_bias", 5, 61, DType::bf16, true, false, "", 3),
                     forward("n33_f32_residual", 3, 33, DType::f32, false, true, "residual"),
                     forward("n576_bf16_all", 9, 576, DType::bf16, true, true),
                     forward("n1025_f32_all", 2, 1025, DType::f32, true, true)},
           .timed = {forward("t512_n576_f32", 512, 576, DType::f32, false, false),
                     forward("t2048_n4096_bf16", 2048, 4096, DType::bf16, false, true)},
           .cuda_body = true},
          {.name = "column_scale_gradient",
           .cases = {gradient("n64_f32", 64, DType::f32, {0, 3, 4, 9}), gradient("n1_f32", 1, DType::f32, {0, 2, 4}),
                     gradient("n17_bf16", 17, DType::bf16, {0, 2, 30}), gradient("n17_f16", 17, DType::f16, {0, 2, 30}),
                     gradient("n576_bf16", 576, DType::bf16, {0, 20, 40})},
           .timed = {gradient("t512_n576_f32", 576, DType::f32, {0, 128, 512})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
