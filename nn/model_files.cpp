#include "nn/model_files.h"

#include <atomic>
#include <cstring>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/simd/isa.h"
#include "nn/families/family.h"
#include "nn/model_path.h"
#include "nn/weights/bitsandbytes.h"
#include "nn/weights/gptq_awq.h"
#include "nn/weights/key_head_rows.h"
#include "nn/weights/own_weights.h"
#include "nn/weights/safetensors.h"
#include "nn/weights/scaled_weights.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::nn {
namespace {

// The same values, whatever types they are stored in.
bool same_weights(const WeightSource& source, const std::string& one, const std::string& other) {
  const Shape& shape = source.find(one)->shape;
  if (shape != source.find(other)->shape || shape.numel() == 0) return false;
  constexpr int64_t rows_per_task = 64;
  const int64_t columns = shape[-1];
  std::atomic<bool> same = true;
  parallel_for(shape.numel() / columns, rows_per_task, [&](int64_t begin, int64_t end) {
    if (!same) return;
    const auto count = static_cast<size_t>((end - begin) * columns);
    std::vector<float> a(count), b(count);
    source.read_rows(one, begin, end - begin, a.data());
    source.read_rows(other, begin, end - begin, b.data());
    if (std::memcmp(a.data(), b.data(), count * sizeof(float)) != 0) same = false;
  });
  return same;
}

void untie_another_head(ModelFiles& files) {
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  if (!files.config.tie_word_embeddings || !files.weights->find(embedding) || !files.weights->find(head)) return;
  if (same_weights(*files.weights, embedding, head)) return;
  files.config.tie_word_embeddings = false;
  files.warnings.push_back((files.path / "config.json").string() +
                           " ties the output to the embedding (\"tie_word_embeddings\"), but " + head +
                           " differs from " + embedding +
                           ": both are used, as transformers does; set it to false to silence this warning");
}

std::unique_ptr<WeightSource> open_directory_weights(const std::filesystem::path& path, const ModelConfig& config) {
  if (const auto packed = packed_quantization_of(path)) return open_packed_weights(path, *packed);
  if (const auto scaled = scaled_quantization_of(path)) return open_scaled_weights(path, *scaled);
  if (config.experts.stacked != StackedExperts::none)
    return split_experts(safetensors_tensors(path), config.experts.stacked);
  if (is_bitsandbytes_directory(path)) return open_bitsandbytes_weights(path);
  const SafetensorsTensors tensors = safetensors_tensors(path);
  if (has_stacked_experts(tensors)) return split_experts(tensors, StackedExperts::gate_before_up);
  return open_safetensors_weights(tensors);
}

}  // namespace

ModelFiles open_model_files(const std::filesystem::path& model) {
  const std::filesystem::path path = resolve_model_path(model);
  ModelFiles files;
  files.path = path;
  if (std::filesystem::is_directory(path)) {
    files.config = read_hf_config(path);
    files.weights = own_weights(open_directory_weights(path, files.config), files.config);
    untie_another_head(files);
  } else {
    files.gguf = GgufFile::open(path);
    files.config = config_from_gguf(files.gguf);
    files.weights = own_weights(join_key_heads(open_gguf_weights(files.gguf, gguf_places(files.config)), files.config),
                                files.config);
  }
  return files;
}

std::shared_ptr<const WeightSource> directory_weights(const ModelFiles& files) {
  return files.config.experts.stacked != StackedExperts::none ? stack_experts(*files.weights, files.config)
                                                              : files.weights;
}

ModelFiles open_model_config(const std::filesystem::path& model) {
  namespace fs = std::filesystem;
  const fs::path path = resolve_model_path(model);
  if (!fs::is_directory(path) || fs::exists(path / "model.safetensors") ||
      fs::exists(path / "model.safetensors.index.json"))
    return open_model_files(path);
  ModelFiles files;
  files.path = path;
  files.config = read_hf_config(path);
  files.warnings.push_back(path.string() + " holds no weights: this is a plan from its config.json");
  return files;
}

DType parse_compute_dtype(const std::string& text, Device device) {
  const bool multiplies_bf16 = device.kind != DeviceKind::cpu || kernels::multiplies_bf16(kernels::active_isa());
  if (text == "auto") return multiplies_bf16 ? DType::bf16 : DType::f32;
  if (text == "f32" || text == "float32") return DType::f32;
  if (text == "bf16" || text == "bfloat16") return DType::bf16;
  if (text == "f16" || text == "float16") return DType::f16;
  if (text == "f64" || text == "float64") return DType::f64;
  throw ConfigError("dtype", "expected auto, f32, bf16, f16 or f64, found " + text);
}

InferencePrecision parse_inference_precision(const std::string& weights, const std::string& dtype, Device device) {
  const DType asked = parse_compute_dtype(dtype, device);
  if (weights == "file") return {asked, StoredBlockUse::keep};
  if (weights != "bf16" && weights != "f32")
    throw ConfigError("weights", "expected file, bf16 or f32, found " + weights);
  const DType widened = parse_compute_dtype(weights, device);
  if (dtype != "auto" && asked != widened)
    throw ConfigError("weights", weights + " is what activations have then, too, but --dtype says " + dtype +
                                     ": leave one of them out");
  return {widened, StoredBlockUse::widen};
}

}  // namespace lathe::nn
