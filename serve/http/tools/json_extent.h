// Where a JSON object, array or string ends.
#pragma once

#include <string>

#include "core/json.h"

namespace lathe::http {

// Brackets and strings are followed, what lies between is taken as it comes.
class JsonExtent {
 public:
  enum class Status { open, whole, broken };
  // The next byte, the first of which is '{', '[' or '"'. Broken: brackets that do not match, or nest too deep.
  Status push(char next) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (next == '\\') {
        escaped_ = true;
      } else if (next == '"') {
        in_string_ = false;
        if (nesting_.empty()) return Status::whole;
      }
      return Status::open;
    }
    if (next == '"') {
      in_string_ = true;
    } else if (next == '{' || next == '[') {
      if (static_cast<int>(nesting_.size()) == max_json_nesting) return Status::broken;
      nesting_ += next;
    } else if (next == '}' || next == ']') {
      if (nesting_.empty() || nesting_.back() != (next == '}' ? '{' : '[')) return Status::broken;
      nesting_.pop_back();
      if (nesting_.empty()) return Status::whole;
    }
    return Status::open;
  }

 private:
  std::string nesting_;  // open brackets
  bool in_string_ = false, escaped_ = false;
};

}  // namespace lathe::http
