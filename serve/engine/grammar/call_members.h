// A call's arguments written one by one, each with its name, as MemberForm says.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

// Whether a schema within `root` lets through strings alone: those are written as they are, without quotes.
bool is_text(const nlohmann::ordered_json& root, const nlohmann::ordered_json& schema);

// The members that `parameters`, the schema of an object, has, in its order.
GrammarBuilder::Part call_members(GrammarBuilder& builder, const nlohmann::ordered_json& parameters,
                                  const MemberForm& form);

}  // namespace lathe::engine
