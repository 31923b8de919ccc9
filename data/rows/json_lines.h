// A JSON Lines file: one JSON object to a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"

namespace lathe::data {

class JsonLines {
 public:
  // Finds the lines; blank ones are left out. Throws FormatError for a compressed file, UTF-16 or UTF-32, or a JSON
  // array.
  static JsonLines open(const std::filesystem::path& path);

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  int64_t line(int64_t row) const { return rows_[static_cast<size_t>(row)].line; }  // from 1
  std::string_view text(int64_t row) const;
  // The row as an object; where a key comes twice the last one counts. Throws Error with the reason alone (the caller
  // knows the place): broken JSON, invalid UTF-8, nesting deeper than 100, numbers beyond 64 bits.
  nlohmann::ordered_json parse(int64_t row) const;

  const std::string& file() const { return file_; }

 private:
  struct Row {
    size_t begin, end;
    int64_t line;
  };
  std::string file_;
  std::shared_ptr<const MappedFile> bytes_;
  std::vector<Row> rows_;
};

}  // namespace lathe::data
