// lathe-model info: what is in the file, without loading a weight.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "nn/weight_check.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"
#include "programs/model/license.h"
#include "programs/model/model_memory.h"
#include "text/generation_config.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

struct InfoOptions {
  cli::CommonOptions common;
  std::string model;
  bool tensors = false;
};

struct TypeCount {
  int64_t tensors = 0, elements = 0, bytes = 0;
};

std::map<std::string, TypeCount> histogram(const nn::WeightSource& source) {
  std::map<std::string, TypeCount> types;
  for (const nn::WeightInfo& weight : source.weights()) {
    TypeCount& count = types[weight.stored_type];
    ++count.tensors;
    count.elements += weight.shape.numel();
    count.bytes += weight.stored_bytes;
  }
  return types;
}

// "default, tool_use", or "none"
std::string template_names(const data::Tokenizer& tokenizer) {
  std::string names;
  for (const auto& [name, source] : tokenizer.chat_templates()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "none" : names;
}

int64_t control_tokens(const data::Tokenizer& tokenizer) {
  int64_t count = 0;
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) count += tokenizer.is_special(static_cast<int32_t>(id));
  return count;
}

// "<|im_end|> (2), <|endoftext|> (0)"
std::string token_names(const std::vector<int32_t>& ids, const data::Tokenizer& tokenizer) {
  std::string names;
  for (const int32_t id : ids) names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", tokenizer.token(id), id);
  return names.empty() ? "nowhere" : names;
}

constexpr int64_t training_tokens = 1024;  // lathe-train's default max_length

std::string readable(int64_t bytes) {
  const bool small = bytes < (1 << 20);
  return fmt::format("{:>9.1f} {}", static_cast<double>(bytes) / (small ? 1 << 10 : 1 << 20), small ? "KiB" : "MiB");
}

void print_memory(const char* title, const std::vector<MemoryUse>& uses) {
  const char* before = title;
  for (const MemoryUse& use : uses) {
    fmt::print("  {:<16} {}  {}\n", before, readable(use.bytes), use.what);
    before = "";
  }
}

nlohmann::ordered_json json_of(const std::vector<MemoryUse>& uses) {
  nlohmann::ordered_json bytes = nlohmann::ordered_json::object();
  for (const MemoryUse& use : uses) bytes[use.name] = use.bytes;
  return bytes;
}

void print_tokenizer(const nn::ModelFiles& files, const data::Tokenizer& tokenizer) {
  fmt::print("  tokenizer        {} tokens, chat template: {}\n", grouped_digits(tokenizer.vocab_size()),
             printable(template_names(tokenizer)));
  fmt::print("  control tokens   {}; written in a prompt they are text (tokens with generate --raw --parse_special)\n",
             grouped_digits(control_tokens(tokenizer)));
  fmt::print("  answers end at   {}\n", printable(token_names(text::stop_tokens(files, tokenizer), tokenizer)));
}

void print_experts(const nn::ModelConfig& config) {
  const nn::ExpertsConfig& experts = config.experts;
  if (experts.num_experts == 0) return;
  fmt::print("  experts          {} in {} of the layers, {} to a token, each {} wide\n", experts.num_experts,
             std::ranges::count_if(config.layers, &nn::LayerConfig::experts), experts.num_experts_per_tok,
             experts.intermediate_size);
  if (experts.shared.intermediate_size > 0)
    fmt::print("  {:<16} and one for all tokens, {} wide{}\n", "", experts.shared.intermediate_size,
               experts.shared.gated ? ", by a gate of its own" : "");
}

// What mixes tokens in place of attention.
void print_mixers(const nn::ModelConfig& config) {
  if (const int64_t count = config.layers_with(nn::Mixer::short_conv); count > 0)
    fmt::print("  convolutions     of {} tokens, in {} of the layers\n", config.short_conv.taps, count);
  const nn::GatedDeltaConfig& delta = config.gated_delta;
  if (const int64_t count = config.layers_with(nn::Mixer::gated_delta); count > 0)
    fmt::print("  gated delta nets {} heads of {} over {} key heads of {}, in {} of the layers\n",
               delta.heads.value_heads, delta.heads.value_dim, delta.heads.key_heads, delta.heads.key_dim, count);
  const kernels::Mamba2Heads& mamba = config.mamba2.heads;
  if (const int64_t count = config.layers_with(nn::Mixer::mamba2); count > 0)
    fmt::print("  Mamba-2          {} heads of {} with states of {}, in {} of the layers\n", mamba.heads,
               mamba.head_dim, mamba.state_size, count);
}

