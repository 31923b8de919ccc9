#include "nn/families/gguf_fields.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace lathe::nn {
namespace {

constexpr const char* frequency_factors_tensor = "rope_freqs.weight";

// The keys of the file's architecture, by their names behind it ("block_count" of "llama.block_count").
class ArchitectureKeys {
 public:
  explicit ArchitectureKeys(const GgufFile& file)
      : file_(file), architecture_(file.get<std::string>("general.architecture")) {}
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

constexpr const char* short_factors_tensor = "rope_factors_short.weight";
constexpr const char* long_factors_tensor = "rope_factors_long.weight";

std::vector<float> read_factors(const std::shared_ptr<const GgufFile>& file, const char* name, int64_t frequencies) {
  const GgufTensor* tensor = file->find_tensor(name);
  if (tensor == nullptr) return {};
  if (tensor->shape != Shape{frequencies})
    throw FormatError(file->path_of(*tensor).string(), tensor->offset,
                      std::string(name) + ": expected shape " + to_string(Shape{frequencies}) +
                          ", half of the dimensions that turn, found " + to_string(tensor->shape));
  std::vector<float> factors(static_cast<size_t>(frequencies));
  open_gguf_weights(file, {})->read_rows(name, 0, 1, factors.data());
  return factors;
}

// llama.cpp keeps Phi-3's two lists of factors as tensors, and needs no other word for them.
RopeScaling read_longrope(const std::shared_ptr<const GgufFile>& file, const ArchitectureKeys& keys,
                          int64_t frequencies) {
  RopeScaling result;
  result.kind = RopeScalingKind::longrope;
  result.short_factor = read_factors(file, short_factors_tensor, frequencies);
  result.long_factor = read_factors(file, long_factors_tensor, frequencies);
  result.original_max_position_embeddings = keys.integer("rope.scaling.original_context_length");
  result.attention_factor = keys.number("rope.scaling.attn_factor", 1.0);
  return result;
}

// As llama.cpp computes it: the ramp of transformers' yarn with its usual attention factor, which a multiplier of the
// logarithm (transformers' mscale_all_dim, with an mscale of 1) divides.
RopeScaling read_yarn(const ArchitectureKeys& keys, const Family& family) {
  const char* const multiplier = "rope.scaling.yarn_log_multiplier";
  for (const char* name : {multiplier, "rope.scaling.yarn_ext_factor"})
    if (keys.has(name) && (name != multiplier || &family != &ministral3_family))
      throw ConfigError(keys.key(name), "cannot be read from a GGUF file yet: take the Hugging Face directory");
  RopeScaling result;
  result.kind = RopeScalingKind::yarn;
  result.factor = keys.number("rope.scaling.factor");
  result.original_max_position_embeddings = keys.integer("rope.scaling.original_context_length");
  result.beta_fast = keys.number("rope.scaling.yarn_beta_fast", result.beta_fast);
  result.beta_slow = keys.number("rope.scaling.yarn_beta_slow", result.beta_slow);
  const double logarithm = result.factor > 1 ? 0.1 * std::log(result.factor) : 0;
  result.attention_factor = (1 + logarithm) / (1 + keys.number(multiplier, 0) * logarithm) *
                            keys.number("rope.scaling.attn_factor", 1.0) *
                            keys.number("rope.scaling.yarn_attn_factor", 1.0);
  return result;
}

// As llama.cpp reads it: a factor without a type is a linear one.
RopeScaling read_rope_scaling(const std::shared_ptr<const GgufFile>& opened, const ArchitectureKeys& keys,
                              const Family& family, int64_t frequencies) {
  const GgufFile& file = *opened;
  if (file.find_tensor(long_factors_tensor) != nullptr) return read_longrope(opened, keys, frequencies);
  RopeScaling result;
  const std::string type_key = keys.key("rope.scaling.type");
  const std::string type =
      file.get_optional<std::string>(type_key).value_or(keys.has("rope.scaling.factor") ? "linear" : "none");
  if (type == "linear") {
    result.kind = RopeScalingKind::linear;
    result.factor = keys.number("rope.scaling.factor");
  } else if (type == "yarn") {
    return read_yarn(keys, family);
  } else if (type != "none") {
    throw ConfigError(type_key, "expected none, linear, yarn, or longrope with its factors, found \"" + type + "\"");
  }
  return result;
}

// The one number that layers which attend have.
int64_t kv_heads_of_attention(const GgufFile& file, const ArchitectureKeys& keys, size_t layers) {
  const std::vector<int64_t> heads = gguf_kv_heads(file, layers);
  const int64_t most = *std::ranges::max_element(heads);
  for (const int64_t count : heads)
    if (count != 0 && count != most)
      throw ConfigError(keys.key("attention.head_count_kv"), "layers of " + std::to_string(count) + " and of " +
                                                                 std::to_string(most) + " heads are not supported");
  return most;
}

}  // namespace

std::string gguf_key(const GgufFile& file, const char* name) { return ArchitectureKeys(file).key(name); }

std::vector<int64_t> gguf_kv_heads(const GgufFile& file, size_t layers) {
  const ArchitectureKeys keys(file);
  const auto found = file.metadata().find(keys.key("attention.head_count_kv"));
  const auto* listed = found == file.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&found->second);
  if (listed == nullptr) return std::vector<int64_t>(layers, keys.integer("attention.head_count_kv"));
  const bool counts = std::ranges::all_of(*listed, [](int64_t count) { return count >= 0 && count <= INT32_MAX; });
  if (listed->size() == layers && counts) return *listed;
  throw FormatError(file.path().string(), -1,
                    found->first + ": expected a number of heads for each of " + std::to_string(layers) +
                        " layers, found " + std::to_string(listed->size()) + " numbers");
}

