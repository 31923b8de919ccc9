// What rows of chats have in common, whatever is learnt from them. Errors carry the reason alone: the caller knows the
// place.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/chat_template/chat_template.h"

namespace lathe::data {

// The field as a list of {"role", "content"}; {"from", "value"} is renamed to that. Throws Error for anything else.
nlohmann::ordered_json messages_of(const nlohmann::ordered_json& row, const char* field);

// The messages as the template writes them, with the row's "tools" and "chat_template_kwargs" where it has them. Throws
// Error where there is no template or they are malformed.
RenderedChat render_row(const nlohmann::ordered_json& row, const nlohmann::ordered_json& messages,
                        const ChatTemplate* chat_template, const std::map<std::string, std::string>& token_variables,
                        bool add_generation_prompt);

}  // namespace lathe::data
