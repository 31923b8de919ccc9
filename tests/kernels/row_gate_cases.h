// The cases of row_gate (tests/support/operation_cases.h).
#pragma once

#include "kernels/row_gate/row_gate.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace row_gate_cases {

inline Case forward(std::string name, int64_t tokens, int64_t hidden, DType dtype, const Generator& gate = normal(2),
                    int64_t padding = 0, std::string in_place_of = "") {
  const Shape shape{tokens, hidden};
  return {.name = std::move(name),
          .inputs = {{.name = "gate", .shape = {tokens, 1}, .dtype = dtype, .values = gate, .padding = padding},
                     {.name = "x", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                     {.name = "residual", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding}},
          .outputs = {{.name = "out", .shape = shape, .dtype = dtype, .in_place_of = std::move(in_place_of)}},
          .run = [](const Arguments& a) { kernels::row_gate_forward(a["out"], a["gate"], a["x"], a["residual"]); },
          .reduction = 2,
          .flops = 2.0 * tokens * hidden,
          .bytes = 3.0 * tokens * hidden * size_of(dtype)};
}

inline Case backward(std::string name, int64_t tokens, int64_t hidden, DType dtype, const Generator& gate = normal(2),
                     int64_t padding = 0, std::string in_place_of = "") {
  const Shape shape{tokens, hidden};
  return {
      .name = std::move(name),
      .inputs = {{.name = "grad_out", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                 {.name = "gate", .shape = {tokens, 1}, .dtype = dtype, .values = gate},
                 {.name = "x", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                 {.name = "residual", .shape = shape, .dtype = dtype, .values = normal()}},  // of the gradient's check
      .outputs = {{.name = "grad_gate", .shape = {tokens, 1}, .dtype = dtype, .factor = 3},
                  {.name = "grad_x",
                   .shape = shape,
                   .dtype = dtype,
                   .padding = in_place_of.empty() ? 0 : padding,
                   .in_place_of = in_place_of,
                   .factor = 3}},
      .run =
          [](const Arguments& a) {
            kernels::row_gate_backward(a["grad_gate"], a["grad_x"], a["grad_out"], a["gate"], a["x"]);
          },
      .gradient = {{.forward =
                        [](const Arguments& a) {
                          kernels::row_gate_forward(a["out"], a["gate"], a["x"], a["residual"]);
                        },
                    .results = {{.name = "out", .cotangent = "grad_out"}},
                    .gradients = {{.of = "gate", .in = "grad_gate"}, {.of = "x", .in = "grad_x"}}}},
      .reduction = hidden,
      .flops = 3.0 * tokens * hidden,
      .bytes = 3.0 * tokens * hidden * size_of(dtype)};
}

}  // namespace row_gate_cases

// Rows of one warp and of eight.
inline std::vector<Operation> row_gate_operations() {
  using namespace row_gate_cases;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const Generator wide = values({0.0, -0.0, 8, -8, 20, -20, 88.5, -88.5, 1e4, -1e4, 1e30, -1e30});
  return {{.name = "row_gate_forward",
           .cases = {forward("h1_f32", 3, 1, f32), forward("h17_f32", 5, 17, f32), forward("h64_bf16", 5, 64, bf16),
                     forward("h40_f16_padded", 4, 40, f16, normal(), 3), forward("h1032_bf16", 3, 1032, bf16),
                     forward("h24_f32_in_place", 3, 24, f32, normal(), 0, "residual"),
                     forward("wide_f32", 12, 20, f32, wide), forward("wide_bf16", 12, 20, bf16, wide)},
           .timed = {forward("t512_h2048_bf16", 512, 2048, bf16), forward("t1_h2048_bf16", 1, 2048, bf16)},
           .cuda_body = true},
          {.name = "row_gate_backward",
           .cases = {backward("h1_f32", 3, 1, f32), backward("h17_f32", 5, 17, f32), backward("h64_bf16", 5, 64, bf16),
                     backward("h40_f16_padded", 4, 40, f16, normal(), 3), backward("h1032_bf16", 3, 1032, bf16),
                     backward("h2056_f32_in_place", 3, 2056, f32, normal(), 0, "x"),
                     backward("wide_f32", 12, 20, f32, wide)},
           .timed = {backward("t512_h2048_bf16", 512, 2048, bf16)},
           .cuda_body = true}};
}

}  // namespace lathe::testing
