// The cases of paged_attention and kv_append (tests/support/operation_cases.h).
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/paged_attention/paged_attention.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace paged_attention_cases {

struct Model {
  int64_t heads, kv_heads, head_dim;
  kernels::AttentionParams params = {};
};

struct Sequence {
  int64_t tokens, context;  // new tokens, keys including them
};

// A step's sequences, and pages for them among at least `pool`.
struct Step {
  std::vector<Sequence> sequences;
  int64_t page_size;
  std::vector<double> bounds{0}, contexts;
  int64_t max_pages = 1, pages = 1, longest = 1;

  Step(std::vector<Sequence> all, int64_t page_size, int64_t pool = 0)
      : sequences(std::move(all)), page_size(page_size) {
    for (const Sequence& s : sequences) {
      bounds.push_back(bounds.back() + static_cast<double>(s.tokens));
      contexts.push_back(static_cast<double>(s.context));
      const int64_t own = (s.context + page_size - 1) / page_size;
      pages += own;
      max_pages = std::max(max_pages, own + 1);
      longest = std::max(longest, s.context);
    }
    pages = std::max(pages, pool);
    while (pages % 7 == 0) ++pages;  // so that multiples of 7 reach every page
  }
  int64_t count() const { return static_cast<int64_t>(sequences.size()); }
  int64_t tokens() const { return static_cast<int64_t>(bounds.back()); }

  // Pages are dealt to the sequences in a stride that leaves none next to its predecessor.
  std::vector<double> block_table() const {
    std::vector<double> table;
    int64_t page = 0;
    for (const Sequence& s : sequences) {
      for (int64_t i = 0; i < max_pages; ++i) {
        const bool used = i * page_size < s.context;
        table.push_back(used ? static_cast<double>(page * 7 % pages) : -1.0);  // entries past the length are not read
        page += used;
      }
    }
    return table;
  }

  std::vector<Operand> operands() const {
    return {{.name = "block_table",
             .shape = {count(), max_pages},
             .dtype = DType::i32,
             .values = values(block_table()),
             .batch = Batch::sequences,
             .on_cpu = true},
            sequence_bounds(bounds),
            {.name = "context_lens",
             .shape = {count()},
             .dtype = DType::i32,
             .values = values(contexts),
             .batch = Batch::sequences,
             .on_cpu = true}};
  }
};

inline kernels::KvPages pages_of(const Arguments& a) {
  kernels::KvPages pages{a["k_pages"], a["v_pages"], {}, {}};
  if (pages.k.dtype() == DType::i8) pages.k_scales = a["k_scales"], pages.v_scales = a["v_scales"];
  return pages;
}

inline kernels::PagedBatch batch_of(const Arguments& a) {
  const Tensor& k = a["k_pages"];
  return {a["cu_seqlens"], a["context_lens"], a["block_table"], {k.dim(0), k.dim(2), k.device()}};
}

// Both layers of pages and their scales; what they hold before.
inline std::vector<Operand> page_operands(const Step& step, int64_t kv_heads, int64_t head_dim, DType dtype) {
  const Shape elements{step.pages, kv_heads, step.page_size, head_dim}, rows{step.pages, kv_heads, step.page_size};
  std::vector<Operand> operands;
  for (const char* name : {"k_pages", "v_pages"})
    operands.push_back({.name = name,
                        .shape = elements,
                        .dtype = dtype,
                        .values = dtype == DType::i8 ? integers(-127, 127) : normal(),
                        .batch = Batch::shared});
  if (dtype == DType::i8)
    for (const char* name : {"k_scales", "v_scales"})
      operands.push_back({.name = name, .shape = rows, .values = uniform(0.002, 0.02), .batch = Batch::shared});
  return operands;
}

inline Case attend(std::string name, Model model, DType dtype, DType page_dtype, const Step& step,
                   int64_t padding = 0) {
  model.params.scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim));
  double pairs = 0, keys = 0;
  for (const Sequence& s : step.sequences) {
    pairs += static_cast<double>(s.tokens * s.context);
    keys += static_cast<double>(s.context);
  }
  const Shape queries{step.tokens(), model.heads, model.head_dim};
  Case result{.name = std::move(name)};
  result.inputs = page_operands(step, model.kv_heads, model.head_dim, page_dtype);
  result.inputs.insert(result.inputs.begin(),
                       {.name = "q", .shape = queries, .dtype = dtype, .values = normal(), .padding = padding});
  for (Operand& operand : step.operands()) result.inputs.push_back(std::move(operand));
  result.outputs = {{.name = "out", .shape = queries, .dtype = dtype, .padding = padding},
                    {.name = "lse", .shape = {model.heads, step.tokens()}, .batch_dimension = 1}};
  result.run = [params = model.params](const Arguments& a) {
    kernels::paged_attention(a["out"], a["q"], pages_of(a), batch_of(a), params, a["lse"]);
  };
  result.start = [params = model.params](const Arguments& a) -> std::function<void()> {
    return [out = a["out"], q = a["q"], pages = pages_of(a), batch = batch_of(a), params] {
      kernels::paged_attention(out, q, pages, batch, params);
    };
  };
  result.reduction = std::max(step.longest, model.head_dim);
  result.flops = 4 * pairs * static_cast<double>(model.heads * model.head_dim);
  const int64_t row_bytes = model.head_dim * size_of(page_dtype) + (page_dtype == DType::i8 ? 4 : 0);
  result.bytes = 2.0 * static_cast<double>(model.kv_heads * row_bytes) * keys;
  return result;
}

