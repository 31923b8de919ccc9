// model.safetensors.index.json beside one shard, shard.safetensors, with the tensor "a".
#include "core/error.h"
#include "nn/weights/safetensors.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  static const bool has_shard = [] {
    nn::write_safetensors(fuzz::folder() / "shard.safetensors", {{"a", Tensor::zeros({2, 3}, DType::f32)}});
    return true;
  }();
  (void)has_shard;
  fuzz::write_input("model.safetensors.index.json", fuzz::text_of(data, size));
  try {
    nn::open_safetensors_weights(fuzz::folder());
  } catch (const Error&) {
  }
  return 0;
}
