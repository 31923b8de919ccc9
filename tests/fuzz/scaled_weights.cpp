// The quantization_config of a checkpoint of scaled numbers, beside the parts of three linears: the input is the config
// up to its first NUL byte, then the extents that a packed one says it has.
#include "nn/weights/scaled_weights.h"
#include "core/error.h"
#include "nn/weights/safetensors.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const std::string_view text = fuzz::text_of(data, size);
  const std::string_view settings = text.substr(0, text.find('\0'));
  const std::string_view more = settings.size() < text.size() ? text.substr(settings.size() + 1) : std::string_view();
  const auto number = [&](size_t i, int32_t otherwise) {
    return i < more.size() ? int32_t{static_cast<int8_t>(more[i])} : otherwise;
  };
  const std::vector<int32_t> shape = {number(0, 16), number(1, 32)};
  std::vector<int32_t> groups(static_cast<size_t>(32));
  for (size_t i = 0; i < groups.size(); ++i) groups[i] = more.size() > 2 ? number(2 + i % (more.size() - 2), 0) : 0;
  nn::NamedTensors tensors = {{"w.weight", Tensor::zeros({16, 32}, DType::i8)},
                              {"w.weight_scale", Tensor::zeros({16, 4}, DType::bf16)},
                              {"w.weight_zero_point", Tensor::zeros({16, 4}, DType::i8)},
                              {"p.weight_packed", Tensor::zeros({16, 4}, DType::i32)},
                              {"p.weight_scale", Tensor::zeros({16, 4}, DType::f16)},
                              {"p.weight_zero_point", Tensor::zeros({2, 4}, DType::i32)},
                              {"p.weight_shape", Tensor::of<int32_t>(shape, {2})}};
  if (more.size() > 2) tensors.emplace_back("p.weight_g_idx", Tensor::of<int32_t>(groups, {32}));
  nn::write_safetensors(fuzz::folder() / "model.safetensors", tensors);
  fuzz::write_input("config.json", "{\"quantization_config\": " + std::string(settings) + "}");
  try {
    const auto quantization = nn::scaled_quantization_of(fuzz::folder());
    if (!quantization) return 0;
    const auto source = nn::open_scaled_weights(fuzz::folder(), *quantization);
    for (const nn::WeightInfo& info : source->weights()) {
      std::vector<float> values(static_cast<size_t>(info.shape.numel()));
      source->read_rows(info.name, 0, info.shape[0], values.data());
    }
  } catch (const Error&) {
  }
  return 0;
}
