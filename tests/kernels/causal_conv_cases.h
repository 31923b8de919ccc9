// The cases of causal_conv (tests/support/operation_cases.h): packed sequences, and steps whose sequences have their
// last rows in slots.
#pragma once

#include "kernels/causal_conv/causal_conv.h"
#include "tests/kernels/short_conv_cases.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace causal_conv_cases {

using paged_attention_cases::Step;
using short_conv_cases::add_weights;
using short_conv_cases::bias_of;
using short_conv_cases::Width;

inline Case causal_forward(std::string name, const Width& width, DType dtype, const std::vector<double>& cu_seqlens,
                           int64_t padding = 0, const Generator& x = normal()) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back()), columns = width.hidden;
  Case made{.name = std::move(name)};
  made.inputs = {{.name = "x", .shape = {tokens, columns}, .dtype = dtype, .values = x, .padding = padding}};
  add_weights(made, width, dtype);
  made.inputs.push_back(sequence_bounds(cu_seqlens));
  made.outputs = {{.name = "out", .shape = {tokens, columns}, .dtype = dtype, .padding = padding}};
  made.run = [](const Arguments& a) {
    kernels::causal_conv_forward(a["out"], a["x"], a["weight"], bias_of(a), a["cu_seqlens"]);
  };
  made.reduction = width.taps + 1;
  made.flops = static_cast<double>((2 * width.taps + 4) * tokens * columns);
  made.bytes = static_cast<double>(2 * tokens * columns * size_of(dtype));
  return made;
}

inline Case causal_backward(std::string name, const Width& width, DType dtype, const std::vector<double>& cu_seqlens,
                            int64_t padding = 0) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back()), columns = width.hidden;
  Case made = causal_forward(std::move(name), width, dtype, cu_seqlens, padding);
  short_conv_cases::make_backward(made, "x", width);
  made.run = [](const Arguments& a) {
    kernels::causal_conv_backward(a["grad_x"], a["grad_weight"], a.has("grad_bias") ? a["grad_bias"] : Tensor{},
                                  a["grad_out"], a["x"], a["weight"], bias_of(a), a["cu_seqlens"]);
  };
  made.flops = static_cast<double>((6 * width.taps + 10) * tokens * columns);
  made.bytes = static_cast<double>(3 * tokens * columns * size_of(dtype));
  return made;
}

inline kernels::PagedBatch batch_of(const Arguments& a) {
  return {a["cu_seqlens"], a["context_lens"], a["block_table"], {int64_t{1} << 20, 1 << 20, a["states"].device()}, {},
          a["state_slots"]};
}

// The sequences have every other slot, the last first.
inline Case causal_step(std::string name, const Width& width, DType dtype, const Step& of) {
  const int64_t tokens = of.tokens(), columns = width.hidden;
  Case made{.name = std::move(name)};
  made.inputs = {{.name = "x", .shape = {tokens, columns}, .dtype = dtype, .values = normal()}};
  add_weights(made, width, dtype);
  for (Operand& operand : of.operands()) made.inputs.push_back(std::move(operand));
  std::vector<double> slots;
  for (int64_t s = of.count(); s > 0; --s) slots.push_back(static_cast<double>(2 * s - 1));
  made.inputs.push_back({.name = "state_slots",
                         .shape = {of.count()},
                         .dtype = DType::i32,
                         .values = values(slots),
                         .batch = Batch::sequences,
                         .on_cpu = true});
  made.outputs = {{.name = "out", .shape = {tokens, columns}, .dtype = dtype},
                  {.name = "states",
                   .shape = {2 * of.count(), width.taps - 1, columns},
                   .dtype = dtype,
                   .values = normal(),
                   .batch = Batch::shared,
                   .accumulates = true}};  // other slots keep what they hold
  made.run = [](const Arguments& a) {
    kernels::causal_conv_step(a["out"], a["states"], a["x"], a["weight"], bias_of(a), batch_of(a));
  };
  made.start = [](const Arguments& a) -> std::function<void()> {
    return [out = a["out"], states = a["states"], x = a["x"], weight = a["weight"], bias = bias_of(a),
            batch = batch_of(a)] { kernels::causal_conv_step(out, states, x, weight, bias, batch); };
  };
  made.reduction = width.taps + 1;
  made.flops = static_cast<double>((2 * width.taps + 4) * tokens * columns);
  made.bytes = static_cast<double>(2 * (tokens + of.count() * (width.taps - 1)) * columns * size_of(dtype));
  return made;
}

}  // namespace causal_conv_cases

inline std::vector<Operation> causal_conv_operations() {
  using namespace causal_conv_cases;
  using paged_attention_cases::Sequence;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const std::vector<double> some{0, 1, 3, 3, 12};
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {3, 20}, {1, 1}, {6, 6}, {2, 3}, {9, 18}};
  const Width wide{8192, 4};
  const std::vector<Sequence> prompt{{512, 512}};
  return {
      {.name = "causal_conv_forward",
       .cases = {causal_forward("c17_f32", {17, 4}, f32, some), causal_forward("c64_bf16", {64, 4}, bf16, some),
                 causal_forward("c40_f16_bias", {40, 4, true}, f16, some),
                 causal_forward("c300_taps3_bf16_padded", {300, 3, true}, bf16, some, 5),
                 causal_forward("c8_taps1_f32", {8, 1}, f32, some), causal_forward("c24_taps8_f32", {24, 8}, f32, some),
                 causal_forward("c32_extremes_f32", {32, 4}, f32, some, 0, extremes(12, 12))},
       .timed = {causal_forward("t512_c8192_bf16", wide, bf16, {0, 128, 512}),
                 causal_forward("t512_c8192_f32", wide, f32, {0, 128, 512})},
       .cuda_body = true},
      {.name = "causal_conv_backward",
       .cases = {causal_backward("c17_f32", {17, 4}, f32, some),
                 causal_backward("c64_bf16", {64, 4}, bf16, {0, 20, 40}),
                 causal_backward("c40_f16_bias", {40, 4, true}, f16, some),
                 causal_backward("c300_taps3_bf16_padded", {300, 3, true}, bf16, some, 5),
                 causal_backward("c8_taps1_f32", {8, 1}, f32, some),
                 causal_backward("c24_taps8_f32", {24, 8}, f32, some)},
       .timed = {causal_backward("t512_c8192_bf16", wide, bf16, {0, 128, 512})},
       .cuda_body = true},
      {.name = "causal_conv_step",
       .cases = {causal_step("c17_f32", {17, 4}, f32, {mixed, 16}), causal_step("c64_bf16", {64, 4}, bf16, {mixed, 16}),
                 causal_step("c40_f16_bias", {40, 4, true}, f16, {mixed, 2}),
                 causal_step("c8_taps1_f32", {8, 1}, f32, {mixed, 4}),
                 causal_step("c300_taps8_bf16", {300, 8}, bf16, {mixed, 4})},
       .timed = {causal_step("1_c8192_bf16", wide, bf16, {{{1, 1024}}, 16}),
                 causal_step("8_c8192_bf16", wide, bf16, {std::vector<Sequence>(8, Sequence{1, 1024}), 16}),
                 causal_step("512_c8192_bf16", wide, bf16, {prompt, 16})},
       .cuda_body = true}};
}

}  // namespace lathe::testing
