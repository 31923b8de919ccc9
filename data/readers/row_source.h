// The rows of one input, one after another, whatever it is: JSON Lines, text, or Arrow.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/readers/byte_stream.h"

namespace lathe::data {

struct TextLine {
  std::string_view text;  // without the line end; of Arrow the row as a JSON object
  int64_t number;         // from 1; of Arrow of the row
};

inline constexpr int64_t default_max_row_bytes = int64_t{64} << 20;

class RowSource {
 public:
  virtual ~RowSource() = default;
  // The next row that is not blank; its text lives until the next call. FormatError for a row that is longer than
  // allowed and for bytes that are not what they begin as.
  virtual std::optional<TextLine> next() = 0;
  virtual const std::string& name() const = 0;
  virtual SourceBytes source() const = 0;
  virtual bool is_arrow() const { return false; }
};

// `input` is a path or "-"; gzip, zstd and Arrow are known by their first bytes. FormatError for Parquet, and errors as
// open_byte_stream()'s.
std::unique_ptr<RowSource> open_row_source(const std::string& input, int64_t max_row_bytes = default_max_row_bytes);

// Whether a file of this name is text, a row to a line: .txt, packed or not.
bool is_text_name(std::string_view name);

// Whether a file begins as one whose rows are not lines: Arrow, or Parquet, which is refused.
bool begins_as_arrow(std::string_view bytes);
// FormatError that says how to convert it.
void expect_no_parquet(std::string_view first_bytes, const std::string& file);

// The files of an input: itself, or, of a folder that the datasets library's save_to_disk has written, its Arrow files
// in order. ConfigError (`key`) for any other folder.
std::vector<std::string> files_of_input(const std::string& input, const std::string& key);

}  // namespace lathe::data
