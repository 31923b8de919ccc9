// Llama 2 and 3.x, SmolLM2: the family that the others extend.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& config) {
  if (config.flag("mlp_bias", false)) throw ConfigError("mlp_bias", "true is not supported yet");
  return read_hf_fields(config);
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  if (file->get_optional<int64_t>("llama.expert_count").value_or(0) > 0) return mixtral_from_gguf(file);
  return read_gguf_fields(file, llama_family);
}

}  // namespace

constexpr Family llama_family{.name = "llama",
                              .hf_class = "LlamaForCausalLM",
                              .gguf_architecture = "llama",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = usual_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
