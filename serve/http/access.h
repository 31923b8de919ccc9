// Who may ask: API keys with names and roles, and how often.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::http {

enum class Role { user, admin };  // an admin also loads and unloads adapters

struct Principal {
  std::string name;  // of the key; "anonymous" where there are no keys
  Role role = Role::user;
  int64_t requests_per_minute = 0;  // 0: no limit
};

struct AccessOptions {
  std::vector<std::string> keys;    // of admins
  std::filesystem::path keys_file;  // lines "KEY NAME user|admin [requests per minute]"; '#' begins a comment
  int64_t requests_per_minute = 0;  // of a key that names no limit of its own, and of everyone where there are no keys
};

// Any thread may call any function.
class Access {
 public:
  // FormatError with the line, ResourceError where the file cannot be read.
  explicit Access(AccessOptions options);
  // The file again: its keys count from now on. When it is wrong the old ones stay, and the error is thrown.
  void reload();
  bool has_keys() const;

  // Of "Authorization: Bearer KEY". Every key is compared in full, in time that does not depend on where they differ.
  // ApiError 401 for no key or an unknown one, 429 where the key's requests of this minute are used up.
  Principal admit(std::string_view authorization, std::chrono::steady_clock::time_point now);

 private:
  struct Key {
    std::string key;
    Principal principal;
  };
  // A bucket that fills at the key's rate, up to a minute's worth.
  struct Bucket {
    double left = 0;
    std::chrono::steady_clock::time_point at;
  };
  std::vector<Key> read_keys() const;
  void spend(const Principal& principal, std::chrono::steady_clock::time_point now);

  const AccessOptions options_;
  mutable std::mutex mutex_;
  std::vector<Key> keys_;
  std::map<std::string, Bucket, std::less<>> buckets_;  // by the key's name
};

}  // namespace lathe::http
