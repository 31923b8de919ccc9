// The few kinds of error that Lathe throws. Each is thrown where the reason is known and caught once, in a
// program's main, which prints what() as one readable paragraph. Messages say what was expected, what was
// found, where, and what to do.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/printable.h"

namespace lathe {

class Error : public std::runtime_error {
 public:
  // Control characters that come from files are shown, so that what() neither ends at a NUL nor commands a terminal.
  explicit Error(const std::string& message) : std::runtime_error(printable(message)) {}
};

// A file that is not what its format demands. `offset` is in bytes, or -1 where no single byte is at fault.
class FormatError : public Error {
 public:
  FormatError(std::string file, int64_t offset, const std::string& reason)
      : Error(file + (offset >= 0 ? " at byte " + std::to_string(offset) : "") + ": " + reason),
        file_(std::move(file)),
        offset_(offset) {}
  const std::string& file() const { return file_; }
  int64_t offset() const { return offset_; }

 private:
  std::string file_;
  int64_t offset_;
};

// Tensors whose shapes, dtypes or devices do not fit together.
class ShapeError : public Error {
  using Error::Error;
};

// A setting that is unknown, mistyped or out of range; `key` is its name as the user writes it.
class ConfigError : public Error {
 public:
  ConfigError(std::string key, const std::string& reason) : Error(key + ": " + reason), key_(std::move(key)) {}
  const std::string& key() const { return key_; }

 private:
  std::string key_;
};

// Memory, disk or a device that cannot be had.
class ResourceError : public Error {
  using Error::Error;
};

// The numbers of a run have gone wrong (a loss that is not finite, a stale saved tensor).
class NumericError : public Error {
  using Error::Error;
};

}  // namespace lathe
