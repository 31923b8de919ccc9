// A loaded model with all that turns text into tokens and back: what generate, chat and eval share.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "programs/cli/program.h"
#include "serve/engine/engine.h"
#include "text/model_text.h"

namespace lathe::cli {

struct ModelOptions {
  CommonOptions common;
  std::string model;
  std::string adapter;  // a PEFT directory; empty for none
  std::string dtype = "auto", weights = "file";
  bool load_in_4bit = false, load_in_8bit = false, bnb_4bit_use_double_quant = false;
  std::string kv_cache_dtype = "auto";
};
// MODEL, --adapter, --dtype, --weights, --load_in_4bit, --load_in_8bit, --kv_cache_dtype and the common flags.
void add_model_options(CLI::App& command, ModelOptions& options);

// temperature, top_k, … with the names that vLLM and the OpenAI API use.
void add_sampling_options(CLI::App& command, kernels::SamplingParams& sampling, int64_t& max_tokens);

struct Session {
  nn::ModelConfig config;
  text::ModelText text;
  std::unique_ptr<nn::Transformer> model;
  engine::EngineOptions engine;

  // Sets the threads, opens and loads everything.
  static Session open(const ModelOptions& options);

  engine::Request request(std::vector<int32_t> prompt, const kernels::SamplingParams& sampling,
                          int64_t max_tokens) const;
};

}  // namespace lathe::cli
