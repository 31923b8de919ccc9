#include "data/readers/text_lines.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace lathe::data {
namespace {

constexpr size_t first_buffer_bytes = 1 << 20;

// What the first bytes give away, or nullptr for UTF-8. Text begins with an ASCII character more often than not: with
// zeros beside it in the wider encodings.
const char* wide_encoding(std::string_view text) {
  const auto begins = [&](std::string_view bytes) { return text.starts_with(bytes); };
  const auto zero = [&](size_t i) { return i < text.size() && text[i] == '\0'; };
  if (begins({"\xFF\xFE\0\0", 4}) || begins({"\0\0\xFE\xFF", 4})) return "UTF-32";
  if (begins("\xFF\xFE") || begins("\xFE\xFF")) return "UTF-16";
  if (text.size() < 4) return nullptr;
  if ((zero(0) && zero(1) && zero(2)) || (zero(1) && zero(2) && zero(3))) return "UTF-32";
  return zero(0) != zero(1) ? "UTF-16" : nullptr;
}

// What was unpacked is unpacked no further, so that layers of packing cannot multiply.
void expect_not_packed(std::string_view first_bytes, const std::string& file) {
  if (!begins_as_packed(first_bytes)) return;
  throw FormatError(file, 0, "is packed twice, which is not read; unpack it once first (gunzip, unzstd)");
}

}  // namespace

void expect_utf8(std::string_view first_bytes, const std::string& file) {
  const char* encoding = wide_encoding(first_bytes);
  if (!encoding) return;
  throw FormatError(
      file, 0,
      std::string("this is ") + encoding + "; rows of text are UTF-8 (iconv -f " + encoding + " -t UTF-8 makes it so)");
}

size_t byte_order_mark_bytes(std::string_view text) { return text.starts_with("\xEF\xBB\xBF") ? 3 : 0; }

bool is_blank_line(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

void expect_no_json_array(std::string_view first_row, int64_t line, const std::string& file) {
  if (first_row[first_row.find_first_not_of(" \t\r")] != '[') return;
  throw FormatError(file, -1,
                    "line " + std::to_string(line) +
                        ": this is a JSON array; JSON Lines has one object to a line, without brackets and commas "
                        "around them (jq -c '.[]' makes it so)");
}

FormatError too_long_a_line(const std::string& file, int64_t line, int64_t most_bytes) {
  return FormatError(file, -1,
                     "line " + std::to_string(line) + ": is longer than " + std::to_string(most_bytes >> 20) +
                         " MiB; a row is one example, so cut it into several");
}

TextLines::TextLines(const std::string& input, int64_t max_line_bytes)
    : TextLines(input == standard_input ? "standard input" : input, open_byte_stream(input), max_line_bytes) {}

TextLines::TextLines(std::string name, std::unique_ptr<ByteStream> stream, int64_t max_line_bytes)
    : name_(std::move(name)), stream_(std::move(stream)), max_line_bytes_(max_line_bytes), buffer_(first_buffer_bytes) {
  while (end_ < 4 && fill()) {
  }
  const std::string_view first(buffer_.data(), end_);
  expect_not_packed(first, name_);
  expect_utf8(first, name_);
  begin_ = searched_ = byte_order_mark_bytes(first);
}

bool TextLines::fill() {
  if (ended_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    searched_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
  const size_t count = stream_->read(std::span(buffer_).subspan(end_));
  end_ += count;
  ended_ = count == 0;
  return count > 0;
}

std::optional<TextLine> TextLines::next() {
  for (;;) {
    const void* newline = std::memchr(buffer_.data() + searched_, '\n', end_ - searched_);
    if (newline == nullptr) {
      searched_ = end_;
      if (static_cast<int64_t>(end_ - begin_) > max_line_bytes_)
        throw too_long_a_line(name_, line_ + 1, max_line_bytes_);
      if (fill()) continue;
      if (begin_ == end_) return std::nullopt;
    }
    const size_t line_end = newline ? static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data()) : end_;
    const std::string_view text(buffer_.data() + begin_, line_end - begin_);
    begin_ = searched_ = std::min(line_end + 1, end_);
    ++line_;
    if (!is_blank_line(text)) return TextLine{text, line_};
  }
}

}  // namespace lathe::data
