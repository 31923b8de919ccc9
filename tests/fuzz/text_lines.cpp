// Lines of text, plain or packed as gzip or zstd.
#include "data/readers/text_lines.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto file = fuzz::write_input("lines", fuzz::text_of(data, size));
  try {
    data::TextLines lines(file.string(), 1 << 20);
    // A small file may become gigabytes of short lines: memory is bounded, time is the caller's.
    for (int i = 0; i < 100'000 && lines.next(); ++i) {
    }
  } catch (const Error&) {
  }
  return 0;
}