void add_mixers(const nn::ModelConfig& config, nlohmann::ordered_json& result) {
  if (const int64_t count = config.layers_with(nn::Mixer::short_conv); count > 0) {
    result["num_conv_layers"] = count;
    result["conv_L_cache"] = config.short_conv.taps;
  }
  const nn::GatedDeltaConfig& delta = config.gated_delta;
  if (const int64_t count = config.layers_with(nn::Mixer::gated_delta); count > 0) {
    result["num_linear_attention_layers"] = count;
    result["linear_conv_kernel_dim"] = delta.taps;
    result["linear_num_key_heads"] = delta.heads.key_heads;
    result["linear_num_value_heads"] = delta.heads.value_heads;
    result["linear_key_head_dim"] = delta.heads.key_dim;
    result["linear_value_head_dim"] = delta.heads.value_dim;
  }
  const nn::Mamba2Config& mamba = config.mamba2;
  if (const int64_t count = config.layers_with(nn::Mixer::mamba2); count > 0) {
    result["num_mamba_layers"] = count;
    result["mamba_d_conv"] = mamba.taps;
    result["mamba_n_heads"] = mamba.heads.heads;
    result["mamba_d_head"] = mamba.heads.head_dim;
    result["mamba_d_state"] = mamba.heads.state_size;
    result["mamba_n_groups"] = mamba.heads.groups;
  }
}

void print_text(const nn::ModelFiles& files, const data::Tokenizer* tokenizer, bool tensors) {
  const nn::ModelConfig& c = files.config;
  fmt::print("{}\n", files.path.string());
  fmt::print("  family           {}{}\n", c.family,
             c.multimodal ? " (the text model of one that sees or hears; the rest is left alone)" : "");
  if (const std::string license = license_of(files); !license.empty())
    fmt::print("  licence          {}\n", printable(license));
  fmt::print("  parameters       {}\n", grouped_digits(c.parameter_count()));
  fmt::print("  layers           {}, hidden {}, feed-forward {}\n", c.num_hidden_layers(), c.hidden_size,
             c.intermediate_size);
  print_experts(c);
  fmt::print("  attention        {} heads over {} key/value heads of {}\n", c.num_attention_heads,
             c.num_key_value_heads, c.head_dim);
  print_mixers(c);
  fmt::print("  vocabulary       {}{}\n", grouped_digits(c.vocab_size),
             c.tie_word_embeddings ? " (output tied to the embedding)" : "");
  fmt::print("  context          {} tokens, rope base {:g}\n", grouped_digits(c.max_position_embeddings),
             c.ropes[0].theta);
  if (tokenizer != nullptr) print_tokenizer(files, *tokenizer);
  const text::GenerationConfig generation = text::read_generation_config(files.path);
  const char* before = "  its authors sample with ";
  for (const auto& [name, value] : generation.sampling.items()) {
    fmt::print("{}{} {}", before, name, printable(json_excerpt(value)));
    before = ", ";
  }
  if (!generation.sampling.empty()) fmt::print(" (generation_config.json; flags decide, these are not applied)\n");
  fmt::print("  weights\n");
  for (const auto& [type, count] : histogram(*files.weights))
    fmt::print("    {:<6} {:>4} tensors {:>15} elements {:>9.1f} MiB\n", type, count.tensors,
               grouped_digits(count.elements), static_cast<double>(count.bytes) / (1 << 20));
  print_memory("loaded", weight_memory(files));
  print_memory(c.layers_with(nn::Mixer::attention) < c.num_hidden_layers() ? "what layers keep" : "keys and values",
               kv_cache_memory(c));
  print_memory("training", training_memory(files, training_tokens));
  fmt::print("  {:<16} in bf16 with gradient checkpointing, a sequence of {} tokens at a time\n", "", training_tokens);
  if (!tensors) return;
  for (const nn::WeightInfo& weight : files.weights->weights())
    fmt::print("    {:<48} {:<6} {}\n", printable(weight.name), weight.stored_type, to_string(weight.shape));
}

