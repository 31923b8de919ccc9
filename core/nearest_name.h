// Which of the names that are known somebody meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lathe {

// The name to which `found` comes nearest, by letters to insert, remove or replace; empty when none comes near. A name
// that `found` begins with or is the beginning of ("qwen2_vl", "lora_rank"), and one that has all its words
// ("num_epochs" in num_train_epochs), are near however much there is besides. Of equals, the first.
std::string nearest_name(std::string_view found, std::span<const std::string> names);

}  // namespace lathe
