// The cases of kernels/lora_dropout: terms alone and together, ranks and widths with and without a body on devices.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/lora_dropout/lora_dropout.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace lora_dropout_cases {

struct Samples {
  std::vector<double> cu_seqlens, numbers;
};

struct Sizes {
  int64_t columns;
  std::vector<int64_t> ranks;  // of each term
};

inline kernels::DropoutParams params_of(size_t term) {
  return {
      .probability = 0.25f, .seed = 0x123456789abcdef0u, .step = 70000, .stream = static_cast<uint16_t>(65533 + term)};
}
inline std::string named(const char* name, size_t term) { return name + std::to_string(term); }
inline kernels::DroppedSequences sequences_of(const Arguments& a) { return {a["cu_seqlens"], a["sample_numbers"]}; }

// What all have: x, or dx, and how its rows fall into samples.
inline Case case_of(const Sizes& sizes, DType dtype, const Samples& samples) {
  Case c;
  c.name = "k" + std::to_string(sizes.columns) + "_r";
  for (size_t i = 0; i < sizes.ranks.size(); ++i) c.name += (i ? "_" : "") + std::to_string(sizes.ranks[i]);
  c.name += "_s" + std::to_string(samples.numbers.size()) + "_" + std::string(name_of(dtype));
  c.inputs = {sequence_bounds(samples.cu_seqlens),
              {.name = "sample_numbers",
               .shape = {static_cast<int64_t>(samples.numbers.size())},
               .dtype = DType::i32,
               .values = values(samples.numbers),
               .batch = Batch::sequences,
               .on_cpu = true}};
  return c;
}
inline int64_t tokens_of(const Samples& samples) { return static_cast<int64_t>(samples.cu_seqlens.back()); }
inline Operand rows(std::string name, int64_t count, int64_t columns, DType dtype, int64_t padding = 0) {
  return {.name = std::move(name), .shape = {count, columns}, .dtype = dtype, .values = normal(), .padding = padding};
}
inline Operand shared(std::string name, Shape shape, DType dtype) {
  return {.name = std::move(name), .shape = shape, .dtype = dtype, .values = normal(), .batch = Batch::shared};
}

// Of x in its dtype: what reads it, masks it and multiplies.
inline void set_work(Case& c, const Sizes& sizes, const Samples& samples) {
  for (const int64_t rank : sizes.ranks) c.flops += (20.0 + 2.0 * rank) * tokens_of(samples) * sizes.columns;
}

inline Case shrink(const Sizes& sizes, DType dtype, const Samples& samples, int64_t padding = 0) {
  Case c = case_of(sizes, dtype, samples);
  const int64_t tokens = tokens_of(samples);
  c.inputs.push_back(rows("x", tokens, sizes.columns, dtype, padding));
  for (size_t i = 0; i < sizes.ranks.size(); ++i) {
    c.inputs.push_back(shared(named("a", i), {sizes.ranks[i], sizes.columns}, dtype));
    c.outputs.push_back(rows(named("t", i), tokens, sizes.ranks[i], dtype, padding));
  }
  c.run = [count = sizes.ranks.size()](const Arguments& a) {
    std::vector<kernels::DroppedShrink> terms;
    for (size_t i = 0; i < count; ++i) terms.push_back({a[named("t", i)], a[named("a", i)], params_of(i)});
    kernels::dropped_shrink(a["x"], terms, 0.75f, sequences_of(a));
  };
  c.reduction = sizes.columns;
  set_work(c, sizes, samples);
  return c;
}

inline Case factor_gradients(const Sizes& sizes, DType dtype, const Samples& samples, int64_t padding = 0) {
  Case c = case_of(sizes, dtype, samples);
  const int64_t tokens = tokens_of(samples);
  c.inputs.push_back(rows("x", tokens, sizes.columns, dtype, padding));
  for (size_t i = 0; i < sizes.ranks.size(); ++i) {
    c.inputs.push_back(rows(named("dt", i), tokens, sizes.ranks[i], dtype, padding));
    c.outputs.push_back(shared(named("grad_a", i), {sizes.ranks[i], sizes.columns}, DType::f32));
    c.outputs.back().accumulates = true;
  }
  c.run = [count = sizes.ranks.size()](const Arguments& a) {
    std::vector<kernels::DroppedGradient> terms;
    for (size_t i = 0; i < count; ++i) terms.push_back({a[named("grad_a", i)], a[named("dt", i)], params_of(i)});
    kernels::dropped_factor_gradients(a["x"], terms, sequences_of(a));
  };
  c.reduction = tokens;
  set_work(c, sizes, samples);
  return c;
}

