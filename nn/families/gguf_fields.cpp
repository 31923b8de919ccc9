#include "nn/families/gguf_fields.h"

#include "core/error.h"

namespace lathe::nn {
namespace {

constexpr const char* frequency_factors_tensor = "rope_freqs.weight";

// The keys of one architecture, by their names behind it ("block_count" of "llama.block_count").
class ArchitectureKeys {
 public:
  ArchitectureKeys(const GgufFile& file, std::string_view architecture) : file_(file), architecture_(architecture) {}
  std::string key(const char* name) const { return architecture_ + "." + name; }
  bool has(const char* name) const { return file_.contains(key(name)); }
  int64_t integer(const char* name) const { return file_.get_integer(key(name), 0, INT32_MAX); }
  int64_t integer(const char* name, int64_t otherwise) const { return has(name) ? integer(name) : otherwise; }
  double number(const char* name) const { return file_.get_number(key(name)); }
  double number(const char* name, double otherwise) const { return has(name) ? number(name) : otherwise; }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

// As llama.cpp reads it: a factor without a type is a linear one.
RopeScaling read_rope_scaling(const GgufFile& file, const ArchitectureKeys& keys) {
  RopeScaling result;
  const std::string type_key = keys.key("rope.scaling.type");
  const std::string type =
      file.get_optional<std::string>(type_key).value_or(keys.has("rope.scaling.factor") ? "linear" : "none");
  if (type == "linear") {
    result.kind = RopeScalingKind::linear;
    result.factor = keys.number("rope.scaling.factor");
  } else if (type != "none") {
    throw ConfigError(type_key, "only none and linear can be read from a GGUF file yet");
  }
  return result;
}

// rope_freqs.weight: how Llama 3.1's scaling is written in GGUF.
std::vector<float> read_frequency_factors(const std::shared_ptr<const GgufFile>& file, int64_t head_dim) {
  const GgufTensor* tensor = file->find_tensor(frequency_factors_tensor);
  if (tensor == nullptr) return {};
  if (tensor->shape != Shape{head_dim / 2})
    throw FormatError(file->path_of(*tensor).string(), tensor->offset,
                      std::string(frequency_factors_tensor) + ": expected shape " + to_string(Shape{head_dim / 2}) +
                          ", half a head, found " + to_string(tensor->shape));
  std::vector<float> factors(static_cast<size_t>(head_dim / 2));
  open_gguf_weights(file, {})->read_rows(frequency_factors_tensor, 0, 1, factors.data());
  return factors;
}

}  // namespace

ModelConfig read_gguf_fields(const std::shared_ptr<const GgufFile>& opened, const Family& family) {
  const GgufFile& file = *opened;
  const ArchitectureKeys keys(file, family.gguf_architecture);
  ModelConfig result;
  result.family = family.name;
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    throw FormatError(file.path().string(), -1, "has no token_embd.weight of two dimensions");
  result.vocab_size = embedding->shape[0];
  result.hidden_size = keys.integer("embedding_length");
  result.intermediate_size = keys.integer("feed_forward_length");
  result.layers.resize(layer_count(keys.key("block_count"), keys.integer("block_count")));
  result.num_attention_heads = keys.integer("attention.head_count");
  result.num_key_value_heads = keys.integer("attention.head_count_kv", result.num_attention_heads);
  if (result.num_attention_heads == 0)
    throw FormatError(file.path().string(), -1, keys.key("attention.head_count") + ": expected a positive number");
  result.head_dim = keys.integer("attention.key_length", result.hidden_size / result.num_attention_heads);
  if (keys.integer("rope.dimension_count", result.head_dim) != result.head_dim)
    throw ConfigError(keys.key("rope.dimension_count"), "rotary embedding of a part of each head (" +
                                                            std::to_string(keys.integer("rope.dimension_count")) +
                                                            " of " + std::to_string(result.head_dim) +
                                                            " dimensions) is not supported");
  result.max_position_embeddings = keys.integer("context_length");
  result.rms_norm_eps = keys.number("attention.layer_norm_rms_epsilon");
  result.ropes = {{.theta = keys.number("rope.freq_base", 10000.0),
                   .scaling = read_rope_scaling(file, keys),
                   .frequency_factors = read_frequency_factors(opened, result.head_dim)}};
  result.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  if (file.find_tensor("blk.0.attn_q.bias") != nullptr)
    result.attention_bias =
        file.find_tensor("blk.0.attn_output.bias") != nullptr ? AttentionBias::qkvo : AttentionBias::qkv;
  const std::string eos = "tokenizer.ggml.eos_token_id";
  if (file.contains(eos)) result.eos_token_ids = {static_cast<int32_t>(file.get_integer(eos, 0, INT32_MAX))};
  return result;
}

}  // namespace lathe::nn
