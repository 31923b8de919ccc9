#include "serve/http/access.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/mapped_file.h"
#include "serve/http/api_error.h"

namespace lathe::http {
namespace {

constexpr size_t most_key_bytes = 512;

// Equal, found out in a time that depends on the given text's length alone.
bool equal_in_constant_time(std::string_view key, std::string_view given) {
  unsigned difference = key.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char expected = key[i % key.size()];
    difference |= static_cast<unsigned char>(expected) ^ static_cast<unsigned char>(given[i]);
    asm volatile("" : "+r"(difference));  // or the compiler may leave the loop early
  }
  return difference == 0;
}

}  // namespace

Access::Access(AccessOptions options) : options_(std::move(options)), keys_(read_keys()) {}

void Access::reload() {
  std::vector<Key> keys = read_keys();
  const std::lock_guard lock(mutex_);
  keys_ = std::move(keys);
  buckets_.clear();
}

bool Access::has_keys() const {
  const std::lock_guard lock(mutex_);
  return !keys_.empty();
}

std::vector<Access::Key> Access::read_keys() const {
  std::vector<Key> keys;
  for (size_t i = 0; i < options_.keys.size(); ++i) {
    if (options_.keys[i].empty()) throw ConfigError("api_key", "is empty");
    keys.push_back({options_.keys[i], {"api_key " + std::to_string(i + 1), Role::admin, options_.requests_per_minute}});
  }
  if (options_.keys_file.empty()) return keys;
  const auto file = MappedFile::open(options_.keys_file);
  std::istringstream text(std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()));
  const auto refuse = [&](int line, const std::string& reason) {
    throw FormatError(options_.keys_file.string(), -1, "line " + std::to_string(line) + ": " + reason);
  };
  std::set<std::string> known;
  int number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    std::vector<std::string> found;
    for (std::string word; words >> word;) found.push_back(word);
    if (found.empty()) continue;
    if (found.size() < 3 || found.size() > 4 || (found[2] != "user" && found[2] != "admin"))
      refuse(number, "expected KEY NAME user|admin [requests per minute]");
    if (found[0].size() > most_key_bytes) refuse(number, "the key is longer than 512 bytes");
    if (!known.insert(found[0]).second) refuse(number, "the key stands there twice");
    int64_t limit = options_.requests_per_minute;
    if (found.size() == 4) {
      const std::string& word = found[3];
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), limit);
      if (error != std::errc() || end != word.data() + word.size() || limit < 0)
        refuse(number, "expected requests per minute as a number, found " + word);
    }
    keys.push_back({found[0], {found[1], found[2] == "admin" ? Role::admin : Role::user, limit}});
  }
  if (keys.empty()) throw FormatError(options_.keys_file.string(), -1, "holds no key: nobody could ask");
  return keys;
}

Principal Access::admit(std::string_view authorization, std::chrono::steady_clock::time_point now) {
  const std::lock_guard lock(mutex_);
  Principal principal{"anonymous", Role::admin, options_.requests_per_minute};
  if (!keys_.empty()) {
    constexpr std::string_view scheme = "Bearer ";
    const std::string_view given =
        authorization.starts_with(scheme) ? authorization.substr(scheme.size()) : std::string_view();
    const Key* match = nullptr;
    for (const Key& key : keys_)
      if (equal_in_constant_time(key.key, given.substr(0, most_key_bytes + 1))) match = &key;
    if (given.empty())
      throw ApiError(401, "this server wants an API key: Authorization: Bearer KEY", {}, "missing_api_key");
    if (match == nullptr) throw ApiError(401, "the API key is unknown", {}, "invalid_api_key");
    principal = match->principal;
  }
  spend(principal, now);
  return principal;
}

void Access::spend(const Principal& principal, std::chrono::steady_clock::time_point now) {
  if (principal.requests_per_minute == 0) return;
  const auto most = static_cast<double>(principal.requests_per_minute);
  const auto [place, added] = buckets_.try_emplace(principal.name, Bucket{most, now});
  Bucket& bucket = place->second;
  bucket.left = std::min(most, bucket.left + std::chrono::duration<double>(now - bucket.at).count() * most / 60);
  bucket.at = now;
  if (bucket.left < 1)
    throw ApiError(429, "more than " + std::to_string(principal.requests_per_minute) + " requests in a minute", {},
                   "rate_limit_exceeded")
        .after(static_cast<int64_t>(std::ceil((1 - bucket.left) * 60 / most)));
  bucket.left -= 1;
}

}  // namespace lathe::http
