// The cases of the kernels of a mixture of experts.
#pragma once

#include "kernels/experts/experts.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace experts_cases {

using kernels::ExpertWeights;

struct Sizes {
  int64_t tokens, experts, per_token;
};

inline Operand logits_of(const Sizes& n, DType dtype, Generator values) {
  return {.name = "logits", .shape = {n.tokens, n.experts}, .dtype = dtype, .values = std::move(values)};
}

inline Case choose(std::string name, const Sizes& n, DType dtype, ExpertWeights kind, Generator logits) {
  return {.name = std::move(name),
          .inputs = {logits_of(n, dtype, std::move(logits))},
          .outputs = {{.name = "weights", .shape = {n.tokens, n.per_token}},
                      {.name = "chosen", .shape = {n.tokens, n.per_token}, .dtype = DType::i32}},
          .run = [kind](const Arguments& a) { kernels::choose_experts(a["weights"], a["chosen"], a["logits"], kind); },
          .reduction = n.experts};
}

// Each expert's weight by itself: a bias that turns the order round, and a factor.
inline Case choose_by_sigmoids(std::string name, const Sizes& n, DType dtype, ExpertWeights kind, Generator logits,
                               bool bias) {
  Case result = choose(std::move(name), n, dtype, kind, std::move(logits));
  if (bias) result.inputs.push_back({.name = "bias", .shape = {n.experts}, .values = normal(), .batch = Batch::shared});
  result.run = [kind, bias](const Arguments& a) {
    kernels::choose_experts(a["weights"], a["chosen"], a["logits"], {kind, bias ? a["bias"] : Tensor{}, 1.5f});
  };
  return result;
}

// What was chosen is the first experts: the gradient takes any choice as it is.
inline Case choose_backward(std::string name, const Sizes& n, DType dtype, ExpertWeights kind) {
  std::vector<double> first;
  for (int64_t i = 0; i < n.per_token; ++i) first.push_back(static_cast<double>(i));
  return {.name = std::move(name),
          .inputs = {logits_of(n, dtype, normal()),
                     {.name = "grad_weights", .shape = {n.tokens, n.per_token}, .values = normal()},
                     {.name = "weights", .shape = {n.tokens, n.per_token}, .values = uniform(0.05, 0.5)},
                     {.name = "chosen",
                      .shape = {n.tokens, n.per_token},
                      .dtype = DType::i32,
                      .values = values(std::move(first))}},
          .outputs = {{.name = "grad_logits", .shape = {n.tokens, n.experts}, .dtype = dtype, .factor = 3}},
          .run =
              [kind](const Arguments& a) {
                const float scale = kind >= ExpertWeights::sigmoids ? 1.5f : 1.0f;
                kernels::choose_experts_backward(a["grad_logits"], a["grad_weights"], a["logits"], a["weights"],
                                                 a["chosen"], {kind, {}, scale});
              },
          .reduction = n.experts};
}

// Slots in descending order, each once.
inline Operand slots_of(const Sizes& n) {
  std::vector<double> listed;
  for (int64_t i = n.tokens * n.per_token; i-- > 0;) listed.push_back(static_cast<double>(i));
  return {.name = "slots", .shape = {n.tokens, n.per_token}, .dtype = DType::i32, .values = values(std::move(listed))};
}

inline Case combine(std::string name, const Sizes& n, int64_t columns, DType dtype, bool weights) {
  Case result{.name = std::move(name),
              .inputs = {{.name = "rows",
                          .shape = {n.tokens * n.per_token, columns},
                          .dtype = dtype,
                          .values = normal(),
                          .batch = Batch::shared},
                         slots_of(n)},
              .outputs = {{.name = "out", .shape = {n.tokens, columns}, .dtype = dtype}},
              .run =
                  [](const Arguments& a) {
                    kernels::combine_experts(a["out"], a["rows"], a["slots"],
                                             a.has("weights") ? a["weights"] : Tensor{},
                                             a.has("residual") ? a["residual"] : Tensor{});
                  },
              .reduction = n.per_token};
  if (weights) result.inputs.push_back({.name = "weights", .shape = {n.tokens, n.per_token}, .values = normal()});
  return result;
}

inline Case combine_into(std::string name, const Sizes& n, int64_t columns, DType dtype, int64_t padding,
                         std::string in_place_of = "") {
  Case result = combine(std::move(name), n, columns, dtype, true);
  result.inputs.push_back(
      {.name = "residual", .shape = {n.tokens, columns}, .dtype = dtype, .values = normal(3), .padding = padding});
  result.outputs[0].in_place_of = std::move(in_place_of);
  return result;
}

