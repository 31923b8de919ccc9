#include "nn/model_path.h"

#include <set>
#include <string>

#include "core/error.h"
#include "core/hub/cache.h"

namespace lathe::nn {
namespace {

namespace fs = std::filesystem;

// The first file of each GGUF model: of NAME-00002-of-00003.gguf that is NAME-00001-of-00003.gguf.
std::set<std::string> gguf_models(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const std::string name = entry.path().lexically_relative(folder).string();
    const size_t of = name.rfind("-of-");
    const bool part = of != name.npos && of >= 6 && name.size() == of + 4 + 5 + 5 && name[of - 6] == '-';
    if (!part || name.compare(of - 5, 5, "00001") == 0) names.insert(name);
  }
  return names;
}

}  // namespace

fs::path resolve_model_path(const fs::path& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored) || fs::is_regular_file(model, ignored)) return model;
  const auto id = hub::parse_repository_id(model.string());
  if (!id)
    throw ConfigError("MODEL", model.string() +
                                   " is neither a file nor a directory; expected a .gguf file, a Hugging Face model "
                                   "directory, or ORG/NAME of a model that lathe-model pull has fetched "
                                   "(scripts/fetch-model fetches a small model and prints its path)");
  const hub::Cache cache = hub::Cache::of_environment();
  const auto snapshot = cache.find_snapshot(*id);
  if (!snapshot) {
    std::string others;
    for (const std::string& revision : cache.revisions(id->name)) others += (others.empty() ? "" : ", ") + revision;
    throw ConfigError("MODEL", model.string() + " is neither a file nor a directory here, and " +
                                   (others.empty() ? "not in " : "of it only " + others + " is in ") +
                                   cache.root().string() + ": fetch it with 'lathe-model pull " + model.string() + "'");
  }
  if (fs::exists(*snapshot / "config.json", ignored)) return *snapshot;
  const std::set<std::string> models = gguf_models(*snapshot);
  if (models.size() == 1) return *snapshot / *models.begin();
  if (models.empty()) return *snapshot;  // what it lacks is told by whoever opens it
  std::string names;
  for (const std::string& name : models) names += (names.empty() ? "" : ", ") + (*snapshot / name).string();
  throw ConfigError("MODEL", model.string() + " has several GGUF files; give one of them: " + names);
}

}  // namespace lathe::nn
