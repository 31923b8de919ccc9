#include "nn/families/gguf_fields.h"

#include "core/error.h"

namespace lathe::nn {
namespace {

RopeScaling rope_scaling_from_gguf(const GgufFile& file, const std::string& architecture) {
  RopeScaling result;
  const auto scaling = file.get_optional<std::string>(architecture + ".rope.scaling.type");
  if (scaling && *scaling == "linear") {
    result.kind = RopeScalingKind::linear;
    result.factor = file.get<double>(architecture + ".rope.scaling.factor");
  } else if ((scaling && *scaling != "none") || file.find_tensor("rope_freqs.weight") != nullptr) {
    throw ConfigError(architecture + ".rope.scaling.type", "only none and linear can be read from a GGUF file yet");
  }
  return result;
}

}  // namespace

ModelConfig read_gguf_fields(const GgufFile& file, const Family& family) {
  const std::string architecture(family.gguf_architecture);
  const auto key = [&architecture](const char* name) { return architecture + "." + name; };
  ModelConfig result;
  result.family = family.name;
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    throw FormatError(file.path().string(), -1, "has no token_embd.weight of two dimensions");
  result.vocab_size = embedding->shape[0];
  result.hidden_size = file.get<int64_t>(key("embedding_length"));
  result.intermediate_size = file.get<int64_t>(key("feed_forward_length"));
  result.layers.resize(layer_count(key("block_count"), file.get<int64_t>(key("block_count"))));
  result.num_attention_heads = file.get<int64_t>(key("attention.head_count"));
  result.num_key_value_heads =
      file.get_optional<int64_t>(key("attention.head_count_kv")).value_or(result.num_attention_heads);
  if (result.num_attention_heads <= 0)
    throw FormatError(file.path().string(), -1, key("attention.head_count") + ": expected a positive number");
  result.head_dim =
      file.get_optional<int64_t>(key("attention.key_length")).value_or(result.hidden_size / result.num_attention_heads);
  result.max_position_embeddings = file.get<int64_t>(key("context_length"));
  result.rms_norm_eps = file.get<double>(key("attention.layer_norm_rms_epsilon"));
  result.ropes = {
      {file.get_optional<double>(key("rope.freq_base")).value_or(10000.0), rope_scaling_from_gguf(file, architecture)}};
  result.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  if (const auto eos = file.get_optional<int64_t>("tokenizer.ggml.eos_token_id"))
    result.eos_token_ids.push_back(static_cast<int32_t>(*eos));
  return result;
}

}  // namespace lathe::nn
