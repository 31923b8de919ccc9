// The bytes of a file or of standard input, unpacked on the way: gzip and zstd are known by their first bytes, whatever
// the name says. Memory is bounded, whatever the size of the input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lathe::data {

// What has been read of the input itself, before unpacking.
struct SourceBytes {
  int64_t bytes = 0;
  uint64_t xxh64 = 0;  // xxHash-64, seed 0
};

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Fills the start of `buffer` (not empty); fewer bytes than it holds may come, none only at the end. FormatError
  // with the offset in the input for packed data that is broken or cut short; ResourceError where reading fails.
  virtual size_t read(std::span<char> buffer) = 0;
  virtual SourceBytes source() const = 0;
  virtual bool unpacks() const = 0;  // gzip or zstd
};

inline constexpr const char* standard_input = "-";

// `input` is a path or "-". ResourceError when it cannot be opened, and for a folder.
std::unique_ptr<ByteStream> open_byte_stream(const std::string& input);

// Whether a file begins as one that open_byte_stream() unpacks.
bool begins_as_packed(std::string_view bytes);

}  // namespace lathe::data
