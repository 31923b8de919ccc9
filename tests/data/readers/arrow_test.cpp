// Arrow as datasets and pyarrow write it (tests/golden/arrow): the rows that Python reads of it; broken files.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/json_value.h"
#include "core/random.h"
#include "data/readers/row_source.h"
#include "data/rows/json_lines.h"
#include "data/shards/shard_tokenization.h"
#include "data/shards/shards.h"
#include "tests/data/readers/packed_text.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path golden(const std::string& name) { return fs::path(source_dir) / "tests/golden" / name; }

std::string bytes_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<json> expected_rows(const std::string& name) {
  std::ifstream lines(golden(name));
  std::vector<json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  return rows;
}

std::vector<json> rows_of(const fs::path& file) {
  const std::unique_ptr<RowSource> source = open_row_source(file.string());
  std::vector<json> rows;
  while (const auto row = source->next()) {
    rows.push_back(json::parse(row->text));
    EXPECT_EQ(row->number, std::ssize(rows));
  }
  return rows;
}

class Arrow : public testing::Test {
 protected:
  fs::path write(std::string_view bytes) const {
    const fs::path path = folder_.path() / "rows.arrow";
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  static std::string error(const fs::path& path) {
    try {
      rows_of(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
};

TEST_F(Arrow, EveryTypeOfColumnHasTheValuesThatPythonReads) {
  const std::vector<json> expected = expected_rows("arrow/types.jsonl");
  ASSERT_EQ(expected.size(), 33u);
  for (const char* file : {"arrow/types_stream.arrow", "arrow/types_file_zstd.arrow"}) {
    const std::vector<json> rows = rows_of(golden(file));
    ASSERT_EQ(rows.size(), expected.size()) << file;
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i], expected[i]) << file << ", row " << i + 1;
      // Numbers keep what they are: 3.0 is no integer.
      EXPECT_EQ(rows[i].value("double", json()).type(), expected[i].value("double", json()).type());
    }
  }
  EXPECT_EQ(rows_of(golden("arrow/times.arrow")), (std::vector<json>{{{"day", 20455}, {"at", 1767322800000}}}));
}

TEST_F(Arrow, AFolderOfSaveToDiskIsItsFilesInOrder) {
  const std::vector<json> expected = expected_rows("arrow/saved.jsonl");
  const JsonLines rows = JsonLines::open(golden("arrow/saved"));
  ASSERT_EQ(rows.size(), std::ssize(expected));
  for (int64_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(json(rows.parse(i)), expected[static_cast<size_t>(i)]);
    EXPECT_EQ(rows.line(i), i + 1);
  }
}

TEST_F(Arrow, PackedStreamsAndStandardInputAreReadAsTheyCome) {
  const std::string bytes = bytes_of(golden("arrow/types_stream.arrow"));
  const std::vector<json> expected = expected_rows("arrow/types.jsonl");
  EXPECT_EQ(rows_of(write(gzip(bytes))), expected);
  EXPECT_EQ(rows_of(write(zstd(bytes))), expected);
}

TEST_F(Arrow, AFolderMakesTheShardsOfItsRowsAsJsonLines) {
  fs::copy_file(golden("tokenizer/byte_level/tokenizer.json"), folder_.path() / "tokenizer.json");
  const auto tokenizer = Tokenizer::from_directory(folder_.path());
  const auto chat_template = ChatTemplate::compile("{% for m in messages %}{{ m.content }}{% endfor %}");
  ShardTokenizationSettings settings;
  settings.inputs = {golden("arrow/saved").string()};
  settings.output = folder_.path() / "shards";
  settings.rows.max_length = std::nullopt;
  ShardTokenization work(settings, *tokenizer, chat_template.get());
  while (work.step()) {
  }
  const Shards shards(settings.output);
  EXPECT_EQ(shards.rows(), 25);
  EXPECT_EQ(shards.manifest().sources.size(), 2u) << "both files with their hashes";
  EXPECT_EQ(shards.manifest().sources[0].rows + shards.manifest().sources[1].rows, 25);
}

TEST_F(Arrow, CutAnywhereItIsAnError) {
  for (const char* file : {"arrow/saved/data-00000-of-00002.arrow", "arrow/binary.arrow"}) {
    const std::string whole = bytes_of(golden(file));
    // Of less than 8 bytes nothing says that it is Arrow. The last 8 are the end mark.
    for (size_t length = 8; length<whole.size(); length += whole.size()> 1000 ? 37 : 1)
      EXPECT_NE(error(write(whole.substr(0, length))), "no error");
  }
  const std::string file = bytes_of(golden("arrow/types_file_zstd.arrow"));
  EXPECT_NE(error(write(file.substr(0, file.size() / 2))).find("cut short"), std::string::npos);
}

TEST_F(Arrow, FlippedBitsAreRowsOrErrors) {
  RandomStream random(11, RandomPurpose::test);
  for (const char* file : {"arrow/types_stream.arrow", "arrow/types_file_zstd.arrow"}) {
    const std::string whole = bytes_of(golden(file));
    for (int i = 0; i < 100; ++i) {
      std::string broken = whole;
      for (uint64_t flips = 1 + random.below(3); flips > 0; --flips) {
        const auto at = static_cast<size_t>(random.below(whole.size()));
        broken[at] = static_cast<char>(broken[at] ^ 1 << random.below(8));
      }
      const std::string path = write(broken).string();
      try {  // values may be others; nothing else may happen
        const std::unique_ptr<RowSource> source = open_row_source(path);
        while (source->next()) {
        }
      } catch (const Error&) {
      }
    }
  }
}

TEST_F(Arrow, WhatIsNotReadSaysWhatToDo) {
  EXPECT_NE(error(golden("arrow/binary.arrow")).find("column \"image.bytes\" is of the type binary"), std::string::npos)
      << error(golden("arrow/binary.arrow"));
  EXPECT_NE(error(golden("arrow/lz4.arrow")).find("packed with LZ4"), std::string::npos);
  for (const auto& open :
       {+[](const fs::path& p) { open_row_source(p.string()); }, +[](const fs::path& p) { JsonLines::open(p); }}) {
    try {
      open(golden("arrow/small.parquet"));
      ADD_FAILURE();
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("this is Parquet"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find(".to_json("), std::string::npos);
    }
  }
}

TEST_F(Arrow, OtherFoldersAreNamedWithWhatTheyAre) {
  const auto error_of = [&] {
    try {
      files_of_input(folder_.path().string(), "dataset");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(error_of().find("is a folder that neither lathe-data tokenize has finished nor"), std::string::npos);
  std::ofstream(folder_.path() / "dataset_dict.json") << "{\"splits\": [\"train\"]}";
  fs::create_directory(folder_.path() / "train");
  EXPECT_NE(error_of().find("several datasets (train)"), std::string::npos);
  std::ofstream(folder_.path() / "state.json") << "{\"_data_files\": [{\"filename\": \"../x.arrow\"}]}";
  EXPECT_NE(error_of().find("is not there"), std::string::npos);
  std::ofstream(folder_.path() / "state.json") << "{\"_data_files\": 3}";
  EXPECT_NE(error_of().find("_data_files"), std::string::npos);
}

}  // namespace
}  // namespace lathe::data
