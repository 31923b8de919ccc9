#include "programs/cli/session.h"

#include <chrono>
#include <utility>

#include "core/thread_pool.h"
#include "nn/adapter.h"
#include "nn/weight_loader.h"
#include "programs/cli/messages.h"

namespace lathe::cli {
namespace {

// Seconds since the last call, or since it was made.
class Lap {
 public:
  double operator()() {
    const Clock::time_point before = std::exchange(last_, Clock::now());
    return std::chrono::duration<double>(last_ - before).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

// An adapter must fit the model in every key; what its config says beside is printed as a warning.
void load_adapter_into(nn::Transformer& model, const std::filesystem::path& directory, const nn::ModelFiles& files,
                       const std::optional<nn::Quantization>& quantization) {
  std::vector<std::string> warnings;
  const nn::PeftAdapter adapter = nn::read_peft_adapter(directory, &warnings);
  model.load_adapter(adapter);
  for (std::string& warning : nn::adapter_warnings(files, adapter.config, quantization))
    warnings.push_back(std::move(warning));
  for (const std::string& warning : warnings) print_warning(directory.string() + ": " + warning);
}

// As nn::WeightLoader reads them.
HeldWeights held_weights(const nn::ModelFiles& files, const nn::TransformerOptions& options) {
  HeldWeights held{std::string(name_of(options.dtype)), {}};
  if (options.quantized_linears) {
    held.kind = name_of(*options.quantized_linears);
    return held;
  }
  for (const nn::WeightInfo& info : files.weights->weights())
    if (nn::stays_in_blocks(info, options.dtype, options.stored_blocks) ||
        nn::stays_bf16(info, options.dtype, options.device, options.stored_blocks)) {
      held.kind = "file";
      ++held.file_formats[info.stored_type];
    }
  return held;
}

}  // namespace

void add_quantization_options(CLI::App& command, QuantizationOptions& options) {
  command.add_flag("--load_in_4bit", options.load_in_4bit,
                   "hold the layers' linears as 4-bit codes (nf4), as a QLoRA adapter was trained beside them");
  command.add_flag("--load_in_8bit", options.load_in_8bit, "hold the layers' linears as 8-bit integers with scales");
  command.add_flag("--bnb_4bit_use_double_quant", options.bnb_4bit_use_double_quant,
                   "of load_in_4bit: the scales in 8 bits, too");
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("MODEL", options.model,
                  ".gguf file, Hugging Face directory, or ORG/NAME that lathe-model pull has fetched")
      ->required();
  command.add_option("--adapter", options.adapter, "PEFT adapter directory to put on the model");
  command
      .add_option("--dtype", options.dtype,
                  "auto (bf16 where the device multiplies it, else f32), f32, bf16, f16 or f64")
      ->capture_default_str();
  command
      .add_option(
          "--weights", options.weights,
          "file: a GGUF file's matrices in blocks stay what they are, and the cpu multiplies "
          "activations as whole numbers of 16 bits; those of bf16 stay so, too; bf16 or f32: all are widened to "
          "that dtype")
      ->capture_default_str();
  add_quantization_options(command, options.quantization);
  command
      .add_option("--kv_cache_dtype", options.kv_cache_dtype,
                  "what keys and values are kept in while generating: auto (the dtype), f32, bf16, f16, or int8 (half "
                  "of bf16's memory)")
      ->capture_default_str();
  add_common_options(command, options.common);
}

void add_sampling_options(CLI::App& command, kernels::SamplingParams& sampling, int64_t& max_tokens) {
  sampling.temperature = 0;
  command.add_option("--max_tokens,--max_new_tokens", max_tokens, "tokens to generate at most")->capture_default_str();
  command.add_option("--temperature", sampling.temperature, "0 always takes the likeliest token")
      ->capture_default_str();
  command.add_option("--top_k", sampling.top_k, "keep the k likeliest tokens (0: all)")->capture_default_str();
  command.add_option("--top_p", sampling.top_p, "keep the likeliest tokens that reach this probability together")
      ->capture_default_str();
  command.add_option("--min_p", sampling.min_p, "drop tokens below this share of the likeliest one's probability")
      ->capture_default_str();
  command.add_option("--repetition_penalty", sampling.repetition_penalty, "above 1: seen tokens become less likely")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "the same seed gives the same text")->capture_default_str();
}

Session Session::open(const ModelOptions& options) {
  const Device device = options.common.parsed_device();
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  Lap lap;
  const nn::ModelFiles files = nn::open_model_files(options.model);
  const auto quantization = options.quantization.wanted();
  for (const auto& warnings : {files.warnings, nn::quantization_warnings(files, quantization)})
    for (const std::string& warning : warnings) print_warning(warning);
  Session session;
  session.config = files.config;
  session.opening.files = lap();
  session.text = text::load_model_text(files);
  session.opening.tokenizer = lap();
  nn::TransformerOptions transformer;
  const auto precision = nn::parse_inference_precision(options.weights, options.dtype, device);
  transformer.dtype = precision.dtype;
  transformer.stored_blocks = precision.stored_blocks;
  transformer.device = device;
  transformer.quantized_linears = nn::resolved_quantization(files, quantization);
  session.engine.kv_cache_dtype = nn::parse_kv_cache_dtype(options.kv_cache_dtype, transformer.dtype);
  session.weights = held_weights(files, transformer);
  session.model = std::make_unique<nn::Transformer>(files.config, *files.weights, transformer);
  if (!options.adapter.empty())
    load_adapter_into(*session.model, options.adapter, files, transformer.quantized_linears);
  session.opening.weights = lap();
  return session;
}

engine::Request Session::request(std::vector<int32_t> prompt, const kernels::SamplingParams& sampling,
                                 int64_t max_tokens) const {
  return {std::move(prompt), sampling, max_tokens, text.stop_token_ids};
}

}  // namespace lathe::cli
