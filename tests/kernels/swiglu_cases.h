// The cases of swiglu.
#pragma once

#include "kernels/swiglu/swiglu.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace swiglu_cases {

inline Case forward(std::string name, int64_t tokens, int64_t width, DType dtype, Generator gate, int64_t padding = 0) {
  const Shape shape{tokens, width};
  return {.name = std::move(name),
          .inputs = {{.name = "gate", .shape = shape, .dtype = dtype, .values = std::move(gate), .padding = padding},
                     {.name = "up", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding}},
          .outputs = {{.name = "out", .shape = shape, .dtype = dtype}},
          .run = [](const Arguments& a) { kernels::swiglu_forward(a["out"], a["gate"], a["up"]); },
          .reduction = 1,
          .flops = 5.0 * tokens * width,
          .bytes = 3.0 * tokens * width * size_of(dtype)};
}

inline Case backward(std::string name, int64_t tokens, int64_t width, DType dtype, Generator gate,
                     bool in_place = false) {
  const Shape shape{tokens, width};
  return {
      .name = std::move(name),
      .inputs = {{.name = "grad_out", .shape = shape, .dtype = dtype, .values = normal()},
                 {.name = "gate", .shape = shape, .dtype = dtype, .values = std::move(gate)},
                 {.name = "up", .shape = shape, .dtype = dtype, .values = normal()}},
      .outputs =
          {{.name = "grad_gate", .shape = shape, .dtype = dtype, .in_place_of = in_place ? "gate" : "", .factor = 3},
           {.name = "grad_up", .shape = shape, .dtype = dtype, .in_place_of = in_place ? "up" : "", .factor = 3}},
      .run =
          [](const Arguments& a) {
            kernels::swiglu_backward(a["grad_gate"], a["grad_up"], a["grad_out"], a["gate"], a["up"]);
          },
      .gradient = {{.forward = [](const Arguments& a) { kernels::swiglu_forward(a["out"], a["gate"], a["up"]); },
                    .results = {{.name = "out", .cotangent = "grad_out"}},
                    .gradients = {{.of = "gate", .in = "grad_gate"}, {.of = "up", .in = "grad_up"}}}},
      .flops = 12.0 * tokens * width,
      .bytes = 5.0 * tokens * width * size_of(dtype)};
}

}  // namespace swiglu_cases

inline std::vector<Operation> swiglu_operations() {
  using namespace swiglu_cases;
  // The gate's whole range: where exp overflows and underflows, zeros of both signs, subnormals.
  const Generator wide = values({0.0, -0.0, 1e-40, -1e-40, 1e-6,  -1e-6, 0.5,  -0.5, 8,     -8,  20,
                                 -20, 80,   -80,   88.5,   -88.5, 1e4,   -1e4, 1e30, -1e30, 3e38});
  return {
      {.name = "swiglu_forward",
       .cases = {forward("f1_f32", 3, 1, DType::f32, normal()), forward("f15_f32", 3, 15, DType::f32, normal()),
                 forward("f16_bf16", 3, 16, DType::bf16, normal()), forward("f17_bf16", 3, 17, DType::bf16, normal(3)),
                 forward("f1536_f32", 40, 1536, DType::f32, normal(2)),
                 forward("f1536_bf16", 40, 1536, DType::bf16, normal(2)),
                 forward("halves_f32", 4, 24, DType::f32, normal(), 24),
                 forward("extremes_f32", 2, 42, DType::f32, wide), forward("extremes_bf16", 2, 42, DType::bf16, wide)},
       .timed = {forward("t512_f1536_f32", 512, 1536, DType::f32, normal()),
                 forward("t512_f1536_bf16", 512, 1536, DType::bf16, normal())}},
      {.name = "swiglu_backward",
       .cases = {backward("f1_f32", 2, 1, DType::f32, normal()), backward("f15_bf16", 3, 15, DType::bf16, normal()),
                 backward("f17_f32_in_place", 3, 17, DType::f32, normal(2), true),
                 backward("f576_bf16_in_place", 40, 576, DType::bf16, normal(2), true),
                 backward("f576_f32", 40, 576, DType::f32, normal(4))},
       .timed = {backward("t512_f1536_f32", 512, 1536, DType::f32, normal()),
                 backward("t512_f1536_bf16", 512, 1536, DType::bf16, normal())}},
  };
}

}  // namespace lathe::testing
