// Directories and files that hold more than the text model: one that sees or hears, or that guesses several tokens at
// once.
#pragma once

#include <memory>
#include <string_view>

#include "nn/config.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

struct PeftAdapter;

inline constexpr std::string_view own_weight_prefix = "model.";
// What a multimodal model's weights, and adapters of it, call that: as transformers 5 saves them, as it did before, and
// SmolVLM's and Idefics3's.
inline constexpr std::string_view text_model_prefixes[] = {"model.language_model.", "language_model.model.",
                                                           "model.text_model."};

// The weights of the config's model alone, called "model.…" and "lm_head.…". The source itself where nothing of it
// would change. FormatError where a multimodal one has no text model's embedding.
std::unique_ptr<WeightSource> own_weights(std::unique_ptr<WeightSource> source, const ModelConfig& config);

// Whether a module, called as the text model has it, is one of that. (An adapter of a whole multimodal model is read by
// these names, and its regular expression for targets as the list of those that it has.)
bool is_text_module(std::string_view module);

// Without what a multimodal model's adapter has for the parts that see or hear.
PeftAdapter of_text_alone(PeftAdapter adapter);

}  // namespace lathe::nn
