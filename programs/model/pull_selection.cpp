#include "programs/model/pull_selection.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "core/error.h"

namespace lathe::programs {
namespace {

std::string_view extension_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == name.npos || name.find('/', dot) != name.npos ? std::string_view() : name.substr(dot);
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool is_pickle(const std::string& name) {
  return is_one_of(extension_of(name), {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".joblib",
                                        ".npy", ".npz", ".py"});
}

// What every model needs beside its weights.
bool is_text_side(const std::string& name) {
  if (name.find('/') != name.npos) return name.starts_with("additional_chat_templates/");
  return is_one_of(extension_of(name), {".json", ".jinja"}) ||
         is_one_of(name, {"tokenizer.model", "merges.txt", "vocab.txt", "README.md"}) || name.starts_with("LICENSE");
}

// "Q4_K_M/model-00002-of-00003.gguf" → "Q4_K_M/model": the files of one model.
std::string model_of_part(const std::string& name) {
  constexpr std::string_view shape = "-00001-of-00001.gguf";
  if (name.size() <= shape.size()) return name;
  const std::string_view end = std::string_view(name).substr(name.size() - shape.size());
  for (size_t i = 0; i < shape.size(); ++i)
    if (std::isdigit(static_cast<unsigned char>(shape[i])) ? !std::isdigit(static_cast<unsigned char>(end[i]))
                                                           : shape[i] != end[i])
      return name;
  return name.substr(0, name.size() - shape.size());
}

bool is_included(const std::string& name, const std::vector<std::string>& include) {
  return std::any_of(include.begin(), include.end(),
                     [&](const std::string& glob) { return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0; });
}

bool is_default_weight(const std::string& name, bool has_model_safetensors) {
  if (name.find('/') != name.npos || extension_of(name) != ".safetensors") return false;
  // Mistral's repositories hold the weights twice.
  return !has_model_safetensors || !name.starts_with("consolidated");
}

void add_only_gguf(const std::string& repository, const std::vector<hub::HubFile>& files, PullSelection& selection) {
  std::set<std::string> models;
  for (const hub::HubFile& file : files)
    if (extension_of(file.name) == ".gguf") models.insert(model_of_part(file.name));
  if (models.size() > 1) {
    std::string names;
    int count = 0;
    for (const std::string& name : models)
      if (++count <= 30) names += "\n  " + name;
    throw ConfigError("include", repository + " has " + std::to_string(models.size()) +
                                     " GGUF models; choose one by its name, '*Q4_K_M*' for example:" + names +
                                     (count > 30 ? "\n  …" : ""));
  }
  for (const hub::HubFile& file : files)
    if (extension_of(file.name) == ".gguf") selection.files.push_back(file);
}

}  // namespace

PullSelection select_files(const std::string& repository, const std::vector<hub::HubFile>& files,
                           const std::vector<std::string>& include) {
  PullSelection selection;
  const bool has_model = std::any_of(files.begin(), files.end(), [](const hub::HubFile& file) {
    return file.name.starts_with("model") && extension_of(file.name) == ".safetensors";
  });
  bool weights = false, pickles = false;
  for (const hub::HubFile& file : files) {
    const bool asked = is_included(file.name, include);
    pickles = pickles || is_pickle(file.name);
    if (is_pickle(file.name)) {
      if (asked) selection.refused.push_back(file.name);
      continue;
    }
    const bool weight = include.empty() ? is_default_weight(file.name, has_model) : asked && !is_text_side(file.name);
    weights = weights || weight || asked;
    if (asked || weight || is_text_side(file.name)) selection.files.push_back(file);
  }
  if (!include.empty()) {
    if (!weights)
      throw ConfigError("include", repository + " has no file that this matches" +
                                       (selection.refused.empty() ? std::string() : " but pickles, which are refused") +
                                       "; 'lathe-model pull " + repository + " --list' names its files");
    return selection;
  }
  if (!weights) add_only_gguf(repository, files, selection);
  const bool any = weights || std::any_of(selection.files.begin(), selection.files.end(),
                                          [](const hub::HubFile& file) { return extension_of(file.name) == ".gguf"; });
  if (!any)
    throw ConfigError("MODEL", repository + " has neither safetensors nor GGUF files" +
                                   (pickles ? ", only pickles, which run code when they are opened: look for a copy "
                                              "that was converted to safetensors"
                                            : "") +
                                   "; with --include a pattern may name other files");
  return selection;
}

}  // namespace lathe::programs
