// From a template's source to its statements. Throws ConfigError with the line.
#pragma once

#include <string_view>

#include "data/chat_template/syntax.h"

namespace lathe::data::jinja {

// `nesting`: how deep brackets, blocks and operators may stand in each other.
Body parse_template(std::string_view source, int nesting);

}  // namespace lathe::data::jinja