inline Case combine_backward(std::string name, const Sizes& n, int64_t columns, DType dtype) {
  const Shape rows{n.tokens * n.per_token, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "rows", .shape = rows, .dtype = dtype, .values = normal(), .batch = Batch::shared},
                     slots_of(n),
                     {.name = "weights", .shape = {n.tokens, n.per_token}, .values = normal()},
                     {.name = "grad_out", .shape = {n.tokens, columns}, .dtype = dtype, .values = normal()}},
          .outputs = {{.name = "grad_rows", .shape = rows, .dtype = dtype, .batch = Batch::shared, .factor = 3},
                      {.name = "grad_weights", .shape = {n.tokens, n.per_token}, .factor = 3}},
          .run =
              [](const Arguments& a) {
                kernels::combine_experts_backward(a["grad_rows"], a["grad_weights"], a["grad_out"], a["rows"],
                                                  a["slots"], a["weights"]);
              },
          .gradient = {{.forward =
                            [](const Arguments& a) {
                              kernels::combine_experts(a["out"], a["rows"], a["slots"], a["weights"]);
                            },
                        .results = {{.name = "out", .cotangent = "grad_out"}},
                        .gradients = {{.of = "rows", .in = "grad_rows"}, {.of = "weights", .in = "grad_weights"}}}},
          .reduction = columns};
}

}  // namespace experts_cases

inline std::vector<Operation> experts_operations() {
  using namespace experts_cases;
  const Sizes small{5, 6, 2}, wide{3, 70, 8};
  return {
      {.name = "choose_experts",
       .cases = {choose("e6_f32", small, DType::f32, ExpertWeights::probabilities, normal()),
                 choose("e6_normalised_f32", small, DType::f32, ExpertWeights::normalised, normal()),
                 choose("e70_normalised_bf16", wide, DType::bf16, ExpertWeights::normalised, normal(4)),
                 choose("e70_normalised_f16", wide, DType::f16, ExpertWeights::normalised, normal(4)),
                 choose("ties_f32", {4, 40, 5}, DType::f32, ExpertWeights::probabilities, values({1, 2, 1, 2})),
                 choose_by_sigmoids("e6_sigmoids_f32", small, DType::f32, ExpertWeights::sigmoids, normal(), false),
                 choose_by_sigmoids("e6_sigmoids_biased_f32", small, DType::f32, ExpertWeights::normalised_sigmoids,
                                    normal(), true),
                 choose_by_sigmoids("e70_sigmoids_biased_bf16", wide, DType::bf16, ExpertWeights::normalised_sigmoids,
                                    normal(4), true),
                 choose_by_sigmoids("ties_sigmoids_f32", {4, 40, 5}, DType::f32, ExpertWeights::normalised_sigmoids,
                                    values({1, 2, 1, 2}), false)},
       .cuda_body = true},
      {.name = "choose_experts_backward",
       .cases = {choose_backward("e6_f32", small, DType::f32, ExpertWeights::probabilities),
                 choose_backward("e6_normalised_f32", small, DType::f32, ExpertWeights::normalised),
                 choose_backward("e6_sigmoids_f32", small, DType::f32, ExpertWeights::sigmoids),
                 choose_backward("e6_normalised_sigmoids_f32", small, DType::f32, ExpertWeights::normalised_sigmoids),
                 choose_backward("e70_sigmoids_bf16", wide, DType::bf16, ExpertWeights::normalised_sigmoids),
                 choose_backward("e70_bf16", wide, DType::bf16, ExpertWeights::probabilities),
                 choose_backward("e70_f16", wide, DType::f16, ExpertWeights::probabilities)},
       .cuda_body = true},
      {.name = "combine_experts",
       .cases = {combine("c17_f32", small, 17, DType::f32, true), combine("ones_c40_f32", small, 40, DType::f32, false),
                 combine("c64_bf16", wide, 64, DType::bf16, true), combine("c61_f16", wide, 61, DType::f16, true),
                 combine_into("c17_residual_f32", small, 17, DType::f32, 3),
                 combine_into("c264_residual_in_place_bf16", wide, 264, DType::bf16, 0, "residual"),
                 combine_into("c61_residual_f16", wide, 61, DType::f16, 0)},
       .cuda_body = true},
      {.name = "combine_experts_backward",
       .cases = {combine_backward("c17_f32", small, 17, DType::f32),
                 combine_backward("c264_f32", small, 264, DType::f32),
                 combine_backward("c64_bf16", wide, 64, DType::bf16),
                 combine_backward("c61_f16", wide, 61, DType::f16)},
       .cuda_body = true}};
}

}  // namespace lathe::testing
