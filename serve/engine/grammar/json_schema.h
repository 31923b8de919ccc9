// A JSON schema as a rule of a grammar. Internal to this folder.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

// A new rule: the values that satisfy the schema, as json_schema_grammar() knows it. ConfigError.
int32_t define_schema(GrammarBuilder& builder, const nlohmann::ordered_json& schema);
// The same of a schema that stands within `root`, whose definitions it refers to; `path` is its place, in errors.
GrammarBuilder::Part schema_within(GrammarBuilder& builder, const nlohmann::ordered_json& root,
                                   const nlohmann::ordered_json& schema, const std::string& path);
// What a "$ref" leads to within root, through any number of them; the schema itself where it is none, or leads nowhere.
const nlohmann::ordered_json& resolved(const nlohmann::ordered_json& root, const nlohmann::ordered_json& schema);

}  // namespace lathe::engine