void print_json(const nn::ModelFiles& files, const data::Tokenizer* tokenizer) {
  const nn::ModelConfig& c = files.config;
  nlohmann::ordered_json result = {
      {"path", files.path.string()},
      {"family", c.family},
      {"multimodal", c.multimodal},
      {"parameters", c.parameter_count()},
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.hidden_size},
      {"intermediate_size", c.intermediate_size},
      {"num_hidden_layers", c.num_hidden_layers()},
      {"num_attention_heads", c.num_attention_heads},
      {"num_key_value_heads", c.num_key_value_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.max_position_embeddings},
      {"rope_theta", c.ropes[0].theta},
      {"tie_word_embeddings", c.tie_word_embeddings},
      {"eos_token_ids", c.eos_token_ids},
  };
  if (c.experts.num_experts > 0) {
    result["num_experts"] = c.experts.num_experts;
    result["num_experts_per_tok"] = c.experts.num_experts_per_tok;
    result["moe_intermediate_size"] = c.experts.intermediate_size;
    if (c.experts.shared.intermediate_size > 0)
      result["shared_expert_intermediate_size"] = c.experts.shared.intermediate_size;
  }
  add_mixers(c, result);
  if (tokenizer != nullptr) {
    result["stop_token_ids"] = text::stop_tokens(files, *tokenizer);
    result["chat_template"] = !tokenizer->chat_templates().empty();
    result["chat_templates"] = template_names(*tokenizer);
  }
  if (auto sampling = text::read_generation_config(files.path).sampling; !sampling.empty())
    result["generation_config"] = std::move(sampling);
  if (const std::string license = license_of(files); !license.empty()) result["license"] = license;
  for (const auto& [type, count] : histogram(*files.weights))
    result["types"][type] = {{"tensors", count.tensors}, {"elements", count.elements}, {"bytes", count.bytes}};
  result["memory"] = {{"weights", json_of(weight_memory(files))},
                      {"kv_cache", json_of(kv_cache_memory(c))},
                      {"training", json_of(training_memory(files, training_tokens))}};
  for (const nn::WeightInfo& weight : files.weights->weights())
    result["weights"].push_back(
        {{"name", weight.name},
         {"type", weight.stored_type},
         {"shape", std::vector<int64_t>(weight.shape.dims().begin(), weight.shape.dims().end())},
         {"bytes", weight.stored_bytes}});
  fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

// Null, after a warning that says why, for files whose tokenizer is missing or cannot be read: the rest is told.
std::shared_ptr<const data::Tokenizer> tokenizer_of(const nn::ModelFiles& files) {
  try {
    return text::load_tokenizer(files);
  } catch (const Error& error) {
    cli::print_warning(std::string("text cannot be read or written with these files: ") + error.what());
    return nullptr;
  }
}

}  // namespace

void add_info(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "what is in a model: its shape, its tensors' types, its tokenizer");
  command
      ->add_option("MODEL", options->model,
                   ".gguf file, Hugging Face directory, or ORG/NAME that lathe-model pull has fetched")
      ->required();
  command->add_flag("--tensors", options->tensors, "list every tensor");
  cli::add_common_options(*command, options->common);
  command->callback([options] {
    const nn::ModelFiles files = nn::open_model_files(options->model);
    for (const std::string& warning : files.warnings) cli::print_warning(warning);
    for (const std::string& sentence : nn::weight_contradictions(files))
      cli::print_warning("the config and the weights contradict each other: " + sentence);
    const std::shared_ptr<const data::Tokenizer> tokenizer = tokenizer_of(files);
    options->common.json ? print_json(files, tokenizer.get()) : print_text(files, tokenizer.get(), options->tensors);
  });
}

}  // namespace lathe::programs
