// A model's config.json, and what is computed from it before any weight is read.
#include "core/error.h"
#include "nn/config.h"
#include "nn/layer_layout.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  fuzz::write_input("config.json", fuzz::text_of(data, size));
  try {
    nn::read_hf_config(fuzz::folder()).parameter_count();
  } catch (const Error&) {
  }
  return 0;
}
