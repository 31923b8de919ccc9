// adapter_config.json beside the weights of two modules: which linears it targets, with which rank and scaling.
#include "core/error.h"
#include "nn/weights/peft.h"
#include "nn/weights/safetensors.h"
#include "tests/fuzz/input_file.h"

namespace {

using namespace lathe;

void write_weights() {
  nn::NamedTensors tensors;
  for (const std::string module : {"0.self_attn.q_proj", "1.mlp.up_proj"}) {
    const std::string name = "base_model.model.model.layers." + module;
    tensors.emplace_back(name + ".lora_A.weight", Tensor::zeros({2, 4}, DType::f32));
    tensors.emplace_back(name + ".lora_B.weight", Tensor::zeros({4, 2}, DType::f32));
  }
  nn::write_safetensors(fuzz::folder() / "adapter_model.safetensors", tensors);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool has_weights = (write_weights(), true);
  (void)has_weights;
  fuzz::write_input("adapter_config.json", fuzz::text_of(data, size));
  try {
    std::vector<std::string> warnings;
    const nn::LoraConfig config = nn::read_peft_adapter(fuzz::folder(), &warnings).config;
    for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head"}) {
      config.targets(module);
      config.scaling_of(module);
    }
  } catch (const Error&) {
  }
  return 0;
}
