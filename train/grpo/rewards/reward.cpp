#include "train/grpo/rewards/reward.h"

#include "core/json_value.h"

namespace lathe::train {

std::string where_of(const data::PromptRow& row) { return row.file + ", line " + std::to_string(row.line); }

std::optional<std::string> column_text(const data::PromptRow& row, const std::string& column) {
  const auto found = row.columns.find(column);
  if (found == row.columns.end() || found->is_null()) return {};
  return found->is_string() ? found->get<std::string>() : found->dump();
}

}  // namespace lathe::train
