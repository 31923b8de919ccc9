// The quant_state of a weight that bitsandbytes quantised, beside codes and scales of a [64, 64] matrix.
#include "core/error.h"
#include "nn/weights/bitsandbytes.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const Tensor state = Tensor::of<uint8_t>(std::span(data, size), {static_cast<int64_t>(size)});
  nn::NamedTensors tensors = nn::bitsandbytes_tensors(
      "w",
      {.rows = 64, .columns = 64, .codes = Tensor::zeros({2048}, DType::u8), .absmax = Tensor::zeros({64}, DType::f32)},
      DType::f32);
  tensors.back().second = state;
  nn::write_safetensors(fuzz::folder() / "model.safetensors", tensors);
  try {
    nn::open_bitsandbytes_weights(fuzz::folder());
  } catch (const Error&) {
  }
  return 0;
}
