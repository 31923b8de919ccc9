// Rows as JSON objects: a JSON Lines file, one object to a line, or Arrow, or a folder that the datasets library saved.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data {

class JsonLines {
 public:
  // Finds the lines; blank ones are left out. A plain file is mapped; one that is packed (gzip, zstd), Arrow
  // (a folder of save_to_disk, too) and standard input ("-") are read into memory. Throws FormatError for UTF-16 or
  // UTF-32, a JSON array, packed data that is broken or cut short, and a line above 64 MiB; ResourceError above 4 GiB
  // of rows that are not mapped.
  static JsonLines open(const std::filesystem::path& path);

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  int64_t line(int64_t row) const { return rows_[static_cast<size_t>(row)].line; }  // from 1
  std::string_view text(int64_t row) const;
  nlohmann::ordered_json parse(int64_t row) const;  // parse_json_row() of it

  const std::string& file() const { return file_; }

 private:
  struct Row {
    size_t begin, end;
    int64_t line;
  };
  void find_rows();
  void read_rows(const std::string& input);

  std::string file_;
  std::shared_ptr<const void> owner_;  // of the text
  std::string_view text_;
  std::vector<Row> rows_;
};

// A row as an object; where a key comes twice the last one counts. Throws Error with the reason alone (the caller knows
// the place): broken JSON, invalid UTF-8, nesting deeper than 100, numbers beyond 64 bits.
nlohmann::ordered_json parse_json_row(std::string_view line);

// A row's object, as parse_json_row() has it. The library's own destructor allocates as much as the longest list takes,
// and ends the program where there is no memory left: this one takes lists apart first.
class JsonRow {
 public:
  explicit JsonRow(std::string_view line);
  ~JsonRow();
  JsonRow(const JsonRow&) = delete;
  JsonRow& operator=(const JsonRow&) = delete;

  const nlohmann::ordered_json& object() const { return *object_; }

 private:
  std::unique_ptr<nlohmann::ordered_json> object_;
};

}  // namespace lathe::data
