// What the engine's tests share: the tiny Llama, and when completions are the same.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "nn/model_files.h"
#include "serve/engine/engine.h"

namespace lathe::engine {

// max_positions 0: the model's own.
inline nn::Transformer tiny_model(DType dtype, Device device = {}, int64_t max_positions = 0) {
  const auto folder = std::filesystem::path(LATHE_SOURCE_DIR) / "tests/golden/tiny_llama/untied";
  const nn::ModelFiles files = nn::open_model_files(folder);
  return nn::Transformer(files.config, *files.weights,
                         {.dtype = dtype, .max_positions = max_positions, .device = device});
}

inline void expect_same(const std::vector<Completion>& found, const std::vector<Completion>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(found[i].logprobs, expected[i].logprobs) << "request " << i;  // bits
    EXPECT_EQ(found[i].finish_reason, expected[i].finish_reason) << "request " << i;
  }
}

}  // namespace lathe::engine
