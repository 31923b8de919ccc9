// The cases of linear_cross_entropy and token_logprobs.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace cross_entropy_cases {

// Labels from the whole vocabulary; about one in `ignored_every` is ignored (0: none).
inline Generator labels(int64_t vocabulary, int ignored_every) {
  return [=](RandomStream& random, int64_t) {
    const uint64_t label = random.below(static_cast<uint64_t>(vocabulary));
    const bool ignored = ignored_every > 0 && random.below(static_cast<uint64_t>(ignored_every)) == 0;
    return ignored ? static_cast<double>(kernels::ignored_label) : static_cast<double>(label);
  };
}

struct Sizes {
  int64_t tokens, vocabulary, hidden;
};

struct Options {
  int ignored_every = 0;
  float scale = 1.0f;  // the gradient checks differentiate Σ loss
  float softcap = 0.0f;
  float temperature = 1.0f;
  bool packed = false;
};

inline kernels::CrossEntropyOutputs outputs_of(const Arguments& a) {
  const auto where = [&](const char* name) { return a.has(name) ? a[name] : Tensor{}; };
  return {where("loss"),        where("entropy"),     where("correct"),
          where("grad_hidden"), where("grad_weight"), where("log_sum_sq_probs")};
}

inline void call(const Arguments& a, Options options) {
  const auto given = [&](const char* name) { return a.has(name) ? a[name] : Tensor{}; };
  const auto run = [&](const kernels::Weight& weight) {
    kernels::linear_cross_entropy(outputs_of(a), {.hidden = a["hidden"],
                                                  .weight = weight,
                                                  .labels = a["labels"],
                                                  .cu_seqlens = given("cu_seqlens"),
                                                  .scale = options.scale,
                                                  .token_scales = given("token_scales"),
                                                  .entropy_scales = given("entropy_scales"),
                                                  .softcap = options.softcap,
                                                  .temperature = options.temperature});
  };
  if (!options.packed) return run(a["weight"]);
  run(kernels::pack_weight(a["weight"], a["weight"].dtype()));
}

inline Case loss_and_gradient(std::string name, Sizes sizes, DType dtype, Options options = {}) {
  const auto [tokens, vocabulary, hidden] = sizes;
  return {.name = std::move(name),
          .inputs = {{.name = "hidden", .shape = {tokens, hidden}, .dtype = dtype, .values = normal()},
                     {.name = "weight",
                      .shape = {vocabulary, hidden},
                      .dtype = dtype,
                      .values = normal(1.5 / std::sqrt(static_cast<double>(hidden))),
                      .batch = Batch::shared},
                     {.name = "labels",
                      .shape = {tokens},
                      .dtype = DType::i32,
                      .values = labels(vocabulary, options.ignored_every),
                      .on_cpu = true}},
          .outputs = {{.name = "loss", .shape = {tokens}},
                      {.name = "entropy", .shape = {tokens}},
                      {.name = "correct", .shape = {tokens}, .dtype = DType::u8},
                      {.name = "grad_hidden", .shape = {tokens, hidden}, .dtype = dtype, .factor = 3}},
          .run = [options](const Arguments& a) { call(a, options); },
          .gradient = {{.forward =
                            [options](const Arguments& a) {
                              kernels::linear_cross_entropy({.loss = a["loss"]}, {.hidden = a["hidden"],
                                                                                  .weight = a["weight"],
                                                                                  .labels = a["labels"],
                                                                                  .softcap = options.softcap,
                                                                                  .temperature = options.temperature});
                            },
                        .results = {{.name = "loss"}},
                        .gradients = {{.of = "hidden", .in = "grad_hidden"}}}},
          .reduction = std::max(vocabulary, hidden),
          .flops = 4.0 * tokens * vocabulary * hidden,
          .bytes = 2.0 * vocabulary * hidden * size_of(dtype)};
}

