// A loaded model with all that turns text into tokens and back: what generate, chat and eval share.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "programs/cli/program.h"
#include "serve/engine/engine.h"
#include "text/model_text.h"

namespace lathe::cli {

// How the layers' linears are held, by bitsandbytes' names.
struct QuantizationOptions {
  bool load_in_4bit = false, load_in_8bit = false, bnb_4bit_use_double_quant = false;
  std::optional<nn::Quantization> wanted() const {
    return nn::quantization_of(load_in_4bit, load_in_8bit, bnb_4bit_use_double_quant);
  }
};
void add_quantization_options(CLI::App& command, QuantizationOptions& options);

struct ModelOptions {
  CommonOptions common;
  std::string model;
  std::string adapter;  // a PEFT directory; empty for none
  std::string dtype = "auto", weights = "file";
  QuantizationOptions quantization;
  std::string kv_cache_dtype = "auto";
};
// MODEL, --adapter, --dtype, --weights, --load_in_4bit, --load_in_8bit, --kv_cache_dtype and the common flags.
void add_model_options(CLI::App& command, ModelOptions& options);

// temperature, top_k, … with the names that vLLM and the OpenAI API use.
void add_sampling_options(CLI::App& command, kernels::SamplingParams& sampling, int64_t& max_tokens);

// Where the time of opening went, in seconds.
struct OpeningTimes {
  double files = 0;      // the file's header and metadata, mapping
  double tokenizer = 0;  // with template and stop tokens
  double weights = 0;    // read, packed, with the adapter's
};

// What the model's matrices are held as.
struct HeldWeights {
  std::string kind;  // "file" where some are as the file has them, else "nf4", "int8", or the dtype's name
  std::map<std::string, int64_t> file_formats;  // how many are in blocks of "Q4_1", …, or "BF16" beside f32
};

struct Session {
  nn::ModelConfig config;
  text::ModelText text;
  std::unique_ptr<nn::Transformer> model;
  engine::EngineOptions engine;
  HeldWeights weights;
  OpeningTimes opening;

  // Sets the threads, opens and loads everything.
  static Session open(const ModelOptions& options);

  engine::Request request(std::vector<int32_t> prompt, const kernels::SamplingParams& sampling,
                          int64_t max_tokens) const;
};

}  // namespace lathe::cli
