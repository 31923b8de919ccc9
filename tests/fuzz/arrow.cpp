// Arrow's stream and file formats, to their rows as JSON.

#include "core/error.h"
#include "core/json_value.h"
#include "data/readers/row_source.h"
#include "data/rows/json_lines.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  // Without a mark of Arrow in front it would be text, which text_lines fuzzes.
  if (!data::begins_as_arrow(fuzz::text_of(data, size))) return 0;
  const auto file = fuzz::write_input("rows.arrow", fuzz::text_of(data, size));
  try {
    const auto rows = data::open_row_source(file.string(), 1 << 16);
    // A batch may say that it has millions of rows with nothing in them: time is the caller's.
    for (int i = 0; i < 1000; ++i) {
      const auto row = rows->next();
      if (!row) break;
      try {
        data::parse_json_row(row->text);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
