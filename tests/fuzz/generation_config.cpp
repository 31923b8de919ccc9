// generation_config.json.
#include "text/generation_config.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  fuzz::write_input("generation_config.json", fuzz::text_of(data, size));
  try {
    text::read_generation_config(fuzz::folder());
  } catch (const Error&) {
  }
  return 0;
}
