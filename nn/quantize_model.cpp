#include "nn/quantize_model.h"

#include <map>
#include <set>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/convert/hf_model.h"
#include "nn/layer_layout.h"
#include "nn/model_directory.h"
#include "nn/weights/bitsandbytes.h"

namespace lathe::nn {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

void check_source(const ModelFiles& files) {
  if (files.gguf)
    throw ConfigError("MODEL", files.path.string() +
                                   " is a GGUF file; expected a Hugging Face directory, whose configuration and "
                                   "tokenizer go with the result (--load_in_4bit quantises a GGUF file while loading)");
  if (files.config.experts.stacked != StackedExperts::none)
    throw ConfigError("MODEL", files.path.string() +
                                   " stacks its experts, beside which bitsandbytes' codes are not written yet "
                                   "(--load_in_4bit quantises it while loading)");
  if (resolved_quantization(files, {}))
    throw ConfigError("MODEL", files.path.string() +
                                   " holds its linears as nf4 codes already; a second quantisation would only lose "
                                   "precision: give the model that was quantised");
}

void check_target(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) return;
  if (!fs::is_directory(directory, error) || !fs::is_empty(directory, error))
    throw ConfigError("OUT", directory.string() + " is there already and is no empty folder; choose another one");
}

std::set<std::string> linear_names(const ModelConfig& config) {
  std::set<std::string> names;
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer)
    for (const LinearShape& linear : layer_layout(config, layer).linears())
      names.insert(layer_prefix(layer) + linear.name + ".weight");
  return names;
}

void write_config(const fs::path& directory, const ModelFiles& files, DType dtype, kernels::Nf4Scales scales) {
  write_model_config(files.path, directory, dtype, files.config.tie_word_embeddings);
  ordered_json config = read_json_file(directory / "config.json");
  const char* word = dtype == DType::bf16 ? "bfloat16" : dtype == DType::f16 ? "float16" : "float32";
  config["quantization_config"] = {{"_load_in_4bit", true},
                                   {"_load_in_8bit", false},
                                   {"bnb_4bit_compute_dtype", word},
                                   {"bnb_4bit_quant_storage", "uint8"},
                                   {"bnb_4bit_quant_type", "nf4"},
                                   {"bnb_4bit_use_double_quant", scales == kernels::Nf4Scales::nested},
                                   {"llm_int8_enable_fp32_cpu_offload", false},
                                   {"llm_int8_has_fp16_weight", false},
                                   {"llm_int8_skip_modules", nullptr},
                                   {"llm_int8_threshold", 6.0},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"quant_method", "bitsandbytes"}};
  write_file_atomically(directory / "config.json", config.dump(2) + "\n");
}

}  // namespace

DType stored_dtype(const ModelFiles& files) {
  std::map<std::string, int64_t> elements;
  for (const WeightInfo& info : files.weights->weights()) elements[info.stored_type] += info.shape.numel();
  if (elements["BF16"] > elements["F32"] && elements["BF16"] >= elements["F16"]) return DType::bf16;
  return elements["F16"] > elements["F32"] ? DType::f16 : DType::f32;
}

QuantizedModel write_quantized_model(const fs::path& directory, const ModelFiles& files, DType dtype,
                                     kernels::Nf4Scales scales) {
  check_source(files);
  check_target(directory);
  const std::set<std::string> linears = linear_names(files.config), in_f32 = weights_in_f32(files.config);
  QuantizedModel result;
  NamedTensors tensors;
  for (const WeightInfo& info : files.weights->weights()) {
    const Tensor values = read_weight(*files.weights, info, in_f32.contains(info.name) ? DType::f32 : dtype);
    if (linears.contains(info.name)) {
      const kernels::Nf4Weight codes = kernels::quantize_nf4(values, nf4_block, scales);
      for (auto& part : bitsandbytes_tensors(info.name, codes, dtype)) tensors.push_back(std::move(part));
      ++result.linears;
    } else {
      tensors.emplace_back(info.name, values);
    }
    result.source_bytes += info.stored_bytes;
  }
  for (const auto& tensor : tensors) result.stored_bytes += tensor.second.nbytes();
  AtomicDirectory staged(directory);
  write_safetensors(staged.staging() / "model.safetensors", tensors);
  copy_text_files(files.path, staged.staging());
  write_config(staged.staging(), files, dtype, scales);
  staged.commit();
  return result;
}

}  // namespace lathe::nn
