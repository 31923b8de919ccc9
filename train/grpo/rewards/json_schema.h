// A subset of JSON Schema (2020-12) for rewards: type, enum, const, properties, required, additionalProperties (a truth
// value), items (one schema), minItems, maxItems, minLength, maxLength, pattern, minimum, maximum; title, description,
// $schema and $id say nothing. Any other keyword is refused by its name: a schema is understood whole or not at all.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "train/grpo/rewards/reward.h"

namespace lathe::train {

class JsonSchema {
 public:
  // ConfigError with the place in the schema of what is unknown or wrong. `where` names the schema in errors.
  JsonSchema(const nlohmann::ordered_json& schema, const std::string& where);
  ~JsonSchema();
  JsonSchema(JsonSchema&&) noexcept;
  bool accepts(const nlohmann::ordered_json& value) const;

 private:
  struct Node;
  std::unique_ptr<const Node> root_;
};

// 1 for a completion that is one JSON value (without text around it), and, where `schema_file` is not empty, one that
// the schema accepts; else 0.
RewardFunction json_reward(const std::string& schema_file);

}  // namespace lathe::train
