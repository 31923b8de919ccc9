// What rows of text have in common, whatever is learnt from them. Errors carry the reason alone: the caller knows the
// place.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

// Throws Error where the field is no string.
std::string string_of(const nlohmann::ordered_json& row, const std::string& field);

// With the end-of-sequence token as text, unless it is there. ConfigError where the tokenizer has none.
std::string with_eos(std::string text, const Tokenizer& tokenizer);

// Throws Error for a token that the model's embedding has no row for.
void expect_in_vocabulary(const std::vector<int32_t>& ids, const Tokenizer& tokenizer, int64_t vocab_size);

}  // namespace lathe::data
