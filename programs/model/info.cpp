// lathe-model info: what is in the file, without loading a weight.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/digits.h"
#include "core/json.h"
#include "core/printable.h"
#include "nn/layer_layout.h"
#include "nn/quantization.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"
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

// MiB of the weights once they are loaded on the CPU.
double loaded_mebibytes(const nn::ModelConfig& config, DType dtype,
                        const std::optional<nn::Quantization>& quantization) {
  int64_t bytes = config.parameter_count() * size_of(dtype);
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer)
    for (const nn::LinearShape& linear : nn::layer_layout(config, layer).linears_and_experts())
      bytes += nn::linear_bytes(linear, dtype, quantization, {}) - linear.out * linear.in * size_of(dtype);
  return static_cast<double>(bytes) / (1 << 20);
}

void print_text(const nn::ModelFiles& files, const data::Tokenizer& tokenizer, bool tensors) {
  const nn::ModelConfig& c = files.config;
  fmt::print("{}\n", files.path.string());
  fmt::print("  family           {}\n", c.family);
  fmt::print("  parameters       {}\n", grouped_digits(c.parameter_count()));
  fmt::print("  layers           {}, hidden {}, feed-forward {}\n", c.num_hidden_layers(), c.hidden_size,
             c.intermediate_size);
  fmt::print("  attention        {} heads over {} key/value heads of {}\n", c.num_attention_heads,
             c.num_key_value_heads, c.head_dim);
  fmt::print("  vocabulary       {}{}\n", grouped_digits(c.vocab_size),
             c.tie_word_embeddings ? " (output tied to the embedding)" : "");
  fmt::print("  context          {} tokens, rope base {:g}\n", grouped_digits(c.max_position_embeddings),
             c.ropes[0].theta);
  fmt::print("  tokenizer        {} tokens, chat template: {}\n", grouped_digits(tokenizer.vocab_size()),
             printable(template_names(tokenizer)));
  fmt::print("  control tokens   {}; written in a prompt they are text (tokens with generate --raw --parse_special)\n",
             grouped_digits(control_tokens(tokenizer)));
  fmt::print("  answers end at   {}\n", printable(token_names(text::stop_tokens(files, tokenizer), tokenizer)));
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
  const std::optional<nn::Quantization> stored = nn::resolved_quantization(files, {});
  fmt::print("  loaded           {:.1f} MiB in f32, {:.1f} in bf16", loaded_mebibytes(c, DType::f32, stored),
             loaded_mebibytes(c, DType::bf16, stored));
  if (stored) {
    fmt::print(" beside linears in {}\n", nn::name_of(*stored));
  } else {
    fmt::print("; in bf16 with --load_in_8bit {:.1f}, with --load_in_4bit {:.1f}\n",
               loaded_mebibytes(c, DType::bf16, nn::Quantization{kernels::QuantizedFormat::int8}),
               loaded_mebibytes(c, DType::bf16, nn::Quantization{kernels::QuantizedFormat::nf4}));
  }
  if (!tensors) return;
  for (const nn::WeightInfo& weight : files.weights->weights())
    fmt::print("    {:<48} {:<6} {}\n", printable(weight.name), weight.stored_type, to_string(weight.shape));
}

void print_json(const nn::ModelFiles& files, const data::Tokenizer& tokenizer) {
  const nn::ModelConfig& c = files.config;
  nlohmann::ordered_json result = {
      {"path", files.path.string()},
      {"family", c.family},
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
      {"stop_token_ids", text::stop_tokens(files, tokenizer)},
      {"chat_template", !tokenizer.chat_templates().empty()},
      {"chat_templates", template_names(tokenizer)},
  };
  if (auto sampling = text::read_generation_config(files.path).sampling; !sampling.empty())
    result["generation_config"] = std::move(sampling);
  for (const nn::WeightInfo& weight : files.weights->weights())
    result["weights"].push_back(
        {{"name", weight.name},
         {"type", weight.stored_type},
         {"shape", std::vector<int64_t>(weight.shape.dims().begin(), weight.shape.dims().end())},
         {"bytes", weight.stored_bytes}});
  fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
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
    for (const std::string& warning : files.warnings) fmt::print(stderr, "warning: {}\n", warning);
    const auto tokenizer = text::load_tokenizer(files);
    options->common.json ? print_json(files, *tokenizer) : print_text(files, *tokenizer, options->tensors);
  });
}

}  // namespace lathe::programs
