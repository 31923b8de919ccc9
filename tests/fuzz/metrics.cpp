// metrics.jsonl of a run: what is read of it, and what stays when it goes on from step 3.
#include "core/error.h"
#include "tests/fuzz/input_file.h"
#include "train/metrics_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto path = fuzz::write_input("metrics.jsonl", fuzz::text_of(data, size));
  for (const auto& use : {+[](const std::filesystem::path& file) { train::read_metrics(file); },
                          +[](const std::filesystem::path& file) { train::truncate_metrics(file, 3); }}) {
    try {
      use(path);
    } catch (const Error&) {
    }
  }
  return 0;
}
