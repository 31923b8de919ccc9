// The cases of sampling. A row's settings go with its position, so that a row alone is the row of the batch.
#pragma once

#include <cmath>

#include "kernels/sampling/sampling.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace sampling_cases {

using Settings = std::vector<kernels::SamplingParams>;

inline void call(const Arguments& a, const Settings& settings) {
  const auto positions = a["positions"].span<int64_t>();
  std::vector<kernels::SamplingRow> rows(positions.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t position = static_cast<uint64_t>(positions[i]);
    rows[i].position = position;
    rows[i].params = settings[position % settings.size()];
    if (!a.has("prompt")) continue;
    rows[i].prompt_tokens = a["prompt"].select(0, static_cast<int64_t>(i)).span<int32_t>();
    rows[i].output_tokens = a["output"].select(0, static_cast<int64_t>(i)).span<int32_t>();
  }
  kernels::sample(a["tokens"], a["logprobs"], a["logits"], rows);
}

inline Case draw(std::string name, int64_t rows, int64_t vocabulary, Generator logits, Settings settings) {
  return {.name = std::move(name),
          .inputs = {{.name = "logits", .shape = {rows, vocabulary}, .values = std::move(logits)},
                     {.name = "positions",
                      .shape = {rows},
                      .dtype = DType::i64,
                      .values = [](RandomStream&, int64_t index) { return static_cast<double>(index); },
                      .on_cpu = true}},
          .outputs = {{.name = "tokens", .shape = {rows}, .dtype = DType::i32}, {.name = "logprobs", .shape = {rows}}},
          .run = [settings = std::move(settings)](const Arguments& a) { call(a, settings); },
          .reduction = vocabulary,
          .flops = 24.0 * rows * vocabulary,
          .bytes = 4.0 * rows * vocabulary};
}

inline Case padded(Case test_case) {
  test_case.name += "_padded";
  test_case.inputs[0].padding = 3;
  return test_case;
}

inline Case penalised(Case test_case, int64_t seen) {
  const int64_t rows = test_case.inputs[0].shape[0], vocabulary = test_case.inputs[0].shape[1];
  for (const char* name : {"prompt", "output"}) {
    test_case.inputs.push_back({.name = name,
                                .shape = {rows, seen},
                                .dtype = DType::i32,
                                .values = integers(0, vocabulary - 1),
                                .on_cpu = true});
  }
  test_case.outputs.push_back({.name = "penalised", .shape = {rows, vocabulary}, .in_place_of = "logits"});
  return test_case;
}

// Normal, with every seventh token banned.
inline Generator banned() {
  return [](RandomStream& random, int64_t index) {
    return index % 7 == 3 ? -HUGE_VAL : 3.0 * static_cast<double>(random.normal());
  };
}

}  // namespace sampling_cases

inline std::vector<Operation> sampling_operations() {
  using namespace sampling_cases;
  const Settings filters = {{.top_k = 7},
                            {.temperature = 0.7f, .top_p = 0.8f},
                            {.min_p = 0.05f},
                            {.temperature = 0.0f},
                            {.temperature = 1.6f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f, .seed = 3},
                            {.temperature = 2.5f, .top_k = 500, .top_p = 0.5f},
                            {.seed = 9}};
  const Settings penalties = {{.repetition_penalty = 1.3f},
                              {.presence_penalty = 0.5f, .frequency_penalty = -0.25f},
                              {.temperature = 0.0f, .repetition_penalty = 0.7f, .frequency_penalty = 1.0f},
                              {.top_p = 0.9f, .repetition_penalty = 2.0f, .presence_penalty = 1.0f},
                              {}};
  return {
      {.name = "sample",
       .cases = {draw("v1", 2, 1, normal(), {{}, {.top_p = 0.5f}}), draw("v17", 7, 17, normal(2), filters),
                 draw("v300_one_setting", 5, 300, normal(3), {{}}), draw("v1025", 7, 1025, normal(3), filters),
                 padded(draw("v130_banned", 7, 130, banned(), filters)),
                 draw("v61_ties", 7, 61, integers(-2, 2), filters), draw("v61_all_equal", 7, 61, constant(-3), filters),
                 // More than a device gathers in shared memory.
                 draw("v5003_all_equal", 2, 5003, constant(1), {{.top_k = 40, .top_p = 0.7f}, {.top_p = 0.999f}}),
                 penalised(draw("v90_penalties", 5, 90, normal(2), penalties), 20)},
       .timed = {draw("b8_v49152", 8, 49152, normal(3), {{}}),
                 draw("b8_v128256_top_p", 8, 128256, normal(3), {{.top_p = 0.9f}}),
                 draw("b8_v128256_top_k", 8, 128256, normal(3), {{.top_k = 50}})},
       .cuda_body = true}};
}

}  // namespace lathe::testing
