// The cases of rope_append (tests/support/operation_cases.h): a batch's new tokens, in a pool of pages as
// paged_attention's cases have it.
#pragma once

#include "kernels/copy/copy.h"
#include "kernels/rope_append/rope_append.h"
#include "tests/kernels/paged_attention_cases.h"

namespace lathe::testing {

namespace rope_append_cases {

using paged_attention_cases::Step;

inline constexpr int64_t table_rows = 40;

struct Heads {
  int64_t q, kv, dim;
  bool normed = false;
};

inline kernels::NewHeads heads_of(const Arguments& a, const Tensor& k) {
  const auto given = [&](const char* name) { return a.has(name) ? a[name] : Tensor{}; };
  return {.q = a["q"],
          .k = k,
          .v = a["v"],
          .q_norm = given("q_norm"),
          .k_norm = given("k_norm"),
          .eps = 1e-5f,
          .positions = a["positions"],
          .cos_table = a["cos"],
          .sin_table = a["sin"]};
}

inline Case new_heads(std::string name, const Heads& heads, DType dtype, DType page_dtype, const Step& step) {
  const int64_t tokens = step.tokens();
  const Shape q{tokens, heads.q, heads.dim}, kv{tokens, heads.kv, heads.dim}, table{table_rows, heads.dim / 2};
  Case result{.name = std::move(name)};
  result.inputs = {{.name = "q_before", .shape = q, .dtype = dtype, .values = normal()},
                   {.name = "k", .shape = kv, .dtype = dtype, .values = normal()},
                   {.name = "v", .shape = kv, .dtype = dtype, .values = normal()},
                   {.name = "positions",
                    .shape = {tokens},
                    .dtype = DType::i32,
                    .values = integers(0, table_rows - 1),
                    .on_cpu = true},
                   {.name = "cos", .shape = table, .values = uniform(-1, 1), .batch = Batch::shared},
                   {.name = "sin", .shape = table, .values = uniform(-1, 1), .batch = Batch::shared}};
  if (heads.normed)
    for (const char* norm : {"q_norm", "k_norm"})
      result.inputs.push_back(
          {.name = norm, .shape = {heads.dim}, .dtype = dtype, .values = normal(), .batch = Batch::shared});
  for (Operand& operand : step.operands()) result.inputs.push_back(std::move(operand));
  result.outputs = paged_attention_cases::page_operands(step, heads.kv, heads.dim, page_dtype);
  for (Operand& operand : result.outputs) operand.accumulates = true;  // slots of other positions keep what they hold
  result.outputs.push_back({.name = "q", .shape = q, .dtype = dtype, .in_place_of = "q_before"});
  result.run = [](const Arguments& a) {
    const Tensor k = Tensor::empty(a["k"].shape(), a["k"].dtype(), a["k"].device());
    kernels::copy(k, a["k"]);  // which may change
    kernels::rope_append(paged_attention_cases::pages_of(a), heads_of(a, k), paged_attention_cases::batch_of(a));
  };
  result.start = [](const Arguments& a) -> std::function<void()> {
    return [pages = paged_attention_cases::pages_of(a), made = heads_of(a, a["k"]),
            batch = paged_attention_cases::batch_of(a)] { kernels::rope_append(pages, made, batch); };
  };
  result.reduction = heads.normed ? heads.dim : 2;
  const int64_t row_bytes = heads.dim * size_of(page_dtype) + (page_dtype == DType::i8 ? 4 : 0);
  result.bytes = static_cast<double>(
      tokens * (2 * (heads.q + heads.kv) * heads.dim * size_of(dtype) + 2 * heads.kv * row_bytes + 4 * heads.dim));
  return result;
}

}  // namespace rope_append_cases

inline std::vector<Operation> rope_append_operations() {
  using namespace rope_append_cases;
  using paged_attention_cases::Sequence;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16, i8 = DType::i8;
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {3, 20}, {1, 1}}, alone{{1, 1024}}, eight(8, Sequence{1, 1024});
  const Heads llama1b{32, 8, 64}, llama8b{32, 8, 128}, qwen3_8b{32, 8, 128, true};
  return {{.name = "rope_append",
           .cases = {new_heads("d32_f32", {3, 1, 32}, f32, f32, {mixed, 16}),
                     new_heads("d24_normed_f32", {2, 1, 24, true}, f32, f32, {mixed, 16}),
                     new_heads("d64_normed_bf16", {4, 2, 64, true}, bf16, bf16, {mixed, 16}),
                     new_heads("d128_bf16_in_f16", {2, 1, 128}, bf16, f16, {mixed, 16})},
           .timed = {new_heads("llama1b_1_bf16", llama1b, bf16, bf16, {alone, 64}),
                     new_heads("llama8b_8_bf16", llama8b, bf16, bf16, {eight, 64}),
                     new_heads("qwen3_8b_8_bf16", qwen3_8b, bf16, bf16, {eight, 64}),
                     new_heads("llama8b_512_bf16", llama8b, bf16, bf16, {{{512, 512}}, 16}),
                     new_heads("llama8b_512_i8", llama8b, bf16, i8, {{{512, 512}}, 16})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
