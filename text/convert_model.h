// A model in another form: a GGUF file as a Hugging Face directory, and the other way round.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "nn/model_files.h"
#include "nn/weights/ggml_quantize.h"

namespace lathe::text {

struct ConvertedModel {
  int64_t weights = 0;
  std::string type;  // of most of them, as the file says it: "BF16", "Q8_0"
  std::vector<std::string> warnings;
};

// Fills `directory`, which exists: config.json, generation_config.json, the tokenizer's files and the weights as
// transformers loads them, in shards of at most `max_shard_bytes`. Without a dtype: the one in which most dense
// matrices are stored, bf16 where they are blocks or codes. Of a directory its own files are taken along; the weights
// of a quantised one become dense. ConfigError for what cannot be written so.
ConvertedModel write_hf_directory(const std::filesystem::path& directory, const nn::ModelFiles& files,
                                  std::optional<DType> dtype, int64_t max_shard_bytes);

// Writes a GGUF file that llama.cpp loads, whole or not at all; of a GGUF file, all that it says but the type. Without
// a type: as write_hf_directory() chooses.
ConvertedModel write_gguf_file(const std::filesystem::path& path, const nn::ModelFiles& files,
                               const nn::GgmlWriter* type);

}  // namespace lathe::text
