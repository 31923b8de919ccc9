// trainer_state.json of a checkpoint. What is read is written and read again: the second text has the first one's
// bytes.
#include "train/trainer_state.h"

#include <cstdlib>

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto rewritten = [](const std::filesystem::path& path) {
    const train::SavedTrainerState saved = train::read_trainer_state(path);
    return train::trainer_state_text(saved.state, saved.objective, saved.identity);
  };
  std::string text;
  try {
    text = rewritten(fuzz::write_input("trainer_state.json", fuzz::text_of(data, size)));
  } catch (const Error&) {
    return 0;
  }
  if (rewritten(fuzz::write_input("trainer_state.json", text)) != text) std::abort();
  return 0;
}
