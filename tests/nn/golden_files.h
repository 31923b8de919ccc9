// What the tests of nn/ read from tests/golden/, and a temporary folder for what they write.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "autograd/recording.h"
#include "core/error.h"
#include "nn/attention_context.h"
#include "nn/model_files.h"
#include "nn/transformer.h"
#include "tests/support/temporary_folder.h"

namespace lathe::nn {

inline std::filesystem::path golden(const std::string& path) {
  return std::filesystem::path(LATHE_SOURCE_DIR) / "tests/golden" / path;
}

inline nlohmann::json golden_json(const std::string& path) {
  return nlohmann::json::parse(std::ifstream(golden(path)));
}

inline Transformer load(const std::filesystem::path& path, DType dtype, WeightMode mode = WeightMode::frozen) {
  const ModelFiles files = open_model_files(path);
  return Transformer(files.config, *files.weights, {dtype, mode, 0});
}

// Logits of one packed forward over whole sequences, [Σ lengths, vocab].
inline Tensor logits_of(const Transformer& model, const std::vector<std::vector<int32_t>>& sequences) {
  const autograd::NoGradScope no_grad;
  std::vector<int32_t> ids, lengths;
  for (const auto& sequence : sequences) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    lengths.push_back(static_cast<int32_t>(sequence.size()));
  }
  const TokenBatch batch = make_token_batch(ids, lengths);
  PackedAttention attention(model.config(), batch.layout);
  return model.logits(model.forward(batch, attention).value());
}

inline double largest_difference(const Tensor& found, const Tensor& expected) {
  double worst = 0;
  const auto a = found.span<float>();
  const auto b = expected.span<float>();
  if (a.size() != b.size()) throw ShapeError("expected " + describe(expected) + ", found " + describe(found));
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  return worst;
}

}  // namespace lathe::nn
