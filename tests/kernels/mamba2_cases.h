// The cases of mamba2 (tests/support/operation_cases.h): packed sequences, and steps over a pool of states.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>

#include "kernels/mamba2/mamba2.h"
#include "tests/kernels/recurrence_case_parts.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace mamba2_cases {

using kernels::Mamba2Heads;
using paged_attention_cases::Step;

struct Limits {
  float least = 0.0f, most = std::numeric_limits<float>::infinity();
};

inline kernels::Mamba2 inputs_of(const Arguments& a, const Mamba2Heads& heads, const Limits& limits = {}) {
  return {a["xbc"], a["dt"], a["A_log"], a["D"], a["dt_bias"], heads, limits.least, limits.most};
}

inline double flops_of(const Mamba2Heads& heads, int64_t tokens) {
  return static_cast<double>(5 * tokens * heads.out_columns() * heads.state_size);
}
inline double bytes_of(const Mamba2Heads& heads, int64_t tokens, DType dtype) {
  return static_cast<double>(tokens * (heads.xbc_columns() + heads.out_columns()) * size_of(dtype));
}

struct Rows {
  DType dtype, weights = DType::f32;
  int64_t padding = 0;
  Generator xbc = normal();
  Limits limits = {};
};

// Decays of some tokens and of hardly one, as exp(A_log) is from 1 to 16, and more, in models.
inline std::vector<Operand> inputs(const Mamba2Heads& heads, int64_t tokens, const Rows& rows) {
  const Shape weight{heads.heads};
  const auto shared = [&](const char* name, Generator values) -> Operand {
    return {.name = name, .shape = weight, .dtype = rows.weights, .values = std::move(values), .batch = Batch::shared};
  };
  return {
      {.name = "xbc",
       .shape = {tokens, heads.xbc_columns()},
       .dtype = rows.dtype,
       .values = rows.xbc,
       .padding = rows.padding},
      {.name = "dt", .shape = {tokens, heads.heads}, .dtype = rows.dtype, .values = normal(), .padding = rows.padding},
      shared("A_log", uniform(-4, 2)),
      shared("D", normal()),
      shared("dt_bias", normal())};
}

inline Case forward(std::string name, const Mamba2Heads& heads, const std::vector<double>& cu_seqlens,
                    const Rows& rows) {
  const auto tokens = static_cast<int64_t>(cu_seqlens.back());
  Case made{.name = std::move(name), .inputs = inputs(heads, tokens, rows)};
  made.inputs.push_back(sequence_bounds(cu_seqlens));
  made.outputs = {
      {.name = "out", .shape = {tokens, heads.out_columns()}, .dtype = rows.dtype, .padding = rows.padding}};
  made.run = [heads, limits = rows.limits](const Arguments& a) {
    kernels::mamba2_forward(a["out"], inputs_of(a, heads, limits), a["cu_seqlens"]);
  };
  made.reduction = heads.state_size;
  made.flops = flops_of(heads, tokens);
  made.bytes = bytes_of(heads, tokens, rows.dtype);
  return made;
}

inline Case backward(std::string name, const Mamba2Heads& heads, const std::vector<double>& cu_seqlens,
                     const Rows& rows) {
  Case made = forward(std::move(name), heads, cu_seqlens, rows);
  recurrence_cases::make_backward(made);
  made.run = [heads, limits = rows.limits](const Arguments& a) {
    kernels::mamba2_backward(a["grad_xbc"], a["grad_dt"], a["grad_A_log"], a["grad_D"], a["grad_dt_bias"],
                             a["grad_out"], inputs_of(a, heads, limits), a["cu_seqlens"]);
  };
  const auto tokens = static_cast<int64_t>(cu_seqlens.back());
  made.reduction = std::max({tokens, heads.state_size, heads.head_dim});
  made.flops = 3 * flops_of(heads, tokens);
  made.bytes = 3 * bytes_of(heads, tokens, rows.dtype);
  return made;
}

