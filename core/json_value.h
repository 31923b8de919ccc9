// nlohmann's JSON values. Their members are compiled once, in json_value.cpp, where each source that used some had
// compiled them for itself: a third of such a source's time.
#pragma once

#include <nlohmann/json.hpp>

// basic_json<>'s own arguments, so that no source makes members of its own of nlohmann::json and ordered_json.
extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;
