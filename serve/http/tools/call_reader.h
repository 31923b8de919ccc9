// One call as JSON, {"name": …, "arguments": {…}}, read byte by byte: arguments are known before the object ends.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lathe::http {

class CallReader {
 public:
  explicit CallReader(const std::vector<std::string>& names) : names_(&names) {}

  enum class Status { open, whole, broken };
  struct Progress {
    Status status = Status::open;
    bool named = false;     // the call is known to be one: its name is, and its arguments have begun
    std::string arguments;  // more of their text
  };
  // The next byte of the object, the first of which is '{'. Broken: it is no JSON, calls no function of `names`, or
  // its arguments are no object (an object in a string is one); nothing is pushed after that.
  Progress push(char next);
  const std::string& name() const { return name_; }

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
  std::string name_;
  std::string nesting_;  // open brackets within a value
  bool in_string_ = false, escaped_ = false;
  bool is_arguments_ = false, written_arguments_ = false, arguments_in_string_ = false;
  bool named_ = false;
  std::string arguments_;  // that have come and were not told
};

}  // namespace lathe::http
