// Which parts of a conversation the assistant wrote, where the chat template does not mark them.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

// Writes the messages before `count`, and what asks for an answer after them where `add_generation_prompt` is true.
using PrefixRenderer = std::function<std::string(size_t count, bool add_generation_prompt)>;

// Each answer is what comes between the messages before it with the generation prompt, and the messages up to it: what
// the model will be asked for, to the end of its turn. `whole` is all of the messages. Exact where both are prefixes of
// `whole`; Error with the message and the reason where they are not, as with templates that drop the thinking of turns
// gone by.
std::vector<TextRange> assistant_ranges_by_prefixes(const nlohmann::ordered_json& messages, std::string_view whole,
                                                    const PrefixRenderer& render);

}  // namespace lathe::data
