// The cases of short_conv (tests/support/operation_cases.h): packed sequences, and steps over a pool of pages as
// paged_attention's cases have them.
#pragma once

#include "kernels/short_conv/short_conv.h"
#include "tests/kernels/paged_attention_cases.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace short_conv_cases {

using paged_attention_cases::Step;

struct Width {
  int64_t hidden, taps;
  bool biased = false;
};

inline Tensor bias_of(const Arguments& a) { return a.has("bias") ? a["bias"] : Tensor{}; }

inline void add_weights(Case& made, const Width& width, DType dtype) {
  made.inputs.push_back({.name = "weight",
                         .shape = {width.hidden, width.taps},
                         .dtype = dtype,
                         .values = normal(),
                         .batch = Batch::shared});
  if (width.biased)
    made.inputs.push_back(
        {.name = "bias", .shape = {width.hidden}, .dtype = dtype, .values = normal(), .batch = Batch::shared});
}

inline Case forward(std::string name, const Width& width, DType dtype, const std::vector<double>& cu_seqlens,
                    int64_t padding = 0, const Generator& bcx = normal()) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back()), hidden = width.hidden;
  Case made{.name = std::move(name)};
  made.inputs = {{.name = "bcx", .shape = {tokens, 3 * hidden}, .dtype = dtype, .values = bcx, .padding = padding}};
  add_weights(made, width, dtype);
  made.inputs.push_back(sequence_bounds(cu_seqlens));
  made.outputs = {{.name = "out", .shape = {tokens, hidden}, .dtype = dtype, .padding = padding}};
  made.run = [](const Arguments& a) {
    kernels::short_conv_forward(a["out"], a["bcx"], a["weight"], bias_of(a), a["cu_seqlens"]);
  };
  made.reduction = width.taps + 1;
  made.flops = static_cast<double>((2 * width.taps + 2) * tokens * hidden);
  made.bytes = static_cast<double>(4 * tokens * hidden * size_of(dtype));
  return made;
}

// Of a forward's case its backward's, but for what runs: the gradient of `rows`, and of the weights, which are summed
// over tokens.
inline void make_backward(Case& made, const char* rows, const Width& width) {
  const Operand out = made.outputs[0], in = made.inputs[0];
  const std::string gradient = std::string("grad_") + rows;
  made.inputs.insert(
      made.inputs.begin(),
      {.name = "grad_out", .shape = out.shape, .dtype = out.dtype, .values = normal(), .padding = out.padding});
  made.outputs = {{.name = gradient, .shape = in.shape, .dtype = in.dtype, .padding = in.padding, .factor = 3}};
  const auto sum_over_tokens = [&](const char* of, const Shape& shape) {
    made.outputs.push_back(
        {.name = of, .shape = shape, .values = normal(), .batch = Batch::shared, .accumulates = true, .factor = 3});
  };
  sum_over_tokens("grad_weight", {width.hidden, width.taps});
  if (width.biased) sum_over_tokens("grad_bias", {width.hidden});
  GradientCheck check{.forward = made.run,
                      .results = {{.name = "out", .cotangent = "grad_out"}},
                      .gradients = {{.of = rows, .in = gradient}, {.of = "weight", .in = "grad_weight"}}};
  if (width.biased) check.gradients.push_back({.of = "bias", .in = "grad_bias"});
  made.gradient = {check};
  made.reduction = std::max(out.shape[0], width.taps + 1);
}

inline Case backward(std::string name, const Width& width, DType dtype, const std::vector<double>& cu_seqlens,
                     int64_t padding = 0) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back()), hidden = width.hidden;
  Case made = forward(std::move(name), width, dtype, cu_seqlens, padding);
  make_backward(made, "bcx", width);
  made.run = [](const Arguments& a) {
    kernels::short_conv_backward(a["grad_bcx"], a["grad_weight"], a.has("grad_bias") ? a["grad_bias"] : Tensor{},
                                 a["grad_out"], a["bcx"], a["weight"], bias_of(a), a["cu_seqlens"]);
  };
  made.flops = static_cast<double>((6 * width.taps + 5) * tokens * hidden);
  made.bytes = static_cast<double>(7 * tokens * hidden * size_of(dtype));
  return made;
}

