// The cases of paged_attention (tests/support/operation_cases.h).
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/paged_attention/paged_attention.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace paged_attention_cases {

struct Sequence {
  int64_t tokens, context;  // new tokens, keys including them
};

// Pages are dealt to the sequences in a stride that leaves none next to its predecessor.
inline std::vector<double> deal_pages(const std::vector<Sequence>& sequences, int64_t page_size, int64_t max_pages,
                                      int64_t pages) {
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

inline Case attend(std::string name, int64_t heads, int64_t kv_heads, int64_t head_dim, DType dtype, int64_t page_size,
                   const std::vector<Sequence>& sequences, kernels::AttentionParams params = {}, int64_t padding = 0) {
  params.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  std::vector<double> bounds{0}, contexts;
  int64_t needed = 0, max_pages = 1, longest = 1;
  double pairs = 0;
  for (const Sequence& s : sequences) {
    bounds.push_back(bounds.back() + static_cast<double>(s.tokens));
    contexts.push_back(static_cast<double>(s.context));
    const int64_t own = (s.context + page_size - 1) / page_size;
    needed += own;
    max_pages = std::max(max_pages, own + 1);
    longest = std::max(longest, s.context);
    pairs += static_cast<double>(s.tokens * s.context);
  }
  int64_t pages = needed + 1;
  while (pages % 7 == 0) ++pages;  // so that multiples of 7 reach every page
  const int64_t count = static_cast<int64_t>(sequences.size());
  const Shape queries{static_cast<int64_t>(bounds.back()), heads, head_dim};
  const Shape kv{pages, kv_heads, page_size, head_dim};
  return {.name = std::move(name),
          .inputs = {{.name = "q", .shape = queries, .dtype = dtype, .values = normal(), .padding = padding},
                     {.name = "k_pages", .shape = kv, .dtype = dtype, .values = normal(), .batch = Batch::shared},
                     {.name = "v_pages", .shape = kv, .dtype = dtype, .values = normal(), .batch = Batch::shared},
                     {.name = "block_table",
                      .shape = {count, max_pages},
                      .dtype = DType::i32,
                      .values = values(deal_pages(sequences, page_size, max_pages, pages)),
                      .batch = Batch::sequences,
                      .on_cpu = true},
                     {.name = "cu_seqlens",
                      .shape = {count + 1},
                      .dtype = DType::i32,
                      .values = values(bounds),
                      .batch = Batch::bounds,
                      .on_cpu = true},
                     {.name = "context_lens",
                      .shape = {count},
                      .dtype = DType::i32,
                      .values = values(contexts),
                      .batch = Batch::sequences,
                      .on_cpu = true}},
          .outputs = {{.name = "out", .shape = queries, .dtype = dtype, .padding = padding}},
          .run =
              [params](const Arguments& a) {
                kernels::paged_attention(a["out"], a["q"], a["k_pages"], a["v_pages"], a["block_table"],
                                         a["cu_seqlens"], a["context_lens"], params);
              },
          .reduction = std::max(longest, head_dim),
          .flops = 4 * pairs * static_cast<double>(heads * head_dim),
          .bytes = 2.0 * static_cast<double>(kv_heads * head_dim * size_of(dtype)) *
                   [&] {
                     double sum = 0;
                     for (double c : contexts) sum += c;
                     return sum;
                   }()};
}

}  // namespace paged_attention_cases

inline std::vector<Operation> paged_attention_operations() {
  using namespace paged_attention_cases;
  const DType f32 = DType::f32, bf16 = DType::bf16;
  const std::vector<Sequence> mixed{{1, 70}, {0, 5}, {66, 66}, {3, 130}, {1, 1}};
  std::vector<Sequence> eight(8, Sequence{1, 1024});
  return {{.name = "paged_attention",
           .cases = {attend("smollm2_f32", 9, 3, 64, f32, 16, mixed),
                     attend("smollm2_bf16", 9, 3, 64, bf16, 32, mixed, {}, 8),
                     attend("alone_f32", 9, 3, 64, f32, 64, {{1, 200}}),
                     attend("gqa8_d96_f32", 8, 1, 96, f32, 16, {{2, 80}}),
                     attend("d256_bf16", 2, 2, 256, bf16, 16, {{1, 65}}),
                     attend("d5_f32_padded", 3, 3, 5, f32, 16, mixed, {}, 3),
                     attend("page_of_one_f32", 2, 1, 16, f32, 1, {{3, 70}}),
                     attend("window_softcap_f32", 4, 2, 24, f32, 16, mixed, {.window = 40, .softcap = 3.0f}),
                     attend("window_softcap_bf16", 4, 2, 24, bf16, 16, mixed, {.window = 40, .softcap = 3.0f})},
           .timed = {attend("smollm2_decode_1x1024_f32", 9, 3, 64, f32, 64, {{1, 1024}}),
                     attend("smollm2_decode_1x1024_bf16", 9, 3, 64, bf16, 64, {{1, 1024}}),
                     attend("smollm2_decode_8x1024_bf16", 9, 3, 64, bf16, 64, eight),
                     attend("llama8b_decode_8x1024_bf16", 32, 8, 128, bf16, 64, eight)}}};
}

}  // namespace lathe::testing
