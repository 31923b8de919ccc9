// What is read of a config.json, or of a GGUF file's metadata, that a test has changed.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/atomic_write.h"
#include "nn/families/family.h"
#include "nn/weights/ggml_quantize.h"
#include "nn/weights/gguf_writer.h"
#include "tests/nn/golden_models.h"

namespace lathe::nn {

inline ModelConfig config_of(const nlohmann::json& json) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "config.json", json.dump());
  return read_hf_config(folder.path());
}

inline std::string error_of(const nlohmann::json& json) {
  try {
    config_of(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// The model's GGUF file with other metadata; a key whose value is a text "" is left out.
inline ModelConfig config_of_gguf(const std::string& model, const std::map<std::string, GgufValue>& changed) {
  const auto file = GgufFile::open(golden(model + "/model.gguf"));
  auto metadata = file->metadata();
  for (const auto& [key, value] : changed) metadata[key] = value;
  std::erase_if(metadata, [](const auto& entry) { return entry.second == GgufValue(std::string()); });
  const std::shared_ptr<const WeightSource> stored = open_gguf_weights(file, {});
  std::vector<GgufTensorToWrite> tensors;
  for (const WeightInfo& info : stored->weights())
    tensors.push_back({{info.name, info.shape,
                        [stored, name = info.name](int64_t first, int64_t count, float* out) {
                          stored->read_rows(name, first, count, out);
                        }},
                       ggml_writer("F32")});
  const TemporaryFolder folder;
  write_gguf(folder.path() / "model.gguf", {metadata.begin(), metadata.end()}, tensors);
  return open_model_files(folder.path() / "model.gguf").config;
}

inline std::vector<bool> attending(const ModelConfig& config) {
  std::vector<bool> attends;
  for (const LayerConfig& layer : config.layers) attends.push_back(layer.mixer == Mixer::attention);
  return attends;
}

}  // namespace lathe::nn
