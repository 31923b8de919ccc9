#include "data/rows/row_fields.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_value.h"

namespace lathe::data {

std::string string_of(const nlohmann::ordered_json& row, const std::string& field) {
  const nlohmann::ordered_json& value = row.at(field);
  if (!value.is_string()) throw Error("\"" + field + "\" must be a string, not " + std::string(value.type_name()));
  return value.get<std::string>();
}

std::string with_eos(std::string text, const Tokenizer& tokenizer) {
  if (!tokenizer.eos_id() || tokenizer.token(*tokenizer.eos_id()).empty())
    throw ConfigError("eos_token", "the tokenizer has no end-of-sequence token, which rows of plain text need");
  const std::string eos(tokenizer.token(*tokenizer.eos_id()));
  if (!text.ends_with(eos)) text += eos;
  return text;
}

void expect_in_vocabulary(const std::vector<int32_t>& ids, const Tokenizer& tokenizer, int64_t vocab_size) {
  const auto outside = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= vocab_size; });
  if (outside == ids.end()) return;
  throw Error("holds the token " + std::to_string(*outside) + " (\"" + std::string(tokenizer.token(*outside)) +
              "\"), but the model's embedding has " + std::to_string(vocab_size) +
              " rows; the tokenizer belongs to another model, or was extended without the embedding");
}

}  // namespace lathe::data
