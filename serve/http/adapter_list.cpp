#include "serve/http/adapter_list.h"

#include <algorithm>
#include <system_error>

#include "serve/http/api_error.h"

namespace lathe::http {

bool AdapterList::has(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return paths_.find(name) != paths_.end();
}

void AdapterList::add(const std::string& name, const std::string& path) {
  const std::lock_guard lock(mutex_);
  paths_.insert_or_assign(name, path);
}

bool AdapterList::remove(std::string_view name) {
  const std::lock_guard lock(mutex_);
  const auto found = paths_.find(name);
  if (found == paths_.end()) return false;
  paths_.erase(found);
  return true;
}

std::vector<AdapterList::Entry> AdapterList::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [name, path] : paths_) entries.push_back({name, path});
  return entries;
}

std::filesystem::path adapter_folder(const std::filesystem::path& root, const std::string& path) {
  if (root.empty())
    throw ApiError(403, "lora_path: this server loads no adapters on request; start it with --adapter_root",
                   "lora_path");
  if (path.find('\0') != std::string::npos) throw bad_field("lora_path", "holds a NUL");
  std::error_code failed;
  const std::filesystem::path within = std::filesystem::canonical(root, failed);
  if (failed) throw ApiError(500, "--adapter_root " + root.string() + ": " + failed.message());
  // What lies outside is not even told to exist.
  const std::filesystem::path folder = std::filesystem::weakly_canonical(within / path, failed);
  const auto [left, right] = std::mismatch(within.begin(), within.end(), folder.begin(), folder.end());
  if (failed || left != within.end())
    throw ApiError(403, "lora_path: expected a folder under the server's --adapter_root", "lora_path");
  if (!std::filesystem::is_directory(folder, failed)) throw bad_field("lora_path", "there is no such folder");
  return folder;
}

}  // namespace lathe::http
