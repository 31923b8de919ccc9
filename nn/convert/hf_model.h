// A model of a GGUF file as transformers has it: config.json and weights.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "nn/model_files.h"
#include "nn/weights/safetensors_writer.h"

namespace lathe::nn {

// config.json by transformers' names, without what only a tokenizer knows (bos_token_id, …). Scaled rotary frequencies,
// which GGUF holds as a table, become the llama3 rule that gives this table. ConfigError for a family or a table that
// cannot be written so.
nlohmann::ordered_json hf_config_of(const ModelConfig& config, DType dtype);

// The weights that a directory holds in f32 whatever its dtype: the biases by which an LFM2-MoE's tokens choose
// experts, which rounded would choose others.
std::set<std::string> weights_in_f32(const ModelConfig& config);

// Every weight of the model under Hugging Face's name, in `dtype` or f32; `files` must outlive the result. The norms of
// a GGUF file lose the one that its converter added where the family's directories hold them without. FormatError for
// a weight that has no place.
std::vector<SafetensorsToWrite> hf_weights_of(const ModelFiles& files, DType dtype);

}  // namespace lathe::nn
