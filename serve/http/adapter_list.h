// The adapters that requests may name, and the folder from which more may be loaded.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::http {

// Any thread may call any function.
class AdapterList {
 public:
  struct Entry {
    std::string name, path;
  };
  bool has(std::string_view name) const;
  void add(const std::string& name, const std::string& path);
  bool remove(std::string_view name);
  std::vector<Entry> all() const;  // by name

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string, std::less<>> paths_;
};

// The folder that a request's path means, symbolic links resolved: under `root`, to which a relative path is added.
// ApiError 403 for anything else, 400 for what is no folder.
std::filesystem::path adapter_folder(const std::filesystem::path& root, const std::string& path);

}  // namespace lathe::http