inline Case append(std::string name, int64_t kv_heads, int64_t head_dim, DType dtype, DType page_dtype,
                   const Step& step, int64_t padding = 0, const Generator& generator = normal()) {
  const Shape rows{step.tokens(), kv_heads, head_dim};
  Case result{.name = std::move(name)};
  for (const char* input : {"k", "v"})
    result.inputs.push_back({.name = input, .shape = rows, .dtype = dtype, .values = generator, .padding = padding});
  for (Operand& operand : step.operands()) result.inputs.push_back(std::move(operand));
  result.outputs = page_operands(step, kv_heads, head_dim, page_dtype);
  for (Operand& operand : result.outputs) operand.accumulates = true;  // slots of other positions keep what they hold
  result.run = [](const Arguments& a) { kernels::kv_append(pages_of(a), a["k"], a["v"], batch_of(a)); };
  result.start = [](const Arguments& a) -> std::function<void()> {
    return
        [k = a["k"], v = a["v"], pages = pages_of(a), batch = batch_of(a)] { kernels::kv_append(pages, k, v, batch); };
  };
  result.bytes =
      2.0 * static_cast<double>(step.tokens() * kv_heads * head_dim * (size_of(dtype) + size_of(page_dtype)));
  return result;
}

}  // namespace paged_attention_cases

