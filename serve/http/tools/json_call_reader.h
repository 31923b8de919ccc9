// One call as JSON, {"name": …, "arguments": {…}}.
#pragma once

#include <string>
#include <vector>

#include "serve/http/tools/call_reader.h"
#include "serve/http/tools/json_extent.h"

namespace lathe::http {

// The first byte is '{'. An object in a string is one, too.
class JsonCallReader final : public CallReader {
 public:
  explicit JsonCallReader(const std::vector<std::string>& names) : names_(&names) {}
  Progress push(char next) override;

 private:
  enum class Place { start, key, in_key, colon, value, in_value, after_value };

  Status advance(char next);
  Status begin_value(char next);
  Status in_value(char next);
  Status end_value();

  const std::vector<std::string>* names_;
  Place place_ = Place::start;
  bool first_member_ = true;
  std::string key_, value_;  // as written; of arguments the last byte
  JsonExtent extent_;        // of a value that is no scalar
  bool scalar_ = false, escaped_ = false;
  bool is_arguments_ = false, written_arguments_ = false, arguments_in_string_ = false;
  bool named_ = false;
  std::string arguments_;  // that have come and were not told
};

}  // namespace lathe::http
