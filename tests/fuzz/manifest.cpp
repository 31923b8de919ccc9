// manifest.json of a checkpoint.
#include "train/manifest.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  fuzz::write_input("trainer_state.json", "{}");
  fuzz::write_input("manifest.json", fuzz::text_of(data, size));
  try {
    train::broken_part(fuzz::folder());
  } catch (const Error&) {
  }
  return 0;
}