inline std::vector<Operation> paged_attention_operations() {
  using namespace paged_attention_cases;
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16, i8 = DType::i8;
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {66, 66}, {3, 130}, {1, 1}};
  const Model smollm2{9, 3, 64}, llama1b{32, 8, 64}, llama8b{32, 8, 128},
      both{4, 2, 24, {.window = 40, .softcap = 3.0f}};
  const std::vector<Sequence> alone{{1, 1024}}, eight(8, Sequence{1, 1024}), long_eight(8, Sequence{1, 8192});
  return {
      {.name = "paged_attention",
       .cases = {attend("smollm2_f32", smollm2, f32, f32, {mixed, 16}),
                 attend("smollm2_bf16", smollm2, bf16, bf16, {mixed, 32}, 8),
                 attend("smollm2_f16", smollm2, f16, f16, {mixed, 16}),
                 attend("gqa3_bf16_in_f16", {3, 1, 32}, bf16, f16, {mixed, 16}),
                 attend("smollm2_f32_in_i8", smollm2, f32, i8, {mixed, 16}),
                 attend("smollm2_bf16_in_i8", smollm2, bf16, i8, {mixed, 64}),
                 attend("alone_f32", smollm2, f32, f32, {{{1, 200}}, 64}),
                 attend("gqa8_d96_f32", {8, 1, 96}, f32, f32, {{{2, 80}}, 16}),
                 attend("gqa8_d96_bf16_in_i8", {8, 1, 96}, bf16, i8, {{{2, 80}}, 16}),
                 attend("gqa4_d128_bf16_in_f16", {4, 1, 128}, bf16, f16, {{{1, 100}}, 32}),
                 attend("d256_bf16_in_i8", {1, 1, 256}, bf16, i8, {{{1, 70}}, 16}),
                 attend("d256_bf16", {2, 2, 256}, bf16, bf16, {{{1, 65}}, 16}),
                 attend("d256_f32", {1, 1, 256}, f32, f32, {{{1, 70}, {17, 70}}, 16}),
                 attend("d5_f32_padded", {3, 3, 5}, f32, f32, {mixed, 16}, 3),
                 attend("d5_f32_in_i8", {3, 3, 5}, f32, i8, {mixed, 16}),
                 attend("page_of_one_f32", {2, 1, 16}, f32, f32, {{{3, 70}}, 1}),
                 attend("window_softcap_f32", both, f32, f32, {mixed, 16}),
                 attend("window_softcap_bf16", both, bf16, bf16, {mixed, 16}),
                 attend("window_softcap_f32_in_i8", both, f32, i8, {mixed, 16})},
       // One sequence has its pages in a pool of several MiB, as an engine's is, which lies in huge pages.
       .timed = {attend("smollm2_decode_1x1024_f32", smollm2, f32, f32, {alone, 64, 96}),
                 attend("smollm2_decode_1x1024_bf16", smollm2, bf16, bf16, {alone, 64, 96}),
                 attend("smollm2_decode_8x1024_bf16", smollm2, bf16, bf16, {eight, 64}),
                 attend("llama8b_decode_8x1024_bf16", llama8b, bf16, bf16, {eight, 64}),
                 attend("llama8b_decode_8x1024_f16", llama8b, bf16, f16, {eight, 64}),
                 attend("llama8b_decode_8x1024_i8", llama8b, bf16, i8, {eight, 64})},
       .timed_on_cards = {attend("llama8b_decode_8x8192_bf16", llama8b, bf16, bf16, {long_eight, 64}),
                          attend("llama1b_decode_1x100_bf16", llama1b, bf16, bf16, {{{1, 100}}, 16}),
                          attend("llama1b_decode_1x500_bf16", llama1b, bf16, bf16, {{{1, 500}}, 16}),
                          attend("llama1b_decode_1x4000_bf16", llama1b, bf16, bf16, {{{1, 4000}}, 16})},
       .cuda_body = true},
      {.name = "kv_append",
       .cases = {append("f32", 2, 24, f32, f32, {mixed, 16}, 8), append("bf16", 2, 24, bf16, bf16, {mixed, 64}),
                 append("bf16_d5", 3, 5, bf16, bf16, {mixed, 16}, 3),
                 append("f32_as_bf16", 2, 24, f32, bf16, {mixed, 16}),
                 append("bf16_as_f16", 2, 24, bf16, f16, {mixed, 16}), append("f32_as_i8", 3, 64, f32, i8, {mixed, 16}),
                 append("f32_as_i8_d5", 1, 5, f32, i8, {mixed, 16}, 3),
                 append("bf16_as_i8", 1, 96, bf16, i8, {mixed, 32}),
                 append("extremes_as_i8", 1, 16, f32, i8, {mixed, 16}, 0, extremes(120, 126)),
                 append("zeros_as_i8", 1, 16, f32, i8, {mixed, 16}, 0, constant(0.0))},
       .timed = {append("llama8b_512_bf16", 8, 128, bf16, bf16, {{{512, 512}}, 16}),
                 append("llama8b_512_i8", 8, 128, bf16, i8, {{{512, 512}}, 16})},
       .cuda_body = true}};
}

}  // namespace lathe::testing
