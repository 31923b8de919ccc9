// generation_batch.json of a GRPO run's checkpoint. What is read is written and read again: the second text has the
// first one's bytes.
#include "train/grpo/generation_batch.h"

#include <cstdlib>

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto rewritten = [](std::string_view text) {
    return train::generation_batch_text(train::read_generation_batch(text, "generation_batch.json", 64, 320));
  };
  std::string text;
  try {
    text = rewritten(fuzz::text_of(data, size));
  } catch (const Error&) {
    return 0;
  }
  if (rewritten(text) != text) std::abort();
  return 0;
}
