// Which files of a repository lathe-model pull fetches.
#pragma once

#include <string>
#include <vector>

#include "core/hub/download.h"

namespace lathe::programs {

struct PullSelection {
  std::vector<hub::HubFile> files;
  std::vector<std::string> refused;  // pickles that `include` asked for
};

// Without `include`, what opens as a model: safetensors (or, where there are none, the one GGUF model), JSON, chat
// templates, the tokenizer's files, licence and card, from the top folder alone. With it, every file whose name one of
// its globs matches ('*' matches '/', too, as in Python's fnmatch), and JSON and the tokenizer's beside them. Pickles
// run code when they are opened, and are never fetched. ConfigError where nothing is left, or where one of several GGUF
// models must be named.
PullSelection select_files(const std::string& repository, const std::vector<hub::HubFile>& files,
                           const std::vector<std::string>& include);

}  // namespace lathe::programs
