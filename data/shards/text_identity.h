// What tells one tokenizer and its chat template from another: shards are rows of one of them, and refuse the rest.
#pragma once

#include <string>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

// xxHash-64 as 16 hexadecimal digits: of every token with its id, of the special ones, and of how a page of many
// scripts is cut, which differs with the splits, merges and normalisers.
std::string tokenizer_identity(const Tokenizer& tokenizer);
// The same of the chat templates' sources with their names; "none" where there is none.
std::string chat_template_identity(const Tokenizer& tokenizer);

}  // namespace lathe::data
