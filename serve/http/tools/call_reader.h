// One call of an answer, read byte by byte: arguments are known before it ends. Models write calls in two ways: as one
// JSON object (json_call_reader.h), or as a name with its arguments behind it (named_call_reader.h).
#pragma once

#include <string>

namespace lathe::http {

class CallReader {
 public:
  virtual ~CallReader() = default;

  enum class Status { open, whole, broken };
  struct Progress {
    Status status = Status::open;
    bool named = false;     // the call is known to be one: its name is, and its arguments have begun
    std::string arguments;  // more of their text, JSON
  };
  // The next byte. Broken: it is no call, calls no function that there is, or its arguments are no object; nothing is
  // pushed after that.
  virtual Progress push(char next) = 0;
  const std::string& name() const { return name_; }
  const std::string& id() const { return id_; }  // where the model wrote one

 protected:
  std::string name_, id_;
};

// JSON's white space.
inline bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace lathe::http