inline Case with_weight_gradient(Case test_case, const std::vector<double>& cu_seqlens) {
  const Shape weight = test_case.inputs[1].shape;
  test_case.inputs.push_back(sequence_bounds(cu_seqlens));
  test_case.outputs.push_back({.name = "grad_weight",
                               .shape = weight,
                               .values = normal(),
                               .batch = Batch::shared,
                               .accumulates = true,
                               .factor = 3});
  for (GradientCheck& check : test_case.gradient) check.gradients.push_back({.of = "weight", .in = "grad_weight"});
  return test_case;
}

// Of both signs, and as far apart as advantages and weights of tokens are.
inline Case with_token_scales(Case test_case) {
  test_case.inputs.push_back({.name = "token_scales", .shape = {test_case.inputs[0].shape[0]}, .values = normal(0.5)});
  for (GradientCheck& check : test_case.gradient) check.results[0].cotangent = "token_scales";
  return test_case;
}

// With gradients of the entropies beside those of the losses, and log Σ p².
inline Case with_entropy_scales(Case test_case, Options options = {}) {
  const Shape tokens{test_case.inputs[0].shape[0]};
  test_case = with_token_scales(std::move(test_case));
  test_case.inputs.push_back({.name = "entropy_scales", .shape = tokens, .values = normal(0.5)});
  test_case.outputs.push_back({.name = "log_sum_sq_probs", .shape = tokens});
  for (GradientCheck& check : test_case.gradient) {
    check.forward = [options](const Arguments& a) {
      kernels::linear_cross_entropy({.loss = a["loss"], .entropy = a["entropy"]}, {.hidden = a["hidden"],
                                                                                   .weight = a["weight"],
                                                                                   .labels = a["labels"],
                                                                                   .softcap = options.softcap,
                                                                                   .temperature = options.temperature});
    };
    check.results.push_back({.name = "entropy", .cotangent = "entropy_scales"});
  }
  return test_case;
}

inline Case logprobs(std::string name, int64_t tokens, int64_t vocabulary, Generator logits, int64_t padding = 0,
                     bool targets_on_cpu = true) {
  return {.name = std::move(name),
          .inputs = {{.name = "logits", .shape = {tokens, vocabulary}, .values = std::move(logits), .padding = padding},
                     {.name = "targets",
                      .shape = {tokens},
                      .dtype = DType::i32,
                      .values = integers(0, vocabulary - 1),
                      .on_cpu = targets_on_cpu}},
          .outputs = {{.name = "logprobs", .shape = {tokens}}},
          .run = [](const Arguments& a) { kernels::token_logprobs(a["logprobs"], a["logits"], a["targets"]); },
          .reduction = vocabulary,
          .flops = 10.0 * tokens * vocabulary,
          .bytes = 4.0 * tokens * vocabulary};
}

}  // namespace cross_entropy_cases