ModelConfig read_gguf_fields(const std::shared_ptr<const GgufFile>& opened, const Family& family) {
  const GgufFile& file = *opened;
  const ArchitectureKeys keys(file);
  ModelConfig result;
  result.family = family.name;
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    throw FormatError(file.path().string(), -1, "has no token_embd.weight of two dimensions");
  result.vocab_size = embedding->shape[0];
  result.hidden_size = keys.integer("embedding_length");
  // Where all layers have experts, some files say how wide these are alone.
  const bool of_experts = !keys.has("feed_forward_length") && keys.has("expert_feed_forward_length");
  result.intermediate_size = keys.integer(of_experts ? "expert_feed_forward_length" : "feed_forward_length");
  result.layers.resize(layer_count(keys.key("block_count"), keys.integer("block_count")));
  result.num_attention_heads = keys.integer("attention.head_count");
  result.num_key_value_heads = result.num_attention_heads;
  if (keys.has("attention.head_count_kv"))
    result.num_key_value_heads = kv_heads_of_attention(file, keys, result.layers.size());
  if (result.num_attention_heads == 0)
    throw FormatError(file.path().string(), -1, keys.key("attention.head_count") + ": expected a positive number");
  result.head_dim = keys.integer("attention.key_length", result.hidden_size / result.num_attention_heads);
  const int64_t rotary_dim = keys.integer("rope.dimension_count", result.head_dim), frequencies = rotary_dim / 2;
  if (rotary_dim != result.head_dim && family.gguf_rotary_rows == GgufRotaryRows::interleaved)
    throw ConfigError(keys.key("rope.dimension_count"),
                      "rotary embedding of a part of each head (" + std::to_string(rotary_dim) + " of " +
                          std::to_string(result.head_dim) + " dimensions) is not supported for " +
                          std::string(family.gguf_architecture));
  result.max_position_embeddings = keys.integer("context_length");
  result.rms_norm_eps = keys.number("attention.layer_norm_rms_epsilon");
  result.ropes = {{.theta = keys.number("rope.freq_base", 10000.0),
                   .scaling = read_rope_scaling(opened, keys, family, frequencies),
                   .frequency_factors = read_factors(opened, frequency_factors_tensor, frequencies),  // Llama 3.1's
                   .rotary_dim = rotary_dim == result.head_dim ? 0 : rotary_dim}};
  result.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  if (file.find_tensor("blk.0.attn_q.bias") != nullptr)
    result.attention_bias =
        file.find_tensor("blk.0.attn_output.bias") != nullptr ? AttentionBias::qkvo : AttentionBias::qkv;
  const std::string eos = "tokenizer.ggml.eos_token_id";
  if (file.contains(eos)) result.eos_token_ids = {static_cast<int32_t>(file.get_integer(eos, 0, INT32_MAX))};
  return result;
}

ExpertCounts read_gguf_expert_counts(const GgufFile& file) {
  const ArchitectureKeys keys(file);
  return {file.get_integer(keys.key("expert_count"), 1, INT32_MAX),
          file.get_integer(keys.key("expert_used_count"), 1, INT32_MAX)};
}

}  // namespace lathe::nn