inline Case input_gradient(const Sizes& sizes, DType dtype, const Samples& samples, int64_t padding = 0) {
  Case c = case_of(sizes, dtype, samples);
  const int64_t tokens = tokens_of(samples), rank = sizes.ranks[0];
  c.inputs.push_back(rows("dt", tokens, rank, dtype, padding));
  c.inputs.push_back(shared("a", {rank, sizes.columns}, dtype));
  c.outputs = {rows("grad_x", tokens, sizes.columns, dtype)};
  c.outputs[0].accumulates = true;
  c.run = [](const Arguments& a) {
    kernels::dropped_input_gradient({a["grad_x"], a["dt"], a["a"], params_of(2)}, sequences_of(a));
  };
  c.reduction = rank;
  set_work(c, sizes, samples);
  return c;
}

// More sequences than one launch takes, most of them empty.
inline Samples many_samples() {
  Samples many{{0}, {}};
  for (int s = 0; s < 530; ++s) {
    many.cu_seqlens.push_back(many.cu_seqlens.back() + (s % 9 == 4));
    many.numbers.push_back(s * 31);
  }
  return many;
}

}  // namespace lora_dropout_cases

inline std::vector<Operation> lora_dropout_operations() {
  using namespace lora_dropout_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  // Sums over tokens of two steps, of none, of one token and of less than a step.
  const Samples samples{{0, 140, 140, 141, 170}, {7, 3, 0, 65535}};
  const Samples step{{0, 1024, 2048, 3072, 4096}, {0, 1, 2, 3}};
  Operation shrinks{.name = "dropped_shrink", .cuda_body = true},
      gradients{.name = "dropped_factor_gradients", .cuda_body = true},
      inputs{.name = "dropped_input_gradient", .cuda_body = true};
  const auto add = [&](const Sizes& sizes, DType dtype, const Samples& of, int64_t padding = 0) {
    shrinks.cases.push_back(shrink(sizes, dtype, of, padding));
    gradients.cases.push_back(factor_gradients(sizes, dtype, of, padding));
    if (sizes.ranks.size() == 1) inputs.cases.push_back(input_gradient(sizes, dtype, of, padding));
  };
  add({72, {16}}, bf16, samples, 8);
  add({40, {8}}, f16, samples);
  add({136, {64}}, bf16, samples);
  add({136, {24}}, f16, samples);
  add({72, {8, 16}}, bf16, samples, 8);
  add({72, {16, 16, 16}}, bf16, samples);
  add({40, {32, 24, 32}}, bf16, samples);
  add({24, {16, 16, 16}}, f16, many_samples());
  add({24, {8}}, bf16, many_samples());
  // What is one term after another: too many ranks, too many terms.
  add({40, {64, 8, 48}}, bf16, samples);
  add({24, {8, 8, 8, 8}}, bf16, samples);
  // Without a body on devices.
  add({67, {16}}, bf16, samples);
  add({40, {4, 16}}, bf16, samples);
  add({33, {5}}, f32, samples);
  for (const Sizes& sizes : {Sizes{2048, {16, 16, 16}}, Sizes{2048, {16, 16}}, Sizes{2048, {16}}, Sizes{8192, {16}}}) {
    shrinks.timed_on_cards.push_back(shrink(sizes, bf16, step));
    gradients.timed_on_cards.push_back(factor_gradients(sizes, bf16, step));
    if (sizes.ranks.size() == 1) inputs.timed_on_cards.push_back(input_gradient(sizes, bf16, step));
  }
  return {shrinks, gradients, inputs};
}

}  // namespace lathe::testing
