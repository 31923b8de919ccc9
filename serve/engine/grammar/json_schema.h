// A JSON schema as a rule of a grammar. Internal to this folder.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

// A new rule: the values that satisfy the schema, as json_schema_grammar() knows it. ConfigError.
int32_t define_schema(GrammarBuilder& builder, const nlohmann::ordered_json& schema);

}  // namespace lathe::engine
