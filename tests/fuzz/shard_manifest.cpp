// manifest.json of a folder of shards, with the hash of its text put right.
#include <xxhash.h>

#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "data/shards/shards.h"
#include "data/shards/text_identity.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  std::string text(fuzz::text_of(data, size));
  try {
    nlohmann::ordered_json json =
        parse_json(text, "manifest.json", RepeatedKeys::last_counts, LargeIntegers::as_doubles);
    if (json.is_object()) {
      json.erase("xxh64");
      const std::string own = json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
      json["xxh64"] = hash_digits(XXH64(own.data(), own.size(), 0));
      text = json.dump();
    }
  } catch (const Error&) {
  }
  fuzz::write_input("manifest.json", text);
  try {
    const data::Shards shards(fuzz::folder());
    if (shards.rows() > 0) shards.sequences_of_row(0);
  } catch (const Error&) {
  }
  return 0;
}
