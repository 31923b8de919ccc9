// Granite 4.0: Granite's factors; most layers mix their tokens by Mamba-2, or none does; the few that attend turn q and
// k or do not. Each has a feed-forward block whose gate and up are one linear, beside experts where the model has them.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/json.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/granite.h"

namespace lathe::nn {
namespace {

// transformers' GraniteMoeHybridConfig where config.json is silent.
HfFields with_defaults(HfFields config) {
  config.set_default("num_local_experts", 8);
  config.set_default("num_experts_per_tok", 2);
  config.set_default("shared_intermediate_size", 1024);
  config.set_default("mamba_n_heads", 128);
  config.set_default("mamba_n_groups", 1);
  config.set_default("mamba_d_state", 256);
  config.set_default("mamba_d_conv", 4);
  config.set_default("mamba_expand", 2);
  return config;
}

// Files of before transformers 5 have words of their own.
Mixer mixer_of(const nlohmann::ordered_json& type) {
  if (type == "mamba" || type == "linear_attention") return Mixer::mamba2;
  if (type == "attention" || type == "full_attention") return Mixer::attention;
  throw ConfigError("layer_types",
                    "expected mamba, attention, linear_attention or full_attention, found " + json_excerpt(type));
}

void set_mixers(ModelConfig& model, const HfFields& config) {
  const char* const key = config.find("layer_types") ? "layer_types" : "layers_block_type";
  const nlohmann::ordered_json* types = config.find(key);
  if (types == nullptr || !types->is_array() || types->size() != model.layers.size())
    throw ConfigError(key, "expected a word for each of the " + std::to_string(model.layers.size()) + " layers");
  for (size_t i = 0; i < model.layers.size(); ++i) model.layers[i].mixer = mixer_of((*types)[i]);
  if (model.layers_with(Mixer::attention) == 0)
    throw ConfigError(key, "a model without a layer that attends is not supported yet");
}

void set_positions(ModelConfig& model, const HfFields& config) {
  const std::string type = config.text("position_embedding_type", "nope");
  if (type != "rope" && type != "nope")
    throw ConfigError("position_embedding_type", "expected rope, nope or null, found " + json_excerpt(type));
  if (type == "nope")
    for (LayerConfig& layer : model.layers) layer.rope = no_rope;
}

// transformers 5 writes an infinite number as {"__float__": "Infinity"}.
double limit_of(const nlohmann::ordered_json& value) {
  if (value == nlohmann::ordered_json{{"__float__", "Infinity"}}) return std::numeric_limits<double>::infinity();
  if (!value.is_number()) throw ConfigError("time_step_limit", "expected two numbers, found " + json_excerpt(value));
  return value.get<double>();
}

int64_t head_dim_of(const HfFields& config, const ModelConfig& model, int64_t heads) {
  const int64_t inner = config.integer("mamba_expand") * model.hidden_size;
  const nlohmann::ordered_json* given = config.find("mamba_d_head");
  if (heads < 1 || inner % heads != 0)
    throw ConfigError("mamba_n_heads", "expected a divisor of mamba_expand · hidden_size = " + std::to_string(inner));
  if (given == nullptr || *given == "auto") return inner / heads;
  if (config.integer("mamba_d_head") * heads != inner)
    throw ConfigError("mamba_d_head",
                      "times mamba_n_heads is not mamba_expand · hidden_size = " + std::to_string(inner));
  return inner / heads;
}

void set_mamba2(ModelConfig& model, const HfFields& config) {
  if (model.layers_with(Mixer::mamba2) == 0) return;
  if (model.activation != Activation::silu)
    throw ConfigError("hidden_act", "expected silu, which the convolution before Mamba-2 has");
  const int64_t heads = config.integer("mamba_n_heads");
  model.mamba2 = {.heads = {.heads = heads,
                            .groups = config.integer("mamba_n_groups"),
                            .head_dim = head_dim_of(config, model, heads),
                            .state_size = config.integer("mamba_d_state")},
                  .taps = config.integer("mamba_d_conv"),
                  .conv_bias = config.flag("mamba_conv_bias", true),
                  .proj_bias = config.flag("mamba_proj_bias", false)};
  const nlohmann::ordered_json* limits = config.find("time_step_limit");
  if (limits == nullptr) return;
  if (!limits->is_array() || limits->size() != 2)
    throw ConfigError("time_step_limit", "expected two numbers, found " + json_excerpt(*limits));
  model.mamba2.dt_min = limit_of((*limits)[0]);
  model.mamba2.dt_max = limit_of((*limits)[1]);
}

constexpr const char* gate_up_name = "shared_mlp.input_linear";
constexpr const char* down_name = "shared_mlp.output_linear";

// `shared` wide is the block that all tokens go through, which has experts beside it or is alone.
void set_feed_forward(ModelConfig& model, int64_t shared, int64_t experts, int64_t per_token) {
  if (experts == 0) {
    model.intermediate_size = shared;
    model.fused_gate_up = true;
    model.names.gate_up_proj = gate_up_name;
    model.names.down_proj = down_name;
    return;
  }
  set_granite_experts(model, experts, per_token);
  model.experts.shared = {.intermediate_size = shared, .down_proj = down_name, .gate_up_proj = gate_up_name};
}

ModelConfig from_hf(const HfFields& given) {
  const HfFields config = with_defaults(given);
  ModelConfig result = granite_from_hf(config);
  set_mixers(result, config);
  set_positions(result, config);
  set_mamba2(result, config);
  set_feed_forward(result, config.integer("shared_intermediate_size"), config.integer("num_local_experts"),
                   config.integer("num_experts_per_tok"));
  return result;
}

// Keys of the recurrence stand in files without it, too.
void set_mamba2(ModelConfig& model, const GgufFile& file) {
  const auto count = [&file](const char* key) {
    return file.get_integer(std::string("granitehybrid.") + key, 1, INT32_MAX);
  };
  const auto first = std::ranges::find(model.layers, Mixer::mamba2, &LayerConfig::mixer);
  if (first == model.layers.end()) return;
  const int64_t heads = count("ssm.time_step_rank");
  model.mamba2 = {.heads = {.heads = heads,
                            .groups = count("ssm.group_count"),
                            .head_dim = count("ssm.inner_size") / heads,
                            .state_size = count("ssm.state_size")},
                  .taps = count("ssm.conv_kernel")};
  const std::string block = "blk." + std::to_string(first - model.layers.begin()) + ".";
  model.mamba2.conv_bias = file.find_tensor(block + "ssm_conv1d.bias") != nullptr;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = granite_from_gguf(file, granite_hybrid_family);
  const std::vector<int64_t> heads = gguf_kv_heads(*file, result.layers.size());
  for (size_t i = 0; i < heads.size(); ++i) result.layers[i].mixer = heads[i] > 0 ? Mixer::attention : Mixer::mamba2;
  set_mamba2(result, *file);
  // llama.cpp's switch: positions are those of a model that was trained with them.
  if (!file->get_optional<bool>("granitehybrid.rope.scaling.finetuned").value_or(true))
    for (LayerConfig& layer : result.layers) layer.rope = no_rope;
  if (file->get_optional<int64_t>("granitehybrid.expert_count").value_or(0) == 0) {
    set_feed_forward(result, result.intermediate_size, 0, 0);
    return result;
  }
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  set_feed_forward(result, file->get_integer("granitehybrid.expert_shared_feed_forward_length", 1, INT32_MAX),
                   counts.experts, counts.per_token);
  return result;
}

constexpr GgufName gguf_names[] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"}, {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},   {"self_attn.v_proj", "attn_v"},           {"self_attn.o_proj", "attn_output"},
    {"mamba.in_proj", "ssm_in"},      {"mamba.conv1d", "ssm_conv1d"},           {"mamba.norm", "ssm_norm"},
    {"mamba.out_proj", "ssm_out"},    {gate_up_name, "ffn_gate", "ffn_up"},     {down_name, "ffn_down"},
};

}  // namespace

constexpr Family granite_hybrid_family{.name = "granitemoehybrid",
                                       .hf_class = "GraniteMoeHybridForCausalLM",
                                       .gguf_architecture = "granitehybrid",
                                       .from_hf = from_hf,
                                       .from_gguf = from_gguf,
                                       .gguf_names = gguf_names,
                                       .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
