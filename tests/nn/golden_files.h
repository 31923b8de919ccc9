// What the tests of nn/ read from tests/golden/, and a temporary folder for what they write.
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "core/json_value.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "nn/model_files.h"
#include "nn/transformer.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::nn {

inline std::filesystem::path golden(const std::string& path) {
  return std::filesystem::path(source_dir) / "tests/golden" / path;
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

// The gradients of the cross entropy summed over the labels (not shifted, ignored_label for none) ÷ their number.
// Returns that loss.
inline double backward_through(const Transformer& model, const std::vector<std::vector<int32_t>>& sequences,
                               const std::vector<std::vector<int32_t>>& sequence_labels, int64_t label_count,
                               bool checkpoint_layers = false) {
  std::vector<int32_t> ids, labels, lengths;
  for (size_t i = 0; i < sequences.size(); ++i) {
    ids.insert(ids.end(), sequences[i].begin(), sequences[i].end());
    labels.insert(labels.end(), sequence_labels[i].begin() + 1, sequence_labels[i].end());
    labels.push_back(kernels::ignored_label);
    lengths.push_back(static_cast<int32_t>(sequences[i].size()));
  }
  const TokenBatch batch = make_token_batch(ids, lengths);
  PackedAttention attention(model.config(), batch.layout);
  ForwardOptions options;
  options.checkpoint_layers = checkpoint_layers;
  const auto result =
      autograd::linear_cross_entropy(model.forward(batch, attention, options), model.output_weight(),
                                     Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())}), batch.layout,
                                     1.0f / static_cast<float>(label_count), model.softcap());
  autograd::backward(result.loss);
  return result.loss.value().data<float>()[0];
}

inline double norm(const Tensor& tensor) {
  double sum = 0;
  for (const float value : tensor.span<float>()) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

inline double largest_difference(const Tensor& found, const Tensor& expected) {
  double worst = 0;
  const auto a = found.span<float>();
  const auto b = expected.span<float>();
  if (a.size() != b.size()) throw ShapeError("expected " + describe(expected) + ", found " + describe(found));
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  return worst;
}

// A bar that is another's own error is no bar where that is of the two or four numbers of a gated delta net's heads,
// which may be nearly exact by chance.
inline double allowance_of_heads(std::string_view parameter) {
  return parameter.ends_with("linear_attn.A_log") || parameter.ends_with("linear_attn.dt_bias") ? 3 : 1;
}

}  // namespace lathe::nn
