#include "data/readers/row_source.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "data/readers/arrow/arrow_rows.h"
#include "data/readers/text_lines.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t first_bytes = 8;

// A stream whose first bytes have been looked at.
class BegunStream final : public ByteStream {
 public:
  explicit BegunStream(std::unique_ptr<ByteStream> rest) : rest_(std::move(rest)), first_(first_bytes, '\0') {
    size_t count = 0;
    while (count < first_.size()) {
      const size_t more = rest_->read(std::span(first_).subspan(count));
      if (more == 0) break;
      count += more;
    }
    first_.resize(count);
  }
  std::string_view first() const { return first_; }

  size_t read(std::span<char> buffer) override {
    if (given_ == first_.size()) return rest_->read(buffer);
    const size_t count = std::min(buffer.size(), first_.size() - given_);
    std::memcpy(buffer.data(), first_.data() + given_, count);
    given_ += count;
    return count;
  }
  SourceBytes source() const override { return rest_->source(); }
  bool unpacks() const override { return rest_->unpacks(); }

 private:
  std::unique_ptr<ByteStream> rest_;
  std::string first_;
  size_t given_ = 0;
};

// The names of the Arrow files that save_to_disk lists.
std::vector<std::string> saved_files(const fs::path& folder, const std::string& key) {
  const fs::path state = folder / "state.json";
  const ordered_json json = read_json_file(state);
  const auto list = json.is_object() ? json.find("_data_files") : json.end();
  if (!json.is_object() || list == json.end() || !list->is_array())
    throw FormatError(state.string(), -1, "has no list \"_data_files\"; it is no folder of save_to_disk");
  std::vector<std::string> files;
  for (const ordered_json& file : *list) {
    const std::string name = file.is_object() ? file.value("filename", "") : "";
    if (name.empty() || name.find('/') != std::string::npos || !fs::is_regular_file(folder / name))
      throw ConfigError(key, "the file \"" + name + "\" that " + state.string() + " lists is not there");
    files.push_back((folder / name).string());
  }
  if (files.empty()) throw ConfigError(key, folder.string() + " holds no row");
  return files;
}

}  // namespace

bool is_text_name(std::string_view name) {
  for (const char* packed : {".gz", ".zst"})
    if (name.ends_with(packed)) name.remove_suffix(std::string_view(packed).size());
  return name.ends_with(".txt");
}

bool begins_as_arrow(std::string_view bytes) {
  return bytes.starts_with("ARROW1") || bytes.starts_with("\xFF\xFF\xFF\xFF");
}

void expect_no_parquet(std::string_view bytes, const std::string& file) {
  if (!bytes.starts_with("PAR1")) return;
  throw FormatError(
      file, 0,
      "this is Parquet, which is not read; make JSON Lines or Arrow of it: datasets.Dataset.from_parquet(\"" + file +
          "\").to_json(\"rows.jsonl\"), or .save_to_disk(\"rows\")");
}

std::unique_ptr<RowSource> open_row_source(const std::string& input, int64_t max_row_bytes) {
  auto stream = std::make_unique<BegunStream>(open_byte_stream(input));
  const std::string name = input == standard_input ? "standard input" : input;
  expect_no_parquet(stream->first(), name);
  if (begins_as_arrow(stream->first())) return std::make_unique<ArrowRows>(name, std::move(stream), max_row_bytes);
  return std::make_unique<TextLines>(name, std::move(stream), max_row_bytes);
}

std::vector<std::string> files_of_input(const std::string& input, const std::string& key) {
  std::error_code ignored;
  if (input == standard_input || !fs::is_directory(input, ignored)) return {input};
  const fs::path folder = input;
  if (fs::exists(folder / "state.json")) return saved_files(folder, key);
  if (fs::exists(folder / "dataset_dict.json")) {
    std::string splits;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_directory()) splits += (splits.empty() ? "" : ", ") + entry.path().filename().string();
    throw ConfigError(key, input + " holds several datasets (" + splits + "): name one of its folders");
  }
  throw ConfigError(key, input +
                             " is a folder that neither lathe-data tokenize has finished nor the datasets library's "
                             "save_to_disk has written; name the files in it");
}

}  // namespace lathe::data
