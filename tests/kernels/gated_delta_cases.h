// The cases of gated_delta (tests/support/operation_cases.h): packed sequences, and steps over a pool of states.
#pragma once

#include <algorithm>
#include <functional>

#include "kernels/gated_delta/gated_delta.h"
#include "tests/kernels/recurrence_case_parts.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace gated_delta_cases {

using kernels::GatedDeltaHeads;
using paged_attention_cases::Step;

inline kernels::GatedDelta inputs_of(const Arguments& a, const GatedDeltaHeads& heads) {
  return {a["qkv"], a["a"], a["b"], a["A_log"], a["dt_bias"], heads};
}

inline double flops_of(const GatedDeltaHeads& heads, int64_t tokens) {
  return static_cast<double>(7 * tokens * heads.value_heads * heads.key_dim * heads.value_dim);
}
inline double bytes_of(const GatedDeltaHeads& heads, int64_t tokens, DType dtype) {
  return static_cast<double>(tokens * (heads.qkv_columns() + heads.out_columns()) * size_of(dtype));
}

struct Rows {
  DType dtype, weights = DType::f32;
  int64_t padding = 0;
  Generator qkv = normal();
};

// Decays of some tokens and of hardly one, as exp(A_log) is from 0 to 16 in models.
inline std::vector<Operand> inputs(const GatedDeltaHeads& heads, int64_t tokens, const Rows& rows) {
  const Shape each{tokens, heads.value_heads}, weight{heads.value_heads};
  return {{.name = "qkv",
           .shape = {tokens, heads.qkv_columns()},
           .dtype = rows.dtype,
           .values = rows.qkv,
           .padding = rows.padding},
          {.name = "a", .shape = each, .dtype = rows.dtype, .values = normal(), .padding = rows.padding},
          {.name = "b", .shape = each, .dtype = rows.dtype, .values = normal(), .padding = rows.padding},
          {.name = "A_log", .shape = weight, .dtype = rows.weights, .values = uniform(-4, 2), .batch = Batch::shared},
          {.name = "dt_bias", .shape = weight, .dtype = rows.weights, .values = normal(), .batch = Batch::shared}};
}

inline Case forward(std::string name, const GatedDeltaHeads& heads, const std::vector<double>& cu_seqlens,
                    const Rows& rows) {
  const auto tokens = static_cast<int64_t>(cu_seqlens.back());
  Case made{.name = std::move(name), .inputs = inputs(heads, tokens, rows)};
  made.inputs.push_back(sequence_bounds(cu_seqlens));
  made.outputs = {
      {.name = "out", .shape = {tokens, heads.out_columns()}, .dtype = rows.dtype, .padding = rows.padding}};
  made.run = [heads](const Arguments& a) {
    kernels::gated_delta_forward(a["out"], inputs_of(a, heads), a["cu_seqlens"]);
  };
  made.reduction = heads.key_dim;
  made.flops = flops_of(heads, tokens);
  made.bytes = bytes_of(heads, tokens, rows.dtype);
  return made;
}

inline Case backward(std::string name, const GatedDeltaHeads& heads, const std::vector<double>& cu_seqlens,
                     const Rows& rows) {
  Case made = forward(std::move(name), heads, cu_seqlens, rows);
  recurrence_cases::make_backward(made);
  made.run = [heads](const Arguments& a) {
    kernels::gated_delta_backward(a["grad_qkv"], a["grad_a"], a["grad_b"], a["grad_A_log"], a["grad_dt_bias"],
                                  a["grad_out"], inputs_of(a, heads), a["cu_seqlens"]);
  };
  const auto tokens = static_cast<int64_t>(cu_seqlens.back());
  made.reduction = std::max({tokens, heads.key_dim, heads.value_dim});
  made.flops = 4 * flops_of(heads, tokens);
  made.bytes = 3 * bytes_of(heads, tokens, rows.dtype);
  return made;
}

