// The cases of rms_norm: the worked example of a case list (tests/support/operation_cases.h).
#pragma once

#include "kernels/rms_norm/rms_norm.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace rms_norm_cases {

inline constexpr float eps = 1e-5f;

inline Case forward(std::string name, int64_t tokens, int64_t hidden, DType dtype, Generator x, int64_t padding = 0) {
  return {
      .name = std::move(name),
      .inputs =
          {{.name = "x", .shape = {tokens, hidden}, .dtype = dtype, .values = std::move(x), .padding = padding},
           {.name = "weight", .shape = {hidden}, .dtype = dtype, .values = uniform(0.5, 1.5), .batch = Batch::shared}},
      .outputs = {{.name = "out", .shape = {tokens, hidden}, .dtype = dtype, .padding = padding},
                  {.name = "rstd", .shape = {tokens}, .dtype = DType::f32}},
      .run = [](const Arguments& a) { kernels::rms_norm_forward(a["out"], a["rstd"], a["x"], a["weight"], eps); },
      .reduction = hidden,
      .flops = 4.0 * tokens * hidden,
      .bytes = 2.0 * tokens * hidden * size_of(dtype)};
}

inline Case in_place(Case test_case) {
  test_case.name += "_in_place";
  test_case.outputs[0].in_place_of = "x";
  return test_case;
}

inline Case residual(std::string name, int64_t tokens, int64_t hidden, DType dtype, bool sum_in_place = false) {
  return {
      .name = std::move(name),
      .inputs =
          {{.name = "x", .shape = {tokens, hidden}, .dtype = dtype, .values = normal()},
           {.name = "residual", .shape = {tokens, hidden}, .dtype = dtype, .values = normal(3.0)},
           {.name = "weight", .shape = {hidden}, .dtype = dtype, .values = uniform(0.5, 1.5), .batch = Batch::shared}},
      .outputs =
          {{.name = "out", .shape = {tokens, hidden}, .dtype = dtype},
           {.name = "sum", .shape = {tokens, hidden}, .dtype = dtype, .in_place_of = sum_in_place ? "residual" : ""},
           // Of the rounded sum, whose errors in plain arithmetic may cancel.
           {.name = "rstd", .shape = {tokens}, .dtype = DType::f32, .factor = 3}},
      .run =
          [](const Arguments& a) {
            kernels::rms_norm_residual_forward(a["out"], a["sum"], a["rstd"], a["x"], a["residual"], a["weight"], eps);
          },
      .reduction = hidden,
      .flops = 5.0 * tokens * hidden,
      .bytes = 4.0 * tokens * hidden * size_of(dtype)};
}

inline Case backward(std::string name, int64_t hidden, DType dtype, std::vector<double> cu_seqlens) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back());
  GradientCheck check{
      .forward = [](const Arguments& a) { kernels::rms_norm_forward(a["out"], Tensor{}, a["x"], a["weight"], eps); },
      .results = {{.name = "out", .cotangent = "grad_out"}},
      .gradients = {{.of = "x", .in = "grad_x"}, {.of = "weight", .in = "grad_weight"}}};
  return {
      .name = std::move(name),
      .inputs =
          {{.name = "grad_out", .shape = {tokens, hidden}, .dtype = dtype, .values = normal()},
           {.name = "x", .shape = {tokens, hidden}, .dtype = dtype, .values = normal(2.0)},
           {.name = "weight", .shape = {hidden}, .dtype = dtype, .values = uniform(0.5, 1.5), .batch = Batch::shared},
           {.name = "rstd", .shape = {tokens}, .dtype = DType::f32, .values = computed()},
           sequence_bounds(cu_seqlens)},
      .outputs = {{.name = "grad_x", .shape = {tokens, hidden}, .dtype = dtype, .factor = 3},
                  {.name = "grad_weight",
                   .shape = {hidden},
                   .values = normal(),
                   .batch = Batch::shared,
                   .accumulates = true,
                   .factor = 3}},
      .run =
          [](const Arguments& a) {
            kernels::rms_norm_backward(a["grad_x"], a["grad_weight"], a["grad_out"], Tensor{}, a["x"], a["weight"],
                                       a["rstd"], a["cu_seqlens"]);
          },
      .prepare =
          [](const Arguments& a) {
            const Tensor out = Tensor::empty(a["x"].shape(), DType::f64);
            kernels::rms_norm_forward(out, a["rstd"], a["x"], a["weight"], eps);
          },
      .gradient = {check},
      .reduction = std::max(tokens, hidden),
      .flops = 10.0 * tokens * hidden,
      .bytes = 3.0 * tokens * hidden * size_of(dtype)};
}

// The same with rows that begin further apart.
inline Case padded(Case test_case, int64_t padding) {
  test_case.name += "_padded";
  for (Operand* matrix : {&test_case.inputs[0], &test_case.inputs[1], &test_case.outputs[0]}) matrix->padding = padding;
  return test_case;
}

