// A model as GGUF has it: what llama.cpp's converter writes for its architecture, but for the tokenizer. A GGUF file in
// another type keeps all that it says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/model_files.h"
#include "nn/weights/gguf_writer.h"

namespace lathe::nn {

struct GgufModel {
  GgufMetadata metadata;  // general.* and the architecture's keys
  std::vector<GgufTensorToWrite> tensors;
  std::shared_ptr<const WeightSource> source = {};  // which they read
  // Sentences: what the format cannot say of this model.
  std::vector<std::string> warnings;
};

// `files` must outlive the result, whose tensors read from it. Matrices get `type`, or F16 where their rows do not
// divide into its blocks; with a type of four bits, the embedding and the output projection get Q8_0; vectors and the
// routers of experts are F32. Of a Hugging Face directory, rows of q and k are interleaved, the norms' offset is added
// and a layer's experts are put together where the architecture wants that: ConfigError for a model that the format has
// no keys for, FormatError for weights that have no place in it.
GgufModel gguf_model_of(const ModelFiles& files, const GgmlWriter& type);

}  // namespace lathe::nn
