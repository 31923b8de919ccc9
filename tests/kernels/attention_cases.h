// The cases of attention (tests/support/operation_cases.h).
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace attention_cases {

struct Model {
  int64_t heads, kv_heads, head_dim;
  kernels::AttentionParams params = {};
  std::string name() const {
    return "h" + std::to_string(heads) + "_kv" + std::to_string(kv_heads) + "_d" + std::to_string(head_dim);
  }
};

inline Model with_scale(Model model) {
  model.params.scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim));
  return model;
}

inline double visible_pairs(const std::vector<double>& cu_seqlens, int64_t window) {
  double pairs = 0;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    for (double i = 1; i <= cu_seqlens[s + 1] - cu_seqlens[s]; ++i)
      pairs += window > 0 ? std::min(i, static_cast<double>(window)) : i;
  }
  return pairs;
}

inline double longest(const std::vector<double>& cu_seqlens) {
  double result = 1;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) result = std::max(result, cu_seqlens[s + 1] - cu_seqlens[s]);
  return result;
}

// Both operations share their inputs; extra ones follow.
inline Case base(std::string name, const Model& model, DType dtype, const std::vector<double>& cu_seqlens,
                 int64_t padding) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back());
  const Shape queries{tokens, model.heads, model.head_dim}, keys{tokens, model.kv_heads, model.head_dim};
  return {.name = std::move(name),
          .inputs = {{.name = "q", .shape = queries, .dtype = dtype, .values = normal(), .padding = padding},
                     {.name = "k", .shape = keys, .dtype = dtype, .values = normal(), .padding = padding},
                     {.name = "v", .shape = keys, .dtype = dtype, .values = normal(), .padding = padding},
                     sequence_bounds(cu_seqlens)},
          .reduction = static_cast<int64_t>(std::max<double>(longest(cu_seqlens), model.head_dim))};
}

inline kernels::AttentionForward forward_of(const Arguments& a, const kernels::AttentionParams& params) {
  return {.out = a["out"],
          .lse = a["lse"],
          .q = a["q"],
          .k = a["k"],
          .v = a["v"],
          .cu_seqlens = a["cu_seqlens"],
          .params = params};
}

inline kernels::AttentionBackward backward_of(const Arguments& a, const kernels::AttentionParams& params) {
  return {.grad_q = a["grad_q"],
          .grad_k = a["grad_k"],
          .grad_v = a["grad_v"],
          .grad_out = a["grad_out"],
          .q = a["q"],
          .k = a["k"],
          .v = a["v"],
          .out = a["out"],
          .lse = a["lse"],
          .cu_seqlens = a["cu_seqlens"],
          .params = params};
}

inline Case forward(std::string name, const Model& unscaled, DType dtype, const std::vector<double>& cu_seqlens,
                    int64_t padding = 0) {
  const Model model = with_scale(unscaled);
  Case result = base(std::move(name), model, dtype, cu_seqlens, padding);
  const int64_t tokens = result.inputs[0].shape[0];
  result.outputs = {{.name = "out", .shape = result.inputs[0].shape, .dtype = dtype, .padding = padding},
                    {.name = "lse", .shape = {model.heads, tokens}, .batch_dimension = 1}};
  result.run = [params = model.params](const Arguments& a) { kernels::attention_forward(forward_of(a, params)); };
  result.flops = 4 * visible_pairs(cu_seqlens, model.params.window) * model.heads * model.head_dim;
  result.bytes = 2.0 * tokens * (model.heads + model.kv_heads) * model.head_dim * size_of(dtype);
  return result;
}

inline Case backward(std::string name, const Model& unscaled, DType dtype, const std::vector<double>& cu_seqlens,
                     int64_t padding = 0) {
  const Model model = with_scale(unscaled);
  Case result = base(std::move(name), model, dtype, cu_seqlens, padding);
  const Shape queries = result.inputs[0].shape, keys = result.inputs[1].shape;
  const int64_t tokens = queries[0];
  result.inputs.push_back(
      {.name = "grad_out", .shape = queries, .dtype = dtype, .values = normal(), .padding = padding});
  result.inputs.push_back({.name = "out", .shape = queries, .dtype = dtype, .values = computed(), .padding = padding});
  result.inputs.push_back({.name = "lse", .shape = {model.heads, tokens}, .values = computed(), .batch_dimension = 1});
  result.outputs = {{.name = "grad_q", .shape = queries, .dtype = dtype, .padding = padding, .factor = 3},
                    {.name = "grad_k", .shape = keys, .dtype = dtype, .padding = padding, .factor = 3},
                    {.name = "grad_v", .shape = keys, .dtype = dtype, .padding = padding, .factor = 3}};
  result.run = [params = model.params](const Arguments& a) { kernels::attention_backward(backward_of(a, params)); };
  const Call run_forward = [params = model.params](const Arguments& a) {
    kernels::attention_forward(forward_of(a, params));
  };
  result.prepare = run_forward;
  result.gradient = {
      {.forward = run_forward,
       .results = {{.name = "out", .cotangent = "grad_out"}},
       .gradients = {{.of = "q", .in = "grad_q"}, {.of = "k", .in = "grad_k"}, {.of = "v", .in = "grad_v"}}}};
  result.flops = 10 * visible_pairs(cu_seqlens, model.params.window) * model.heads * model.head_dim;
  result.bytes = 4.0 * tokens * (model.heads + model.kv_heads) * model.head_dim * size_of(dtype);
  return result;
}

