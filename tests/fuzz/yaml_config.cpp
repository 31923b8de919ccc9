// The YAML file of --config.
#include "core/error.h"
#include "programs/cli/program.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto path = fuzz::write_input("config.yaml", fuzz::text_of(data, size));
  try {
    cli::expand_arguments({"sft", "--config", path.string(), "--seed=1"});
  } catch (const Error&) {
  }
  return 0;
}