inline Case step(std::string name, const Mamba2Heads& heads, const Step& step, const Rows& rows) {
  const int64_t tokens = step.tokens();
  Case made{.name = std::move(name), .inputs = inputs(heads, tokens, rows)};
  recurrence_cases::add_step_operands(made, step);
  made.outputs = {
      {.name = "out", .shape = {tokens, heads.out_columns()}, .dtype = rows.dtype},
      recurrence_cases::states_of({recurrence_cases::slots_of(step), heads.heads, heads.state_size, heads.head_dim})};
  const auto batch_of = [step](const Arguments& a) { return recurrence_cases::batch_of(step, a); };
  made.run = [heads, batch_of](const Arguments& a) {
    kernels::mamba2_step(a["out"], a["states"], inputs_of(a, heads), batch_of(a));
  };
  made.start = [heads, batch_of](const Arguments& a) -> std::function<void()> {
    return [out = a["out"], states = a["states"], in = inputs_of(a, heads), batch = batch_of(a)] {
      kernels::mamba2_step(out, states, in, batch);
    };
  };
  made.reduction = heads.state_size;
  made.flops = flops_of(heads, tokens);
  made.bytes = bytes_of(heads, tokens, rows.dtype) +
               static_cast<double>(8 * step.count() * heads.out_columns() * heads.state_size);
  return made;
}

}  // namespace mamba2_cases

inline std::vector<Operation> mamba2_operations() {
  using namespace mamba2_cases;
  using paged_attention_cases::Sequence;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const std::vector<double> some{0, 1, 3, 3, 12}, chunks{0, 64, 67, 67, 197};
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {3, 20}, {1, 1}, {6, 6}, {2, 18}};
  // heads, groups, head_dim, state_size
  const Mamba2Heads small{1, 1, 8, 16}, grouped{6, 2, 32, 8}, granite{48, 1, 64, 128};
  return {{.name = "mamba2_forward",
           .cases = {forward("p8_n16_f32", small, some, {f32}), forward("p32_n8_bf16", grouped, some, {bf16, bf16}),
                     forward("p72_n40_f16_padded", {1, 1, 72, 40}, some, {f16, f32, 5}),
                     forward("p136_n128_f32", {1, 1, 136, 128}, some, {f32}),
                     forward("p24_n256_bf16", {1, 1, 24, 256}, some, {bf16}),
                     forward("limits_f32", small, some, {f32, f32, 0, normal(), {0.3f, 0.9f}}),
                     forward("extremes_f32", small, some, {f32, f32, 0, extremes(12, 12)})},
           .timed = {forward("t512_h48_p64_n128_bf16", granite, {0, 128, 512}, {bf16}),
                     forward("t512_h48_p64_n128_f32", granite, {0, 512}, {f32})},
           .cuda_body = true},
          {.name = "mamba2_backward",
           .cases = {backward("p8_n16_f32", small, chunks, {f32}), backward("p32_n8_bf16", grouped, some, {bf16, bf16}),
                     backward("p72_n40_f16_padded", {1, 1, 72, 40}, some, {f16, f32, 5}),
                     backward("p16_n136_f32", {10, 1, 16, 136}, {0, 66, 68}, {f32}),
                     backward("p256_n24_bf16", {1, 1, 256, 24}, some, {bf16}),
                     backward("limits_f32", {2, 2, 8, 16}, chunks, {f32, f32, 0, normal(), {0.3f, 0.9f}})},
           .timed = {backward("t512_h48_p64_n128_bf16", granite, {0, 128, 512}, {bf16})},
           .cuda_body = true},
          {.name = "mamba2_step",
           .cases = {step("p8_n16_f32", small, {mixed, 16}, {f32}), step("p32_n8_bf16", grouped, {mixed, 4}, {bf16}),
                     step("p40_n72_f16", {1, 1, 40, 72}, {mixed, 16}, {f16, f16})},
           .timed = {step("1_h48_p64_n128_bf16", granite, {{{1, 1024}}, 16}, {bf16}),
                     step("8_h48_p64_n128_bf16", granite, {std::vector<Sequence>(8, Sequence{1, 1024}), 16}, {bf16}),
                     step("512_h48_p64_n128_bf16", granite, {{{512, 512}}, 16}, {bf16})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
