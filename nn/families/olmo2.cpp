// OLMo 2: norms after each block and none before; q and k normed over all their heads at once.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/olmo.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Olmo2Config where config.json is silent.
  config.set_default("max_position_embeddings", 2048);
  config.set_default("rms_norm_eps", 1e-5);
  ModelConfig result = read_hf_fields(config);
  set_olmo_norms(result);
  return result;
}

// OLMo 3's files go by the same architecture.
ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  if (file->get_optional<int64_t>("olmo2.attention.sliding_window").value_or(0) > 0) return olmo3_from_gguf(file);
  ModelConfig result = read_gguf_fields(file, olmo2_family);
  set_olmo_norms(result);
  return result;
}

}  // namespace

constexpr Family olmo2_family{.name = "olmo2",
                              .hf_class = "Olmo2ForCausalLM",
                              .gguf_architecture = "olmo2",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = olmo_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
