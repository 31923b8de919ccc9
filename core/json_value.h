// nlohmann's JSON values. Their members are compiled once, in json_value.cpp, where each source that used some had
// compiled them for itself: a third of such a source's time.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

// basic_json<>'s own arguments, so that no source makes members of its own of nlohmann::json and ordered_json.
extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace lathe {

// A file's text: `indent` spaces a level, U+FFFD for what is no UTF-8, a line break at the end.
std::string json_file_text(const nlohmann::ordered_json& json, int indent);

}  // namespace lathe
