// Rotary tables against transformers' inverse frequencies, for every way to stretch a context.
#include "nn/rope_table.h"

#include <gtest/gtest.h>

#include "core/atomic_write.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

ModelConfig config_of(const nlohmann::json& json) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "config.json", json.dump());
  return read_hf_config(folder.path());
}

TEST(RopeTable, HasTheAnglesOfTransformers) {
  for (const nlohmann::json& row : golden_json("rope/cases.json")) {
    const ModelConfig config = config_of(row["config"]);
    const auto inverse = row["inverse_frequencies"].get<std::vector<float>>();
    const double magnitude = row["attention_factor"].get<double>();
    const auto tables = make_rope_tables(config.ropes[0], config.head_dim, DType::f32, row["length"].get<int64_t>());
    const std::string what = row["config"]["rope_parameters"].dump() + " at " + row["length"].dump();
    ASSERT_EQ(tables.cos.dim(1), static_cast<int64_t>(inverse.size())) << what;
    for (const int64_t position : {0, 1, 7, 63})
      for (size_t i = 0; i < inverse.size(); ++i) {
        // The angle is a float in both: what the last bits of its frequency make of it at this position.
        const double angle = static_cast<double>(position) * inverse[i], bound = 4e-7 * (1 + angle) * magnitude;
        const int64_t at = position * tables.cos.dim(1) + static_cast<int64_t>(i);
        EXPECT_NEAR(tables.cos.data<float>()[at], std::cos(angle) * magnitude, bound) << what << ", dimension " << i;
        EXPECT_NEAR(tables.sin.data<float>()[at], std::sin(angle) * magnitude, bound) << what << ", dimension " << i;
      }
  }
}

// dynamic and longrope take the frequencies of the longest sequence that the model is opened for, which is this one.
TEST(RopeTable, LogitsBeyondTheOriginalContextAreThoseOfTransformers) {
  for (const nlohmann::json& row : golden_json("rope/logits.json")) {
    nlohmann::json json = golden_json("tiny_llama/untied/config.json");
    json["max_position_embeddings"] = row["max_position_embeddings"];
    json["rope_parameters"] = row["rope_parameters"];
    const auto ids = row["input_ids"].get<std::vector<int32_t>>();
    const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
    const Transformer model(config_of(json), *files.weights, {.max_positions = static_cast<int64_t>(ids.size())});
    const Tensor logits = logits_of(model, {ids});
    const auto expected = row["logits"].get<std::vector<float>>();
    const auto last = logits.span<float>().last(expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(last[i], expected[i], 1e-4) << row["rope_parameters"].dump() << ", token " << i;
  }
}

// That the factors are those of transformers is for the logits of tiny_ministral3 to show.
TEST(RopeTable, QueriesThatGrowHaveRowsOfTheirOwnBeyondTheFirstContext) {
  const ModelConfig config = read_hf_config(golden("tiny_ministral3"));
  ASSERT_EQ(config.ropes[0].query_beta, 0.4);
  const auto within = make_rope_tables(config.ropes[0], config.head_dim, DType::f32, 16),
             beyond = make_rope_tables(config.ropes[0], config.head_dim, DType::f32, 40);
  EXPECT_EQ(within.query_row, 0);
  EXPECT_EQ(within.cos.dim(0), 16);
  ASSERT_EQ(beyond.query_row, 40);
  const Tensor keys = beyond.of_keys().cos, queries = beyond.of_queries().cos;
  for (const auto& [position, factor] : std::vector<std::pair<int64_t, double>>{
           {0, 1.0}, {15, 1.0}, {16, 1 + 0.4 * std::log(2.0)}, {39, 1 + 0.4 * std::log(3.0)}})
    for (int64_t i = 0; i < keys.dim(1); ++i) {
      const int64_t at = position * keys.dim(1) + i;
      EXPECT_NEAR(queries.data<float>()[at], keys.data<float>()[at] * factor, 1e-6) << position;
    }
}

// The factor is in the table, which what does not turn never meets.
TEST(RopeTable, QueriesThatGrowTurnWhole) {
  ModelConfig config = read_hf_config(golden("tiny_ministral3"));
  config.ropes[0].rotary_dim = config.head_dim / 2;
  EXPECT_THROW(config.check(), ConfigError);
}

TEST(RopeTable, WhatCannotBeComputedIsNamed) {
  const auto error_of = [](const nlohmann::json& rope) -> std::string {
    nlohmann::json json = golden_json("tiny_phi3/longrope/config.json");
    json["rope_parameters"].update(rope);
    try {
      config_of(json);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of(nlohmann::json::object()), "no error");
  EXPECT_NE(error_of({{"short_factor", {1.0, 1.0}}}).find("short_factor"), std::string::npos);
  EXPECT_NE(error_of({{"long_factor", {1.0, 0.0, 1.0}}}).find("long_factor"), std::string::npos);
  EXPECT_NE(error_of({{"long_factor", 3}}).find("long_factor"), std::string::npos);
  EXPECT_NE(error_of({{"partial_rotary_factor", 0.0}}).find("partial_rotary_factor"), std::string::npos);
  EXPECT_NE(error_of({{"attention_factor", -1.0}}).find("attention_factor"), std::string::npos);
  EXPECT_NE(error_of({{"rope_type", "proportional"}}).find("proportional"), std::string::npos);
}

}  // namespace
}  // namespace lathe::nn
