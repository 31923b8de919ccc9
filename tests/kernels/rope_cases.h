// The cases of rope (tests/support/operation_cases.h).
#pragma once

#include "kernels/rope/rope.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace rope_cases {

inline constexpr int64_t table_rows = 40;

inline Case rotation(std::string name, int64_t tokens, int64_t heads, int64_t head_dim, DType dtype,
                     kernels::RopeDirection direction, int64_t padding = 0, bool in_place = false,
                     bool positions_on_cpu = true) {
  const Shape shape{tokens, heads, head_dim}, table{table_rows, head_dim / 2};
  Case result{
      .name = std::move(name),
      .inputs = {{.name = "x", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                 {.name = "positions",
                  .shape = {tokens},
                  .dtype = DType::i32,
                  .values = integers(0, table_rows - 1),
                  .on_cpu = positions_on_cpu},
                 {.name = "cos", .shape = table, .values = uniform(-1, 1), .batch = Batch::shared},
                 {.name = "sin", .shape = table, .values = uniform(-1, 1), .batch = Batch::shared}},
      .outputs =
          {{.name = "out", .shape = shape, .dtype = dtype, .padding = padding, .in_place_of = in_place ? "x" : ""}},
      .run =
          [direction](const Arguments& a) {
            kernels::rope(a["out"], a["x"], a["positions"], a["cos"], a["sin"], direction);
          },
      .reduction = 2,
      .flops = 3.0 * tokens * heads * head_dim,
      .bytes = 2.0 * tokens * heads * head_dim * size_of(dtype)};
  if (direction == kernels::RopeDirection::backward) {
    // x is the gradient that arrives at `rotated`; with respect to `input` it is out.
    result.inputs.push_back({.name = "input", .shape = shape, .dtype = dtype, .values = normal()});
    GradientCheck check{.forward =
                            [](const Arguments& a) {
                              kernels::rope(a["rotated"], a["input"], a["positions"], a["cos"], a["sin"],
                                            kernels::RopeDirection::forward);
                            },
                        .results = {{.name = "rotated", .cotangent = "x"}},
                        .gradients = {{.of = "input", .in = "out"}}};
    result.gradient = {check};
  }
  return result;
}

}  // namespace rope_cases

inline std::vector<Operation> rope_operations() {
  using namespace rope_cases;
  constexpr auto forward = kernels::RopeDirection::forward, backward = kernels::RopeDirection::backward;
  return {{.name = "rope",
           .cases = {rotation("h9_d64_f32", 5, 9, 64, DType::f32, forward),
                     rotation("h3_d64_bf16_in_place", 5, 3, 64, DType::bf16, forward, 0, true),
                     rotation("h2_d80_f32_padded", 4, 2, 80, DType::f32, forward, 5),
                     rotation("h1_d6_f32_in_place", 3, 1, 6, DType::f32, forward, 0, true),
                     rotation("h2_d30_bf16", 4, 2, 30, DType::bf16, forward),
                     rotation("h2_d30_f16", 4, 2, 30, DType::f16, forward),
                     rotation("t800_d16_f32", 800, 1, 16, DType::f32, forward),
                     rotation("t2600_d2_f32", 2600, 1, 2, DType::f32, forward),  // more positions than one launch takes
                     rotation("h5_d128_bf16_positions_on_device", 9, 5, 128, DType::bf16, forward, 0, false, false),
                     rotation("h2_d80_bf16_positions_on_device", 4, 2, 80, DType::bf16, forward, 8, true, false)},
           .timed = {rotation("t800_h9_d64_f32", 800, 9, 64, DType::f32, forward),
                     rotation("t800_h9_d64_bf16", 800, 9, 64, DType::bf16, forward),
                     rotation("t8192_h32_d128_bf16", 8192, 32, 128, DType::bf16, forward)},
           .cuda_body = true},
          {.name = "rope_backward",
           .cases = {rotation("h3_d64_f32", 5, 3, 64, DType::f32, backward),
                     rotation("h3_d10_bf16", 5, 3, 10, DType::bf16, backward)},
           .cuda_body = true}};
}

}  // namespace lathe::testing
