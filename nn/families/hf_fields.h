// config.json by transformers' names: typed fields, and what the families' files have in common.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "nn/config.h"

namespace lathe::nn {

// A JSON object of a model's directory, or one within it. Null stands for a key that is not there. A key that is
// missing, of another type or out of range is a FormatError that names it.
class HfFields {
 public:
  // FormatError when `value` is no object. `prefix` goes before the keys in errors ("rope_scaling.").
  HfFields(nlohmann::ordered_json value, std::string file, std::string prefix = "");
  // The object of a whole file.
  static HfFields read(const std::filesystem::path& path);

  const std::string& file() const { return file_; }
  const nlohmann::ordered_json* find(const char* key) const;  // nullptr where there is none
  // 0 … 2^31 − 1, whole: 8 or 8.0.
  int64_t integer(const char* key) const;
  int64_t integer(const char* key, int64_t otherwise) const { return find(key) ? integer(key) : otherwise; }
  double number(const char* key) const;  // finite
  double number(const char* key, double otherwise) const { return find(key) ? number(key) : otherwise; }
  std::string text(const char* key) const;
  std::string text(const char* key, const char* otherwise) const { return find(key) ? text(key) : otherwise; }
  bool flag(const char* key, bool otherwise) const;
  std::vector<float> numbers(const char* key) const;  // a list, each finite
  // One id or a list of them; none where the key is not there.
  std::vector<int32_t> token_ids(const char* key) const;
  // The object under the key; an empty one where the key is not there.
  HfFields object(const char* key) const;

  // Gives the key a value where the file does not have it; a null of the file stays.
  void set_default(const char* key, nlohmann::ordered_json value);
  // Gives the key a value in place of the file's.
  void set(const char* key, nlohmann::ordered_json value) { values_[key] = std::move(value); }

 private:
  const nlohmann::ordered_json& required(const char* key) const;

  nlohmann::ordered_json values_;
  std::string file_, prefix_;
};

// What a rotary table is read with beside its own fields.
struct RopeDefaults {
  double theta = 10000.0;
  int64_t max_position_embeddings = 0;
  int64_t original_max_position_embeddings = 0;  // where the config has it outside the table's fields; it counts
};

// A rotary table from rope_parameters, or from rope_scaling, which has no rope_theta.
RopeConfig read_rope(const HfFields& rope, const RopeDefaults& defaults);

// The fields of Llama, which others extend: layers that are all alike, one rotary table. Without num_key_value_heads
// there are as many as heads; without head_dim the heads share the width out.
ModelConfig read_hf_fields(const HfFields& config);

// Which layers have experts, Qwen's way: of every decoder_sparse_step the last, but for mlp_only_layers. ConfigError
// naming the key.
void set_sparse_layers(ModelConfig& model, const HfFields& config);

// What mixes the tokens of a layer whose word in layer_types is "full_attention", or `word`, which stands for `other`.
// ConfigError for any other word, and where there is none for the layer.
Mixer mixer_by_type(const nlohmann::ordered_json& types, size_t layer, const std::string& word, Mixer other);

}  // namespace lathe::nn
