#include "nn/weights/misplaced_file.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>

namespace lathe::nn {

std::string what_it_is_instead(std::string_view text) {
  if (text.starts_with("version https://git-lfs.github.com/spec"))
    return "this is a git-lfs pointer, a note of where the weights are, not the weights: fetch them with 'git lfs pull', or "
           "download the file itself";
  const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first == std::string_view::npos) return "";
  std::string begin(text.substr(first, 15));
  std::transform(begin.begin(), begin.end(), begin.begin(), [](unsigned char c) { return std::tolower(c); });
  if (begin.starts_with("<!doctype html") || begin.starts_with("<html") || begin.starts_with("<?xml"))
    return "this is a web page, perhaps one that asks to log in or says that the file is gone, not the weights: download "
           "the file itself";
  if (text.starts_with("PK\x03\x04"))
    return "this is a zip archive, perhaps a PyTorch checkpoint; convert it to safetensors";
  if (text.starts_with("GGUF")) return "this is a GGUF file: give its path as MODEL";
  if (text.starts_with("\x1F\x8B")) return "this is a gzip file: unpack it first (gunzip)";
  if (text.starts_with("\x28\xB5\x2F\xFD")) return "this is a zstd file: unpack it first (unzstd)";
  return "";
}

std::string what_it_holds_instead(const std::filesystem::path& directory) {
  const auto holds = [&](const char* name) { return std::filesystem::exists(directory / name); };
  std::set<std::filesystem::path> pickles, ggufs;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(directory, unreadable)) {
    const std::filesystem::path name = entry.path().filename(), extension = name.extension();
    if (extension == ".gguf") ggufs.insert(name);
    // Not training_args.bin, optimizer.pt and the like, which are no weights.
    for (const char* beginning : {"pytorch_model", "adapter_model", "model", "consolidated"})
      if (name.string().starts_with(beginning) && (extension == ".bin" || extension == ".pt" || extension == ".pth"))
        pickles.insert(name);
  }
  const bool has_weights = holds("model.safetensors") || holds("model.safetensors.index.json");
  if (!holds("config.json") && !ggufs.empty())
    return "it holds GGUF files: give the path of one, " + (directory / *ggufs.begin()).string() + " for example";
  if (!holds("config.json") && holds("adapter_config.json") && holds("adapter_model.safetensors"))
    return "it holds an adapter: give its base model as MODEL, and this directory as the adapter";
  if (holds("config.json") && has_weights) return "it holds a model, not an adapter";
  if (!pickles.empty())
    return pickles.begin()->string() + " is a pickle, which Lathe never reads: convert it to safetensors";
  return "";
}

}  // namespace lathe::nn