inline std::vector<Operation> linear_cross_entropy_operations() {
  using namespace cross_entropy_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  return {
      {.name = "linear_cross_entropy",
       .cases =
           {loss_and_gradient("v1_f32", {3, 1, 4}, f32),
            loss_and_gradient("v15_f32", {4, 15, 9}, f32),
            loss_and_gradient("v17_bf16", {4, 17, 16}, bf16),
            loss_and_gradient("v67_f16_ignored", {30, 67, 24}, f16, {.ignored_every = 3}),
            loss_and_gradient("v67_f32_ignored", {30, 67, 24}, f32, {.ignored_every = 3}),
            loss_and_gradient("v67_bf16_ignored", {30, 67, 24}, bf16, {.ignored_every = 3}),
            loss_and_gradient("all_ignored", {5, 8, 4}, f32, {.ignored_every = 1}),
            loss_and_gradient("v2059_bf16", {2, 2059, 4}, bf16),
            loss_and_gradient("packed_f32", {9, 70, 32}, f32, {.packed = true}),
            loss_and_gradient("packed_bf16", {9, 70, 32}, bf16, {.packed = true}),
            loss_and_gradient("softcap_f32", {7, 33, 16}, f32, {.softcap = 2.5f}),
            loss_and_gradient("temperature_f32", {7, 33, 16}, f32, {.ignored_every = 3, .temperature = 0.7f}),
            loss_and_gradient("temperature_bf16", {9, 70, 32}, bf16, {.temperature = 1.5f, .packed = true}),
            with_token_scales(loss_and_gradient("temperature_softcap_token_scales_f32", {7, 33, 16}, f32,
                                                {.softcap = 2.5f, .temperature = 0.7f})),
            with_weight_gradient(loss_and_gradient("weight_f32", {20, 37, 12}, f32, {.ignored_every = 4}),
                                 {0, 6, 7, 20}),
            with_weight_gradient(loss_and_gradient("weight_f16", {20, 37, 12}, f16, {.ignored_every = 4}), {0, 5, 20}),
            with_weight_gradient(loss_and_gradient("weight_bf16", {20, 37, 12}, bf16, {.ignored_every = 4}),
                                 {0, 6, 7, 20}),
            with_token_scales(loss_and_gradient("token_scales_f32", {30, 67, 24}, f32, {.ignored_every = 3})),
            with_token_scales(loss_and_gradient("token_scales_bf16", {9, 70, 32}, bf16, {.packed = true})),
            with_token_scales(loss_and_gradient("token_scales_softcap_f32", {7, 33, 16}, f32, {.softcap = 2.5f})),
            with_token_scales(with_weight_gradient(
                loss_and_gradient("token_scales_weight_f32", {20, 37, 12}, f32, {.ignored_every = 4}), {0, 6, 7, 20})),
            with_token_scales(with_weight_gradient(
                loss_and_gradient("token_scales_weight_bf16", {20, 37, 12}, bf16, {.ignored_every = 4}),
                {0, 6, 7, 20})),
            with_entropy_scales(loss_and_gradient("entropy_v1_f32", {3, 1, 4}, f32)),
            with_entropy_scales(loss_and_gradient("entropy_f32", {30, 67, 24}, f32, {.ignored_every = 3})),
            with_entropy_scales(loss_and_gradient("entropy_bf16", {9, 70, 32}, bf16, {.packed = true})),
            with_entropy_scales(loss_and_gradient("entropy_v2059_f32", {2, 2059, 4}, f32)),
            with_entropy_scales(loss_and_gradient("entropy_temperature_softcap_f32", {7, 33, 16}, f32,
                                                  {.softcap = 2.5f, .temperature = 0.7f}),
                                {.softcap = 2.5f, .temperature = 0.7f}),
            with_entropy_scales(with_weight_gradient(
                loss_and_gradient("entropy_weight_f32", {20, 37, 12}, f32, {.ignored_every = 4}), {0, 6, 7, 20}))},
       .timed = {loss_and_gradient("t256_v49152_h576_bf16", {256, 49152, 576}, bf16, {.packed = true})},
       .timed_on_cards = {loss_and_gradient("t2048_v128256_h2048_bf16", {2048, 128256, 2048}, bf16)},
       .cuda_body = true},
      // Several chunks: too many rows for simt, where a test of its own runs them once.
      {.name = "linear_cross_entropy_chunks",
       .cases = {loss_and_gradient("chunks_f32", {300, 41, 8}, f32, {.ignored_every = 20}),
                 with_weight_gradient(loss_and_gradient("weight_chunks_f32", {310, 23, 6}, f32, {.ignored_every = 30}),
                                      {0, 30, 220, 310})}},
      {.name = "token_logprobs",
       .cases = {logprobs("v1", 3, 1, normal()), logprobs("v17", 4, 17, normal(3)),
                 logprobs("v576_padded", 5, 576, normal(3), 5), logprobs("v1000_wide", 4, 1000, extremes(6, 20)),
                 logprobs("v33_large", 3, 33, uniform(1e4, 1e4 + 10)), logprobs("v4100", 2, 4100, normal(3), 0, false)},
       .timed = {logprobs("t256_v49152", 256, 49152, normal(3))},
       .cuda_body = true},
  };
}

}  // namespace lathe::testing
