// Reading the fields of a request: each with its type and range, so that whatever a client sends becomes a value or a
// 400 that names the field. null is as good as absent; fields that nobody asks for are left alone.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::http {

// The body as an object, within core/json's bounds (100 levels, 64-bit integers, valid UTF-8). Else an ApiError.
nlohmann::ordered_json parse_body(std::string_view body);

class Fields {
 public:
  // `path` stands before the names in errors: "parameters." The object is borrowed. ApiError when it is none.
  explicit Fields(const nlohmann::ordered_json& object, std::string path = {});

  const nlohmann::ordered_json* find(std::string_view key) const;  // null where it is absent or null
  const nlohmann::ordered_json& required(std::string_view key, const char* expected) const;
  std::optional<int64_t> integer(std::string_view key, int64_t least, int64_t greatest) const;
  std::optional<double> number(std::string_view key, double least, double greatest) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  // One string, or a list of up to `most`.
  std::vector<std::string> texts(std::string_view key, size_t most) const;
  // A list of token ids below `vocabulary`.
  std::vector<int32_t> token_ids(std::string_view key, size_t most, int64_t vocabulary) const;

  std::string name_of(std::string_view key) const { return path_ + std::string(key); }

 private:
  const nlohmann::ordered_json& object_;
  std::string path_;
};

}  // namespace lathe::http
