#include "nn/model_files.h"

#include "core/error.h"
#include "kernels/simd/isa.h"
#include "nn/families/family.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {

ModelFiles open_model_files(const std::filesystem::path& path) {
  ModelFiles files;
  files.path = path;
  if (std::filesystem::is_directory(path)) {
    files.config = read_hf_config(path);
    files.weights = open_safetensors_weights(path);
  } else if (std::filesystem::is_regular_file(path)) {
    files.gguf = GgufFile::open(path);
    files.config = config_from_gguf(*files.gguf);
    files.weights = open_gguf_weights(files.gguf, gguf_places(files.config));
  } else {
    throw ConfigError("MODEL", path.string() + " is neither a file nor a directory; expected a .gguf file or a Hugging Face "
                               "model directory (scripts/fetch-model fetches a small model and prints its path)");
  }
  return files;
}

DType parse_compute_dtype(const std::string& text, Device device) {
  const bool multiplies_bf16 = device.kind != DeviceKind::cpu || kernels::active_isa() == kernels::Isa::avx512_bf16;
  if (text == "auto") return multiplies_bf16 ? DType::bf16 : DType::f32;
  if (text == "f32" || text == "float32") return DType::f32;
  if (text == "bf16" || text == "bfloat16") return DType::bf16;
  if (text == "f64" || text == "float64") return DType::f64;
  throw ConfigError("dtype", "expected auto, f32, bf16 or f64, found " + text);
}

}  // namespace lathe::nn