// The same with what arrives by the residual path, which the gradient is added to in place.
inline Case with_grad_sum(Case test_case) {
  test_case.name += "_grad_sum_in_place";
  Operand grad_sum = test_case.inputs[0];
  grad_sum.name = "grad_sum";
  test_case.inputs.push_back(grad_sum);
  test_case.outputs[0].in_place_of = "grad_sum";
  test_case.run = [](const Arguments& a) {
    kernels::rms_norm_backward(a["grad_x"], a["grad_weight"], a["grad_out"], a["grad_sum"], a["x"], a["weight"],
                               a["rstd"], a["cu_seqlens"]);
  };
  test_case.gradient[0].forward = [](const Arguments& a) {
    kernels::rms_norm_residual_forward(a["out"], a["sum"], Tensor{}, a["x"], a["zero"], a["weight"], eps);
  };
  test_case.gradient[0].results.push_back({.name = "sum", .cotangent = "grad_sum"});
  test_case.inputs.push_back(grad_sum);
  test_case.inputs.back().name = "zero";
  test_case.inputs.back().values = constant(0.0);
  return test_case;
}

}  // namespace rms_norm_cases

inline std::vector<Operation> rms_norm_operations() {
  using namespace rms_norm_cases;
  const Generator huge_and_tiny = extremes(15, 15);  // squares and their sum stay finite in f32
  return {
      {.name = "rms_norm_forward",
       .cases =
           {forward("h576_f32", 5, 576, DType::f32, normal()), forward("h576_bf16", 5, 576, DType::bf16, normal()),
            in_place(forward("h61_f32", 4, 61, DType::f32, normal())),
            forward("h61_bf16_padded", 4, 61, DType::bf16, normal(), 7), forward("h1_f32", 3, 1, DType::f32, normal()),
            forward("h15_bf16", 3, 15, DType::bf16, normal()), forward("h33_f16", 5, 33, DType::f16, normal()),
            forward("h16_f32", 3, 16, DType::f32, normal()), forward("h17_f32", 3, 17, DType::f32, normal()),
            forward("h33_bf16", 40, 33, DType::bf16, normal()),
            forward("extremes_f32", 7, 48, DType::f32, huge_and_tiny),
            forward("extremes_bf16", 7, 48, DType::bf16, huge_and_tiny),
            forward("zeros_f32", 2, 16, DType::f32, constant(0.0)),
            // 1024 columns are the most of a short row on devices; then several warps have one, some of them nothing.
            forward("h1024_bf16", 5, 1024, DType::bf16, normal()), forward("h1025_f32", 2, 1025, DType::f32, normal()),
            in_place(forward("h4104_bf16", 3, 4104, DType::bf16, normal()))},
       .timed = {forward("t512_h576_f32", 512, 576, DType::f32, normal()),
                 forward("t512_h576_bf16", 512, 576, DType::bf16, normal()),
                 forward("t2048_h4096_bf16", 2048, 4096, DType::bf16, normal()),
                 forward("t1_h4096_bf16", 1, 4096, DType::bf16, normal())},
       .cuda_body = true},
      {.name = "rms_norm_residual_forward",
       .cases = {residual("h576_f32", 5, 576, DType::f32), residual("h61_bf16", 4, 61, DType::bf16),
                 residual("h61_f16", 4, 61, DType::f16),
                 residual("h1300_bf16_sum_in_place", 3, 1300, DType::bf16, true),
                 residual("h64_bf16_sum_in_place", 3, 64, DType::bf16, true)},
       .timed = {residual("t512_h576_f32", 512, 576, DType::f32),
                 residual("t2048_h4096_bf16", 2048, 4096, DType::bf16)},
       .cuda_body = true},
      {.name = "rms_norm_backward",
       .cases = {backward("h64_f32", 64, DType::f32, {0, 3, 4, 9}), backward("h1_f32", 1, DType::f32, {0, 2, 4}),
                 backward("h17_f32", 17, DType::f32, {0, 2, 30}), backward("h576_bf16", 576, DType::bf16, {0, 20, 40}),
                 backward("h61_bf16", 61, DType::bf16, {0, 1, 6}), backward("h61_f16", 61, DType::f16, {0, 1, 6}),
                 backward("h9_bf16", 9, DType::bf16, {0, 150, 410}),
                 // On devices 512 (f32: 256) tokens are under way: several turns, and a piece that ends inside.
                 backward("h40_bf16", 40, DType::bf16, {0, 1, 1200}), backward("h36_f32", 36, DType::f32, {0, 3, 700}),
                 padded(backward("h61_bf16", 61, DType::bf16, {0, 30, 160}), 3),
                 with_grad_sum(backward("h48_f32", 48, DType::f32, {0, 2, 5})),
                 backward("h2052_bf16", 2052, DType::bf16, {0, 3}),
                 with_grad_sum(backward("h1025_f32", 1025, DType::f32, {0, 1, 2}))},
       .timed = {backward("t512_h576_f32", 576, DType::f32, {0, 128, 512}),
                 backward("t512_h576_bf16", 576, DType::bf16, {0, 128, 512})},
       .timed_on_cards = {backward("t4096_h4096_bf16", 4096, DType::bf16, {0, 1024, 4096})},
       .cuda_body = true},
  };
}

}  // namespace lathe::testing
