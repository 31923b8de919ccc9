// The lines of a text, one after another: a file, a packed file or standard input. Memory is bounded by the longest
// line that is allowed, whatever the size of the input.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "data/readers/byte_stream.h"
#include "data/readers/row_source.h"

namespace lathe::data {

// FormatError where a text's first bytes are those of UTF-16 or UTF-32, which are refused with the way out.
void expect_utf8(std::string_view first_bytes, const std::string& file);
// The bytes of a byte order mark at the start.
size_t byte_order_mark_bytes(std::string_view text);
// The error of a line that has more bytes than a row may have.
FormatError too_long_a_line(const std::string& file, int64_t line, int64_t most_bytes = default_max_row_bytes);
bool is_blank_line(std::string_view line);
// FormatError where the first row of a JSON Lines file begins an array, which such a file is not.
void expect_no_json_array(std::string_view first_row, int64_t line, const std::string& file);

class TextLines final : public RowSource {
 public:
  static constexpr int64_t default_max_line_bytes = default_max_row_bytes;
  // `input` is a path or "-". Errors as open_byte_stream() and expect_utf8(), and for what is packed twice.
  explicit TextLines(const std::string& input, int64_t max_line_bytes = default_max_line_bytes);
  // `name` is for messages.
  TextLines(std::string name, std::unique_ptr<ByteStream> stream, int64_t max_line_bytes);

  // The next line that is not blank; its text lives until the next call. FormatError for a line that is longer than
  // allowed: what a file packed to fill memory becomes, too.
  std::optional<TextLine> next() override;

  const std::string& name() const override { return name_; }
  SourceBytes source() const override { return stream_->source(); }

 private:
  bool fill();

  std::string name_;
  std::unique_ptr<ByteStream> stream_;
  int64_t max_line_bytes_;
  std::vector<char> buffer_;
  size_t begin_ = 0, searched_ = 0, end_ = 0;
  int64_t line_ = 0;
  bool ended_ = false;
};

}  // namespace lathe::data
