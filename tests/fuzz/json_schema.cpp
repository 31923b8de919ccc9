// A schema of the reward json: two lines, the schema and a value for it.
#include "train/grpo/rewards/json_schema.h"
#include "core/json_value.h"

#include "core/error.h"
#include "core/json.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const std::string_view text = fuzz::text_of(data, size);
  const size_t line = text.find('\n');
  try {
    const train::JsonSchema schema(parse_json(text.substr(0, line), "schema"), "schema");
    if (line != std::string_view::npos) schema.accepts(parse_json(text.substr(line + 1), "value"));
  } catch (const Error&) {
  }
  return 0;
}