inline Case step(std::string name, const GatedDeltaHeads& heads, const Step& step, const Rows& rows) {
  const int64_t tokens = step.tokens();
  Case made{.name = std::move(name), .inputs = inputs(heads, tokens, rows)};
  recurrence_cases::add_step_operands(made, step);
  made.outputs = {{.name = "out", .shape = {tokens, heads.out_columns()}, .dtype = rows.dtype},
                  recurrence_cases::states_of(
                      {recurrence_cases::slots_of(step), heads.value_heads, heads.key_dim, heads.value_dim})};
  const auto batch_of = [step](const Arguments& a) { return recurrence_cases::batch_of(step, a); };
  made.run = [heads, batch_of](const Arguments& a) {
    kernels::gated_delta_step(a["out"], a["states"], inputs_of(a, heads), batch_of(a));
  };
  made.start = [heads, batch_of](const Arguments& a) -> std::function<void()> {
    return [out = a["out"], states = a["states"], in = inputs_of(a, heads), batch = batch_of(a)] {
      kernels::gated_delta_step(out, states, in, batch);
    };
  };
  made.reduction = heads.key_dim;
  made.flops = flops_of(heads, tokens);
  made.bytes = bytes_of(heads, tokens, rows.dtype) +
               static_cast<double>(8 * step.count() * heads.value_heads * heads.key_dim * heads.value_dim);
  return made;
}

}  // namespace gated_delta_cases

inline std::vector<Operation> gated_delta_operations() {
  using namespace gated_delta_cases;
  using paged_attention_cases::Sequence;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const std::vector<double> some{0, 1, 3, 3, 12}, chunks{0, 64, 67, 67, 197};
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {3, 20}, {1, 1}, {6, 6}, {2, 18}};
  const GatedDeltaHeads small{1, 2, 16, 8}, grouped{2, 6, 8, 32}, qwen{16, 16, 128, 128};
  return {{.name = "gated_delta_forward",
           .cases = {forward("k16_v8_f32", small, some, {f32}), forward("k8_v32_bf16", grouped, some, {bf16, bf16}),
                     forward("k40_v72_f16_padded", {1, 1, 40, 72}, some, {f16, f32, 5}),
                     forward("k128_v136_f32", {1, 1, 128, 136}, some, {f32}),
                     forward("k256_v24_bf16", {1, 1, 256, 24}, some, {bf16}),
                     forward("extremes_f32", small, some, {f32, f32, 0, extremes(12, 12)})},
           .timed = {forward("t512_h16_d128_bf16", qwen, {0, 128, 512}, {bf16}),
                     forward("t512_h16_d128_f32", qwen, {0, 512}, {f32})},
           .cuda_body = true},
          {.name = "gated_delta_backward",
           .cases = {backward("k16_v8_f32", {1, 1, 16, 8}, chunks, {f32}),
                     backward("k8_v32_bf16", grouped, some, {bf16, bf16}),
                     backward("k40_v72_f16_padded", {1, 1, 40, 72}, some, {f16, f32, 5}),
                     backward("k136_v16_f32", {1, 2, 136, 16}, {0, 66, 68}, {f32}),
                     backward("k24_v256_bf16", {1, 1, 24, 256}, some, {bf16})},
           .timed = {backward("t512_h16_d128_bf16", qwen, {0, 128, 512}, {bf16})},
           .cuda_body = true},
          {.name = "gated_delta_step",
           .cases = {step("k16_v8_f32", small, {mixed, 16}, {f32}), step("k8_v32_bf16", grouped, {mixed, 4}, {bf16}),
                     step("k72_v40_f16", {1, 1, 72, 40}, {mixed, 16}, {f16, f16})},
           .timed = {step("1_h16_d128_bf16", qwen, {{{1, 1024}}, 16}, {bf16}),
                     step("8_h16_d128_bf16", qwen, {std::vector<Sequence>(8, Sequence{1, 1024}), 16}, {bf16}),
                     step("512_h16_d128_bf16", qwen, {{{512, 512}}, 16}, {bf16})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
