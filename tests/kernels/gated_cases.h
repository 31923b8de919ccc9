// The cases of the gated activations: all have the same.
#pragma once

#include "kernels/gated/gated.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace gated_cases {

struct Functions {
  void (*forward)(const Tensor& out, const Tensor& gate, const Tensor& up);
  void (*backward)(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                   const Tensor& up);
};

inline Case forward(Functions functions, std::string name, int64_t tokens, int64_t width, DType dtype, Generator gate,
                    int64_t padding = 0, std::string in_place_of = "") {
  const Shape shape{tokens, width};
  return {.name = std::move(name),
          .inputs = {{.name = "gate", .shape = shape, .dtype = dtype, .values = std::move(gate), .padding = padding},
                     {.name = "up", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding}},
          .outputs = {{.name = "out", .shape = shape, .dtype = dtype, .in_place_of = std::move(in_place_of)}},
          .run = [functions](const Arguments& a) { functions.forward(a["out"], a["gate"], a["up"]); },
          .reduction = 1,
          .flops = 5.0 * tokens * width,
          .bytes = 3.0 * tokens * width * size_of(dtype)};
}

inline Case backward(Functions functions, std::string name, int64_t tokens, int64_t width, DType dtype, Generator gate,
                     bool in_place = false, int64_t padding = 0) {
  const Shape shape{tokens, width};
  const Operand like_gate{.shape = shape, .dtype = dtype, .values = normal(), .padding = padding};
  const auto operand = [&](const char* operand_name) {
    Operand result = like_gate;
    result.name = operand_name;
    return result;
  };
  Case result{
      .name = std::move(name),
      .inputs = {operand("grad_out"), operand("gate"), operand("up")},
      .outputs = {operand("grad_gate"), operand("grad_up")},
      .run =
          [functions](const Arguments& a) {
            functions.backward(a["grad_gate"], a["grad_up"], a["grad_out"], a["gate"], a["up"]);
          },
      .gradient = {{.forward = [functions](const Arguments& a) { functions.forward(a["out"], a["gate"], a["up"]); },
                    .results = {{.name = "out", .cotangent = "grad_out"}},
                    .gradients = {{.of = "gate", .in = "grad_gate"}, {.of = "up", .in = "grad_up"}}}},
      .flops = 12.0 * tokens * width,
      .bytes = 5.0 * tokens * width * size_of(dtype)};
  result.inputs[1].values = std::move(gate);
  for (Operand& output : result.outputs) {
    output.values = {};
    output.factor = 3;
  }
  if (in_place) {
    result.outputs[0].in_place_of = "gate";
    result.outputs[1].in_place_of = "up";
  }
  return result;
}

// Shapes: below and above a CPU vector, a group of eight and a warp's tile of 256, fewer and more rows than a CUDA
// block has warps.
inline std::vector<Operation> operations(const std::string& name, Functions f) {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  // The gate's whole range: where exp overflows and underflows, zeros of both signs, subnormals.
  const Generator wide = values({0.0, -0.0, 1e-40, -1e-40, 1e-6,  -1e-6, 0.5,  -0.5, 8,     -8,  20,
                                 -20, 80,   -80,   88.5,   -88.5, 1e4,   -1e4, 1e30, -1e30, 3e38});
  return {
      {.name = name + "_forward",
       .cases = {forward(f, "f1_f32", 3, 1, f32, normal()), forward(f, "f15_f32", 3, 15, f32, normal()),
                 forward(f, "f16_bf16", 3, 16, bf16, normal()), forward(f, "f17_bf16", 5, 17, bf16, normal(3)),
                 forward(f, "f17_f16", 5, 17, f16, normal(3)), forward(f, "f1032_f32", 2, 1032, f32, normal(2)),
                 forward(f, "f264_bf16", 9, 264, bf16, normal(2)), forward(f, "f1536_f32", 17, 1536, f32, normal(2)),
                 forward(f, "halves_f32", 4, 24, f32, normal(), 24),
                 forward(f, "strided_bf16", 4, 23, bf16, normal(), 5),
                 forward(f, "in_place_of_up_f32", 6, 40, f32, normal(), 0, "up"),
                 forward(f, "extremes_f32", 2, 42, f32, wide), forward(f, "extremes_bf16", 2, 42, bf16, wide)},
       .timed = {forward(f, "t512_f1536_f32", 512, 1536, f32, normal()),
                 forward(f, "t512_f1536_bf16", 512, 1536, bf16, normal()),
                 forward(f, "t4096_f14336_bf16", 4096, 14336, bf16, normal())},
       .cuda_body = true},
      {.name = name + "_backward",
       .cases = {backward(f, "f1_f32", 2, 1, f32, normal()), backward(f, "f15_bf16", 3, 15, bf16, normal()),
                 backward(f, "f15_f16", 3, 15, f16, normal()),
                 backward(f, "f17_f32_in_place", 5, 17, f32, normal(2), true),
                 backward(f, "f264_bf16_in_place", 9, 264, bf16, normal(2), true),
                 backward(f, "f1032_f32", 3, 1032, f32, normal(4)),
                 backward(f, "halves_bf16_in_place", 4, 24, bf16, normal(), true, 24),
                 backward(f, "strided_f32", 4, 23, f32, normal(), false, 5),
                 backward(f, "extremes_f32", 2, 42, f32, wide)},
       .timed = {backward(f, "t512_f1536_f32", 512, 1536, f32, normal()),
                 backward(f, "t512_f1536_bf16", 512, 1536, bf16, normal())},
       .timed_on_cards = {backward(f, "t4096_f14336_bf16", 4096, 14336, bf16, normal())},
       .cuda_body = true},
  };
}

}  // namespace gated_cases

inline std::vector<Operation> gated_operations() {
  std::vector<Operation> all = gated_cases::operations("swiglu", {kernels::swiglu_forward, kernels::swiglu_backward});
  for (Operation& operation : gated_cases::operations("geglu", {kernels::geglu_forward, kernels::geglu_backward}))
    all.push_back(std::move(operation));
  for (Operation& operation :
       gated_cases::operations("clamped_swiglu", {kernels::clamped_swiglu_forward, kernels::clamped_swiglu_backward}))
    all.push_back(std::move(operation));
  for (Operation& operation : gated_cases::operations("glu", {kernels::glu_forward, kernels::glu_backward}))
    all.push_back(std::move(operation));
  return all;
}

}  // namespace lathe::testing
