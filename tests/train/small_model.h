// A part of the tiny golden Llama: one layer, 64 tokens, a narrower feed-forward. For tests of runs on simt, where each
// launch takes its time whatever it computes.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>

#include "core/json_value.h"
#include "nn/weights/safetensors.h"
#include "tests/support/temporary_folder.h"
#include "tests/train/tiny_run.h"

namespace lathe::train {

inline constexpr int64_t small_vocabulary = 64;

enum class Output { tied, untied };

class SmallModel {
 public:
  explicit SmallModel(Output output) {
    const std::filesystem::path whole = golden("tiny_llama/untied");
    auto config = nlohmann::json::parse(bytes_of(whole / "config.json"));
    config["num_hidden_layers"] = 1;
    config["vocab_size"] = small_vocabulary;
    config["intermediate_size"] = feed_forward;
    config["tie_word_embeddings"] = output == Output::tied;
    std::ofstream(folder_.path() / "config.json") << config.dump();
    const auto file = nn::SafetensorsFile::open(whole / "model.safetensors");
    nn::NamedTensors tensors;
    for (const std::string& name : file->names()) {
      const bool left_out =
          name.find("layers.1.") != std::string::npos || (output == Output::tied && name == "lm_head.weight");
      if (!left_out) tensors.emplace_back(name, part_of(file->tensor(name)));
    }
    nn::write_safetensors(folder_.path() / "model.safetensors", tensors);
  }
  std::string path() const { return folder_.path().string(); }

 private:
  static constexpr int64_t feed_forward = 64;
  static Tensor part_of(const Tensor& tensor) {
    Tensor part = tensor;
    for (int dimension = 0; dimension < part.rank(); ++dimension) {
      const int64_t size = part.dim(dimension);
      const int64_t kept = size == 320 ? small_vocabulary : size == 160 ? feed_forward : size;
      part = part.slice(dimension, 0, kept);
    }
    return part.clone();
  }
  TemporaryFolder folder_;
};

// Written once for all tests of a process.
inline std::string small_model(Output output = Output::untied) {
  static const SmallModel untied(Output::untied), tied(Output::tied);
  return (output == Output::tied ? tied : untied).path();
}

// Every step has one shape: sequences of eight tokens of which the last four are learnt, one to a row, or two.
inline TrainingSet equal_rows(int64_t rows, int sequences = 1, uint64_t seed = 3) {
  TrainingSet set;
  RandomStream random(seed, RandomPurpose::test);
  for (int64_t row = 0; row < rows; ++row)
    for (int s = 0; s < sequences; ++s) {
      std::vector<int32_t> ids, labels;
      for (int i = 0; i < 8; ++i) {
        ids.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
        labels.push_back(i < 4 ? -100 : ids.back());
      }
      s == 0 ? set.add_row(ids, labels) : set.add_to_row(ids, labels);
    }
  return set;
}

}  // namespace lathe::train
