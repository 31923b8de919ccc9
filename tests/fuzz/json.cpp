// core/json.h: any bytes are a value or a FormatError, and every value has its number and its excerpt, or an error.
#include "core/json.h"

#include "core/error.h"
#include "core/json_value.h"
#include "tests/fuzz/input_file.h"

namespace {

void read_numbers(const nlohmann::ordered_json& value) {
  lathe::json_excerpt(value);
  for (const auto& item : value) {
    try {
      lathe::json_integer(item, "key", INT32_MIN, INT32_MAX, "file");
    } catch (const lathe::Error&) {
    }
    try {
      lathe::json_number(item, "key", "file");
    } catch (const lathe::Error&) {
    }
    if (item.is_structured()) read_numbers(item);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using lathe::RepeatedKeys;
  for (const RepeatedKeys repeated : {RepeatedKeys::last_counts, RepeatedKeys::refused}) {
    try {
      read_numbers(lathe::parse_json(lathe::fuzz::text_of(data, size), "file", repeated));
    } catch (const lathe::Error&) {
    }
  }
  return 0;
}
