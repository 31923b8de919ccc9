// Filters over lists and dicts.
#pragma once

#include <optional>
#include <string>

#include "data/chat_template/builtins.h"

namespace lathe::data::jinja {

// Nothing where the name is none of them.
std::optional<Value> apply_sequence_filter(const std::string& name, const Value& value, const CallArguments& arguments,
                                           Budget& budget);

}  // namespace lathe::data::jinja