// FlashAttention's shapes: 16384 tokens, 2048 / D heads. A reference would take hours to compute the inputs of the
// backward: they are random, which costs a kernel the same.
using Function = Case (*)(std::string, const Model&, DType, const std::vector<double>&, int64_t);
inline std::vector<Case> on_cards(Function function) {
  std::vector<Case> cases;
  for (const int64_t head_dim : {64, 128}) {
    for (const double length : {4096.0, 16384.0}) {
      std::vector<double> cu_seqlens{0};
      while (cu_seqlens.back() < 16384) cu_seqlens.push_back(cu_seqlens.back() + length);
      const std::string name =
          "s" + std::to_string(static_cast<int>(length)) + "_d" + std::to_string(head_dim) + "_bf16";
      Case test_case = function(name, {2048 / head_dim, 2048 / head_dim, head_dim}, DType::bf16, cu_seqlens, 0);
      test_case.prepare = {};
      for (Operand& input : test_case.inputs) {
        if (input.name == "out") input.values = normal();
        if (input.name == "lse") input.values = constant(8);
      }
      cases.push_back(std::move(test_case));
    }
  }
  return cases;
}

}  // namespace attention_cases

// Lengths and head sizes are small, because simt runs some hundred MFLOP/s, and lie around every boundary: chunks of 64
// keys, tiles of 128 rows (queries × group), in the backward tiles of 64 or 128 and steps of 16 or 32, and on devices
// the four instances of head sizes (64, 96, 128, 256).
inline std::vector<Operation> attention_operations() {
  using namespace attention_cases;
  const Model smollm2{9, 3, 64}, third{3, 1, 64};  // of SmolLM2
  const Model windowed{2, 1, 16, {.window = 70}}, narrow{2, 1, 16, {.window = 20}}, capped{2, 2, 16, {.softcap = 2.0f}};
  const Model both{4, 2, 24, {.window = 9, .softcap = 3.0f}};
  const std::vector<double> packed{0, 100, 200, 300, 400, 500, 600, 700, 800}, edges{0, 1, 64, 64, 128, 193};
  const DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  return {
      {.name = "attention_forward",
       .cases = {forward("smollm2_f32", third, f32, {0, 1, 47}), forward("smollm2_bf16", third, bf16, {0, 5, 70}, 8),
                 forward("edges_f32", {2, 1, 16}, f32, edges), forward("edges_bf16", {2, 2, 16}, bf16, edges),
                 forward("edges_f16", {2, 1, 24}, f16, edges), forward("d80_f32", {1, 1, 80}, f32, {0, 3, 36}),
                 forward("gqa8_d96_bf16", {8, 1, 96}, bf16, {0, 3, 36}), forward("d128_f32", {1, 1, 128}, f32, {0, 65}),
                 forward("d128_bf16", {2, 1, 128}, bf16, {0, 66}), forward("d256_bf16", {1, 1, 256}, bf16, {0, 3, 40}),
                 forward("d256_f32", {1, 1, 256}, f32, {0, 70}),
                 forward("d5_f32_padded", {2, 2, 5}, f32, {0, 9, 70}, 3),
                 forward("window_f32", windowed, f32, {0, 3, 203}), forward("window_bf16", windowed, bf16, {0, 150}),
                 forward("softcap_f32", capped, f32, {0, 33}), forward("window_softcap_f32", both, f32, {0, 30, 31}),
                 forward("window_softcap_bf16", both, bf16, {0, 30, 31})},
       .timed = {forward("smollm2_8x100_f32", smollm2, f32, packed),
                 forward("smollm2_8x100_bf16", smollm2, bf16, packed),
                 forward("smollm2_1024_f32", smollm2, f32, {0, 1024}),
                 forward("smollm2_1024_bf16", smollm2, bf16, {0, 1024})},
       .timed_on_cards = on_cards(forward),
       .cuda_body = true},
      {.name = "attention_backward",
       .cases = {backward("smollm2_f32", third, f32, {0, 1, 36}), backward("smollm2_bf16", third, bf16, {0, 40}, 8),
                 backward("edges_f32", {2, 1, 16}, f32, {0, 1, 64, 64, 129}),
                 backward("t140_bf16", {1, 1, 16}, bf16, {0, 140}), backward("d80_bf16", {2, 2, 80}, bf16, {0, 3, 36}),
                 backward("d80_f16", {2, 1, 80}, f16, {0, 3, 36}), backward("gqa8_d96_f32", {8, 1, 96}, f32, {0, 5}),
                 backward("d128_bf16", {1, 1, 128}, bf16, {0, 66}), backward("d256_f32", {1, 1, 256}, f32, {0, 20}),
                 backward("d256_bf16", {1, 1, 256}, bf16, {0, 20}),
                 backward("d5_f32_padded", {2, 2, 5}, f32, {0, 9, 40}, 3),
                 backward("window_f32", narrow, f32, {0, 3, 131}), backward("softcap_f32", capped, f32, {0, 33}),
                 backward("window_softcap_bf16", both, bf16, {0, 30, 31})},
       .timed = {backward("smollm2_8x100_f32", smollm2, f32, packed),
                 backward("smollm2_8x100_bf16", smollm2, bf16, packed),
                 backward("smollm2_1024_f32", smollm2, f32, {0, 1024}),
                 backward("smollm2_1024_bf16", smollm2, bf16, {0, 1024})},
       .timed_on_cards = on_cards(backward),
       .cuda_body = true}};
}

}  // namespace lathe::testing