inline kernels::PagedBatch batch_of(const Arguments& a) {
  const Tensor& pages = a["pages"];
  return {a["cu_seqlens"], a["context_lens"], a["block_table"], {pages.dim(0), pages.dim(1), pages.device()}};
}

inline Case paged(std::string name, const Width& width, DType dtype, const Step& step) {
  const int64_t tokens = step.tokens(), hidden = width.hidden;
  Case made{.name = std::move(name)};
  made.inputs = {{.name = "bcx", .shape = {tokens, 3 * hidden}, .dtype = dtype, .values = normal()}};
  add_weights(made, width, dtype);
  for (Operand& operand : step.operands()) made.inputs.push_back(std::move(operand));
  made.outputs = {{.name = "out", .shape = {tokens, hidden}, .dtype = dtype},
                  {.name = "pages",
                   .shape = {step.pages, step.page_size, hidden},
                   .dtype = dtype,
                   .values = normal(),
                   .batch = Batch::shared,
                   .accumulates = true}};  // slots of other positions keep what they hold
  made.run = [](const Arguments& a) {
    kernels::short_conv_paged(a["out"], a["pages"], a["bcx"], a["weight"], bias_of(a), batch_of(a));
  };
  made.start = [](const Arguments& a) -> std::function<void()> {
    return [out = a["out"], pages = a["pages"], bcx = a["bcx"], weight = a["weight"], bias = bias_of(a),
            batch = batch_of(a)] { kernels::short_conv_paged(out, pages, bcx, weight, bias, batch); };
  };
  made.reduction = width.taps + 1;
  made.flops = static_cast<double>((2 * width.taps + 2) * tokens * hidden);
  made.bytes = static_cast<double>(5 * tokens * hidden * size_of(dtype));
  return made;
}

}  // namespace short_conv_cases

inline std::vector<Operation> short_conv_operations() {
  using namespace short_conv_cases;
  using paged_attention_cases::Sequence;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const std::vector<double> some{0, 1, 3, 3, 12};
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {3, 20}, {1, 1}, {6, 6}, {2, 18}};
  const Width lfm2{2048, 3};
  return {{.name = "short_conv_forward",
           .cases = {forward("h17_f32", {17, 3}, f32, some), forward("h64_bf16", {64, 3}, bf16, some),
                     forward("h40_f16_bias", {40, 3, true}, f16, some),
                     forward("h300_taps4_bf16_padded", {300, 4, true}, bf16, some, 5),
                     forward("h8_taps1_f32", {8, 1}, f32, some), forward("h24_taps8_f32", {24, 8}, f32, some),
                     forward("h32_extremes_f32", {32, 3}, f32, some, 0, extremes(12, 12))},
           .timed = {forward("t512_h2048_bf16", lfm2, bf16, {0, 128, 512}),
                     forward("t512_h2048_f32", lfm2, f32, {0, 128, 512})},
           .cuda_body = true},
          {.name = "short_conv_backward",
           .cases = {backward("h17_f32", {17, 3}, f32, some), backward("h64_bf16", {64, 3}, bf16, {0, 20, 40}),
                     backward("h40_f16_bias", {40, 3, true}, f16, some),
                     backward("h33_taps4_bf16_padded", {33, 4, true}, bf16, some, 5),
                     backward("h8_taps1_f32", {8, 1}, f32, some), backward("h24_taps8_f32", {24, 8}, f32, some)},
           .timed = {backward("t512_h2048_bf16", lfm2, bf16, {0, 128, 512})},
           .cuda_body = true},
          {.name = "short_conv_paged",
           .cases = {paged("h17_f32", {17, 3}, f32, {mixed, 16}), paged("h64_bf16", {64, 3}, bf16, {mixed, 16}),
                     paged("h40_f16_bias", {40, 3, true}, f16, {mixed, 2}),
                     paged("h24_taps8_bf16", {24, 8}, bf16, {mixed, 4})},
           .timed = {paged("1_h2048_bf16", lfm2, bf16, {{{1, 1024}}, 16}),
                     paged("8_h2048_bf16", lfm2, bf16, {std::vector<Sequence>(8, Sequence{1, 1024}), 16}),
                     paged("512_h2048_bf16", lfm2, bf16, {{{512, 512}}, 16})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
