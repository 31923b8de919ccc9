// The quantization_config of a GPTQ or AWQ checkpoint, beside the parts of one linear: the input is the config up to
// its first NUL byte, then the groups of the 64 columns.
#include <algorithm>

#include "core/error.h"
#include "nn/weights/gptq_awq.h"
#include "nn/weights/safetensors.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const std::string_view text = fuzz::text_of(data, size);
  const std::string_view settings = text.substr(0, text.find('\0'));
  const std::string_view groups = settings.size() < text.size() ? text.substr(settings.size() + 1) : std::string_view();
  nn::NamedTensors tensors = {{"w.qweight", Tensor::zeros({8, 16}, DType::i32)},
                              {"w.qzeros", Tensor::zeros({2, 2}, DType::i32)},
                              {"w.scales", Tensor::zeros({2, 16}, DType::f16)}};
  if (!groups.empty()) {
    std::vector<int32_t> of_columns(64);
    for (size_t i = 0; i < of_columns.size(); ++i) of_columns[i] = static_cast<int8_t>(groups[i % groups.size()]);
    tensors.emplace_back("w.g_idx", Tensor::of<int32_t>(of_columns, {64}));
  }
  nn::write_safetensors(fuzz::folder() / "model.safetensors", tensors);
  fuzz::write_input("config.json", "{\"quantization_config\": " + std::string(settings) + "}");
  try {
    const auto quantization = nn::packed_quantization_of(fuzz::folder());
    if (!quantization) return 0;
    const auto source = nn::open_packed_weights(fuzz::folder(), *quantization);
    const Shape shape = source->find("w.weight")->shape;
    std::vector<float> values(static_cast<size_t>(shape.numel()));
    source->read_rows("w.weight", 0, shape[0], values.data());
  } catch (const Error&) {
  }
  return 0;
}
